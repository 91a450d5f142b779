"""``winnow sweep --ray`` on a local Ray cluster of two nodes: every run comes back, with the numbers of this one."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from server_app.cli.superlink import program_path
from server_app.sweep.database import COMPLETED, FAILED, SweepDatabase, SweepRun
from server_app.sweep.ray_crew import NODE

pytestmark = pytest.mark.slow
PATIENCE = 500.0
FILE = """
[common]
num-server-rounds = 2
federation.num-clients = 3
train.epochs = 1
train.threads = 1
model.name = "mlp"
[axes.method]
plain = { loss.name = "ce" }
planned = { loss.name = "planned:Planned" }
fails = { run.callbacks = "'planned:Fails' = {}" }
[axes]
seed = [1, 2]
"""
PLUGIN = '''
"""A loss and a callback that only the machine which starts the sweep has."""
from client_app.losses import CrossEntropy
from server_app.callbacks.base import Callback

class Planned(CrossEntropy):
    """Cross-entropy."""

class Fails(Callback):
    def on_round_end(self, state, metrics):
        raise ValueError("fails everywhere")
'''


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A cluster of two nodes with one processor each."""
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        monkeypatch.setenv(name, "0")
    size = 80 * 2**20
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": size})
    cluster.add_node(num_cpus=1, object_store_memory=size)
    yield cluster.address
    cluster.shutdown()


def sweep(folder: Path, *options: str) -> tuple[int, str, dict[str, SweepRun]]:
    """Play the sweep; its exit status, what it printed, and its runs by name."""
    command = [program_path("winnow"), "sweep", "trial.toml", *options]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ}, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    printed = done.stdout + done.stderr
    database = SweepDatabase(folder / "runs/sweep-trial")
    try:
        return done.returncode, printed, {", ".join(run.point.values()): run for run in database.runs()}
    finally:
        database.close()


@pytest.mark.timeout(1200)
def test_a_cluster_plays_the_runs_of_this_machine(tmp_path: Path, address: str) -> None:
    folders = [tmp_path / name for name in ("cluster", "here")]
    for folder in folders:
        folder.mkdir()
        (folder / "trial.toml").write_text(FILE)
        (folder / "planned.py").write_text(PLUGIN)
    code, printed, found = sweep(folders[0], "--ray", address)
    assert code == 1, printed
    assert len({run.versions[NODE] for run in found.values()}) == 2, "both nodes have played"
    states = {name: run.state for name, run in found.items()}
    assert states == {name: FAILED if "fails" in name else COMPLETED for name in found}, printed
    assert "fails everywhere" in found["fails, 1"].reason
    _, _, own = sweep(folders[1], "--jobs", "1")
    for name, run in found.items():
        expected = {measure: points for measure, points in own[name].series.items() if measure != "seconds"}
        assert {measure: points for measure, points in run.series.items() if measure != "seconds"} == expected
        lines = (folders[0] / "runs/sweep-trial" / run.folder / "clients.jsonl").read_text().splitlines()
        assert [json.loads(line)["round"] for line in lines][-1] == (0 if "fails" in name else 2)


def test_an_address_without_a_cluster_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "trial.toml").write_text(FILE.partition("planned")[0] + "[axes]\nseed = [1]\n")
    command = [program_path("winnow"), "sweep", "trial.toml", "--ray", "127.0.0.1:1"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ}, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 2
    assert "winnow sweep: the Ray cluster at 127.0.0.1:1 cannot be used" in done.stderr
    assert "Traceback" not in done.stderr
