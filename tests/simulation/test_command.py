"""``winnow run`` with real Flower and Ray processes: truthful exit status, a record, and nothing left running."""

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from server_app.cli.superlink import local_superlink, program_path
from tests.compare_runs import compare
from tests.conftest import ROOT
from tests.deployment.scene import app_with
from tests.every_method import CLIENTS, METHOD_NAMES, variants
from tests.marked import marked, processes_with

pytestmark = pytest.mark.slow
__all__ = ["marked"]  # a fixture
SMALL = (
    "num-server-rounds=1",
    f"federation.num-clients={CLIENTS}",
    "train.epochs=1",
    "strategy.name=examples.norm_clipping:NormClipping",
    "strategy.args=factor = 1.0",
)
PATIENCE = 240.0
ALL_METHODS = PATIENCE + 30.0 * len(METHOD_NAMES)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The app with the examples and without an environment: to leave out each of its files takes Flower seconds."""
    folder = app_with(tmp_path_factory.mktemp("copy") / "app")
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def start(folder: Path, environment: dict[str, str], app: Path | None, *words: str) -> "subprocess.Popen[str]":
    """Start a run of an app by Flower's engine, or by our own of the code that is installed."""
    chosen = ["--engine", "local"] if app is None else ["--app", str(app)]
    command = [program_path("winnow"), "run", *chosen, *SMALL, *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def finish(program: "subprocess.Popen[str]", patience: float = PATIENCE) -> str:
    try:
        return program.communicate(timeout=patience)[0]
    finally:
        program.kill()


def status(folder: Path) -> dict[str, Any]:
    [path] = folder.glob("runs/*/status.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def run_unheard(folder: Path, environment: dict[str, str], app: Path, *words: str) -> str:
    """Play a run under nohup whose reader and terminal go away at once; return what it writes on stderr."""
    command = ["nohup", program_path("winnow"), "run", "--app", str(app), *SMALL, *words]
    own, pipe = {**environment, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, subprocess.PIPE
    program = subprocess.Popen(command, cwd=folder, env=own, stdout=pipe, stderr=pipe, text=True)
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
    return errors


def flower_run(folder: Path, environment: dict[str, str], app: Path, **given: Any) -> str:
    """Play a run by plain ``flwr run . --stream``, as docs/running.md shows it, and return its output."""
    words = (part.split("=", 1) for part in SMALL)
    values = {key: int(value) if value.isdecimal() else value for key, value in words}
    folder.mkdir()
    settings = folder / "settings.toml"
    settings.write_text(tomli_w.dumps({**values, "run.output-dir": str(folder / "runs"), **given}))
    options = ["--federation-config", f"num-supernodes={CLIENTS} client-resources-num-cpus=1"]
    with local_superlink(environment) as link:
        link.wait_until_ready()
        return finish(link.start("flwr", "run", str(app), "--stream", *options, "-c", str(settings)), ALL_METHODS)


@pytest.mark.timeout(600 + ALL_METHODS)
def test_a_run_with_a_plug_in_can_be_continued_unheard_and_equals_flower_s_own_run_bit_for_bit(
    tmp_path: Path, marked: dict[str, str], app: Path
) -> None:
    folder = tmp_path / "Zürich"
    folder.mkdir()
    program = start(folder, marked, app)
    output = finish(program)
    assert program.returncode == 0, output
    assert status(folder)["status"] == "completed"
    assert status(folder)["rounds_done"] == 1
    [run_dir] = folder.glob("runs/*")
    assert output.count(f"Run directory: {run_dir}") == 2
    assert re.findall(r"^round (\d)/1 ", output, re.MULTILINE) == ["0", "1"]
    assert "flwr" not in output.lower().replace(str(app).lower(), "")
    assert "ClientAppActor" not in output
    assert sorted(path.name for path in folder.iterdir()) == ["runs"]

    errors = run_unheard(folder, marked, app, f"run.resume={run_dir.relative_to(folder)}", "num-server-rounds=2")
    assert (status(folder)["status"], status(folder)["rounds_done"]) == ("completed", 2)
    assert "Traceback" not in errors
    told = f"the run went on and ended with exit status 0: {ascii(str(run_dir))[1:-1]}"
    assert errors.splitlines()[-1] == f"Output was lost (Broken pipe); {told}"

    both = {
        "num-server-rounds": 2,
        "variants": f"plug-in = {{}}\n{variants(('num-server-rounds', 'federation.num-clients'))}",
    }
    plain = tmp_path / "plain"
    output = flower_run(plain, {"WINNOW_TEST_MARK": marked["WINNOW_TEST_MARK"]}, app, **both)
    assert output.count("round 2/2") == 1 + len(METHOD_NAMES), output
    theirs = by_variant(plain)
    assert list(compare(run_dir, theirs["plug-in"])) == []

    own = tmp_path / "own"
    own.mkdir()
    command = [program_path("winnow"), "run", *SMALL, *(f"{key}={value}" for key, value in both.items())]
    with (tmp_path / "log").open("w") as log:  # a file, which workers' streams must not take for their own
        done = subprocess.run(command, cwd=own, env=marked, stdout=log, stderr=log, timeout=ALL_METHODS, check=False)
    assert done.returncode == 0, (tmp_path / "log").read_text()
    ours = by_variant(own)
    assert sorted(theirs) == sorted(ours) == sorted(["plug-in", *METHOD_NAMES])
    differences = {name: list(compare(theirs[name], ours[name])) for name in theirs}
    assert differences == {name: [] for name in theirs}, (
        "our engine gives the bits of Flower's, with every client method"
    )


def by_variant(folder: Path) -> dict[str, Path]:
    """The directories of completed runs by variant."""
    assert {json.loads(path.read_text())["status"] for path in folder.glob("runs/*/status.json")} == {"completed"}
    return {path.name.split("-", 2)[2]: path for path in (folder / "runs").iterdir()}


@pytest.mark.parametrize("engine", ["flower", "local"])
def test_a_run_that_fails_says_why_and_exits_with_1(
    engine: str, tmp_path: Path, marked: dict[str, str], app: Path
) -> None:
    program = start(tmp_path, marked, app if engine == "flower" else None, "federation.round-timeout=0.001")
    output = finish(program)
    assert program.returncode == 1, output
    assert re.search(r"^The run failed: .*0 of 4 clients are ready", output, re.MULTILINE)
    assert status(tmp_path)["status"] == "failed"


def test_a_killed_worker_costs_nothing_and_ctrl_c_ends_all_of_them(tmp_path: Path, marked: dict[str, str]) -> None:
    program = start(tmp_path, marked, None, "num-server-rounds=100000", "evaluate.every=1000")
    assert program.stdout is not None
    seen = [next(line for line in program.stdout if re.match("round +1/", line))]
    for worker in workers_of(program.pid):
        os.kill(worker, signal.SIGKILL)
    seen += itertools.islice((line for line in program.stdout if line.startswith("round")), 3)
    assert all("quarantined 0" in line for line in seen), seen
    program.send_signal(signal.SIGINT)
    seen.append(finish(program))
    assert program.returncode == 130, seen
    [run_dir] = tmp_path.glob("runs/*")
    assert "The run was stopped by SIGINT" in seen[-1]
    assert f"winnow run run.resume={run_dir}" in seen[-1]
    assert (status(tmp_path)["status"], status(tmp_path)["reason"]) == ("stopped", "stopped by SIGINT")


def workers_of(pid: int) -> list[int]:
    """The processes that a run's fork server has started."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    [server] = [child for child, parent in parents.items() if parent == pid]
    return [child for child, parent in parents.items() if parent == server]


def test_ctrl_c_ends_everything_and_says_where_the_record_is(tmp_path: Path, marked: dict[str, str], app: Path) -> None:
    program = start(tmp_path, marked, app, "num-server-rounds=100000", "evaluate.every=1000")
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
