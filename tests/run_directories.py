"""Run directories for the tests of the report, written with the loop's own writer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from server_app.storage.run_directory import CLIENTS, CONFIG, METRICS, RunDirectory

Lines = Sequence[Mapping[str, Any]]


def accuracies(*values: float | None) -> list[dict[str, Any]]:
    """Return rounds 0, 1, ... with these accuracies."""
    return [{"round": number, "accuracy": value} for number, value in enumerate(values)]


def validated(lines: Lines, *values: float | None) -> list[dict[str, Any]]:
    """Return the lines with these validation accuracies."""
    return [{**line, "validation_accuracy": value} for line, value in zip(lines, values, strict=True)]


def write_run(path: Path, metrics: Lines = (), clients: Lines = (), rounds: int = 2, **status: Any) -> Path:
    """Write a completed simulation of ``rounds`` planned rounds; ``status`` overrides fields of status.json."""
    path.mkdir(parents=True, exist_ok=True)
    directory = RunDirectory(path)
    (path / CONFIG).write_text(f'seed = 1\nnum-server-rounds = {rounds}\n[loss]\nname = "nce+rce"\n')
    directory.write_versions("cpu")
    directory.append(METRICS, metrics)
    directory.append(CLIENTS, clients)
    usual: dict[str, Any] = {
        "status": "completed",
        "reason": "",
        "label": "winnow",
        "command": "winnow run seed=1",
        "simulation": True,
    }
    played = max((line["round"] for line in metrics), default=0)
    directory.update_status(**{**usual, "rounds_done": played, "best_round": None, **status})
    return path


CLIENT_LINES: list[dict[str, Any]] = [
    {"round": 0, "client": 1, "examples": 30, "noise_rate": 0.8, "classes": [30, 0]},
    {"round": 0, "client": 0, "examples": 10, "noise_rate": 0.0, "classes": [4, 6]},
    {"round": 1, "client": 0, "examples": 10, "weight": 0.75, "quarantine": None},
    {"round": 1, "client": 1, "examples": 30, "weight": 0.25, "quarantine": None},
    {"round": 2, "client": 0, "examples": 10, "weight": 1.0, "quarantine": None},
    {"round": 2, "client": 1, "examples": 30, "weight": None, "quarantine": "NaN"},
]
