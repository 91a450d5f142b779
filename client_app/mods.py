"""Mods of the ClientApp, from the outside in: watchdog, egress log, serialization, privacy.

The watchdog: a real node works on one message at a time, and Flower ends no process that still lives. So one that hangs
(the node's trainer, or the process that Flower has started for the message) ends itself, long after anybody waits for
its answer; the node goes on with the next message.

The egress log names everything in each reply of a real node. An exception's text may hold a path, a file name or a
value of the data, and Flower would send it to the server: it stays in the log of the node, and the server gets the type
and a reference by which the site's operator finds the rest.

Serialization: inside of it messages carry named arrays, outside one flat array (see ``tasks/protocol.py``).

Privacy is Flower's own mods for clipping and noise; the run configuration says which one.
"""

import faulthandler
import secrets
import sys
from collections.abc import Callable
from logging import ERROR, INFO
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp.mod import LocalDpMod, adaptiveclipping_mod, fixedclipping_mod
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.common.logger import log

from client_app.node import current_mode
from client_app.session import Session
from tasks.extra_arrays import NAMED, is_named, network_of
from tasks.protocol import ARRAYS, RECORD, Mode, PublicError, read_header
from tasks.records import records_of, view_of, views
from tasks.seeds import seed_noise
from tasks.settings import PrivacySettings
from tasks.wire import WIRE_ERROR, half_arrays, named_record, pack_half

PROGRAM = "flwr-clientapp"
STDERR = 2  # the descriptor: Flower may have put another object in the place of sys.stderr
WATCHDOG_FACTOR = 2
"""How many times longer than the server the watchdog waits: work that is only late still reaches the site's folder."""
RAISED = 2  # Flower's code for a ClientApp that has raised an exception


