"""The outermost layer of the ClientApp: inside it messages carry named arrays, outside it one flat array."""

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from tasks import wire
from tasks.envelope import ARRAYS, RECORD


def named_arrays(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Unpack the model that arrives and pack the model that leaves; a mod, so Flower's own mods work inside it.

    Raises
    ------
    WireError
        If the flat array does not fit its layout.
    """
    sent = message.content
    message.content = _unpacked(sent)
    reply = call_next(message, context)
    message.content = sent
    if reply.has_content():
        reply.content = _packed(reply.content)
    return reply


def _unpacked(content: RecordDict) -> RecordDict:
    named = RecordDict(dict(content))
    for name, record in content.array_records.items():
        arrays = wire.unpack(record[ARRAYS].numpy(), str(content.config_records[RECORD]["layout"]))
        named[name] = ArrayRecord({key: Array(np.asarray(array)) for key, array in arrays.items()})
    return named


def _packed(content: RecordDict) -> RecordDict:
    flat = RecordDict(dict(content))
    for name, record in content.array_records.items():
        array, layout = wire.pack({key: array.numpy() for key, array in record.items()})
        flat[name] = ArrayRecord({ARRAYS: Array(array)})
        flat[RECORD] = ConfigRecord({"layout": layout})
    return flat
