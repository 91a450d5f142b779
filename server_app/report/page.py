"""Page of a report: one HTML file that needs nothing else, no font and no network; and what it shows.

The sections are plain texts and numbers for the templates. One small script sorts tables; without it all is there.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from server_app.report.charts import (
    accuracy_chart,
    group_chart,
    label_chart,
    loss_chart,
    standing_chart,
    trust_chart,
)
from server_app.report.classes import class_section, confusion_chart
from server_app.report.description import description
from server_app.report.drawing import Chart
from server_app.report.labels import audit_section, doubt_section, group_losses, role_section, standings
from server_app.report.outcome import headline, interval_in_words, wrong_share
from server_app.report.reading import RunRecord, read_run
from server_app.report.results import LAST_ROUNDS, result, result_section, write_results
from server_app.report.sites import site_section
from server_app.report.summaries import ClientSummary, Quarantine, equal_weight, noisier_half, summarize_clients
from server_app.report.text import (
    NONE,
    View,
    counted,
    duration,
    enumeration,
    measure_names,
    measure_title,
    measure_value,
    moment,
    number,
    percent,
    single_line,
    unbroken,
)
from server_app.report.weight_map import weight_map
from tasks.config import DEFAULTS
from tasks.files import replace_file

REPORT = "report.html"
MOST_REASONS, MOST_ROUNDS = 4, 6
WRONG_NOTES = {
    "known": "of all training labels, by the simulation",
    "estimated": "of all labels, by the strategy's estimate",
}
CORRECTED = (
    "Clients taken for noisy did not train on their given labels alone, so a large weight is no trust in these. An "
    "aggregator such as the geometric median gives more weight to updates near its middle, and who corrects labels "
    "moves little."
)
QUARANTINE = "A quarantined reply is one that was set aside in a round, with the reason; it did not touch the model."
TEMPLATE_FOLDER, SORTING = Path(__file__).with_name("templates"), "sort.js.md"
TEMPLATES = Environment(
    loader=FileSystemLoader(TEMPLATE_FOLDER),
    autoescape=True,  # for every file: jinja2 chooses by endings, and these end in .md for the sake of Flower's bundle
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_report(run_dir: str | Path) -> Path:
    """Write ``report.html`` and ``results.json`` into a run directory and return the path of the first.

    A crash leaves the old report or the new one.

    Raises
    ------
    ReportError
        If the directory cannot be read.
    """
    return write_page(read_run(run_dir))


def write_page(record: RunRecord) -> Path:
    """Write what :func:`write_report` does for a run that was read already."""
    path = record.path / REPORT
    replace_file(path, render(record).encode(errors="replace"))
    write_results(record)
    return path


def render(record: RunRecord) -> str:
    """Return the report of a run as an HTML page."""
    clients = summarize_clients(record)
    charts, sorting = _charts(record, clients), (TEMPLATE_FOLDER / SORTING).read_text(encoding="utf-8")
    return render_page(
        "report",
        record=record,
        headline=unbroken(headline(record)),
        what=[unbroken(sentence) for sentence in description(record)],
        sorting=sorting,
        sorting_digest=base64.b64encode(hashlib.sha256(sorting.encode()).digest()).decode(),
        pictures=bool(record.doubts or charts["confusion"] or charts["weights"]),
        whole_reason=record.reason if single_line(record.reason) != record.reason else "",
        figures=key_figures(record),
        settings=settings(record.config),
        facts=provenance(record),
        **charts,
        **result_section(record),
        **class_section(record),
        **client_section(record, clients),
        **site_section(record),
        **role_section(record),
        **audit_section(record),
        **doubt_section(record),
        **round_section(record),
    )


def render_page(template: str, **values: Any) -> str:
    """Return the page that the template ``templates/<template>.html.md`` makes of these values."""
    return TEMPLATES.get_template(f"{template}.html.md").render(values)


def _charts(record: RunRecord, clients: list[ClientSummary]) -> View:
    """Return the charts that there are values for; without matplotlib, what to install."""
    try:
        return {
            "progress": _drawn(accuracy_chart(record), loss_chart(record)),
            "confusion": confusion_chart(record),
            "trust": trust_chart(clients, equal_weight(record)),
            "weights": weight_map(record),
            "role_charts": _drawn(standing_chart(standings(record)), group_chart(group_losses(record))),
            "audit_charts": _drawn(label_chart(record.audit)),
            "no_charts": "",
        }
    except ImportError as error:
        missing = f"Install matplotlib for charts, with  pip install -e '.[report]'  in the checkout ({error})."
        return {
            "progress": [],
            "confusion": None,
            "trust": None,
            "weights": None,
            "role_charts": [],
            "audit_charts": [],
            "no_charts": missing,
        }


def _drawn(*charts: Chart | None) -> list[Chart]:
    return [chart for chart in charts if chart]


def key_figures(record: RunRecord) -> list[View]:
    """Return the key figures: measures that were recorded, then rounds, quarantined replies and time."""
    figures: list[tuple[str, str, str]] = []
    best, chosen = record.at_best("accuracy"), f"test accuracy after round {record.best_round}"
    if record.series("accuracy"):
        figures.append(("Accuracy", percent(record.final("accuracy")), _accuracy_note(record)))
    elif record.series("validation_accuracy"):
        figures.append(("Validation accuracy", percent(record.final("validation_accuracy")), "of what is held out"))
    if best is not None:
        figures.append(("Best on validation", percent(best), chosen))
    recent = result(record, "accuracy")
    if recent and len(recent.rounds) == LAST_ROUNDS:
        figures.append(("Last ten rounds", percent(recent.mean), "mean accuracy, as papers report it"))
    if record.series("dice"):
        figures.append(("Dice", percent(record.final("dice")), "overlap of the foreground, all pixels"))
    if record.series("macro-f1"):
        figures.append(("Macro-F1", percent(record.final("macro-f1")), "all classes count the same"))
    if record.series("backdoor_success"):
        success = percent(record.final("backdoor_success"))
        figures.append(("Backdoor success", success, "of other classes with the attackers' patch"))
    if record.series("train_wire_error"):
        figures.append(("Wire error", percent(record.final("train_wire_error"), 3), "of an update, by half precision"))
    if found := wrong_share(record):
        figures.append(("Wrong labels", percent(found[0]), WRONG_NOTES[found[1]]))
    if record.rounds_done:
        asked = number(record.total("selected"))
        figures.append(("Rounds", str(record.rounds_done), f"of {record.planned_rounds or record.rounds_done}"))
        figures.append(("Quarantined", f"{record.total('quarantined'):.0f}", f"of {asked} replies asked for"))
        figures.append(("Time", duration(record.total("seconds")), _time_note(record)))
    return [{"name": name, "text": unbroken(text), "note": unbroken(note)} for name, text, note in figures]


def _accuracy_note(record: RunRecord) -> str:
    """Say of how many test examples an accuracy is, and how sure it is."""
    interval = interval_in_words(record, record.final("accuracy"))
    return f"of {record.tested:,} clean test examples; {interval}" if interval else "of clean test data is right"


def _time_note(record: RunRecord) -> str:
    """Say what a round took, and what the start took that is not among the rounds."""
    usual, start = record.usual_seconds(), record.start_seconds
    each = "" if usual is None else f", {duration(usual)} each (median)"
    return f"all rounds{each}" + ("" if start is None else f"; before them {duration(start)} for the start")


def client_section(record: RunRecord, clients: list[ClientSummary]) -> View:
    """Return the rows of the client table and the sentences about weights above it."""
    highest = max((client.mean_weight or 0.0 for client in clients), default=0.0)
    return {
        "clients": [_client(client, highest) for client in clients],
        "has_classes": any(client.class_counts for client in clients),
        "has_noise": any(client.noise_rate is not None for client in clients),
        "has_weights": any(client.mean_weight is not None for client in clients),
        "has_distances": any(client.distance is not None for client in clients),
        "notes": [
            unbroken(note)
            for note in (_hostile(record, clients), _trust(clients), _corrected(record), _weights(record), QUARANTINE)
            if note
        ],
    }


def _client(client: ClientSummary, highest_weight: float) -> View:
    held = client.class_counts and f"{sum(count > 0 for count in client.class_counts)} of {len(client.class_counts)}"
    bar = None if client.mean_weight is None or not highest_weight else client.mean_weight / highest_weight
    return {
        "client": client.client,
        "name": client.name,
        "attacker": client.attacker,
        "examples": number(client.examples),
        "classes": held or NONE,
        "noise_bar": client.noise_rate,
        "noise": percent(client.noise_rate),
        "weight_bar": bar,
        "mean_weight": percent(client.mean_weight, 2),
        "last_weight": percent(client.last_weight, 2),
        "distance": number(client.distance),
        "times_asked": client.times_asked,
        "quarantines": [_quarantine(item) for item in client.quarantines[:MOST_REASONS]],
        "more_quarantines": counted(max(0, len(client.quarantines) - MOST_REASONS), "other reason"),
        "has_more": len(client.quarantines) > MOST_REASONS,
    }


def _quarantine(quarantine: Quarantine) -> View:
    noun = "round" if len(quarantine.rounds) == 1 else f"{len(quarantine.rounds)} rounds:"
    return {
        "reason": single_line(quarantine.reason, 200),
        "rounds": f"{noun} {enumeration(quarantine.rounds, MOST_ROUNDS)}",
    }


def _hostile(record: RunRecord, clients: list[ClientSummary]) -> str:
    """Say which attack was made by how many clients, from when on, and how much weight they received."""
    hostile = [client for client in clients if client.attacker]
    if not hostile:
        return ""
    name, start = record.config.get("attack.name", "unknown"), record.config.get("attack.start-round", 1)
    weights = sum(client.mean_weight or 0.0 for client in clients)
    received = percent(sum(client.mean_weight or 0.0 for client in hostile) / weights, 0) if weights else ""
    return (
        f"{len(hostile)} of {counted(len(clients), 'client')} {'is' if len(hostile) == 1 else 'are'} hostile "
        f"(attack {name} from round {start})" + (f" and received {received} of the weight." if received else ".")
    )


def _trust(clients: list[ClientSummary]) -> str:
    half = noisier_half(clients)
    if half is None:
        return ""
    return (
        f"The {half.clients} clients with the most wrong labels have {percent(half.example_share, 0)} "
        f"of the examples and received {percent(half.weight_share, 0)} of the weight."
    )


def _corrected(record: RunRecord) -> str:
    """Say how to read the weights if some clients learned their labels."""
    if not any(entry.role == "noisy" for entry in record.client_rounds):
        return ""
    from client_app.methods import METHODS  # slow to import, and most runs have no roles

    built_in = {entry.name: entry.factory for entry in METHODS.entries()}  # a report imports no plug-in
    method = built_in.get(str(record.config.get("method.name")))
    return CORRECTED if getattr(method, "corrects_labels", False) else ""


def _weights(record: RunRecord) -> str:
    equal = equal_weight(record)
    if equal is not None:
        return (
            "Weight: how much of the new model comes from the client, on average over the rounds in which it was "
            f"asked. If all had the same, it would be {percent(equal, 2)}."
        )
    return "The aggregator of this run gives no weights to whole clients." if record.client_rounds else ""


def round_section(record: RunRecord) -> View:
    """Return headings and rows of the table of rounds."""
    names = measure_names(record)
    rows = [
        {
            "number": entry.number,
            "skipped": entry.skipped,
            "best": entry.number == record.best_round,
            "cells": [measure_value(name, entry.values.get(name)) for name in names],
        }
        for entry in record.rounds
    ]
    return {"columns": [measure_title(name) for name in names], "rounds": rows}


def settings(config: Mapping[str, Any]) -> list[View]:
    """Return every setting as it stands in a configuration file, and whether it differs from its default."""
    return [
        {
            "key": key,
            "text": json.dumps(setting, ensure_ascii=False, default=str),
            "changed": DEFAULTS.get(key) != setting,
        }
        for key, setting in config.items()
    ]


def provenance(record: RunRecord) -> list[tuple[str, str]]:
    """Return where and when the run took place, and the versions it used."""
    places = {True: "simulated on one machine", False: "separate processes or machines", None: ""}
    known = {
        "Run directory": str(record.path),
        "Started": moment(record.started),
        "Finished": moment(record.finished),
        "Clients": places[record.simulation],
        **record.versions,
    }
    return [(name, text) for name, text in known.items() if text]
