"""What a run can be resumed with: its settings, those of other versions, and how many rounds are left."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from server_app.cli.config import make_plan
from server_app.storage.checkpoints import Checkpoint, CheckpointFolder
from server_app.storage.resume import resume_issues
from server_app.storage.run_directory import RunDirectory
from server_app.validation.config import check
from tasks.config import DEFAULTS, ConfigError, nest, parse
from tests.conftest import ROOT

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Make the directory of a run of 20 rounds: what it recorded beside the defaults, and rounds saved and played."""

    def make(saved: int = 5, played: int = 5, without: str = "", **recorded: Any) -> Path:
        flat = {key: value for key, value in DEFAULTS.items() if key != without} | recorded
        directory = RunDirectory(tmp_path / "run")
        directory.path.mkdir()
        (directory.path / "config.toml").write_text(tomli_w.dumps(nest(flat)))
        directory.update_status(rounds_done=played)
        arrays = {"weight": np.zeros(2, np.float32)}
        CheckpointFolder(directory.path).save(Checkpoint(arrays, {}, {"server_round": saved}))
        return directory.path

    return make


def said(run: Path, **changes: Any) -> list[tuple[str, str]]:
    """The level and the line of each issue."""
    settings = parse({**DEFAULTS, "run.resume": str(run), **changes})
    return [(issue.level, issue.line) for issue in resume_issues(settings)]


def test_a_run_can_go_on_with_its_settings(make_run: MakeRun):
    assert said(make_run()) == []


def test_a_run_may_be_called_something_else_when_it_goes_on(make_run: MakeRun):
    assert said(make_run(), **{"run.name": "pilot", "run.tags": "a, b", "run.note": "again"}) == []


def test_a_setting_that_the_run_did_not_know_yet_counts_as_its_default(make_run: MakeRun):
    run = make_run(without="train.clip-norm")
    assert said(run) == []
    told = "train.clip-norm = 1.0, but the run to resume was started with 5.0; a resumed run keeps it"
    assert said(run, **{"train.clip-norm": 1.0}) == [("error", told)]


def test_a_run_from_before_there_was_validation_data_goes_on_without(make_run: MakeRun):
    run = make_run(without="evaluate.validation")
    told = "evaluate.validation = 0.1, but the run to resume was started with 0.0; a resumed run keeps it"
    assert said(run) == [("error", told)]
    assert said(run, **{"evaluate.validation": 0.0}) == []
    plan = make_plan([f"run.resume={run}"], str(ROOT), run.parent)
    assert plan.flat["evaluate.validation"] == 0.0


@pytest.mark.parametrize("words", [[], ["train.epochs=3"]])
def test_a_setting_that_is_none_any_more_is_named_as_that_of_the_run(make_run: MakeRun, words: list[str]):
    run = make_run(**{"train.warmup": 3, "zoo.size": 1.5})
    plan = make_plan([f"run.resume={run}", *words], str(ROOT), run.parent)
    with pytest.raises(ConfigError) as caught:
        check(plan.flat)
    lines = caught.value.errors
    assert len(lines) == 2 + len(words)
    gone = lines[len(words)]
    assert gone.startswith("train.warmup = 3: the run to resume was started with this setting, which this version does")
    assert gone.endswith(f"(versions.json), or take it out of {run}/config.toml to go on without it")
    assert lines[-1].startswith("zoo.size = 1.5: the run to resume was")


@pytest.mark.parametrize(
    ("wanted", "saved", "played", "level", "text"),
    [
        (3, 5, 5, "error", "has played 5 rounds already; take at least 5, or start a new run"),
        (5, 4, 6, "error", "has played 6 rounds already; take at least 6, or start a new run"),
        (5, 5, 5, "warning", "has played 5 rounds already; nothing is left to do but the label audit and the report"),
        (6, 6, 5, "warning", "has played 6 rounds already; nothing is left"),
        (5, 4, 5, "", ""),
        (6, 5, 5, "", ""),
        (1, 0, 0, "", ""),
    ],
)
def test_rounds_that_were_played_are_not_taken_back(
    make_run: MakeRun, wanted: int, saved: int, played: int, level: str, text: str
):
    found = said(make_run(saved, played), **{"num-server-rounds": wanted})
    assert [found_level for found_level, _ in found] == ([level] if level else [])
    assert all(line.startswith(f"num-server-rounds = {wanted}: ") and text in line for _, line in found)


def test_a_run_without_a_sound_checkpoint_is_refused_with_the_other_errors(make_run: MakeRun):
    run = make_run()
    (run / "checkpoints/last.safetensors").write_bytes(b"x")
    levels, lines = zip(*said(run, seed=2), strict=True)
    assert levels == ("error", "error")
    assert lines[0].startswith("seed = 2, but the run to resume was started with 1")
    assert lines[1].startswith(f"run.resume = {str(run)!r}: {run}/checkpoints/last.safetensors cannot be read")
    (run / "checkpoints/last.safetensors").unlink()
    assert "no checkpoint at" in said(run)[0][1]
