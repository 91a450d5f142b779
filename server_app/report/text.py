"""Text of a report: how numbers, durations and measures are written for people."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from server_app.report.reading import RunRecord
from tasks.validation_split import VALIDATION

View = dict[str, Any]
"""What a template shows of a part of a page: texts, numbers, and lists of such dictionaries."""
NONE = "-"

# The usual measures in the order in which they are shown; a task may record others.
TITLES = {
    "accuracy": "Accuracy",
    "macro-f1": "Macro-F1",
    "balanced-accuracy": "Balanced accuracy",
    "macro-precision": "Macro-precision",
    "macro-recall": "Macro-recall",
    "dice": "Dice",
    "dice-per-image": "Dice per image",
    "mean-iou": "Mean IoU",
    "calibration-error": "Calibration error",
    "backdoor_success": "Backdoor success",
    "loss": "Test loss",
    "train_loss": "Training loss",
    "selected": "Clients asked",
    "replies": "Replies used",
    "quarantined": "Quarantined",
    "learning_rate": "Learning rate",
    "seconds": "Time (s)",
}
SHARES = (
    "accuracy",
    "macro-f1",
    "balanced-accuracy",
    "macro-precision",
    "macro-recall",
    "dice",
    "dice-per-image",
    "mean-iou",
    "calibration-error",
    "backdoor-success",
)


def percent(share: float | None, digits: int = 1) -> str:
    """Write a share in [0, 1] as a percentage.

    >>> percent(0.9137)
    '91.4 %'
    """
    return NONE if share is None else f"{100 * share:.{digits}f} %"


def points(difference: float | None) -> str:
    """Write the difference of two shares in percentage points, always with its sign.

    >>> points(-0.0321)
    '-3.2'
    """
    return NONE if difference is None else f"{100 * difference:+.1f}"


def number(value: float | None) -> str:
    """Write a number with four significant digits, whole numbers in full.

    >>> number(0.123456), number(71.0), number(None)
    ('0.1235', '71', '-')
    """
    if value is None:
        return NONE
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.4g}"


def counted(amount: float, singular: str) -> str:
    """Write an amount of something.

    >>> counted(1, "reply"), counted(3, "reply"), counted(0, "client")
    ('1 reply', '3 replies', '0 clients')
    """
    plural = singular[:-1] + "ies" if singular.endswith("y") else singular + "s"
    return f"{amount:.0f} {singular if amount == 1 else plural}"


def duration(seconds: float) -> str:
    """Write a duration with its two leading units.

    >>> duration(4.26), duration(75), duration(7380)
    ('4.3 s', '1 min 15 s', '2 h 03 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def roughly(seconds: float) -> str:
    """Write an estimated duration, no finer than it is known.

    >>> roughly(4.26), roughly(423), roughly(7380)
    ('4 s', '7 min', '2 h 03 min')
    """
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3570 else duration(seconds)


def moment(iso: str) -> str:
    """Write an ISO 8601 time without its fraction of a second, with its zone; a text that is none is returned as it is.

    >>> moment("2026-11-29T22:50:44+01:00"), moment("2026-11-29T22:50:44")
    ('2026-11-29 22:50:44 UTC+01:00', '2026-11-29 22:50:44')
    """
    try:
        return datetime.fromisoformat(iso).strftime("%Y-%m-%d %H:%M:%S %Z").rstrip()
    except ValueError:
        return iso


def elapsed(started: str, finished: str) -> float | None:
    """Return the seconds between two ISO 8601 times; None if one is no such time, or has no zone and the other has."""
    try:
        return (datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds()
    except (TypeError, ValueError):
        return None


def measure_title(name: str) -> str:
    """Return the heading of a measure.

    >>> measure_title("macro-f1"), measure_title("validation_macro-f1"), measure_title("validation_loss")
    ('Macro-F1', 'Validation macro-F1', 'Validation loss')
    """
    if name.startswith(VALIDATION):
        plain = name.removeprefix(VALIDATION)
        title = "loss" if plain == "loss" else measure_title(plain)
        return f"Validation {title[0].lower()}{title[1:]}"
    return TITLES.get(name) or name.replace("_", " ").replace("-", " ").capitalize()


def measure_value(name: str, amount: float | None) -> str:
    """Write one value of the measure ``name``: shares in percent, losses with three decimals, counts in full."""
    if amount is None:
        return NONE
    if is_share(name):
        return percent(amount)
    if name.endswith("loss"):
        return f"{amount:.3f}" if abs(amount) < 1e4 else f"{amount:.3g}"
    return f"{amount:.2f}" if name == "seconds" else number(amount)


def is_share(name: str) -> bool:
    """Tell whether a measure is a share in [0, 1], on whichever data it was taken."""
    return name.removeprefix("clients_").removeprefix(VALIDATION).replace("_", "-") in SHARES


def measure_names(record: RunRecord) -> list[str]:
    """Return the measures that a run recorded: the usual ones in a fixed order, then all others by name.

    Those on validation data follow those on test data.
    """
    recorded = {name for entry in record.rounds for name in entry.values}
    usual, of_model = list(TITLES), list(TITLES).index("loss") + 1
    validation = [f"{VALIDATION}{name}" for name in usual[:of_model]]
    order = usual[:of_model] + validation + usual[of_model:]
    return [name for name in order if name in recorded] + sorted(recorded - set(order))


def single_line(text: str, longest: int = 300) -> str:
    """Return a text as one line of printable characters, shortened to ``longest`` characters.

    What is not printable, such as a character that turns the reading direction around, becomes U+FFFD.

    >>> single_line("  two\\n lines")
    'two lines'
    """
    line = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))
    return line if len(line) <= longest else line[: longest - 1] + "…"


def enumeration(items: Iterable[object], longest: int) -> str:
    """Return the items separated by commas, with an ellipsis after ``longest`` of them."""
    texts = [str(item) for item in items]
    return ", ".join(texts[:longest] + ["…"] * (len(texts) > longest))


def unbroken(text: str) -> str:
    """Keep numbers and their percent signs on one line."""
    return text.replace(" %", "\u00a0%")
