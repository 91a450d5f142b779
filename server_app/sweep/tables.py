"""Tables of a sweep's results for people: plain text that fits a terminal, Markdown, and LaTeX for a paper."""

import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server_app.report.results import aligned
from server_app.sweep.notes import Figures, p_text
from server_app.sweep.results import BEST_MARK, BETTER, NOT_WORSE, WORSE, Comparison, Difference, Score
from server_app.sweep.tuning_table import tuning_note, tuning_rows

NONE = "-"
SIGNS = {BETTER: "+", WORSE: "-"}
LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\u00a0": "~",
    "±": r"$\pm$",
    "<": r"$<$",
    ">": r"$>$",
}
Marks = dict[str, Callable[[str], str]]


@dataclass(frozen=True)
class Entry:
    """What stands in a table at one place: a text, its mark (``best``, ``not-worse``) and ``+`` or ``-``.

    The sign says that the option is significantly better or worse than the baseline.
    """

    text: str
    mark: str = ""
    sign: str = ""


@dataclass(frozen=True)
class Column:
    """A column of the table with its heading; one entry for each option."""

    title: str
    entries: tuple[Entry, ...]


def columns(found: Comparison) -> list[Column]:
    """Return the columns: each setting, then over all settings mean, difference from the baseline and mean rank."""
    figures = Figures.of(found)
    parts = [
        Column(found.title(each), tuple(_entry(found.cells.get((name, each)), figures) for name in found.options))
        for each in found.settings
    ]
    scores = [found.overall[name] for name in found.options]
    if len(found.settings) > 1:
        parts.append(Column("overall", tuple(_entry(score, figures) for score in scores)))
    if found.baseline and len(found.options) > 1:
        entries = tuple(_versus(score.against_baseline, figures) for score in scores)
        parts.append(Column(versus(found), entries))
    if len(found.settings) > 1 and len(found.options) > 1:
        ranks = [NONE if score.rank is None else f"{score.rank:.2f}" for score in scores]
        parts.append(Column("mean rank", tuple(map(Entry, ranks))))
    return parts


def _entry(score: Score | None, figures: Figures) -> Entry:
    if score is None:
        return Entry("")  # no run was asked for
    if score.mean is None:
        return Entry(NONE)
    deviation = "" if score.deviation is None else f" ± {figures.value(score.deviation)}"
    few = f" ({len(score.values)} of {len(score.values) + len(score.missing)})" if score.missing else ""
    sign = SIGNS.get(score.against_baseline.verdict, "") if score.against_baseline else ""
    return Entry(f"{figures.value(score.mean)}{deviation}{few}", score.mark, sign)


def _versus(difference: Difference | None, figures: Figures) -> Entry:
    if difference is None or difference.mean is None:
        return Entry("" if difference is None else NONE)
    p = "" if difference.adjusted is None else f" ({p_text(difference.adjusted)})"
    return Entry(f"{figures.difference(difference.mean)}{p}")


def legend(found: Comparison, best: str, not_worse: str) -> str:
    """Say what the marks mean that occur in the table, written as ``best`` and ``not_worse``."""
    entries = [entry for column in columns(found) for entry in column.entries]
    marks, signs = {entry.mark for entry in entries}, {entry.sign for entry in entries}
    parts = [f"{best}: best mean of the column"] if BEST_MARK in marks else []
    parts += [f"{not_worse}: not significantly worse than it"] if NOT_WORSE in marks else []
    parts += [f"+: significantly better than {found.baseline}"] if "+" in signs else []
    parts += [f"-: significantly worse than {found.baseline}"] if "-" in signs else []
    parts += ["(n of m): only n of m seeds have a value"] if any(" of " in entry.text for entry in entries) else []
    if any(column.title == versus(found) for column in columns(found)):
        unit = " in points" if Figures.of(found).is_share else ""
        parts.append(f"{versus(found)}: mean difference{unit} over all settings, p after correction")
    return "; ".join(parts)


def versus(found: Comparison) -> str:
    """Return the heading of the differences from the baseline."""
    return f"vs {found.baseline}"


