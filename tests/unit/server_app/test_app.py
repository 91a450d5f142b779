"""What the log of a run keeps of an error: its message where a user can act on it, the traceback elsewhere."""

import io
import logging

import pytest
from flwr.common.logger import FLOWER_LOGGER

from server_app.app import app
from server_app.registration import FederationError
from tasks.config import ConfigError
from tasks.issues import ERROR, Issue

assert app  # what Flower loads; the filter is set with it


def logged(error: Exception) -> str:
    """Return what Flower's logger writes about an error that ended a ServerApp."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    FLOWER_LOGGER.addHandler(handler)
    try:
        raise error
    except type(error) as caught:
        FLOWER_LOGGER.error("%s raised an exception", "ServerApp", exc_info=caught)
    finally:
        FLOWER_LOGGER.removeHandler(handler)
    return stream.getvalue()


@pytest.mark.parametrize("error", [FederationError("2 of 3 clients are ready"), ConfigError([Issue(ERROR, "a", "b")])])
def test_an_error_that_a_user_can_mend_is_a_message_without_a_traceback(error: Exception) -> None:
    assert logged(error) == f"ServerApp raised an exception: {error}\n"


def test_any_other_error_keeps_its_traceback() -> None:
    text = logged(ValueError("a defect"))
    assert text.startswith("ServerApp raised an exception\nTraceback (most recent call last):")
    assert text.endswith("ValueError: a defect\n")
