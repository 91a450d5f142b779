"""The local engine's seam: which engine is taken, how many workers there are, and where a run's lines go."""

import argparse
import io
import os
from logging import WARNING
from pathlib import Path

import pytest
from flwr.common.logger import FLOWER_LOGGER

from server_app.cli import local, run
from server_app.cli.config import CommandError, RunPlan, installed_app
from server_app.cli.run_log import RunLog
from server_app.output import lasting_output
from tasks.config import parse


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [""] * 8),
        ({"federation.client-cpus": 3}, [""] * 2),
        ({"federation.num-clients": 5}, [""] * 5),
        ({"federation.client-gpus": 0.4}, ["0", "0", "1", "1"]),
        ({"federation.client-gpus": 1.0}, ["0", "1"]),
        ({"federation.client-gpus": 2.0}, ["0,1"]),
    ],
)
def test_there_are_as_many_workers_as_fit(
    settings: dict[str, float], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = local.worker_devices(parse(settings).federation)
    assert [variables.get("CUDA_VISIBLE_DEVICES", "") for variables in found] == expected


def test_workers_share_the_gpus_that_the_user_has_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert local.shares(0.5) == ["5", "5", "7", "7"]


def test_a_worker_has_the_threads_of_its_cpus_unless_the_user_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert local.client_variables({"federation.client-cpus": 0})["OMP_NUM_THREADS"] == "1"
    assert local.client_variables({"federation.client-cpus": 3})["OMP_NUM_THREADS"] == "3"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert local.client_variables({"federation.client-cpus": 3})["OMP_NUM_THREADS"] == "2"


def test_lines_of_a_run_go_through_its_log() -> None:
    out = io.StringIO()
    log = RunLog(out=out)
    with local.logged(log), lasting_output():
        print("Run directory: /runs/a")
        print("round 1", end="")
        print("/2")
        FLOWER_LOGGER.log(WARNING, "odd")
        FLOWER_LOGGER.info("configure_train: Sampled 10 nodes (out of 10)")
    assert out.getvalue() == "Run directory: /runs/a\nround 1/2\nWARNING: odd\n"
    assert log.run_directory == Path("/runs/a")


def test_the_code_of_another_folder_is_run_by_flowers_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def engine(folder: Path, chosen: str | None) -> str:
        taken: list[str] = []
        monkeypatch.setattr(run, "make_plan", lambda *_: RunPlan(folder, {}, {}))
        monkeypatch.setattr(run, "simulate", lambda *_: (taken.append("flower"), ("finished:completed", ""))[1])
        monkeypatch.setattr(run, "simulate_locally", lambda *_: (taken.append("local"), ("finished:completed", ""))[1])
        run.main(argparse.Namespace(words=[], app=None, dry_run=False, verbose=False, engine=chosen))
        return taken[0]

    assert [engine(installed_app(), chosen) for chosen in (None, "local", "flower")] == ["local", "local", "flower"]
    assert [engine(tmp_path, chosen) for chosen in (None, "local", "flower")] == ["flower", "local", "flower"]
    with pytest.raises(CommandError, match=r"--engine local runs the installed code, not that of .*--engine flower"):
        local.simulate(RunPlan(tmp_path, {}, {}), lambda: parse({}), {}, RunLog())
