"""What is said about a choice that does not fit."""

import difflib
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OURS = [f"{ROOT / package}/" for package in ("tasks", "client_app", "strategies", "server_app")]
FOREIGN = ("<frozen", "site-packages", sysconfig.get_path("stdlib"), *OURS)


class PluginError(ValueError):
    """A name, import path or argument that does not fit; the message says what would."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return a hint for an unknown word: the closest choice if one is close, and all of them unless they are many.

    >>> did_you_mean("powr", ["power", "root"]), did_you_mean("x", ["power", "root"])
    ("; did you mean 'power'? choices: power, root", '; choices: power, root')
    """
    known = sorted(choices)
    listed = f" choices: {', '.join(known)}" if 0 < len(known) <= 40 else ""
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?{listed}"
    return f";{listed}" if listed else ""


def explain(error: BaseException) -> str:
    """Return an error as one line: a ``ValueError`` speaks for itself, others with their type and where they arose.

    Where is the innermost line of a file that is neither ours nor Python's nor an installed package's.
    """
    if isinstance(error, ValueError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not any(part in frame.filename for part in FOREIGN)]
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{place}"
