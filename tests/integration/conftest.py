"""One run of the real ServerApp code with the real ClientApp, in this process."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from client_app.app import app as client_app
from server_app.run import run_training
from server_app.validation.config import check
from tasks.config import DEFAULTS
from tasks.protocol import Mode
from tests.integration.local_grid import LocalGrid, Tamper

QUICK = {
    "num-server-rounds": 3,
    "federation.num-clients": 4,
    "federation.round-timeout": 0.2,
    "partition.args": "alpha = 1.0, min_size = 30",
    "train.epochs": 1,
    "train.batch-size": 64,
    "train.threads": 1,
    "train.device": "cpu",
    "model.name": "mlp",
}

Play = Callable[..., "Played"]


class Played:
    """A run directory and what is in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The lines of a .jsonl file."""
        return [json.loads(line) for line in (self.path / name).read_text().splitlines()]

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """metrics.jsonl without the times, which differ between equal runs."""
        return [{key: value for key, value in line.items() if key != "seconds"} for line in self.lines("metrics.jsonl")]

    @property
    def status(self) -> dict[str, Any]:
        """status.json."""
        return dict(json.loads((self.path / "status.json").read_text()))

    def weights(self) -> bytes:
        """The last checkpoint."""
        return (self.path / "checkpoints" / "last.safetensors").read_bytes()


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Play one run with settings that differ from ``QUICK``; ``tamper`` may change replies."""
    return player(tmp_path, monkeypatch)


def player(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Return what plays runs in this process, with their directories in ``folder``.

    The report's charts are laid out and not drawn, which takes half of a short run: unit tests draw them.
    """
    monkeypatch.setattr(Figure, "savefig", lambda _, target, **__: target.write(b"<svg></svg>"))

    def go(tamper: Tamper | None = None, **changes: Any) -> Played:
        given = {key.replace("__", ".").replace("_", "-"): value for key, value in changes.items()}
        flat = {**DEFAULTS, **QUICK, "run.output-dir": str(folder), **given}
        settings = check(flat)
        monkeypatch.setattr("client_app.node.detect_mode", lambda: Mode.SIMULATION)
        grid = LocalGrid(client_app, flat, settings.federation.num_clients)
        if tamper:
            grid.tamper = tamper
        return Played(run_training(grid, settings, Mode.SIMULATION))

    return go
