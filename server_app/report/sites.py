"""Sites in a report: what each measured on its own examples, if it agrees to have it kept, and where its files are.

A real site's label audit and comparisons stay in its own folder. The report says how many there are and how to find
them; what is in them it does not know.
"""

from statistics import median

from server_app.report.reading import RunRecord
from server_app.report.text import View, counted, measure_title, measure_value, unbroken

SHOWN = ("accuracy", "macro-f1", "mean-iou", "loss")
FOLDER = "<state-dir>/{run}/"
FILES = (
    "At each site they are in the state-dir of its node, below a folder with the name of this run: "
    "{folder}, then the site's number, or the word site if it has none."
)


def site_section(record: RunRecord) -> View:
    """Return headings and rows of the table of sites, and the sentences above it; no rows where no site agrees."""
    clients = sorted({client for _, client in record.measured})
    present = {name for values in record.measured.values() for name in values}
    names = [name for name in SHOWN if name in present] + sorted(present - set(SHOWN))
    heads = [text for name in names for text in (measure_title(_own(name)), *_best_heads(record))]
    rows = [[_called(record, client), *_cells(record, client, names)] for client in clients]
    return {"site_heads": heads, "site_rows": rows, "site_notes": [unbroken(note) for note in _notes(record, clients)]}


def _own(name: str) -> str:
    """Return a measure's name without the wording of the server's test data."""
    return "Loss" if name == "loss" else name


def _best_heads(record: RunRecord) -> list[str]:
    return [] if record.best_round is None else [f"in round {record.best_round}"]


def _called(record: RunRecord, client: int) -> str:
    name = next((entry.name for entry in record.registration if entry.client == client), "")
    return f"{client} {name}".strip()


def _cells(record: RunRecord, client: int, names: list[str]) -> list[str]:
    """Return the last value of each measure, and that of the best round if there is one."""
    values = {number: found for (number, one), found in sorted(record.measured.items()) if one == client}
    last, best = values[max(values)], values.get(record.best_round, {}) if record.best_round is not None else None
    cells = []
    for name in names:
        cells.append(measure_value(name, last.get(name)))
        cells += [] if best is None else [measure_value(name, best.get(name))]
    return cells


def _notes(record: RunRecord, clients: list[int]) -> list[str]:
    if not clients:
        return []
    known = len(record.registration) or len(clients)
    last = max(number for number, _ in record.measured)
    in_last = [values for (number, _), values in record.measured.items() if number == last]
    found = [values["accuracy"] for values in in_last if "accuracy" in values]
    spread = ""
    if len(found) > 1:
        low, middle, high = (measure_value("accuracy", value) for value in (min(found), median(found), max(found)))
        spread = f" In round {last} the accuracy was {low} to {high}, {middle} in the middle."
    return [
        f"What {counted(len(clients), 'site')} of {known} measured, each on its own examples and with the labels that "
        f"it was given.{spread} Whoever lies about the model can lie here too."
    ]


def audit_places(record: RunRecord) -> list[str]:
    """Say how many clients have a label audit and where, if nobody knows how good it is; else nothing."""
    if record.audits is None:
        return []
    sites = len(record.registration)
    if record.simulation:
        return [
            f"{counted(record.audits, 'client')} of {sites} made a label audit, in clients/<client>/ of this run. "
            "Which labels are right nobody knows, so this report only counts the lists: winnow audit open shows one."
        ]
    folder = FOLDER.format(run=record.path.name)
    return [
        f"{counted(record.audits, 'site')} of {sites} made a label audit. What is in it no other party knows, so "
        "this report can only count them.",
        FILES.format(folder=folder),
    ]
