"""Replies from Flower's grid: one that is too large, stuck or cannot be read costs nobody but its sender.

Flower rebuilds a reply from the bytes that its node uploaded, and the SuperLink checks little of them: bytes that mean
nothing raise an error in the middle of a pull, and the replies pulled together with them are lost. The object inside
says itself which message it answers, whatever message it was sent in answer to.
"""

import time
from collections.abc import Mapping

from flwr.app import Message
from flwr.serverapp import Grid
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from server_app.metering import RefusedReplyError
from server_app.parcel import Parcel
from tasks.mode import Mode

# What rebuilding a reply from wrong bytes raises; a failed connection raises OSError or an error of Flower's client.
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, DecodeError)


class Inbox:
    """Takes the replies that have come in, look by look.

    From real nodes each reply is pulled alone, and one that is announced but not yet uploaded whole holds up no other:
    what is there of it is kept until the next look. Simulated replies are pulled together: they are made by this very
    code, and there may be thousands.
    """

    def __init__(self, grid: Grid, mode: Mode) -> None:
        self._grid, self._mode = grid, mode
        self._begun: dict[str, Parcel] = {}

    def look(self, limits: Mapping[str, int], deadline: float = float("inf")) -> tuple[list[Message], dict[str, str]]:
        """Return the replies that have come in, and by the id of the message they answer why others are not taken.

        Parameters
        ----------
        limits
            By the ids of the messages, how many bytes the reply may have; see :func:`server_app.metering.reply_limit`.
            What has come for other messages is dropped.
        deadline
            After which, on the monotonic clock, the rest of a reply is not waited for.

        Raises
        ------
        UnmeteredError
            If replies of real nodes cannot be limited.
        """
        if self._mode is Mode.SIMULATION:
            return list(self._grid.pull_messages(list(limits))), {}
        self._begun = {name: parcel for name, parcel in self._begun.items() if name in limits}
        replies: list[Message] = []
        refused: dict[str, str] = {}
        for message_id, limit in limits.items():
            try:
                replies.extend(self._answers(message_id, limit))
            except RefusedReplyError as reason:
                refused[message_id] = str(reason)
            except UNREADABLE as error:
                refused[message_id] = f"malformed reply: {type(error).__name__}: {error}"
        if time.monotonic() > deadline:
            refused |= self._give_up()
        return replies, refused

    def _answers(self, message_id: str, limit: int) -> list[Message]:
        """Return the replies to a message, if they have come."""
        answers = self._fetch(message_id, limit)
        if any(reply.metadata.reply_to_message_id != message_id for reply in answers):
            raise RefusedReplyError("the reply says that it answers another message")
        return answers

    def _fetch(self, message_id: str, limit: int) -> list[Message]:
        parcel = self._begun.pop(message_id, None) or Parcel(self._grid, message_id, limit)
        try:
            found = parcel.fetch()
        except UNREADABLE:  # refused too
            parcel.discard()
            raise
        if found:
            parcel.discard()
        elif parcel.begun:
            self._begun[message_id] = parcel
        return found

    def _give_up(self) -> dict[str, str]:
        """Drop all that is not whole."""
        for parcel in self._begun.values():
            parcel.discard()
        refused = dict.fromkeys(self._begun, "the reply was announced, but not uploaded in time")
        self._begun.clear()
        return refused
