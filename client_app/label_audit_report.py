"""Report of a label audit in words, for the site's own eyes: what to be wary of first, then what there is to do.

It is Markdown that reads well as plain text, beside the list and its summary in the client's own folder.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from client_app.label_quality import CAUTION, Audit

REPORT = "label-audit-report.md"
MOST = 0.8
"""Share of the expected wrong labels for which the number of lines to read is said."""
WEAK = 0.7
"""A model that seems right on fewer of the examples is too weak to judge their labels."""
WIDE = 0.25
"""An interval of the noise rate that is wider than this says little."""
FEW = 50
"""With fewer examples an estimate says little about them."""
ASSUMED = (
    "This takes for granted that labels are wrong by chance, whatever the example shows. Where people err alike on the "
    "same kind of examples, the model learns their mistakes, nothing here can tell these from right labels, and more "
    "are wrong than the interval says: let a second person label a few examples at random to find out."
)
WORSE, WORSE_BY = 2.0, 5.0
"""A class is much worse if its share of wrong labels is so many times that of the others, by so many labels."""


def audit_warnings(audit: Audit, class_names: Sequence[str]) -> list[str]:
    """Return what the reader of the list must know before anything else, a sentence or two each; none is best."""
    estimate, found = audit.estimate, list[str]()
    if estimate.accuracy < WEAK:
        found.append(
            f"The model is too weak to judge these labels: it seems to be right on {_percent(estimate.accuracy)} of "
            f"the {len(audit)} examples. Use the order of the list, not its suggestions, and train longer or on "
            "features of a pretrained network."
        )
    if estimate.high - estimate.low > WIDE:
        found.append(
            f"How many labels are wrong can hardly be said: between {_percent(estimate.low)} and "
            f"{_percent(estimate.high)} of them."
        )
    if audit.unseen is not None and audit.unseen.at_least() > estimate.high:
        unseen = audit.unseen
        found.append(
            f"The model has learned labels by heart, so more may be wrong than is said here: of {unseen.examples} "
            f"labels that were held out it contradicts {_percent(unseen.contradicted / unseen.examples)}. Train for "
            "fewer rounds, or on features of a pretrained network."
        )
    if len(audit) < FEW:
        found.append(f"There are only {len(audit)} examples, too few to learn what kind of mistakes were made.")
    return found + [_worse(class_names[k], rate, rest) for k, rate, rest in worse_classes(audit)]


def worse_classes(audit: Audit) -> list[tuple[int, float, float]]:
    """Return (class, its expected share of wrong labels, that of all others) of the classes that are much worse."""
    rows, found = audit.by_class(), []
    examples, expected = sum(row[1] for row in rows), sum(row[2] for row in rows)
    for k, count, wrong, _ in rows:
        rest = (expected - wrong) / (examples - count) if examples > count else None
        if rest is not None and wrong / count > WORSE * rest and wrong - rest * count > WORSE_BY:
            found.append((k, wrong / count, rest))
    return found


def judge_in_words(facts: Mapping[str, Any]) -> str:
    """Say of which round the model is that judged, where that is not the last one; else an empty text."""
    chosen, last = facts.get("model_round"), facts.get("round")
    if chosen is None or last is None or chosen == last:
        return ""
    return f"The model of round {chosen} of {last} judged, which the run keeps as its best."


def audit_report(audit: Audit, class_names: Sequence[str], list_name: str, judge: str = "") -> str:
    """Return the report of an audit whose list is in the file ``list_name``: warnings, what to do, classes, pairs.

    ``judge`` says which model made it, where that needs saying.
    """
    estimate = audit.estimate
    pairs = [(given, other, count) for given, other, count in audit.confusion() if given != other]
    return "\n".join(
        [
            "# Label audit",
            "",
            *(f"**Warning.** {text}\n" for text in audit_warnings(audit, class_names)),
            f"About {_percent(estimate.rate)} of the {len(audit)} labels are wrong; with 90 % confidence between "
            f"{_percent(estimate.low)} and {_percent(estimate.high)}. The model seems to be right on "
            f"{_percent(estimate.accuracy)} of the examples. {ASSUMED}",
            "",
            *([judge, ""] if judge else []),
            f"Read `{list_name}` from the top. {_effort(audit)}",
            "",
            "| given label | examples | expected wrong | to look at first |",
            "|---|---|---|---|",
            *(
                f"| {_cell(class_names[k])} | {count} | {expected:.1f} ({_percent(expected / count)}) | {doubted} |"
                for k, count, expected, doubted in audit.by_class()
            ),
            "",
            *_pair_lines(pairs, class_names),
            CAUTION,
            "",
        ]
    )


def _effort(audit: Audit) -> str:
    if not audit.doubted:
        return "No label is to be looked at first."
    most, lines = f"{MOST:.0%}".replace("%", " %"), audit.lines_to_find(MOST)
    return (
        f"Look at the first {audit.doubted} labels first, about as many as are wrong; for {audit.suggestions} of them, "
        f"which are more probably wrong than right, another one is suggested. The first {lines} lines hold {most} of "
        "the wrong labels to be expected."
    )


def _pair_lines(pairs: list[tuple[int, int, int]], class_names: Sequence[str]) -> list[str]:
    if not pairs:
        return []
    rows = [f"| {_cell(class_names[given])} | {_cell(class_names[other])} | {count} |" for given, other, count in pairs]
    return ["| given label | seems to be | labels |", "|---|---|---|", *rows, ""]


def _worse(name: str, rate: float, rest: float) -> str:
    return (
        f"The class {name!r} is much worse: {_percent(rate)} of its labels seem wrong, of the others' {_percent(rest)}."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _cell(text: str) -> str:
    """Return a class name as the cell of a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
