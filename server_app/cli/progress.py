"""Progress of a sweep: a bar below its lines on a terminal; elsewhere the lines alone, which say the same."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

Say = Callable[[str], None]
"""Takes a line for the user."""
Advance = Callable[[int, int, float | None], None]
"""Takes how many are done, of how many, and the estimated seconds left; None where nothing is known yet."""


@contextmanager
def shown_progress(out: TextIO) -> Iterator[tuple[Say, Advance]]:
    """Yield what prints a line to ``out``, and what is told how far the whole is."""
    if not out.isatty():
        yield lambda line: print(line, file=out, flush=True), lambda done, total, left: None
        return
    from rich.console import Console  # it comes with Flower
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(file=out)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None, left="")

        def advance(done: int, total: int, left: float | None) -> None:
            bar.update(task, description=f"{done} of {total} runs", completed=done, total=total, left=in_words(left))

        yield lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True), advance


def in_words(left: float | None) -> str:
    """Return how much time is left.

    >>> in_words(430.0), in_words(None)
    ('about 7 min left', '')
    """
    from server_app.report.text import roughly  # its package imports what most commands do without

    return "" if left is None else f"about {roughly(left)} left"
