"""A federation of real processes with TLS and node keys: the same result, nobody uninvited, nothing left running."""

import re
import signal
import subprocess
from pathlib import Path

import pytest

from server_app.cli.access import trouble
from server_app.cli.federation import LocalNode, start_node
from server_app.cli.keys import KeyFolder
from server_app.cli.superlink import free_port, program_path
from tests.conftest import ROOT
from tests.deployment.conftest import words
from tests.deployment.forking import fast_executors
from tests.deployment.scene import SUPERLINK, SharedScene
from tests.integration.conftest import Play, Played
from tests.marked import processes_with

pytestmark = pytest.mark.slow
TWO = {"num_server_rounds": 2, "federation__num_clients": 2, "audit__enabled": False}


def start(
    folder: Path, environment: dict[str, str], nodes: int, *settings: str, app: Path = ROOT
) -> "subprocess.Popen[str]":
    command = [program_path("winnow"), "federation", "run", "--nodes", str(nodes), "--folder", "kept"]
    command += ["--app", str(app), *settings]
    folder.mkdir(exist_ok=True)
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def test_a_federation_of_processes_gives_the_same_result_as_the_simulation(
    tmp_path: Path, marked: dict[str, str], play: Play, app: Path
) -> None:
    fast = {**marked, **fast_executors(tmp_path / "fast")}
    program = start(tmp_path / "real", fast, 2, *words(**TWO), app=app)
    output = program.communicate(timeout=400)[0]
    assert program.returncode == 0, output
    assert re.findall(r"^round (\d)/2 ", output, re.MULTILINE) == ["0", "1", "2"]
    [run_dir] = (tmp_path / "real/runs").iterdir()
    real, simulated = Played(run_dir), play(**TWO)
    assert real.status["status"] == "completed"
    assert not real.status["simulation"]
    assert real.metrics == simulated.metrics
    kept = tmp_path / "real/kept"
    assert {path.name for path in kept.glob("*.log")} >= {"node-0.log", "node-1-executor.log", "flower-superlink.log"}
    for node in (0, 1):
        told = (kept / f"node-{node}-executor.log").read_text(errors="replace")
        assert told.count("To the server, round") >= 3, "registration and two rounds"
        [trainer] = re.findall(r"Trainer process (\d+) starts", told)
        assert not Path(f"/proc/{trainer}").exists(), "it answered all messages, and has ended with its node"
    assert not [path for path in kept.rglob("*") if b"PRIVATE KEY" in (path.read_bytes() if path.is_file() else b"")]


def test_ctrl_c_ends_all_processes_and_says_how_to_go_on(tmp_path: Path, marked: dict[str, str]) -> None:
    program = start(tmp_path, marked, 1, *words(num_server_rounds=1000, federation__min_replies=1))
    assert program.stdout is not None
    seen = next(line for line in program.stdout if line.startswith("Run directory"))
    assert len(processes_with(marked["WINNOW_TEST_MARK"])) > 5
    program.send_signal(signal.SIGINT)
    output = program.communicate(timeout=60)[0]
    assert program.returncode == 130, seen
    assert "The run was stopped by SIGINT" in output
    [run_dir] = tmp_path.glob("runs/*")
    assert Played(run_dir).status["status"] == "stopped"


def test_only_invited_nodes_and_executors_are_let_in(shared: SharedScene) -> None:
    with shared.with_nodes(1) as found:
        link, keys = found.link, KeyFolder(found.link.home / "keys")
        keys.create_node("node-9")
        start_node(link, keys, LocalNode(9), free_port())
        stranger = link.processes.programs[-2]
        trust = ("--root-certificates", str(keys.authority), "--runtime-api-address", link.address)
        thief = link.serve("flower-superexec", *trust, name="thief")
        others = KeyFolder(link.home / "others")
        others.create([], [])
        assert "CERTIFICATE_VERIFY_FAILED" in trouble(link.address, others.authority)
        assert trouble(link.address, None), "there is no way in without TLS"
        assert stranger.wait(60) == 1
        assert "Exit Code: 305" in link.last_lines("node-9", 40)
        assert "No SuperNode found with the given public key" in found.log(SUPERLINK)
        thief.wait(60)  # without the secret it has no work to wait for
        nodes = link.ask("supernode", "list")["nodes"]
        assert [node["status"] for node in nodes].count("online") == 1
