"""Mode of this process: whether it is a simulated client or a real node, found out once for every message."""

import sys
from contextvars import ContextVar

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from tasks.mode import Mode

_PRESENT: ContextVar[Mode] = ContextVar("mode", default=Mode.DEPLOYMENT)  # the stricter one where nobody has asked


def own_mode() -> Mode:
    """Find out whether this process is a Ray worker, so that it shares the server's file system.

    Only :func:`with_mode` asks; all others are told.
    """
    ray = sys.modules.get("ray")
    return Mode.SIMULATION if ray is not None and bool(ray.is_initialized()) else Mode.DEPLOYMENT


def with_mode(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Find out the mode for the mods and the session inside; a mod, and nothing in the message decides it."""
    before = _PRESENT.set(own_mode())
    try:
        return call_next(message, context)
    finally:
        _PRESENT.reset(before)


def present_mode() -> Mode:
    """Return the mode in which the present message is answered."""
    return _PRESENT.get()
