"""ClientApp in front of a node's trainer: when it is asked, what becomes of its failures; messages on the way to it."""

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp.client_app import LoadClientAppError

import tests.messages  # noqa: F401  gives this process the ids that Flower's messages need
from client_app.app import app, trainer_link
from client_app.trainer_link import (
    NOT_LOADED,
    RAISED,
    NoTrainerError,
    TrainerFailedError,
    TrainerLink,
    TrainerLostError,
)
from client_app.trainer_messages import forward, pack, unpack


def context(**node: Any) -> Context:
    return Context(1, 2**63, {key.replace("_", "-"): value for key, value in node.items()}, RecordDict(), {})


def message() -> Message:
    arrays = ArrayRecord({f"layer {number}": Array(np.full((2, number), 0.1)) for number in (3, 1, 2)})
    metrics = MetricRecord({"loss": 0.1, "counts": [1, 2], "largest": 2**60})
    content = {"z": arrays, "metrics": metrics, "config": ConfigRecord({"bytes": b"\xff", "text": "é", "on": True})}
    return Message(RecordDict(content), dst_node_id=7, message_type="train", ttl=11.5)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A real node's process; returns its state directory."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/flwr-clientapp", "--token-file", "/dev/fd/5"])
    return str(tmp_path)


def test_a_node_with_a_state_directory_has_a_trainer_unless_its_operator_wants_none(
    node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = trainer_link(context(state_dir=node, trainer_idle=2))
    assert link is not None
    assert (link.folder, link.idle) == (Path(node, ".trainer-9223372036854775808"), 120)
    for other in ({}, {"state_dir": node, "trainer_idle": 0}, {"state_dir": node, "trainer_idle": "x"}):
        assert trainer_link(context(**other)) is None
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--allow-runtime-dependency-installation"])
    assert trainer_link(context(state_dir=node)) is None, "its packages go with the process of the message"
    monkeypatch.setattr(sys, "argv", ["ray::ClientAppActor"])
    assert trainer_link(context(state_dir=node)) is None, "a simulation has none"


def test_another_run_or_configuration_is_another_fingerprint(node: str) -> None:
    one, other, again = context(state_dir=node), context(state_dir=node, data_path="/data"), context(state_dir=node)
    other_run = Context(2, 2**63, one.node_config, RecordDict(), {})
    found = [link.fingerprint for each in (one, other, other_run, again) if (link := trainer_link(each))]
    assert found[0] == found.pop()
    assert len(set(found)) == 3


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets the trainer fail with an error, and the handlers of this process answer."""

    def fail_with(error: Exception) -> None:
        def ask(_link: TrainerLink, _parts: list[bytes]) -> list[bytes]:
            raise error

        monkeypatch.setattr(TrainerLink, "ask", ask)
        link = TrainerLink(Path("/nowhere"), "a", "b:c")
        monkeypatch.setattr("client_app.app.trainer_link", lambda _context: link)
        monkeypatch.setattr("client_app.app.handle", lambda message, _: Message(Error(99), reply_to=message))

    return fail_with


def test_without_a_trainer_a_node_answers_and_says_so(failing: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "flwr")
    failing(NoTrainerError("no file locks"))
    assert app(message(), context()).error.code == 99
    assert "no trainer process, so that each message takes seconds longer: no file locks" in caplog.text


def test_a_trainer_that_dies_is_an_error_reply_as_of_a_process_that_dies(
    failing: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flwr")
    failing(TrainerLostError("it was ended by SIGKILL"))
    reply = app(message(), context())
    assert reply.error.code == 8
    assert reply.error.reason.startswith("ClientApp stopped responding.")
    assert "it was ended by SIGKILL" in reply.error.reason
    assert f"To the server, train: the error {reply.error.reason!r}" in caplog.messages


def test_an_app_that_cannot_be_loaded_or_raises_is_told_as_flower_does(failing: Any) -> None:
    failing(TrainerFailedError(NOT_LOADED, "ImportError"))
    with pytest.raises(LoadClientAppError, match="ImportError: see the log of the node"):
        app(message(), context())
    failing(TrainerFailedError(RAISED, "ValueError"))
    with pytest.raises(TrainerFailedError, match="ValueError: see the log of the node"):
        app(message(), context())


def same(one: RecordDict, other: RecordDict) -> bool:
    """Tell whether two contents are equal, arrays by their bytes and in their order."""
    orders = [[list(record) for record in each.array_records.values()] for each in (one, other)]
    return one == other and orders[0] == orders[1]


def test_messages_and_contexts_come_out_as_they_went_in() -> None:
    sent, kept = message(), message().content
    asked = Context(3, 4, {"state-dir": "/s", "n": 1}, kept, {"seed": 1, "rate": 0.5}, 5)
    parts = pack(sent, asked)
    got, got_context = unpack(parts)
    assert sent.content == message().content, "what was packed is as before"
    assert asked.state is kept
    assert got.metadata == sent.metadata
    assert same(got.content, sent.content)
    assert same(got_context.state, kept)
    assert (got_context.run_id, got_context.node_id, got_context.series_id) == (3, 4, 5)
    assert (got_context.node_config, got_context.run_config) == (asked.node_config, asked.run_config)
    assert sum(map(len, parts[:2])) < 2000, "arrays do not travel in what is parsed"
    refusal = Message(Error(2, "why"), reply_to=sent)
    assert unpack(pack(refusal, asked))[0].error == refusal.error


def test_a_client_s_state_comes_back_into_flowers_context(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = context()

    def ask(_link: TrainerLink, parts: list[bytes]) -> list[bytes]:
        got, found = unpack(parts[1:])
        found.state["memory"] = MetricRecord({"rounds": 1})
        return pack(Message(got.content, reply_to=got), found)

    monkeypatch.setattr(TrainerLink, "ask", ask)
    sent = message()
    reply = forward(TrainerLink(Path("/nowhere"), "a", "b:c"), sent, asked)
    assert same(reply.content, sent.content)
    assert asked.state["memory"] == MetricRecord({"rounds": 1})
