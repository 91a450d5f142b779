"""Worker process of a simulation: answers messages to clients, batch by batch, and keeps models and data in between.

What belongs to one client alone, Flower's context, is the server's: it comes with each message and goes back.
"""

import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO, cast

from flwr.app import Context, Message, RecordDict

from client_app.handlers import answer
from client_app.node import PARTITION_ID, simulate_here
from server_app.engine.wire import Pipe


@dataclass(frozen=True)
class Start:
    """What a worker is told first: the run's id and configuration, and its own environment variables."""

    run_id: int
    run_config: Mapping[str, Any]
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """One message to a node, which knows by its ``node_config`` which client it is, and the node's state."""

    message: Message
    node_config: Mapping[str, Any]
    state: RecordDict

    @property
    def node(self) -> int:
        """The node's id."""
        return self.message.metadata.dst_node_id

    @property
    def name(self) -> str:
        """The message's id."""
        return self.message.metadata.message_id

    @property
    def client(self) -> object:
        """The client's number."""
        return self.node_config[PARTITION_ID]


@dataclass(frozen=True)
class Answered:
    """The reply to one message, and the node's state after it."""

    reply: Message
    state: RecordDict


def begin() -> None:
    """Make this process, which was forked for that, one of simulated clients."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who has it forked decides what a Ctrl-C means
    for stream in (sys.stdout, sys.stderr):
        cast(TextIO, stream).reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[attr-defined]
    simulate_here()


def main(end: socket.socket) -> None:
    """Answer batches until the server closes the pipe."""
    pipe = Pipe(end)
    begin()
    try:
        start: Start = pipe.receive()
        os.environ.update(start.variables)
        while True:
            for found in answers(pipe.receive(), start):
                pipe.send(found)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def answers(batch: list[Asked], start: Start) -> Iterator[Answered]:
    """Yield what the clients of a batch answer, in its order, each as soon as it is there."""
    contexts = [Context(start.run_id, a.node, dict(a.node_config), a.state, dict(start.run_config)) for a in batch]
    for reply, context in zip(answer([asked.message for asked in batch], contexts), contexts, strict=True):
        yield Answered(reply, context.state)
