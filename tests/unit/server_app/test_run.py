"""The command that repeats a run: of the kind that made it, and with the same settings."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from server_app import run
from server_app.cli.config import make_plan
from server_app.run import NOT_REPEATED, command_line, open_directory, title, with_speed
from server_app.storage.run_directory import RunDirectory
from tasks.config import DEFAULTS, REPEAT, Flat, parse
from tasks.protocol import MessageHeader, Mode
from tasks.settings import Settings
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def _no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (REPEAT, "WINNOW_COMMAND"):
        monkeypatch.delenv(name, raising=False)


def test_a_run_is_repeated_where_its_clients_were(monkeypatch: pytest.MonkeyPatch):
    settings = parse({"seed": 7, "train.augment": False, "run.output-dir": "/elsewhere"})
    assert command_line(settings, Mode.SIMULATION) == "winnow run seed=7 train.augment=false"
    assert command_line(settings, Mode.DEPLOYMENT) == "winnow federation submit seed=7 train.augment=false"
    monkeypatch.setenv("WINNOW_COMMAND", "docker compose run --rm winnow")
    assert command_line(Settings(), Mode.DEPLOYMENT) == "docker compose run --rm winnow submit"
    monkeypatch.setenv(REPEAT, "winnow federation run --nodes 2 --data '/my scans'")
    assert command_line(settings, Mode.DEPLOYMENT).startswith(
        "winnow federation run --nodes 2 --data '/my scans' seed=7"
    )


@pytest.mark.parametrize(
    ("flat", "words"),
    [
        ({}, []),
        ({"partition.args": "alpha = 0.1, min_size = 20"}, ["partition.args=alpha = 0.1, min_size = 20"]),
        ({"partition.args": "alpha = 0.1"}, ["partition.args=", "partition.args=alpha = 0.1"]),
        ({"partition.args": ""}, ["partition.args="]),
        ({"partition.name": "iid"}, ["partition.name=iid"]),
        (
            {"partition.name": "my.own:Dirichlet", "partition.args": DEFAULTS["partition.args"]},
            ["partition.name=my.own:Dirichlet", "partition.args=alpha = 0.5, min_size = 20"],
        ),
        (
            {
                "noise.rates": "constant",
                "noise.rates-args": "rate = 0.1",
                "loss.args": "q = 'it\\\\''",
                "privacy.delta": 1e-6,
            },
            None,
        ),
        ({"partition.args": "alpha = 1.0", "noise.args": "x = 1", "noise.name": "pair-flip", "seed": 2**63 - 1}, None),
    ],
)
def test_the_command_repeats_every_setting(flat: Flat, words: list[str] | None, tmp_path: Path):
    settings = parse(flat)
    repeated = shlex.split(command_line(settings, Mode.SIMULATION))[2:]
    assert words is None or repeated == words
    again = parse({**make_plan(repeated, str(ROOT), tmp_path).flat, **dict.fromkeys(NOT_REPEATED, "")})
    assert again == settings


def test_what_auto_stands_for_is_sent_recorded_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings, directory = parse({"train.precision": "auto", "train.batch-size": 8}), RunDirectory(tmp_path)
    header = MessageHeader(0, overrides='{"seed": 3}')
    for there, now in [("bfloat16", "bfloat16"), ("float32", "bfloat16")]:  # the second time the run is resumed
        monkeypatch.setattr(run, "decided", lambda train, *_: replace(train, precision=there))  # noqa: B023
        found, sent = with_speed(settings, header, directory, Mode.SIMULATION)
        assert (found.train.precision, found.train.batch_size) == (now, 8)
        assert sent.changes() == {"seed": 3, "train.precision": now}
    assert json.loads((tmp_path / "versions.json").read_text())["train.precision"] == "bfloat16, chosen by auto"
    assert with_speed(Settings(), header, RunDirectory(tmp_path / "other"), Mode.SIMULATION) == (Settings(), header)


@pytest.mark.parametrize(
    ("name", "variant", "called"),
    [("", "", ""), ("pilot", "", "pilot"), ("", "fedavg", "fedavg"), ("pilot", "fedavg", "pilot-fedavg")],
)
def test_the_folder_of_a_run_has_its_name(tmp_path: Path, name: str, variant: str, called: str):
    settings = parse({"run.name": name, "run.output-dir": str(tmp_path)})
    assert title(settings, variant) == called
    path = open_directory(settings, variant).path
    assert re.fullmatch(r"\d{8}-\d{6}" + (f"-{called}" if called else ""), path.name)
