"""Tables as text: aligned for a terminal of any width, Markdown and CSV. The first row is the heading."""

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

from server_app.report.results import aligned

Rows = Sequence[Sequence[str]]
GAP = 2
SHORTEST = 10
"""Characters to which a text is shortened at most before whole columns are left out."""


def blocks(rows: Rows, width: int) -> str:
    """Return aligned text at most ``width`` characters wide where possible; columns that do not fit go below.

    The first column is repeated. Numbers end at the right.
    """
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    groups: list[list[int]] = []
    room = 0
    for place, size in enumerate(sizes[1:], start=1):
        if not groups or room < size + GAP:
            groups.append([])
            room = width - sizes[0]
        groups[-1].append(place)
        room -= size + GAP
    parts = [[(row[0], *(row[place] for place in group)) for row in rows] for group in groups or [[]]]
    return "\n\n".join(aligned(part) for part in parts)


def narrowed(rows: Rows, width: int) -> tuple[str, list[str]]:
    """Return left-aligned text at most ``width`` wide, and the headings of columns that are left out for it.

    First long texts are shortened, then the last columns are left out; the first one stays.
    """
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    least = [min(size, SHORTEST) for size in sizes]
    least[0] = sizes[0]
    shown = len(sizes)
    while shown > 1 and sum(least[:shown]) + GAP * (shown - 1) > width:
        shown -= 1
    room = width - sum(least[:shown]) - GAP * (shown - 1)
    widths = list(least[:shown])
    for place in range(shown):
        more = max(0, min(sizes[place] - widths[place], room))
        widths[place] += more
        room -= more
    lines = ["  ".join(_cut(row[place], widths[place]) for place in range(shown)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]]), list(rows[0][shown:])


def _cut(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else f"{text[: width - 1]}…"


def markdown(rows: Rows) -> str:
    """Return a Markdown table; all columns but the first end at the right."""
    head, *lines = [f"| {' | '.join(map(_escaped, row))} |" for row in rows]
    rule = f"|{'|'.join(['---', *['---:'] * (len(rows[0]) - 1)])}|"
    return "\n".join([head, rule, *lines])


def _escaped(text: str) -> str:
    r"""Escape what Markdown takes for its own.

    >>> print(_escaped("a_b|c <x>"))
    a\_b\|c \<x>
    """
    return re.sub(r"([\\|*_`<\[])", r"\\\1", text)


def csv_text(rows: Sequence[Sequence[Any]]) -> str:
    """Return rows of any values as CSV; None is empty."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
