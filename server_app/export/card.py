"""Model card: README.md beside exported weights, in Hugging Face's format, in words made from the run's record.

Mitchell et al., "Model cards for model reporting", FAT* 2019. The front matter is YAML; JSON values are valid there.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from server_app.export.usage import usage
from server_app.report.outcome import headline
from server_app.report.reading import RunRecord
from server_app.report.summaries import noisier_half, summarize_clients
from server_app.report.text import counted, measure_title, measure_value, number, percent, single_line
from server_app.storage.audit_scores import nouns
from server_app.storage.class_files import ClassTable
from tasks.inference import IMAGES, TABLE, TEXTS
from tasks.validation_split import VALIDATION

PIPELINES = {IMAGES: "image-classification", TEXTS: "text-classification", TABLE: "tabular-classification"}
SEGMENTATION = "image-segmentation"
METRIC_TYPES = {"accuracy": "accuracy", "macro-f1": "f1", "macro-precision": "precision", "macro-recall": "recall"}
METRIC_TYPES["mean-iou"] = "mean_iou"
UNKNOWN_LICENCE = "unknown"
MOST_CLASSES = 50
Rows = Iterable[Sequence[object]]


def model_card(manifest: Mapping[str, Any], record: RunRecord) -> str:
    """Return the card of an exported model; ``manifest`` is that of the export, with its files and measures."""
    sections = (
        _use(manifest),
        _inputs(manifest),
        _data(manifest, record),
        _noise(record),
        _sites(record),
        _measures(manifest),
        _classes(manifest, record),
        _training(record),
        _limits(manifest, record),
        _licence(manifest),
    )
    title = f"# {_plain(manifest['name'])}\n\n{_opening(manifest, record)}"
    return "\n\n".join([_front_matter(manifest), title, *filter(None, sections)]) + "\n"


def _front_matter(manifest: Mapping[str, Any]) -> str:
    pipeline = _pipeline(manifest)
    lines = [
        f"license: {json.dumps(manifest['licence'] or UNKNOWN_LICENCE)}",
        "library_name: pytorch",
        *([f"pipeline_tag: {pipeline}"] if pipeline else []),
        'tags: ["federated-learning", "noisy-labels", "winnow"]',
    ]
    measures = {name: value for name, value in manifest["metrics"].items() if not name.startswith(VALIDATION)}
    if measures and pipeline:
        results = {
            "task": {"type": pipeline},
            "dataset": {"type": manifest["task"]["name"], "name": f"clean test data of {manifest['task']['name']}"},
            "metrics": [
                {"type": METRIC_TYPES.get(name, name), "name": measure_title(name), "value": value}
                for name, value in measures.items()
            ],
        }
        lines += ["model-index:", "  - " + json.dumps({"name": manifest["name"], "results": [results]})]
    return "\n".join(["---", *lines, "---"])


def _pipeline(manifest: Mapping[str, Any]) -> str:
    kind = (manifest["preprocessing"] or {}).get("kind", "")
    return SEGMENTATION if manifest["labels_pixels"] else PIPELINES.get(kind, "")


def _opening(manifest: Mapping[str, Any], record: RunRecord) -> str:
    at = manifest["checkpoint"]
    why = "the best one on validation data" if at["which"] == "best" else "the last one of its run"
    network = f"`{manifest['model']['name']}` with {manifest['model']['parameters']:,} parameters"
    encoder = manifest["encoder"]
    features = f" on features of the frozen encoder `{encoder['name']}`" if encoder else ""
    many = manifest["model"]["networks"]
    mean = f", {many} networks whose logits are averaged" if many > 1 else ""
    return (
        f"A classifier for the task `{manifest['task']['name']}`: {network}{features}{mean}. It was trained by "
        f"federated learning under possibly wrong labels and is the model after round {at['round']}, {why}. "
        f"{_plain(headline(record))}"
    )


def _use(manifest: Mapping[str, Any]) -> str:
    files = [[f"`{name}`", entry["format"], f"`{entry['sha256']}`"] for name, entry in manifest["files"].items()]
    code = usage(manifest, tuple(entry["format"] for entry in manifest["files"].values()))
    outside = (
        f"Without Winnow, `python use.py FILE...` with this as `use.py`:\n\n```python\n{code}```"
        if code
        else (
            "The files hold weights alone, or an encoder or a task of somebody's own comes first: outside of Winnow, "
            "make the inputs as `manifest.json` says."
        )
    )
    whole = (
        "In whole-model formats (torch-export, torchscript, onnx) the normalisation is inside: they take raw inputs "
        "and return logits and probabilities."
    )
    table = _table(("file", "format", "SHA-256"), files)
    return f"## How to use it\n\n`winnow predict FOLDER FILE...` writes a CSV. {whole}\n\n{table}\n\n{outside}"


def _inputs(manifest: Mapping[str, Any]) -> str:
    how = manifest["preprocessing"]
    shown = (
        "This task does not say how files become inputs."
        if how is None
        else f"```json\n{json.dumps(how, indent=2)}\n```"
    )
    classes = ", ".join(f"`{_plain(name)}`" for name in manifest["classes"])
    return f"## Inputs and classes\n\nClasses, in the order of the outputs: {classes}.\n\n{shown}"


def _data(manifest: Mapping[str, Any], record: RunRecord) -> str:
    known = [entry.examples for entry in record.registration if entry.examples is not None]
    spread = f", {min(known):,} to {max(known):,} each" if len(known) > 1 else ""
    share = record.config.get("evaluate.validation", 0)
    amount = f"{counted(len(record.registration), 'site')} with {sum(known):,} training examples{spread}."
    kind = "The sites were simulated on one machine." if record.simulation else "The examples stayed at the sites."
    held = f"Held out to choose the best round by: {percent(share, 0)} of the training examples." if share else ""
    return f"## Data\n\nTask `{manifest['task']['name']}`, {amount} {kind} {held}".rstrip()


def _noise(record: RunRecord) -> str:
    rates = [(entry.noise_rate, entry.examples) for entry in record.registration]
    known = [(rate, count) for rate, count in rates if rate is not None and count]
    found = []
    if known:
        overall = sum(rate * count for rate, count in known) / sum(count for _, count in known)
        low, high = min(rate for rate, _ in known), max(rate for rate, _ in known)
        name = record.config.get("noise.name", "auto")
        found.append(
            f"{percent(overall)} of the training labels were wrong, {percent(low, 0)} to {percent(high, 0)} at a site "
            f"(noise `{_plain(str(name))}`)."
        )
    else:
        found.append("How many labels are wrong is not known here: each site has its own list of suspicious labels.")
    if (scores := record.audit).clients:
        of, _ = nouns(scores)
        auc, top = scores.mean("auc"), scores.mean("precision_at_wrong")
        found.append(
            f"The label audit, a list of suspicious {of} for each site, ranked a wrong one before a right one with "
            f"probability {number(auc)} (AUC); {percent(top)} of its first lines, as many as there are wrong {of}, "
            "were wrong."
        )
    return f"## Noise found in the labels\n\n{' '.join(found)}"


def _sites(record: RunRecord) -> str:
    clients = summarize_clients(record)
    half = noisier_half(clients)
    quarantined = [str(client.client) for client in clients if client.quarantines]
    words = [f"{counted(len(clients), 'site')} took part."]
    if half:
        words.append(
            f"The half with more wrong labels held {percent(half.example_share, 0)} of the examples and had "
            f"{percent(half.weight_share, 0)} of the weight in the model."
        )
    words.append(
        f"Replies were set aside of sites {', '.join(quarantined)}." if quarantined else "No reply was set aside."
    )
    if any(client.attacker for client in clients):
        words.append(f"{counted(sum(client.attacker is True for client in clients), 'site')} were hostile on purpose.")
    return f"## Sites\n\n{' '.join(words)}"


def _measures(manifest: Mapping[str, Any]) -> str:
    if not manifest["metrics"]:
        return "## Measures\n\nNothing was measured after this round: there were neither test nor validation data."
    rows = [(measure_title(name), measure_value(name, value)) for name, value in manifest["metrics"].items()]
    note = (
        "Test data chose nothing. Where validation measures are listed, they chose the round, so they flatter a little."
    )
    return (
        f"## Measures\n\nAfter round {manifest['checkpoint']['round']}. {note}\n\n{_table(('measure', 'value'), rows)}"
    )


def _classes(manifest: Mapping[str, Any], record: RunRecord) -> str:
    table = record.best_classes if manifest["checkpoint"]["which"] == "best" else record.last_classes
    if table is None or table.round != manifest["checkpoint"]["round"]:
        return ""
    worst = sorted(table.rows, key=lambda row: 2.0 if row.recall is None else row.recall)
    rows = [
        (_plain(row.name), row.support, percent(row.recall), percent(row.precision), percent(row.f1))
        for row in worst[:MOST_CLASSES]
    ]
    heads = ("class", "pixels" if manifest["labels_pixels"] else "test examples", "recall", "precision", "F1")
    return f"## By class\n\n{_few(table)}The class of which it finds the least comes first.\n\n{_table(heads, rows)}"


def _few(table: ClassTable) -> str:
    return f"The {MOST_CLASSES} of {len(table.rows)} with the lowest recall. " if len(table.rows) > MOST_CLASSES else ""


def _training(record: RunRecord) -> str:
    keys: tuple[str, ...] = (
        "loss.name",
        "method.name",
        "strategy.name",
        "strategy.aggregator",
        "train.optimizer",
        "train.learning-rate",
    )
    keys += ("train.epochs", "train.batch-size", "partition.name", "seed")
    rows = [(f"`{key}`", _plain(str(record.config[key]))) for key in keys if key in record.config]
    versions = ", ".join(f"{name} {text}" for name, text in record.versions.items() if text and name != "platform")
    command = f"```sh\n{record.command}\n```\n\n" if record.command and "`" not in record.command else ""
    table = _table(("setting", "value"), rows)
    when = f"Started {record.started or 'at an unknown time'}, with {_plain(versions)}."
    return f"## How it was trained\n\n{command}{table}\n\n{when}"


def _limits(manifest: Mapping[str, Any], record: RunRecord) -> str:
    examples = record.best_classes or record.last_classes
    tested = sum(row.support for row in examples.rows) if examples else 0
    small = f"It was tested on {tested:,} {'pixels' if manifest['labels_pixels'] else 'examples'}. " if tested else ""
    return (
        f"## Limits\n\n{small}It knows the classes above and answers with one of them for anything it is shown. Its "
        "probabilities are not calibrated unless the measures say so. It was measured on data like that of its sites; "
        "other devices, languages or populations may give other results. One run with one seed says little about the "
        "method; it is not a medical device or a basis for decisions about people without a validation of its own."
    )


def _licence(manifest: Mapping[str, Any]) -> str:
    encoder = manifest["encoder"]
    besides = f" The encoder `{encoder['name']}` has a licence of its own." if encoder else ""
    stated = manifest["licence"]
    words = f"{_plain(stated)}." if stated else "Not stated: ask whoever gave you this model before you use it."
    return f"## Licence\n\n{words}{besides}"


def _table(heads: Sequence[str], rows: Rows) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _plain(text: str) -> str:
    """Return a text of anybody's as it reads in Markdown: one line that opens neither code, tables, links nor HTML."""
    signs = {"|": "\\|", "`": "'", "<": "&lt;", "[": "\\[", "*": "\\*"}
    return "".join(signs.get(sign, sign) for sign in single_line(text, 2000))
