"""Description of a run in words: what was trained where, by which method, from which labels, when and by which code.

It is made of the run's settings and its status alone, so no task and no plug-in is loaded.
"""

from typing import Any

from server_app.report.reading import RunRecord
from server_app.report.text import counted, duration, elapsed, moment, single_line
from tasks.config import DEFAULTS
from tasks.settings import AUTO

COMMIT = 10
"""Digits of a git commit that are shown; versions.json has all."""


def description(record: RunRecord) -> list[str]:
    """Return the sentences, each of which needs no other one."""
    if not record.config:
        return []
    found = (_learned(record), _trained(record), _labels(record), _when(record), _code(record))
    return [sentence for sentence in found if sentence]


def _learned(record: RunRecord) -> str:
    """Say who learns what with which model, and how the examples are divided."""
    count = len(record.registration) or _of(record, "federation.num-clients")
    who = {True: f"{counted(count, 'simulated client')}", False: counted(count, "site"), None: counted(count, "client")}
    encoder = _of(record, "task.encoder")
    seen = f" through the encoder {encoder}" if encoder else ""
    parts = [f"{who[record.simulation]} learned the task {_choice(record, 'task')}{seen} with {_model(record)}"]
    if record.simulation:
        parts.append(f"its training examples divided among them by the partition {_choice(record, 'partition')}")
    return ", ".join(parts) + "."


def _model(record: RunRecord) -> str:
    name, args = _choice(record, "model"), single_line(str(_of(record, "model.args")), 160)
    if record.model_in_words:
        return f"the model {single_line(record.model_in_words)}{f' ({args})' if args else ''}"
    return "the task's own model" if name == AUTO else f"the model {name}"


def _trained(record: RunRecord) -> str:
    """Say by which method, loss and aggregation rule."""
    strategy, aggregator = _choice(record, "strategy"), _choice(record, "strategy", "aggregator")
    attack = _of(record, "attack.name")
    hostile = f" The attack {_choice(record, 'attack')} is tried on it." if attack not in ("", "none") else ""
    before, optimizer = _of(record, "strategy.pre-aggregators"), _choice(record, "strategy", "server-optimizer")
    more = f" after {single_line(str(before), 160)}" if before else ""
    more += f" and the server optimizer {optimizer}" if optimizer != "none" else ""
    passes = _of(record, "loss.warmup")
    warmed = f", warmed up with cross-entropy over {passes:g} passes" if passes else ""
    return (
        f"They trained by the method {_choice(record, 'method')} with the loss {_choice(record, 'loss')}{warmed}; "
        f"the server combined their models by the strategy {strategy} with the aggregator {aggregator}{more}.{hostile}"
    )


def _labels(record: RunRecord) -> str:
    """Say which labels were made wrong; of a run that did not record it, which noise was chosen."""
    if record.labels_in_words or not record.simulation:
        return single_line(record.labels_in_words)
    return f"Label noise: {_choice(record, 'noise')}, rates {_choice(record, 'noise', 'rates')}."


def _when(record: RunRecord) -> str:
    took = elapsed(record.started, record.finished)
    lasted = "" if took is None or took < 0 else f" and took {duration(took)}"
    begun = f", started {moment(record.started)}{lasted}" if record.started else ""
    return f"Seed {_of(record, 'seed')}{begun}."


def _code(record: RunRecord) -> str:
    version, commit = record.versions.get("winnow", ""), record.versions.get("git", "")
    parts = [f"version {version}" if version else "", f"git commit {commit[:COMMIT]}" if commit else ""]
    known = ", ".join(part for part in parts if part)
    device = record.versions.get("device", "")
    return f"Winnow {known}{f', on {device}' if device else ''}." if known else ""


def _choice(record: RunRecord, group: str, key: str = "name") -> str:
    """Return what was chosen, with its arguments, such as ``dirichlet (alpha = 1.0)``."""
    name, args = _of(record, f"{group}.{key}"), _of(record, f"{group}.{'args' if key == 'name' else f'{key}-args'}")
    text = single_line(str(args), 160)
    return f"{single_line(str(name), 80)} ({text})" if text else single_line(str(name), 80)


def _of(record: RunRecord, key: str) -> Any:
    return record.config.get(key, DEFAULTS.get(key, ""))
