"""``winnow run`` with real Flower and Ray processes: truthful exit status, a record, and nothing left running."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from server_app.cli.superlink import local_superlink, program_path
from tests.conftest import ROOT
from tests.marked import marked, processes_with

pytestmark = pytest.mark.slow
__all__ = ["marked"]  # a fixture
SMALL = (
    "num-server-rounds=1",
    "federation.num-clients=2",
    "train.epochs=1",
    "strategy.name=examples.norm_clipping:NormClipping",
    "strategy.args=factor = 1.0",
)
PATIENCE = 240.0


def start(folder: Path, environment: dict[str, str], *words: str) -> "subprocess.Popen[str]":
    command = [program_path("winnow"), "run", "--app", str(ROOT), *SMALL, *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def finish(program: "subprocess.Popen[str]") -> str:
    try:
        return program.communicate(timeout=PATIENCE)[0]
    finally:
        program.kill()


def status(folder: Path) -> dict[str, Any]:
    [path] = folder.glob("runs/*/status.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def rounds(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without the times, which differ between equal runs."""
    [path] = folder.glob("runs/*/metrics.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def flower_run(folder: Path, environment: dict[str, str], server_rounds: int) -> str:
    """Play the same run by plain ``flwr run . --stream``, as the README shows it, and return its output."""
    settings = [part.split("=", 1) for part in (*SMALL, f"num-server-rounds={server_rounds}")]
    settings.append(["run.output-dir", str(folder / "runs")])
    values = {key: value if value.isdecimal() else json.dumps(value) for key, value in settings}
    options = ["--federation-config", "num-supernodes=2 client-resources-num-cpus=1"]
    options += ["-c", " ".join(f"{key}={value}" for key, value in values.items())]
    with local_superlink(environment) as link:
        link.wait_until_ready()
        return finish(link.start("flwr", "run", str(ROOT), "--stream", *options))


def test_a_run_with_a_plug_in_can_be_continued_and_equals_flower_s_own_run_bit_for_bit(
    tmp_path: Path, marked: dict[str, str]
) -> None:
    program = start(tmp_path, marked)
    output = finish(program)
    assert program.returncode == 0, output
    assert status(tmp_path)["status"] == "completed"
    assert status(tmp_path)["rounds_done"] == 1
    [run_dir] = tmp_path.glob("runs/*")
    assert output.count(f"Run directory: {run_dir}") == 2
    assert re.findall(r"^round (\d)/1 ", output, re.MULTILINE) == ["0", "1"]
    assert "flwr" not in output.lower().replace(str(ROOT).lower(), "")
    assert "ClientAppActor" not in output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]

    program = start(tmp_path, marked, f"run.resume={run_dir.relative_to(tmp_path)}", "num-server-rounds=2")
    output = finish(program)
    assert program.returncode == 0, output
    assert re.findall(r"^round (\d)/2 ", output, re.MULTILINE) == ["2"]
    assert status(tmp_path)["rounds_done"] == 2

    plain = tmp_path / "plain"
    output = flower_run(plain, {"WINNOW_TEST_MARK": marked["WINNOW_TEST_MARK"]}, server_rounds=2)
    assert "round 2/2" in output
    assert status(plain)["status"] == "completed"
    assert rounds(plain) == rounds(tmp_path)


def test_a_run_that_fails_says_why_and_exits_with_1(tmp_path: Path, marked: dict[str, str]) -> None:
    program = start(tmp_path, marked, "federation.round-timeout=0.001")
    output = finish(program)
    assert program.returncode == 1, output
    assert re.search(r"^The run failed: .*0 of 2 clients are ready", output, re.MULTILINE)
    assert status(tmp_path)["status"] == "failed"


def test_ctrl_c_ends_everything_and_says_where_the_record_is(tmp_path: Path, marked: dict[str, str]) -> None:
    program = start(tmp_path, marked, "num-server-rounds=100000", "evaluate.every=1000")
    assert program.stdout is not None
    seen = [next(line for line in program.stdout if re.match("round +1/", line))]
    assert len(processes_with(marked["WINNOW_TEST_MARK"])) > 5
    program.send_signal(signal.SIGINT)
    began = time.monotonic()
    seen.append(finish(program))
    assert program.returncode == 130, seen
    assert time.monotonic() - began < 20
    assert "The run was stopped by SIGINT" in seen[-1]
    [run_dir] = tmp_path.glob("runs/*")
    assert f"Run directory: {run_dir}" in seen[-1]
    assert f"winnow run run.resume={run_dir}" in seen[-1]
    assert (status(tmp_path)["status"], status(tmp_path)["reason"]) == ("stopped", "stopped by SIGINT")


def test_a_run_outlives_its_reader_and_its_terminal(tmp_path: Path, marked: dict[str, str]) -> None:
    command = ["nohup", program_path("winnow"), "run", "--app", str(ROOT), *SMALL]
    pipe = subprocess.PIPE
    environment = {**marked, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    folder = tmp_path / "Zürich"
    folder.mkdir()
    program = subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)
    assert program.stdout is not None
    assert program.stdout.readline().startswith("The settings are fine.")
    program.stdout.close()
    program.send_signal(signal.SIGHUP)
    program.stdout = None
    try:
        errors = program.communicate(timeout=PATIENCE)[1]
    finally:
        program.kill()
    assert program.returncode == 0, errors
    assert status(folder)["status"] == "completed"
    assert "Traceback" not in errors
    [run_dir] = folder.glob("runs/*")
    told = f"the run went on and ended with exit status 0: {ascii(str(run_dir))[1:-1]}"
    assert errors.splitlines()[-1] == f"Output was lost (Broken pipe); {told}"


def test_a_superlink_serves_flower_s_own_commands(marked: dict[str, str]) -> None:
    with local_superlink({"WINNOW_TEST_MARK": marked["WINNOW_TEST_MARK"]}) as link:
        link.wait_until_ready()
        assert link.ask("ls") == {"success": True, "runs": []}
        assert len(processes_with(marked["WINNOW_TEST_MARK"])) == 2
        link.processes.programs[1].terminate()
        link.processes.programs[1].wait(20)
        with pytest.raises(RuntimeError, match="flower-superexec ended with exit code"):
            link.check()
    assert not link.home.exists()
