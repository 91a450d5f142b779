"""Output that may be lost: a reader such as ``head`` goes, a terminal closes, the disk of a log file is full.

A command that only shows something then ends as other programs do. A run goes on without its output: what it does is in
its record. Characters that an output cannot represent are written as escapes.
"""

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, NoReturn


class OutputLostError(RuntimeError):
    """Standard output takes no more; ``reason`` is what the system said."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(f"the output could not be written: {reason.strerror or reason}")
        self.reason = reason

    @property
    def exit_code(self) -> int:
        """Return what programs end with then: as if ended by SIGPIPE where the reader has enough, else 1."""
        return 128 + signal.SIGPIPE if isinstance(self.reason, BrokenPipeError) else 1


class GuardedStream:
    """A text stream that hands what the system refuses to ``on_loss``, which may raise; else it is ``guarded``."""

    def __init__(self, guarded: IO[str], on_loss: Callable[[OSError], None]) -> None:
        self.guarded = guarded
        self._on_loss = on_loss

    def write(self, text: str) -> int:
        """Write, and return the number of characters taken."""
        try:
            return self.guarded.write(text)
        except OSError as error:
            self._on_loss(error)
        return len(text)

    def flush(self) -> None:
        """Hand everything to the system."""
        try:
            self.guarded.flush()
        except OSError as error:
            self._on_loss(error)

    def __getattr__(self, name: str) -> object:
        return getattr(self.guarded, name)


class Loss:
    """Whether output was lost, and the first reason."""

    def __init__(self) -> None:
        self.reason = ""

    def note(self, error: OSError) -> None:
        """Remember the first one."""
        self.reason = self.reason or error.strerror or str(error)


@contextmanager
def lasting_output() -> Iterator[Loss]:
    """Let the block go on when its output or error output is lost; yields what tells whether some was."""
    loss = Loss()
    with _guarded("stdout", loss.note), _guarded("stderr", loss.note):
        yield loss


@contextmanager
def shown_output() -> Iterator[None]:
    """End the block when its output is lost; lost error output is ignored, because the exit status tells as well.

    Raises
    ------
    OutputLostError
        At the first text that cannot be written, at the end of the block at the latest; the reason is printed, unless
        it is a reader that has enough.
    """
    _open_closed_streams()
    with _guarded("stderr", lambda _: None):
        try:
            with _guarded("stdout", _refuse):
                try:
                    yield
                finally:
                    sys.stdout.flush()
        except OutputLostError as lost:
            if not isinstance(lost.reason, BrokenPipeError):
                print(f"winnow: {lost}", file=sys.stderr)
            raise


def _refuse(error: OSError) -> NoReturn:
    raise OutputLostError(error) from error


@contextmanager
def _guarded(name: str, on_loss: Callable[[OSError], None]) -> Iterator[None]:
    before = getattr(sys, name)
    stream = before.guarded if isinstance(before, GuardedStream) else before  # the innermost block decides
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    setattr(sys, name, GuardedStream(stream, on_loss))
    try:
        yield
    finally:
        setattr(sys, name, before)
        _drop_unwritten(stream)


def _drop_unwritten(stream: IO[str]) -> None:
    """Let go nowhere what cannot be written: Python would try again at its end, and fail."""
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _open_closed_streams() -> None:
    """Open what the caller has closed (``>&-``), so that no file of ours gets the descriptor of an output."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if descriptor else "r"))  # noqa: SIM115 - as long as the process