def text_table(found: Comparison, width: int) -> str:
    """Return aligned text at most ``width`` columns wide where that is possible; what does not fit goes below."""
    first = [found.design.compared, *found.options]
    margin = max(map(len, first))
    blocks: list[list[list[str]]] = []
    room = 0
    for column in columns(found):
        cells = _aligned(column)
        if not blocks or room < len(cells[0]) + 2:
            blocks.append([[name.ljust(margin) for name in first]])
            room = width - margin
        blocks[-1].append(cells)
        room -= len(cells[0]) + 2
    tables = [_ruled(["  ".join(cells).rstrip() for cells in zip(*block, strict=True)]) for block in blocks]
    under = [legend(found, "*", "~"), *found.findings, *found.notes, tuning_note(found.design)]
    tuned = tuning_rows(found.design)
    paragraphs = "\n".join(textwrap.fill(line, max(40, width), break_on_hyphens=False) for line in under if line)
    return "\n\n".join([*tables, paragraphs, *([_stripped(aligned(tuned))] if tuned else [])])


def _stripped(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines())


def _aligned(column: Column) -> list[str]:
    """Return heading and entries with the same length; marks stand in a place of their own behind the numbers."""
    marks = [f"{entry.sign}{ {BEST_MARK: '*', NOT_WORSE: '~'}.get(entry.mark, '') }" for entry in column.entries]
    slot = max(map(len, marks), default=0)
    slot += slot > 0
    texts = [entry.text for entry in column.entries]
    wide = max(map(len, texts), default=0)
    cells = [f"{text:>{wide}}{f' {mark}' if mark else '':<{slot}}" for text, mark in zip(texts, marks, strict=True)]
    longest = max(len(column.title), wide + slot)
    return [column.title.rjust(longest), *(cell.rjust(longest) for cell in cells)]


def _ruled(lines: Sequence[str]) -> str:
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def markdown_table(found: Comparison) -> str:
    """Return a Markdown table, the best in bold, with findings and notes as paragraphs."""
    marks: Marks = {
        BEST_MARK: lambda text: f"**{text}**",
        NOT_WORSE: lambda text: f"{text} ~",
    }
    rows = _rows(found, _markdown, marks, " {}")
    under = [legend(found, "bold", "~"), *found.findings, *found.notes, tuning_note(found.design)]
    tuned = [[_markdown(text) for text in row] for row in tuning_rows(found.design)]
    parts = [_markdown_rows(rows), *(_markdown(line) for line in under if line)]
    return "\n\n".join([*parts, *([_markdown_rows(tuned)] if tuned else [])])


def _markdown_rows(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{'|'.join(['---', *['---:'] * (len(rows[0]) - 1)])}|", *lines[1:]])


def _markdown(text: str) -> str:
    """Escape what Markdown takes for its own.

    >>> print(_markdown("a_b|c <x> *"))
    a\\_b\\|c \\<x> \\*
    """
    return re.sub(r"([\\|*_`<\[])", r"\\\1", text.replace("\n", " "))


def latex_table(found: Comparison) -> str:
    """Return a LaTeX table (package booktabs), the best bold and what is not worse underlined, notes below."""
    marks: Marks = {
        BEST_MARK: lambda text: rf"\textbf{{{text}}}",
        NOT_WORSE: lambda text: rf"\underline{{{text}}}",
    }
    head, *rows = [rf"    {' & '.join(row)} \\" for row in _rows(found, latex, marks, "$^{{{}}}$")]
    under = [legend(found, "bold", "underlined"), *found.findings, *found.notes, tuning_note(found.design)]
    paragraphs = [f"    {latex(line)}" for line in under if line]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{latex(found.design.name)}}}",
            rf"  \begin{{tabular}}{{l{'r' * len(columns(found))}}}",
            r"    \toprule",
            head,
            r"    \midrule",
            *rows,
            r"    \bottomrule",
            r"  \end{tabular}",
            r"  \par\medskip",
            r"  \begin{minipage}{\linewidth}",
            r"    \footnotesize",
            *paragraphs,
            r"  \end{minipage}",
            r"\end{table}",
        ]
    )


def latex(text: str) -> str:
    """Escape what LaTeX takes for its own.

    >>> print(latex("50 % of a_b & c"))
    50 \\% of a\\_b \\& c
    """
    return "".join(LATEX.get(char, char) for char in " ".join(text.split()))


def _rows(found: Comparison, escape: Callable[[str], str], marks: Marks, sign: str) -> list[list[str]]:
    """Return heading and lines with texts escaped and marked."""
    parts = columns(found)
    rows = [[escape(found.design.compared), *(escape(part.title) for part in parts)]]
    for place, option in enumerate(found.options):
        entries = [part.entries[place] for part in parts]
        texts = [marks.get(each.mark, str)(escape(each.text)) for each in entries]
        signs = [sign.format(each.sign) if each.sign else "" for each in entries]
        rows.append([escape(option), *(f"{text}{mark}" for text, mark in zip(texts, signs, strict=True))])
    return rows
