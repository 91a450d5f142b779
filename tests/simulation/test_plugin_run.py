"""A package of plug-ins beside pyproject.toml travels with the app into every process; one of its processes dies."""

import os
import re
import shutil
import subprocess
import tomllib
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from server_app.cli.superlink import program_path
from tests.conftest import ROOT
from tests.integration.conftest import Played
from tests.marked import processes_with

pytestmark = pytest.mark.slow
RULES = '''
import numpy as np


def halved_median(updates, prior, share=0.5):
    """Move only a share of the way to the coordinate-wise median."""
    return share * np.median(updates, axis=0)
'''
TRAINING = '''
import os
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
    """Reports one more metric; ends its process at client 1 in round 2, as a crash in native code would."""

    def fit(self, model, kit, plan, state):
        if plan.stream[1:] == (1, 2):
            os._exit(1)
        result = super().fit(model, kit, plan, state)
        factor = kit.objective.loss.factor
        return replace(result, metrics={**result.metrics, "mark": MARK * factor})
'''
SETTINGS = {
    "num-server-rounds": 3,
    "federation.num-clients": 6,
    "train.epochs": 1,
    "model.name": "mlp",
    "strategy.aggregator": "myplugins.rules:halved_median",
    "strategy.aggregator-args": "share = 0.25",
    "loss.name": "myplugins.training:Doubled",
    "loss.args": "factor = 3.0",
    "method.name": "myplugins.training:Marked",
}


@dataclass(frozen=True)
class Ended:
    """What a run of ``winnow run`` has left."""

    run: Played
    output: str


def app_with_plugins(folder: Path) -> Path:
    """Make a copy of the app with a package of the user's own beside its pyproject.toml."""
    for name in ("server_app", "client_app", "strategies", "tasks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    project = (ROOT / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(re.sub(r"^fab-exclude = .*$", "", project, flags=re.MULTILINE))
    package = folder / "myplugins"
    package.mkdir()
    for name, source in {"__init__": "", "constants": "MARK = 7.0", "rules": RULES, "training": TRAINING}.items():
        (package / f"{name}.py").write_text(source)
    return folder


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Run the app with its plug-ins from another folder."""
    root, mark = tmp_path_factory.mktemp("plugins"), uuid.uuid4().hex
    elsewhere = root / "elsewhere"
    elsewhere.mkdir()
    words = [f"{key}={value}" for key, value in SETTINGS.items()]
    command = [program_path("winnow"), "run", "--app", str(app_with_plugins(root / "app")), *words]
    own = {**os.environ, "WINNOW_TEST_MARK": mark}
    done = subprocess.run(command, cwd=elsewhere, env=own, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert processes_with(mark) == []
    [run] = elsewhere.glob("runs/*")
    return Ended(Played(run), done.stdout)


def test_a_package_beside_the_app_is_used_by_server_and_clients(ended: Ended) -> None:
    assert ended.run.status["status"] == "completed"
    recorded = tomllib.loads((ended.run.path / "config.toml").read_text())
    assert recorded["strategy"]["aggregator"] == SETTINGS["strategy.aggregator"]
    assert (recorded["loss"]["name"], recorded["method"]["name"]) == (SETTINGS["loss.name"], SETTINGS["method.name"])
    assert ended.run.metrics[-1]["train_mark"] == pytest.approx(21.0)  # the method's mark times the loss's factor
    trained = [line for line in ended.run.lines("clients.jsonl") if line["round"] == 1]
    assert [line["weight"] for line in trained] == [None] * 6, "a function gives no client a weight"


def test_a_dead_actor_costs_one_client_not_the_run(ended: Ended) -> None:
    lines = [(line["selected"], line["replies"], line["quarantined"]) for line in ended.run.metrics[1:]]
    assert lines == [(6, 6, 0), (6, 5, 1), (5, 5, 0)], ended.output
    assert "The process of client 1 died" in ended.output
