"""A process that hangs does not keep its node for ever: long after anybody waits for its answer it ends itself.

A real node works on one message at a time, each in a process of its own, and Flower ends none that still lives. When
one dies, the node goes on with the next message a minute later.
"""

import faulthandler
import sys
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

PROGRAM = "flwr-clientapp"
STDERR = 2  # the descriptor: Flower may have put another object in the place of sys.stderr
TIMES = 2
"""How many times longer than the server waits: work that is only late still reaches the site's own folder."""


def bounded(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """End the process, with the place where it hangs in the log, when the work takes far too long.

    Only a process that Flower has started for this one message: any other is not ours to end.
    """
    if Path(sys.argv[0]).name != PROGRAM:
        return call_next(message, context)
    faulthandler.dump_traceback_later(TIMES * message.metadata.ttl, exit=True, file=STDERR)
    try:
        return call_next(message, context)
    finally:
        faulthandler.cancel_dump_traceback_later()
