"""A package of plug-ins beside pyproject.toml travels with the app into every process of a real run."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from server_app.command.environment import program_path

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
RULES = '''
import numpy as np


def halved_median(updates, prior, share=0.5):
    """Move only a share of the way to the coordinate-wise median."""
    return share * np.median(updates, axis=0)
'''
TRAINING = '''
from dataclasses import dataclass, replace

from client_app.losses import CrossEntropy
from client_app.methods.sgd import LocalSGD

from .constants import MARK


@dataclass(frozen=True)
class Doubled(CrossEntropy):
    """Cross-entropy times a factor."""

    factor: float = 2.0

    def value(self, log_p):
        return self.factor * super().value(log_p)


class Marked(LocalSGD):
    """Reports one more metric."""

    def fit(self, model, kit, plan, state):
        result = super().fit(model, kit, plan, state)
        factor = kit.objective.loss.factor
        return replace(result, metrics={**result.metrics, "mark": MARK * factor})
'''
SETTINGS = {
    "num-server-rounds": 1,
    "federation.num-clients": 2,
    "train.epochs": 1,
    "model.name": "mlp",
    "strategy.aggregator": "myplugins.rules:halved_median",
    "strategy.aggregator-args": "share = 0.25",
    "loss.name": "myplugins.training:Doubled",
    "loss.args": "factor = 3.0",
    "method.name": "myplugins.training:Marked",
}


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A copy of the app with a package of the user's own beside its pyproject.toml."""
    folder = tmp_path / "app"
    for name in ("server_app", "client_app", "strategies", "tasks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    project = (ROOT / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(re.sub(r"^fab-exclude = .*$", "", project, flags=re.MULTILINE))
    package = folder / "myplugins"
    package.mkdir()
    for name, source in {"__init__": "", "constants": "MARK = 7.0", "rules": RULES, "training": TRAINING}.items():
        (package / f"{name}.py").write_text(source)
    return folder


def test_a_package_beside_the_app_is_used_by_server_and_clients(tmp_path: Path, app: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    words = [f"{key}={value}" for key, value in SETTINGS.items()]
    command = [program_path("winnow"), "run", "--app", str(app), *words]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [run] = elsewhere.glob("runs/*")
    assert json.loads((run / "status.json").read_text())["status"] == "completed"
    recorded = tomllib.loads((run / "config.toml").read_text())
    assert recorded["strategy"]["aggregator"] == SETTINGS["strategy.aggregator"]
    assert (recorded["loss"]["name"], recorded["method"]["name"]) == (SETTINGS["loss.name"], SETTINGS["method.name"])
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["train_mark"] == 21.0  # the method's mark times the loss's factor
    clients = [json.loads(line) for line in (run / "clients.jsonl").read_text().splitlines()]
    trained = [line for line in clients if line["round"] == 1]
    assert [line["weight"] for line in trained] == [None, None], "a function gives no client a weight"
