"""ClientApp: one message in, one reply out; at a real node by way of a trainer process that stays.

Flower loads this module in a new process for every message, so it imports nothing slow. What is done with a message is
in ``handlers.py``, which a simulation calls here, and a real node in its trainer.
"""

import sys
from logging import ERROR, INFO, WARNING
from pathlib import Path

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.client_app import LoadClientAppError
from flwr.common.logger import log

from client_app.trainer_link import (
    NOT_LOADED,
    NoTrainerError,
    TrainerFailedError,
    TrainerLink,
    TrainerLostError,
    fingerprint,
    idle_seconds,
)
from tasks.files import user_path

PROGRAM = "flwr-clientapp"
FOR_ONE_MESSAGE = "--allow-runtime-dependency-installation"  # its packages go when it ends
TARGET = "client_app.trainer_messages:answer"
CRASHED = 8  # Flower's code for a ClientApp that stopped responding


class NodeApp(ClientApp):
    """Flower's ClientApp, in front of the one of ``handlers.py``."""

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message, by the node's trainer where it has one."""
        link = trainer_link(context)
        if link is None:
            return handle(message, context)
        from client_app.trainer_messages import forward

        try:
            return forward(link, message, context)
        except NoTrainerError as error:
            log(WARNING, "This node has no trainer process, so that each message takes seconds longer: %s", error)
            return handle(message, context)
        except TrainerLostError as error:
            log(ERROR, "The trainer process of this node: %s. The next message starts another one.", error)
            reason = f"ClientApp stopped responding. Of its trainer process is known: {error}."
            log(INFO, "To the server, %s: the error %r", message.metadata.message_type, reason)
            return Message(Error(CRASHED, reason), reply_to=message)
        except TrainerFailedError as error:
            if error.state == NOT_LOADED:
                raise LoadClientAppError(str(error)) from error
            raise


def trainer_link(context: Context) -> TrainerLink | None:
    """Return the way to the trainer of this node, or None if this process answers itself.

    It does in a simulation, on a node without a state directory, where the operator wants no trainer
    (``trainer-idle=0``) or has set what cannot be used, which the handlers say; and on other systems than Linux.
    """
    if Path(sys.argv[0]).name != PROGRAM or FOR_ONE_MESSAGE in sys.argv or sys.platform != "linux":
        return None
    node = context.node_config
    try:
        state, idle = user_path(str(node.get("state-dir", ""))), idle_seconds(node)
    except ValueError:
        return None
    if not state or not idle:
        return None
    facts = [context.run_id, context.node_id, sorted((key, repr(value)) for key, value in node.items())]
    print_of_all = fingerprint(Path(__file__).parents[1], facts)
    return TrainerLink(Path(state, f".trainer-{context.node_id}"), print_of_all, TARGET, idle)


def handle(message: Message, context: Context) -> Message:
    """Answer a message in this process."""
    try:
        from client_app import handlers  # slow
    except Exception as error:
        raise LoadClientAppError(f"{type(error).__name__}: {error}") from error
    return handlers.app(message, context)


app = NodeApp()
