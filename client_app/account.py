"""What leaves a real node: its log names everything in each reply, and errors say no more than their type allows.

An exception's text may hold a path, a file name or a value of the data, and Flower would send it to the server. It
stays in the log of the node; the server is told the type and a reference by which the site's operator finds the rest.
"""

import secrets
from logging import ERROR, INFO

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from flwr.common.logger import log

from client_app.simulation import present_mode
from tasks.envelope import RECORD
from tasks.mode import Mode
from tasks.told import ToldError

RAISED = 2  # Flower's code for a ClientApp that has raised an exception


def account(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Log on a real node what each reply holds; a mod, and those around it add nothing to them."""
    if present_mode() is Mode.SIMULATION:
        return call_next(message, context)
    asked = message.metadata.message_type
    envelope = message.content.config_records.get(RECORD, ConfigRecord())
    try:
        reply = call_next(message, context)
    except Exception as error:  # whatever it is, its text must not travel unseen
        reply = Message(Error(RAISED, told(error)), reply_to=message)
    said = contents(reply.content) if reply.has_content() else f"the error {reply.error.reason!r}"
    log(INFO, "To the server, round %s, %s: %s", envelope.get("server_round"), asked, said)
    return reply


def told(error: Exception) -> str:
    """Return what the server is told of an error, and log all of it."""
    name = type(error).__name__
    if isinstance(error, ToldError):
        log(ERROR, "%s: %s", name, error)
        return f"{name}: {error}"
    reference = secrets.token_hex(4)
    log(ERROR, "Error %s:", reference, exc_info=error)
    return f"{name}: see the log of the node (reference {reference})"


def contents(content: RecordDict) -> str:
    """Return everything in a reply in words: sizes of arrays and lists, single values as they are."""
    parts = [f"model ({_size(record.count_bytes())})" for record in content.array_records.values()]
    for record in content.metric_records.values():
        parts += [_named(name, value) for name, value in record.items()]
    for name, config in content.config_records.items():
        parts += [_named(f"{name}.{key}", value) for key, value in config.items() if (name, key) != (RECORD, "layout")]
    return ", ".join(parts)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _named(name: str, value: object) -> str:
    return f"{name} ({len(value)} values)" if isinstance(value, list | str | bytes) else f"{name} = {value}"
