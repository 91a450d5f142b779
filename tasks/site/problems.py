"""What is wrong with a site's data: what, where and why, for the eyes of its owner."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.base import DataError

LISTED = 10


class UnusableError(Exception):
    """Why one example cannot be used."""


@dataclass(frozen=True)
class Problem:
    """One thing that cannot be used: ``where`` is a path inside the data folder, or a table and its line."""

    where: str
    reason: str

    def __str__(self) -> str:
        told = f"{self.where}: {self.reason}"  # names are anybody's: they must not forge lines of a log
        return "".join(sign if sign.isprintable() else "?" for sign in told)


class BadDataError(DataError):
    """Data of which a part, or everything, cannot be used.

    The message names files and belongs to whoever owns them; ``summary`` has counts only and may leave the site.
    """

    def __init__(self, root: Path, problems: Sequence[Problem], total: int, remedy: str) -> None:
        self.summary = summary(problems, total)
        super().__init__("\n".join([f"{self.summary} in {root}; {remedy}", *listing(problems)]))


def summary(problems: Sequence[Problem], total: int) -> str:
    """Return the count of the problems, without any name.

    >>> summary([Problem("a.png", "damaged")], 12)
    '1 of 12 examples cannot be used'
    """
    return f"{len(problems)} of {total} examples cannot be used"


def listing(problems: Sequence[Problem]) -> list[str]:
    """Return one line for each of the first problems, and one that counts the others."""
    lines = [f"    {problem}" for problem in problems[:LISTED]]
    more = len(problems) - LISTED
    return [*lines, f"    and {more} more"] if more > 0 else lines
