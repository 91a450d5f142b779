"""Log of a run as the user sees it: the app's own lines, warnings and errors, without Flower's and Ray's routine."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from server_app.cli.ray_start import StartWatch

ANSI = re.compile(r"\x1b\[[0-9;]*m")
LEVEL = re.compile(
    r"^(?P<source>\([^)]*pid=\d+[^)]*\) )?(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL)\s*:\s*(?P<text>.*)$"
)
RUN_DIRECTORY = re.compile(r"^Run directory: (.+)$")
ROUTINE = re.compile(
    r"""^(?:
    Starting\ logstream | Start\ `flwr-serverapp`\ process
    | Using\ SuperLink: | Starting\ Flower\ Simulation | Successfully\ installed\ \S+\ to
    | Since\ flwr\ 1\.32 | Federation\ ` | To\ change\ federation\ size | \s*flwr\ federation\ simulation-config
    | Manually\ terminating | Started\ a\ local\ Ray\ instance | configure_(?:train|evaluate):\ Sampled
    | aggregate_(?:train|evaluate):\ Received\ \d+\ results\ and\ 0\ failures | Task\ stopped\ by\ user
    | \w+:\ .+\ are\ clipped\ by\ value: | \w+:\ (?:local|central)\ DP\ noise\ with
    | Exit\ Code: | An\ unhandled\ exception\ occurred\ when\ running\ the\ simulation | For\ more\ information,\ visit:
    )""",
    re.VERBOSE,
)


class RunLog:
    """Prints the lines of a run's log; ``verbose`` prints all of them as they come.

    Attributes
    ----------
    run_directory : Path or None
        The latest run directory that the app has named.
    """

    def __init__(self, verbose: bool = False, out: TextIO | None = None) -> None:
        self.begin()
        self._verbose = verbose
        self._out = out  # None: standard output, whatever that is when a line comes
        self._after_blank = True

    @contextmanager
    def to(self, out: TextIO) -> Iterator[None]:
        """Print to ``out`` while the block runs, whatever becomes of standard output."""
        before, self._out = self._out, self._out or out
        try:
            yield
        finally:
            self._out = before

    def begin(self) -> None:
        """Forget the run so far: another begins."""
        self.run_directory: Path | None = None
        self.start = StartWatch()

    def write(self, line: str) -> None:
        """Take one line of the log."""
        plain = ANSI.sub("", line).rstrip()
        named = RUN_DIRECTORY.match(plain)
        if named:
            self.run_directory = Path(named[1])
        shown = self.start.shown(plain, tidy(plain))
        self._show([line.rstrip("\n")] if self._verbose else shown)

    def end(self) -> None:
        """Show what was held back, if anything; the log has ended."""
        held = self.start.released()
        self._show([] if self._verbose else held)

    def _show(self, lines: list[str]) -> None:
        for line in lines:
            if line or not self._after_blank:
                print(line, file=self._out, flush=True)
            self._after_blank = not line


def tidy(line: str) -> str | None:
    """Return what to show of a line without colours, ``None`` for routine.

    >>> tidy("INFO :      Starting Flower Simulation") is None
    True
    >>> tidy("WARNING :   noise.args has no effect")
    'WARNING: noise.args has no effect'
    """
    match = LEVEL.match(line)
    if match is None:
        return None if ROUTINE.match(line) else line
    source, level, text = match["source"] or "", match["level"], match["text"]
    if not text or ROUTINE.match(text):
        return None
    return f"{source}{text}" if level == "INFO" else f"{source}{level}: {text}"
