"""Flower messages for tests, without a SuperLink."""

from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

for _name in ("task_id", "run_id", "node_id"):
    setattr(TaskIdentity, _name, 1)

MODEL = {
    "weight": np.array([[1.0, 2.0], [3.0, 4.0]], np.float32),
    "running_var": np.array([1.0, 1.0], np.float32),
    "count": np.array(10, np.int64),
}


class PlainDownload:
    """What takes a real node's reply, where the grid is one of this process: all of the reply is there at once.

    Put in the place of ``server_app.transport.replies.ReplyDownload``, which speaks to a SuperLink.
    """

    is_announced = False

    def __init__(self, grid: Grid, message_id: str, limit: int) -> None:
        self._grid, self._message_id = grid, message_id

    def fetch(self) -> list[Message]:
        """Return the reply, if there is one."""
        return list(self._grid.pull_messages([self._message_id]))

    def discard(self) -> None:
        """Nothing is kept anywhere."""


def instruction(client: int) -> Message:
    """A train message to a client."""
    return Message(RecordDict({"arrays": record(MODEL)}), dst_node_id=client, message_type="train")


def record(arrays: dict[str, Any]) -> ArrayRecord:
    """Named arrays as Flower's record."""
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def answer(client: int, arrays: dict[str, Any] | None = None, **metrics: Any) -> Message:
    """A client's reply: by default the model it got, ten examples and a loss."""
    values = {"num-examples": 10, "train-loss": 0.5, **{key.replace("_", "-"): v for key, v in metrics.items()}}
    content = RecordDict({"arrays": record(MODEL if arrays is None else arrays), "metrics": MetricRecord(values)})
    return Message(content, reply_to=instruction(client))


def failure(client: int, reason: str = "boom") -> Message:
    """A client's error reply."""
    return Message(Error(2, reason), reply_to=instruction(client))


def moved(step: float, **changes: Any) -> dict[str, Any]:
    """The model with ``step`` added to its floats, and some arrays replaced."""
    return {name: array + step if array.dtype.kind == "f" else array for name, array in MODEL.items()} | changes
