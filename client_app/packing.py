"""The outermost layer of the ClientApp: inside it messages carry named arrays, outside it one flat array."""

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from tasks import wire
from tasks.envelope import ARRAYS, RECORD
from tasks.records import byte_array, view_of, view_record, views


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
        layout = str(content.config_records[RECORD]["layout"])
        named[name] = view_record(wire.views(view_of(record[ARRAYS]), layout))
    return named


def _packed(content: RecordDict) -> RecordDict:
    flat = RecordDict(dict(content))
    for name, record in content.array_records.items():
        array, layout = wire.pack(views(record))
        flat[name] = ArrayRecord({ARRAYS: byte_array(array)})
        flat[RECORD] = ConfigRecord({"layout": layout})
    return flat