def watchdog(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """End the process, with the place where it hangs in the log, when the work takes far too long.

    Only a process that Flower has started for this one message, or the trainer in its place: no other is ours to end.
    """
    if Path(sys.argv[0]).name != PROGRAM:
        return call_next(message, context)
    faulthandler.dump_traceback_later(WATCHDOG_FACTOR * message.metadata.ttl, exit=True, file=STDERR)
    try:
        return call_next(message, context)
    finally:
        faulthandler.cancel_dump_traceback_later()


def egress_log(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Log on a real node what each reply holds; a mod, and those around it add nothing to them."""
    if current_mode() is Mode.SIMULATION:
        return call_next(message, context)
    asked = message.metadata.message_type
    header = message.content.config_records.get(RECORD, ConfigRecord())
    try:
        reply = call_next(message, context)
    except Exception as error:  # whatever it is, its text must not travel unseen
        reply = Message(Error(RAISED, public_text(error)), reply_to=message)
    sent = contents(reply.content) if reply.has_content() else f"the error {reply.error.reason!r}"
    log(INFO, "To the server, round %s, %s: %s", header.get("server_round"), asked, sent)
    return reply


def public_text(error: Exception) -> str:
    """Return what of an error may go to the server, and log all of it."""
    name = type(error).__name__
    if isinstance(error, PublicError):
        log(ERROR, "%s: %s", name, error)
        return f"{name}: {error}"
    reference = secrets.token_hex(4)
    log(ERROR, "Error %s:", reference, exc_info=error)
    return f"{name}: see the log of the node (reference {reference})"


def contents(content: RecordDict) -> str:
    """Return everything in a reply in words: sizes of arrays and lists, single values as they are."""
    parts = [f"model ({_size(record.count_bytes())})" for record in content.array_records.values()]
    parts += _beside(str(content.config_records.get(RECORD, ConfigRecord()).get("layout", "[]")))
    for record in content.metric_records.values():
        parts += [_named(name, value) for name, value in record.items()]
    for name, config in content.config_records.items():
        parts += [_named(f"{name}.{key}", value) for key, value in config.items() if (name, key) != (RECORD, "layout")]
    return ", ".join(parts)


def _beside(layout: str) -> list[str]:
    """Return what of the bytes of a model are further networks or named arrays of the method, in words."""
    slots = read_header(layout)
    networks = len({network_of(slot.name) for slot in slots} - {1})
    named = [f"array {slot.name.removeprefix(NAMED)} {slot.shape}" for slot in slots if is_named(slot.name)]
    return ([f"in it {networks} further networks"] if networks else []) + [f"in it {text}" for text in named]


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _named(name: str, value: object) -> str:
    return f"{name} ({len(value)} values)" if isinstance(value, list | str | bytes) else f"{name} = {value}"


def named_arrays(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Unpack the model that arrives and pack the model that leaves; a mod, so Flower's own mods work inside it.

    Raises
    ------
    SerializationError
        If the flat array does not fit its layout.
    """
    sent, named = message.content, unpacked(message.content)
    received = next(iter(records_of(named, ArrayRecord).values()), ArrayRecord())
    message.content = named
    reply = call_next(message, context)
    message.content = sent
    if reply.has_content():
        reply.content = _packed(reply.content, received)
    return reply


def unpacked(content: RecordDict) -> RecordDict:
    """Return a message's content with views of the named arrays in place of flat ones.

    Raises
    ------
    SerializationError
        If a flat array does not fit its layout.
    """
    named = RecordDict(dict(content))
    for name, record in content.array_records.items():
        layout = str(content.config_records[RECORD]["layout"])
        named[name] = named_record(view_of(record[ARRAYS]), layout)
    return named


def _packed(content: RecordDict, received: ArrayRecord) -> RecordDict:
    """Return the same records with one flat array; what came in half precision goes so, as the difference to it."""
    flat = RecordDict(dict(content))
    for name, record in content.array_records.items():
        wires = half_arrays(received)
        array, layout, error = pack_half(views(record), wires, received)
        flat[name] = ArrayRecord({ARRAYS: array})
        flat[RECORD] = ConfigRecord({"layout": layout})
        for metrics in content.metric_records.values() if wires else ():
            metrics[WIRE_ERROR] = error
    return flat


def with_privacy(session: Session, train: Callable[[Session], Message]) -> Message:
    """Train, and let Flower's mod of the configured mode clip the reply, and with local privacy add noise to it.

    Raises
    ------
    ValueError
        If training left the model exactly as it came: Flower divides by the norm of the update.
    """
    message, settings, header = session.message, session.settings, session.header
    mod = privacy_mod(settings.privacy)
    if mod is None:
        return train(session)
    record = message.content[RECORD]

    def call_next(inner: Message, context: Context) -> Message:
        inner.content[RECORD] = record
        reply = train(session)
        if reply.has_content():
            _check_moved(inner, reply)
        predictable = session.mode is Mode.SIMULATION
        seed_noise(predictable, settings.seed, "privacy", header.client, header.server_round)
        return reply

    del message.content[RECORD]  # the mods take the one record of settings that they find for their own
    return mod(message, session.context, call_next)


def privacy_mod(settings: PrivacySettings) -> Mod | None:
    """Return Flower's mod for a mode; None where the client has nothing to do.

    Local privacy: any two updates of norm at most C are at most 2 C apart, so the noise is made for that distance.
    """
    if settings.mode == "client-fixed":
        return fixedclipping_mod
    if settings.mode == "client-adaptive":
        return adaptiveclipping_mod
    if settings.mode == "local":
        return LocalDpMod(settings.clipping_norm, 2 * settings.clipping_norm, settings.epsilon, settings.delta)
    return None


def _check_moved(sent: Message, reply: Message) -> None:
    def values(message: Message) -> ArrayRecord:
        return next(iter(message.content.array_records.values()))

    before, after = values(sent), values(reply)
    if all(np.array_equal(view_of(before[name]), view_of(after[name])) for name in before):
        raise ValueError("training left the model exactly as it came, and an update of norm 0 cannot be clipped")
