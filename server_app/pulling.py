"""Replies from Flower's grid: one that is too large or cannot be read costs nobody but its sender.

Flower rebuilds a reply from the bytes that its node uploaded, and the SuperLink checks little of them: bytes that mean
nothing raise an error in the middle of a pull, and the replies pulled together with them are lost.
"""

from collections.abc import Mapping

from flwr.app import Message
from flwr.serverapp import Grid
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from server_app.metering import Meter, RefusedReplyError, metered

SIMULATION_GRID, HTTP_GRID = "InMemoryGrid", "HttpGrid"
# What rebuilding a reply from wrong bytes raises; a failed connection raises OSError or an error of Flower's client.
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, DecodeError)


def is_simulation(grid: Grid) -> bool:
    """Tell whether the clients are simulated on this machine."""
    return type(grid).__name__ == SIMULATION_GRID


def pull(grid: Grid, limits: Mapping[str, int], deadline: float = float("inf")) -> tuple[list[Message], dict[str, str]]:
    """Return the replies that have come in, and by the id of the message they answer why others are not taken.

    From real nodes each reply is pulled alone. Simulated ones are pulled together: they are made by this very code, and
    there may be thousands.

    Parameters
    ----------
    limits
        By the ids of the messages, how many bytes the reply may have; see :func:`server_app.metering.reply_limit`.
    deadline
        Until when, on the monotonic clock, to wait for the rest of a reply of which a part has come.
    """
    if is_simulation(grid):
        return list(grid.pull_messages(list(limits))), {}
    replies: list[Message] = []
    refused: dict[str, str] = {}
    for message_id, limit in limits.items():
        try:
            replies.extend(_pull_one(grid, message_id, Meter(limit, deadline)))
        except RefusedReplyError as reason:
            refused[message_id] = str(reason)
        except UNREADABLE as error:
            refused[message_id] = f"malformed reply: {type(error).__name__}: {error}"
    return replies, refused


def _pull_one(grid: Grid, message_id: str, meter: Meter) -> list[Message]:
    if type(grid).__name__ != HTTP_GRID:
        return list(grid.pull_messages([message_id]))
    with metered(grid, meter):
        return list(grid.pull_messages([message_id]))
