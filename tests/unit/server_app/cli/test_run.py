"""How ``winnow run`` follows a run, shows its log, concludes and completes the record; without Flower processes."""

import argparse
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server_app.cli import run
from server_app.cli.config import RunPlan
from server_app.cli.processes import ProcessGroup, StopRequested
from server_app.cli.run_log import RunLog, tidy
from server_app.cli.superlink import Connection, SuperLinkError
from server_app.storage.run_directory import RunDirectory
from tasks.config import parse
from tasks.settings import Settings
from tests.full_disk import room_for


class ScriptedLink(Connection):
    """A connection whose log is a shell script and whose replies are given."""

    def __init__(self, home: Path, log: str, statuses: list[str]) -> None:
        (home / "cwd").mkdir()
        super().__init__(home, "127.0.0.1:1", dict(os.environ), ProcessGroup())
        object.__setattr__(self, "log", log)
        object.__setattr__(self, "statuses", statuses)
        object.__setattr__(self, "asked", [])

    def start(self, name: str, *arguments: str, errors: int = subprocess.STDOUT) -> "subprocess.Popen[str]":
        command = ["sh", "-c", self.__dict__["log"]]
        return self.processes.start(command, self.environment, self.folder, subprocess.PIPE)

    def ask(self, *arguments: str) -> dict[str, Any]:
        self.__dict__["asked"].append(arguments)
        if arguments[0] == "run":
            return {"success": True, "run-id": "17"}
        details = self.__dict__.get("details", "why")
        return {"success": True, "runs": [{"status": self.__dict__["statuses"].pop(0), "status-details": details}]}


@pytest.fixture
def plan(tmp_path: Path) -> RunPlan:
    return RunPlan(tmp_path / "app", {"seed": 1}, {"seed": 2})


def test_a_run_is_submitted_followed_and_judged_by_its_status(tmp_path: Path, plan: RunPlan) -> None:
    link = ScriptedLink(tmp_path, "echo one; echo two", ["finished:completed"])
    out = io.StringIO()
    settings = parse({"federation.num-clients": 7, "federation.client-cpus": 2, "federation.client-gpus": 0.5})
    assert run.submit_and_watch(link, plan, settings, RunLog(out=out)) == ("finished:completed", "why")
    assert out.getvalue() == "one\ntwo\n"
    submitted, listed = link.__dict__["asked"]
    federation = "num-supernodes=7 client-resources-num-cpus=2 client-resources-num-gpus=0.5"
    assert submitted == (
        "run",
        str(plan.app),
        "winnow",
        "-c",
        str(tmp_path / "overrides.toml"),
        "--federation-config",
        federation,
    )
    assert (tmp_path / "overrides.toml").read_text() == "seed = 2\n"
    assert listed == ("ls", "winnow", "--run-id", "17")


def test_a_log_that_breaks_off_is_taken_up_again_without_repetition(tmp_path: Path, plan: RunPlan) -> None:
    link = ScriptedLink(tmp_path, "echo x >> count; seq $(wc -l < count)", ["running", "running", "finished:failed"])
    out = io.StringIO()
    assert run.submit_and_watch(link, plan, Settings(), RunLog(out=out)) == ("finished:failed", "why")
    assert out.getvalue() == "1\n2\n3\n"


