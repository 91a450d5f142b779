"""Messages on their way to a node's trainer process and back: in Flower's own format, the arrays' bytes beside it.

This is the one file of the client that uses what Flower does not promise: how it writes messages and contexts.
"""

import json

from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.common.serde import context_from_proto, context_to_proto, message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Context as ProtoContext
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.supercore.task_identity import TaskIdentity

from client_app.trainer_link import TrainerLink

IDENTITY = ("task_id", "run_id", "node_id")


def forward(link: TrainerLink, message: Message, context: Context) -> Message:
    """Let a node's trainer answer; the context takes the state that the client has afterwards.

    Raises
    ------
    NoTrainerError, TrainerLostError, TrainerFailedError
        See :meth:`client_app.trainer_link.TrainerLink.ask`.
    """
    identity = {name: getattr(TaskIdentity, name) for name in IDENTITY}
    reply, after = unpack(link.ask([json.dumps(identity).encode(), *pack(message, context)]))
    context.state = after.state
    return reply


def answer(parts: list[bytes]) -> list[bytes]:
    """Answer a message in the trainer: what :func:`forward` sends, to what it gets."""
    from client_app.handlers import app  # slow

    for name, value in json.loads(parts[0]).items():
        setattr(TaskIdentity, name, value)
    message, context = unpack(parts[1:])
    return pack(app(message, context), context)


def pack(message: Message, context: Context) -> list[bytes]:
    """Return a message and a context as bytes, followed by those of their arrays."""
    bodies: list[bytes] = []
    whole, state = message.content if message.has_content() else None, context.state
    try:
        if whole is not None:
            message.content = _hollow(whole, bodies)
        context.state = _hollow(state, bodies)
        head = [message_to_proto(message).SerializeToString(), context_to_proto(context).SerializeToString()]
    finally:
        if whole is not None:
            message.content = whole
        context.state = state
    return [*head, *bodies]


def unpack(parts: list[bytes]) -> tuple[Message, Context]:
    """Return what was packed."""
    message = message_from_proto(ProtoMessage.FromString(parts[0]))
    context = context_from_proto(ProtoContext.FromString(parts[1]))
    for records in [message.content] if message.has_content() else []:
        _fill(records, parts[2:])
    _fill(context.state, parts[2:])
    return message, context


def _hollow(records: RecordDict, bodies: list[bytes]) -> RecordDict:
    """Return records in which each array has, instead of its bytes, their place among the ``bodies``."""
    found = RecordDict(dict(records))
    for name, record in records.items():
        if isinstance(record, ArrayRecord):
            found[name] = hollow = ArrayRecord()
            for key, array in record.items():
                hollow[key] = Array(array.dtype, tuple(array.shape), array.stype, str(len(bodies)).encode())
                bodies.append(array.data)
    return found


def _fill(records: RecordDict, bodies: list[bytes]) -> None:
    for record in records.values():
        if isinstance(record, ArrayRecord):
            for key, array in list(record.items()):
                record[key] = Array(array.dtype, tuple(array.shape), array.stype, bodies[int(array.data)])
