"""What the user sees of a run's log: the app's own lines, warnings and errors, without Flower's and Ray's routine."""

import re
import sys
from pathlib import Path
from typing import TextIO

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
        self.run_directory: Path | None = None
        self._verbose = verbose
        self._out = out or sys.stdout
        self._after_blank = True

    def write(self, line: str) -> None:
        """Take one line of the log."""
        plain = ANSI.sub("", line).rstrip()
        named = RUN_DIRECTORY.match(plain)
        if named:
            self.run_directory = Path(named[1])
        shown = line.rstrip("\n") if self._verbose else tidy(plain)
        if shown is None or (not shown and self._after_blank):
            return
        self._after_blank = not shown
        print(shown, file=self._out, flush=True)


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