def test_a_silent_log_does_not_hide_that_the_superlink_has_died(
    tmp_path: Path, plan: RunPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = ScriptedLink(tmp_path, "sleep 60", [])

    def died(_: Connection) -> None:
        raise SuperLinkError("flower-superexec ended")

    monkeypatch.setattr(ScriptedLink, "check", died)
    try:
        with pytest.raises(SuperLinkError, match="flower-superexec ended"):
            run.submit_and_watch(link, plan, Settings(), RunLog(out=io.StringIO()))
    finally:
        link.processes.stop(grace=0.0)


def completed(_plan: RunPlan, _log: RunLog) -> tuple[str, str]:
    return "finished:completed", ""


def failed(_plan: RunPlan, _log: RunLog) -> tuple[str, str]:
    return "finished:failed", "too few replies"


def broken(_plan: RunPlan, _log: RunLog) -> tuple[str, str]:
    raise SuperLinkError("no Flower here")


def stopped(_plan: RunPlan, _log: RunLog) -> tuple[str, str]:
    raise StopRequested(2)


def terminated(_plan: RunPlan, _log: RunLog) -> tuple[str, str]:
    raise StopRequested(15)


@pytest.mark.parametrize(
    ("outcome", "code", "message"),
    [
        (completed, 0, ""),
        (failed, 1, "The run failed: too few replies"),
        (broken, 1, "The run failed: no Flower here"),
        (stopped, 130, "The run was stopped by SIGINT"),
        (terminated, 143, "The run was stopped by SIGTERM"),
    ],
)
@pytest.mark.parametrize(("engine", "name"), [("flower", "simulate"), ("local", "simulate_locally")])
def test_the_exit_code_tells_the_truth(
    engine: str,
    name: str,
    outcome: Callable[[RunPlan, RunLog], tuple[str, str]],
    code: int,
    message: str,
    plan: RunPlan,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(run, "make_plan", lambda *_: plan)
    monkeypatch.setattr(run, name, outcome)
    assert run.main(argparse.Namespace(words=[], app=None, dry_run=False, verbose=False, engine=engine)) == code
    errors = capsys.readouterr().err
    assert errors.startswith(message)
    assert bool(errors) == bool(code)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize(("status", "code"), [("finished:completed", 0), ("finished:failed", 1)])
def test_a_run_whose_output_is_lost_ends_as_if_it_were_not(
    status: str,
    code: int,
    name: str,
    tmp_path: Path,
    plan: RunPlan,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = RunDirectory.create(tmp_path, "", Settings())
    directory.update_status(status="running")
    link = ScriptedLink(tmp_path, f"echo 'Run directory: {directory.path}'; seq 2000", [status])
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, name, full)
        found = run.exit_code(lambda log: run.submit_and_watch(link, plan, Settings(), log), RunLog(), "winnow run")
    assert found == code
    assert directory.status()["status"] == ("failed" if code else "running"), "the ServerApp says that it completed"
    shown = capsys.readouterr()
    if name == "stdout":
        told = f"the run went on and ended with exit status {code}: {directory.path}"
        assert shown.err.splitlines()[-1] == f"Output was lost (No space left on device); {told}"
    else:
        assert shown.out.endswith("2000\n")


def test_whatever_ends_the_command_the_record_does_not_say_running_for_ever(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = RunDirectory.create(tmp_path, "", Settings())
    directory.update_status(status="running")

    def fault(log: RunLog) -> tuple[str, str]:
        log.write(f"Run directory: {directory.path}")
        raise KeyError("a fault of ours")

    with pytest.raises(KeyError):
        run.exit_code(fault, RunLog(), "winnow run")
    assert directory.status()["status"] == "failed"
    assert directory.status()["reason"] == "winnow could not go on: KeyError: 'a fault of ours'"


@pytest.mark.parametrize(
    ("before", "ended", "after"),
    [
        ("running", "stopped", "stopped"),
        ("failed", "stopped", "stopped"),
        ("completed", "stopped", "completed"),
        ("running", "failed", "failed"),
    ],
)
def test_the_record_is_completed_where_the_app_could_not(
    before: str, ended: str, after: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = RunDirectory.create(tmp_path, "", Settings())
    directory.update_status(status=before, reason="its own")
    log = RunLog(out=io.StringIO())
    log.write(f"Run directory: {directory.path}")
    run.close_record(log, ended, "by SIGINT" if ended == "stopped" else "lost", "winnow run")
    assert directory.status()["status"] == after
    assert (directory.path / "report.html").exists() == (before != after or before == "running")
    errors = capsys.readouterr().err
    assert str(directory.path) in errors
    assert "run.resume" not in errors, "there is no checkpoint to continue from"


def test_the_app_knows_best_why_it_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = RunDirectory.create(tmp_path, "", Settings())
    directory.finish("failed", "its own")
    (directory.path / "checkpoints").mkdir()
    (directory.path / "checkpoints/last.safetensors").touch()
    log = RunLog(out=io.StringIO())
    log.write(f"Run directory: {directory.path}")
    run.close_record(log, "failed", "Simulation failed", "winnow run")
    assert directory.status()["reason"] == "its own"
    assert f"winnow run run.resume={directory.path}" in capsys.readouterr().err


def test_a_machine_that_slept_is_named_and_the_way_on_is_printed(
    tmp_path: Path, plan: RunPlan, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = RunDirectory.create(tmp_path / "runs", "", Settings())
    directory.update_status(status="running")
    (directory.path / "checkpoints").mkdir()
    (directory.path / "checkpoints/last.safetensors").touch()
    link = ScriptedLink(tmp_path, f"echo Run directory: {directory.path}", ["finished:failed"])
    link.__dict__["details"] = "No heartbeat received from the task"
    code = run.exit_code(lambda log: run.submit_and_watch(link, plan, Settings(), log), RunLog(), "winnow run")
    shown = capsys.readouterr().err
    assert code == 1
    assert "died or stood still: killed, out of memory, or the machine slept (No heartbeat" in shown
    assert f"Continue with:  winnow run run.resume={directory.path}" in shown
    assert "the machine slept" in directory.status()["reason"]


@pytest.mark.parametrize("there", [True, False])
def test_a_command_to_copy_is_quoted_as_a_shell_wants_it(
    there: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "o'brien's $runs" / "1"
    if there:
        (path / "checkpoints").mkdir(parents=True)
        (path / "checkpoints/last.safetensors").touch()
    log = RunLog(out=io.StringIO())
    log.write(f"Run directory: {path}")
    run.close_record(log, "failed", "lost", "winnow run")
    told = capsys.readouterr().err.splitlines()[-1].partition(":  ")[2]
    assert shlex.split(told) == ["winnow", "run", f"run.resume={path}"]


def test_a_record_on_another_machine_or_a_full_disk_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = RunLog(out=io.StringIO())
    log.write(f"Run directory: {tmp_path}/elsewhere")
    run.close_record(log, "failed", "lost", "winnow federation submit")
    told = f"It is where the ServerApp runs; continue there:  winnow federation submit run.resume={tmp_path}/elsewhere"
    assert told in capsys.readouterr().err
    assert not (tmp_path / "elsewhere").exists()

    directory = RunDirectory.create(tmp_path, "", Settings())
    directory.update_status(status="running")
    log.write(f"Run directory: {directory.path}")
    with room_for(10):
        run.close_record(log, "failed", "lost", "winnow run")
    assert re.search("Its record could not be completed: cannot write .*status.json: File", capsys.readouterr().err)
    assert directory.status()["status"] == "running"


def test_the_data_folder_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WINNOW_DATA", raising=False)
    assert run.data_environment(tmp_path) == {"WINNOW_DATA": str(tmp_path / "data")}
    monkeypatch.setenv("WINNOW_DATA", "../shared")
    assert run.data_environment(tmp_path) == {"WINNOW_DATA": str(tmp_path / "../shared")}
    monkeypatch.setenv("WINNOW_DATA", "/data")
    assert run.data_environment(tmp_path) == {"WINNOW_DATA": "/data"}


def test_what_the_machine_does_not_have_is_refused() -> None:
    cpus = os.cpu_count() or 1
    assert run.beyond_machine(parse({"federation.client-cpus": cpus}).federation) == []
    problems = run.beyond_machine(
        parse({"federation.client-cpus": cpus + 1, "federation.client-gpus": 99.0}).federation
    )
    assert len(problems) == 2
    assert f"this machine has {cpus}" in problems[0].line


ROUTINE = [
    "INFO :      Starting logstream for run_id `5972446878328867367`",
    "INFO :      Starting Flower Simulation",
    "WARNING :   Since flwr 1.32, default simulated SuperNodes changed from 10 to 2.",
    "INFO :      Federation `@none/default` (2 simulated SuperNodes)",
    "INFO :      To change federation size, use the following command:",
    "INFO :      \tflwr federation simulation-config @none/default <superlink> --num-supernodes <N>",
    "Successfully installed winnow to /tmp/winnow-nbvq1234/apps/winnow.winnow.0.1.0.e57810da.",
    "Using SuperLink: winnow (127.0.0.1:25017)",
    "(ClientAppActor pid=10158) WARNING :   Manually terminating ClientAppActor",
    "INFO :      configure_train: Sampled 10 nodes (out of 10)",
    "INFO :      aggregate_train: Received 10 results and 0 failures",
    "(ClientAppActor pid=7) INFO :      fixedclipping_mod: parameters are clipped by value: 1.0000.",
    "(ClientAppActor pid=7) INFO :      adaptiveclipping_mod: ndarrays are clipped by value: 1.0000.",
    "(ClientAppActor pid=7) INFO :      LocalDpMod: local DP noise with 0.0484 stddev added to parameters",
    "INFO :      aggregate_train: arrays in `ArrayRecord` are clipped by value: 0.1000.",
    "INFO :      aggregate_fit: central DP noise with 0.1000 stdev added",
    "INFO :      ",
    "ERROR :     Exit Code: 700",
    "For more information, visit: <https://flower.ai/docs/framework/1.41/en/ref-exit-codes/700.html>",
]
KEPT = {
    "round 1/30  loss 2.0000  accuracy  20.0 %": "round 1/30  loss 2.0000  accuracy  20.0 %",
    "INFO :      a plug-in's own message": "a plug-in's own message",
    "INFO :      aggregate_train: Received 9 results and 1 failures": (
        "aggregate_train: Received 9 results and 1 failures"
    ),
    "WARNING :   noise.args has no effect": "WARNING: noise.args has no effect",
    "ERROR :     Simulation raised an exception": "ERROR: Simulation raised an exception",
    "(ClientAppActor pid=7) printed by a client": "(ClientAppActor pid=7) printed by a client",
    "(ClientAppActor pid=7) WARNING :   odd data": "(ClientAppActor pid=7) WARNING: odd data",
    "(raylet) 1 worker was killed: out of memory": "(raylet) 1 worker was killed: out of memory",
    "Traceback (most recent call last):": "Traceback (most recent call last):",
    '  File "app.py", line 1, in main': '  File "app.py", line 1, in main',
    "RuntimeError: Starting is impossible": "RuntimeError: Starting is impossible",
    "": "",
}


@pytest.mark.parametrize("line", ROUTINE)
def test_routine_is_left_out(line: str) -> None:
    assert tidy(line) is None


@pytest.mark.parametrize("line", KEPT)
def test_everything_else_is_shown(line: str) -> None:
    assert tidy(line) == KEPT[line]


def written(lines: list[str], verbose: bool = False) -> tuple[str, RunLog]:
    out = io.StringIO()
    log = RunLog(verbose, out)
    for line in lines:
        log.write(line)
    return out.getvalue(), log


def test_colours_are_removed_and_blank_lines_do_not_pile_up() -> None:
    lines = [
        "\n",
        "\x1b[92mINFO \x1b[0m:      one\n",
        "\n",
        "\x1b[91mERROR \x1b[0m:     Exit Code: 700\n",
        "\n",
        "two\n",
    ]
    assert written(lines)[0] == "one\n\ntwo\n"


def test_verbose_shows_every_line_as_it_came() -> None:
    lines = ["\x1b[92mINFO \x1b[0m:      Starting Flower Simulation\n", "round 1/2\n"]
    assert written(lines, verbose=True)[0] == "".join(lines)


@pytest.mark.parametrize("verbose", [False, True])
def test_the_latest_run_directory_is_remembered(verbose: bool) -> None:
    text, log = written(["Run directory: /runs/a b\n", "round 1/2\n", "Run directory: /runs/c\n"], verbose)
    assert log.run_directory == Path("/runs/c")
    assert "Run directory: /runs/a b\n" in text
    assert written(["round 1/2\n"])[1].run_directory is None
