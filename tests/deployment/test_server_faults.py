"""Faults at the coordinator of a run with real nodes: processes die, the disk fills up, a file is damaged."""

import os
import re
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from server_app.cli.superlink import program_path
from tests.deployment.conftest import words
from tests.deployment.followed import wait_for
from tests.deployment.scene import SERVER_EXECUTOR, SUPERLINK, Scene, SharedScene
from tests.full_disk import fill, small_disk
from tests.integration.conftest import Play, Played

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
LONG = 300.0
TWO = {"federation__num_clients": 2, "federation__min_replies": 2, "audit__enabled": False}
SETTINGS = {"num_server_rounds": 2, "method__args": "label_rate = 500.0"}
STATEFUL = words(**TWO, **SETTINGS, method__name="gated:GatedELC")
DIED = "the ServerApp died or stood still: killed, out of memory, or the machine slept"
COMPLETED = ("finished:completed", "N/A")
Uninterrupted = Callable[..., Played]


@pytest.fixture
def uninterrupted(play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Uninterrupted:
    """The same run in this process, with nothing in its way."""

    def go(method: str, **settings: object) -> Played:
        gate = tmp_path / "open-gate"
        gate.mkdir()
        monkeypatch.setenv("WINNOW_TEST_GATE", str(gate))
        return play(**TWO, **settings, method__name=f"tests.deployment.gated:{method}")

    return go


@dataclass(frozen=True)
class Operator:
    """``winnow federation ...`` as somebody has typed it, and what it prints."""

    program: "subprocess.Popen[str]"
    log: Path

    @classmethod
    def types(cls, found: Scene, folder: Path, *arguments: str) -> "Operator":
        """Start the command in ``folder``."""
        own = {"WINNOW_SUPERLINK": found.link.address, "WINNOW_ROOT_CERTIFICATES": str(found.link.authority)}
        own["WINNOW_SUPERLINK_TOKEN"] = str(found.link.token)
        own["WINNOW_TEST_GATE"] = str(folder)  # its dry run of the method is no training
        log = folder / f"command-{len(list(folder.glob('command-*')))}"
        line = [program_path("winnow"), "federation", *arguments]
        with log.open("w") as out:
            return cls(found.link.processes.start(line, {**os.environ, **own}, folder, out), log)

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text()

    def sees(self, pattern: str) -> str:
        """Wait until a line matches, and return what matched."""
        ended = self.program.poll
        found = wait_for(
            lambda: re.search(pattern, self.output, re.MULTILINE) or (ended() is not None and "ended"), pattern, LONG
        )
        assert isinstance(found, re.Match), f"it has ended without {pattern}:\n{self.output}"
        return found[0]

    def ends(self) -> int:
        """Wait for its end and return its exit status."""
        return self.program.wait(timeout=400)


def saved(folder: Path) -> Played:
    [run_dir] = (folder / "runs").iterdir()
    return Played(run_dir)


def assert_equal(run: Played, whole: Played) -> None:
    assert run.metrics == whole.metrics
    assert rounds(run) == rounds(whole)


def rounds(run: Played) -> list[dict[str, object]]:
    """What clients.jsonl says of the rounds; what it says of the clients is more in a simulation."""
    return [line for line in run.lines("clients.jsonl") if line["round"]]


def test_a_stopped_and_a_killed_server_app_are_told_and_the_run_goes_on(
    tmp_path: Path, app: Path, shared: SharedScene, uninterrupted: Uninterrupted
) -> None:
    with shared.with_nodes(2) as found:
        found.hold(1, 1)
        found.hold(1, 2)
        first = Operator.types(found, tmp_path, "submit", "--app", str(app), *STATEFUL)
        run_id = first.sees(r"^Run \d+ is").split()[1]
        found.wait_until_training(1, 1, LONG)
        assert Operator.types(found, tmp_path, "flwr", "stop", run_id).ends() == 0
        assert first.ends() == 1
        wait_for(lambda: found.worker(SERVER_EXECUTOR) is None, "the ServerApp notices that it was stopped", LONG)
        run = saved(tmp_path)
        assert (run.status["status"], run.status["rounds_done"]) == ("stopped", 0)
        found.release(1, 1)

        second = Operator.types(found, tmp_path, "submit", "--app", str(app), f"run.resume={run.path}")
        second.sees("^round 1/2 ")
        found.wait_until_training(1, 2, LONG)
        server_app = found.worker(SERVER_EXECUTOR)
        assert server_app is not None
        os.kill(server_app, signal.SIGKILL)
        assert second.ends() == 1
        found.release(1, 2)
        assert run.status["status"] == "failed"
        assert run.status["reason"] == f"{DIED} (No heartbeat received from the task)"

        third = found.submit(tmp_path, app, f"run.resume={run.path}")
        assert third.end() == COMPLETED, third.output
    again = f"Run directory: {run.path}\nContinue with:  winnow federation submit run.resume={run.path}\n"
    assert first.output.endswith(f"The run was stopped by flwr stop\n{again}")
    assert second.output.endswith(f"The run failed: {DIED} (No heartbeat received from the task)\n{again}")
    assert "Resuming after round 1\n" in third.output
    assert run.status["status"] == "completed"
    assert_equal(run, uninterrupted("GatedELC", **SETTINGS))


def test_a_run_outlives_a_killed_superlink_and_a_damaged_checkpoint(
    tmp_path: Path, app: Path, shared: SharedScene, uninterrupted: Uninterrupted
) -> None:
    with shared.with_nodes(2) as found:
        found.hold(1, 2)
        operator = Operator.types(found, tmp_path, "submit", "--app", str(app), *STATEFUL)
        operator.sees("^round 1/2 ")
        found.wait_until_training(1, 2, LONG)
        found.kill(SUPERLINK)
        operator.sees(r"^The SuperLink at .* does not answer: .*refused. Waiting for it \.\.\.$")
        found.release(1, 2)
        found.restart(SUPERLINK)
        assert operator.ends() == 0, operator.output
        run = saved(tmp_path)
        played, last = run.metrics, run.path / "checkpoints/last.safetensors"
        content = bytearray(last.read_bytes())
        content[-10] ^= 4
        last.write_bytes(content)
        resumed = found.submit(tmp_path, app, f"run.resume={run.path}", "num-server-rounds=3")
        assert resumed.end() == COMPLETED, resumed.output
    assert re.findall(r"^round (\d)/2 ", operator.output, re.MULTILINE) == ["0", "1", "2"]
    told = rf"^WARNING: {last} is damaged: .*: the checkpoint of round 1 before it is used, and .*/damaged-1\.safetens"
    assert re.search(told, resumed.output, re.MULTILINE), resumed.output
    assert run.status["resumed_from"] == "previous.safetensors"
    whole = uninterrupted("GatedELC", **{**SETTINGS, "num_server_rounds": 3})
    assert played == whole.metrics[:3]
    assert_equal(run, whole)


def test_a_disk_that_is_full_ends_the_run_with_the_reason_and_loses_nothing(
    tmp_path: Path, app: Path, shared: SharedScene, uninterrupted: Uninterrupted
) -> None:
    with small_disk(tmp_path / "disk", size=4_000_000) as disk, shared.with_nodes(2) as found:
        found.hold(1, 2)
        start = [*STATEFUL, f"run.output-dir={disk / 'runs'}"]
        operator = Operator.types(found, tmp_path, "submit", "--app", str(app), *start)
        operator.sees("^round 1/2 ")
        found.wait_until_training(1, 2, LONG)
        run = saved(disk)
        before = {path.name: path.read_bytes() for path in (run.path / "checkpoints").iterdir()}
        filler = fill(disk, leave=len(before["last.safetensors"]) // 2)
        found.release(1, 2)
        assert operator.ends() == 1
        advice = f"free space, then go on with run.resume={run.path}"
        assert re.search(
            rf"^The run failed: .*cannot write .*: No space left on device; {advice}", operator.output, re.M
        )
        assert run.status["status"] == "failed"
        assert advice in run.status["reason"]
        assert {path.name: path.read_bytes() for path in (run.path / "checkpoints").iterdir()} == before
        filler.unlink()
        resumed = found.submit(tmp_path, app, f"run.resume={run.path}")
        assert resumed.end() == COMPLETED, resumed.output
        assert_equal(run, uninterrupted("GatedELC", **SETTINGS))
