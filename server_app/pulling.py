"""Replies from Flower's grid: one that cannot be read costs nobody but its sender.

Flower rebuilds a reply from the bytes that its node uploaded, and the SuperLink checks little of them: bytes that mean
nothing raise an error in the middle of a pull, and the replies pulled together with them are lost.
"""

from collections.abc import Sequence

from flwr.app import Message
from flwr.serverapp import Grid
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

SIMULATION_GRID = "InMemoryGrid"
# What rebuilding a reply from wrong bytes raises; a failed connection raises OSError or an error of Flower's client.
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, DecodeError)


def is_simulation(grid: Grid) -> bool:
    """Tell whether the clients are simulated on this machine."""
    return type(grid).__name__ == SIMULATION_GRID


def pull(grid: Grid, message_ids: Sequence[str]) -> tuple[list[Message], dict[str, str]]:
    """Return the replies that have come in, and by the id of the message they answer why others cannot be read.

    From real nodes each reply is pulled alone. Simulated ones are pulled together: they are made by this very code, and
    there may be thousands.
    """
    if is_simulation(grid):
        return list(grid.pull_messages(message_ids)), {}
    replies: list[Message] = []
    unreadable: dict[str, str] = {}
    for message_id in message_ids:
        try:
            replies.extend(grid.pull_messages([message_id]))
        except UNREADABLE as error:
            unreadable[message_id] = f"malformed reply: {type(error).__name__}: {error}"
    return replies, unreadable
