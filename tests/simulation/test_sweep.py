"""``winnow sweep`` with real processes: crashes, an interrupt and going on, and the numbers of ``winnow run``."""

import json
import re
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from server_app.cli.superlink import program_path
from server_app.sweep.database import COMPLETED, FAILED, FINAL, SweepDatabase, SweepRun
from tests.marked import marked

pytestmark = pytest.mark.slow
__all__ = ["marked"]  # a fixture
PATIENCE = 400.0
SMALL = {
    "num-server-rounds": 2,
    "federation.num-clients": 3,
    "train.epochs": 1,
    "model.name": "mlp",
    "train.threads": 1,
}
FILE = """
baseline = "plain"
[common]
num-server-rounds = 2
federation.num-clients = 3
train.epochs = 1
train.threads = 1
model.name = "mlp"
[axes.method]
plain = { loss.name = "ce" }
raises = { run.callbacks = "'fragile:Fragile' = { how = 'raise' }" }
dies-once = { run.callbacks = "'fragile:Fragile' = { how = 'die', mark = 'MARK' }" }
[axes]
seed = [1, 2, 3]
[tune]
seeds = [9]
only = { method = ["plain", "raises", "dies-once"] }
common = { num-server-rounds = 1 }
"train.learning-rate" = [0.05]
"""
PLUGIN = '''
"""Callback that ends its run."""
import os, signal
from pathlib import Path
from server_app.callbacks.base import Callback

class Fragile(Callback):
    def __init__(self, how, mark=""):
        self.how, self.mark = how, mark

    def on_round_end(self, state, metrics):
        if state.server_round != 2 or state.settings.seed != 2:
            return ""
        if self.how == "raise":
            raise ValueError("fragile by nature")
        if not Path(self.mark).exists():
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return ""
'''


def rows(folder: Path) -> dict[str, SweepRun]:
    """The runs that are compared, by name."""
    database = SweepDatabase(folder / "runs" / "sweep-trial")
    try:
        return {", ".join(run.point.values()): run for run in database.runs() if run.purpose == FINAL}
    finally:
        database.close()


def prepare(folder: Path) -> list[str]:
    (folder / "trial.toml").write_text(FILE.replace("MARK", str(folder / "died")))
    (folder / "fragile.py").write_text(PLUGIN)
    return [program_path("winnow"), "sweep", "trial.toml", "--jobs", "2"]


@pytest.mark.timeout(900)
def test_a_sweep_survives_crashes_and_an_interrupt(tmp_path: Path, marked: dict[str, str]) -> None:
    command, pipe = prepare(tmp_path), subprocess.PIPE
    program = subprocess.Popen(command, cwd=tmp_path, env=marked, stdout=pipe, stderr=subprocess.STDOUT, text=True)
    assert program.stdout is not None
    seen = [next(line for line in program.stdout if re.match(r"\[ 5/12\]", line))]
    program.send_signal(signal.SIGINT)
    seen.append(program.communicate(timeout=PATIENCE)[0])
    assert program.returncode == 130, seen
    assert "Continue with:  winnow sweep trial.toml --jobs 2" in seen[-1]
    finished = {name: run.seconds for name, run in rows(tmp_path).items() if run.state == COMPLETED}
    assert 1 < len(finished) < 9

    done = subprocess.run(
        command, cwd=tmp_path, env=marked, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found = rows(tmp_path)
    assert {name: found[name].seconds for name in finished} == finished, "what was finished is kept"
    assert Counter(run.state for run in found.values()) == {COMPLETED: 8, FAILED: 1}
    assert "CallbackError: callback 'fragile:Fragile', round 2: fragile by nature" in found["raises, 2"].reason
    assert found["dies-once, 2"].attempts <= 2
    assert (tmp_path / "died").exists()
    assert "raises, seed 2: CallbackError" in done.stderr
    assert "raises, seed 2 FAILED again" in done.stdout
    assert (tmp_path / "runs/sweep-trial/results.md").exists()
    assert (tmp_path / "runs/sweep-trial/index.html").exists()

    words = [f"{key}={value}" for key, value in SMALL.items()]
    chosen = ["loss.name=ce", "seed=3", "train.learning-rate=0.05", "audit.enabled=false", "run.output-dir=alone"]
    run = [program_path("winnow"), "run", "--engine", "local", *words, *chosen]
    alone = subprocess.run(run, cwd=tmp_path, env=marked, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert alone.returncode == 0, alone.stderr
    [other] = (tmp_path / "alone").iterdir()
    own = tmp_path / "runs" / "sweep-trial" / found["plain, 3"].folder
    for name in ("metrics.jsonl", "clients.jsonl"):
        lines = [[json.loads(line) for line in (path / name).read_text().splitlines()] for path in (own, other)]
        for line in lines[0] + lines[1]:
            line.pop("seconds", None)
        assert lines[0] == lines[1], "a sweep gives the bits of winnow run"
