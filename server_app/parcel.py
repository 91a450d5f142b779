"""The reply of one real node on its way from the SuperLink, where it may lie announced and only half uploaded.

Flower's own grid waits for the rest of such a reply, for hours if it must, while all others expire. It also lets a
thread read on when another has found the reply too large. Here nothing is waited for: what has come is kept, and the
next look goes on from there; and no thread outlives a look, so that everything is read under the meter.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flwr.app import Message
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullAppMessagesResponse
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from server_app.metering import Meter, RefusedReplyError, connection, metered, object_ids

AT_ONCE = 2  # objects that are pulled together, as many as Flower does


class Parcel:
    """What has come of the reply to one message: never more than its limit.

    Parameters
    ----------
    grid
        Flower's grid of real nodes.
    message_id
        The message that is answered.
    limit
        Largest size of the reply in bytes.

    Raises
    ------
    UnmeteredError
        If this version of Flower keeps its connection elsewhere.
    """

    def __init__(self, grid: Grid, message_id: str, limit: int) -> None:
        self._http = connection(grid)
        self._link: Any = grid
        self._message_id = message_id
        self._meter = Meter(limit)
        self._announced = PullAppMessagesResponse()
        self._contents: dict[str, bytes] = {}

    @property
    def begun(self) -> bool:
        """Whether the reply has been announced; the SuperLink announces it once."""
        return bool(self._announced.messages_list)

    def fetch(self) -> list[Message]:
        """Take what is there, and return the reply once it is whole; an empty list until then.

        Raises
        ------
        RefusedReplyError
            If the reply is too large, or a part of it is not there and will not come.
        """
        with metered(self._http, self._meter):
            if not self.begun:
                request = PullAppMessagesRequest(message_ids=[self._message_id])
                self._announced = self._link._runtime_client.PullMessages(request)
            if not self.begun or not self._pull_objects():
                return []
        return [self._inflate(proto.metadata.message_id) for proto in self._announced.messages_list]

    def discard(self) -> None:
        """Remove the reply from the SuperLink: it is here, or not wanted."""
        for proto in self._announced.messages_list:
            name = proto.metadata.message_id
            self._link._runtime_client.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(**self._whose(), message_object_id=name)
            )

    def _pull_objects(self) -> bool:
        """Take the objects that are missing; stop at one that is not there yet, and tell whether there was none."""
        missing = [name for name in object_ids(self._announced) if name not in self._contents]
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            return all(pool.map(self._pull_object, missing))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _pull_object(self, name: str) -> bool:
        answer = self._link._runtime_client.PullObject(PullObjectRequest(**self._whose(), object_id=name))
        if not answer.object_found:
            raise RefusedReplyError("a part of the reply is not at the SuperLink, and will not come")
        if answer.object_available:
            self._contents[name] = answer.object_content
        return bool(answer.object_available)

    def _inflate(self, name: str) -> Message:
        message = inflate_object_from_contents(name, self._contents)
        if not isinstance(message, Message):
            raise TypeError(f"expected a message, got {type(message).__name__}")
        message.metadata.__dict__["_message_id"] = name
        return message

    def _whose(self) -> dict[str, Any]:
        return {"node": self._link.node, "run_id": self._link.run.run_id}
