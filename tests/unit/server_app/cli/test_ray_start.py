"""Ray that does not start: patience, another try while nothing is lost by it, and at the end one line that helps."""

import io
from collections.abc import Mapping
from pathlib import Path

import pytest

from server_app.cli import run
from server_app.cli.config import RunPlan
from server_app.cli.ray_start import PATIENCE, StartWatch, attempts, explained, start_settings
from server_app.cli.run_log import RunLog, tidy
from server_app.storage.run_directory import RunDirectory
from tasks.settings import Settings

TIMED_OUT = (
    "The current node timed out during startup. This could happen because some of the raylet failed to startup or the "
    "GCS has become overloaded."
)
NO_ROOM = (
    "The configured object store size (7.5 GB) exceeds /dev/shm size (0.06 GB). This will harm performance. Consider "
    "deleting files in /dev/shm or increasing its size with --shm-size in Docker."
)
FULL = (
    "(raylet) [2026-11-29 06:00:00,000 E 1 2] (raylet) file_system_monitor.cc:116: /tmp/winnow-x is over 95% full, "
    "available space: 4.5 GB; capacity: 252 GB. Object creation will fail if spilling is required."
)


def crash(reason: str, where: str = "init_ray") -> list[str]:
    """What Flower 1.41 writes when ``reason`` is raised there in its backend, as it was seen."""
    traceback = [
        "Traceback (most recent call last):",
        '  File ".../vce_api.py", line 214, in run_api',
        "    backend = backend_fn()",
        f'  File ".../backend/raybackend.py", line 119, in {where}',
        "    ray.init(",
        f"Exception: {reason}",
        "",
    ]
    return [
        f"ERROR :     An exception occured!! {reason}",
        f"ERROR :     {traceback[0]}",
        *traceback[1:],
        "WARNING :   Stopping Simulation Runtime.",
        "ERROR :     An exception occurred !! Simulation Runtime crashed.",
        *traceback,
        "RuntimeError: An error was encountered. Ending simulation.",
    ]


def written(lines: list[str], verbose: bool = False) -> tuple[list[str], RunLog]:
    out = io.StringIO()
    log = RunLog(verbose, out)
    for line in ["The ServerApp is here", *lines]:
        log.write(line)
    log.end()
    return out.getvalue().splitlines(), log


def test_of_a_start_that_failed_no_traceback_is_shown() -> None:
    shown, log = written(crash(TIMED_OUT))
    assert shown == ["The ServerApp is here"]
    assert log.start.failure == TIMED_OUT


def test_verbose_shows_it_all_the_same() -> None:
    shown, log = written(crash(TIMED_OUT), verbose=True)
    assert shown[1:] == crash(TIMED_OUT)
    assert log.start.failure == TIMED_OUT


def test_what_fails_later_is_shown_at_once() -> None:
    later = crash("ActorPool is empty.", where="build")
    shown, log = written([*later, "round 1/2"])
    expected = [text for line in later if (text := tidy(line)) is not None]
    assert shown == ["The ServerApp is here", *expected, "round 1/2"]
    assert log.start.failure == ""
    watch = StartWatch()
    seen = [watch.shown(line, line) for line in later]
    assert seen[later.index("WARNING :   Stopping Simulation Runtime.")] != [], "not only when the log ends"


def test_a_log_that_breaks_off_loses_no_line() -> None:
    begun = crash("killed", where="build")[:3]
    assert written(begun)[0][1:] == [tidy(line) for line in begun]


def test_a_full_disk_is_one_line_once() -> None:
    shown, _ = written([FULL, "round 1/2", FULL, FULL])
    assert shown[1].startswith(
        "WARNING: the disk of the temporary folder is over 95 % full, 4.5 GB are free: make room"
    )
    assert shown[2:] == ["round 1/2"]


class Starts:
    """Runs that fail for these reasons before one that completes."""

    def __init__(self, *reasons: str) -> None:
        self.reasons = list(reasons)
        self.failure = ""
        self.waited: list[str] = []
        self.told: list[str] = []

    def run(self, variables: Mapping[str, str]) -> tuple[str, str]:
        self.waited.append(variables["RAY_raylet_start_wait_time_s"])
        self.failure = self.reasons.pop(0) if self.reasons else ""
        return ("finished:failed", "Ending simulation.") if self.failure else ("finished:completed", "")

    def play(self) -> tuple[str, str]:
        return attempts(self.run, lambda: self.failure, self.told.append)


def test_it_is_tried_again_with_growing_patience() -> None:
    starts = Starts(TIMED_OUT, TIMED_OUT)
    assert starts.play() == ("finished:completed", "")
    assert starts.waited == ["120", "180", "240"]
    assert starts.told == [
        "Ray has not started (The current node timed out during startup); trying again, 2 of 3",
        "Ray has not started (The current node timed out during startup); trying again, 3 of 3",
    ]


def test_at_the_end_one_line_says_what_was_tried_and_what_to_do() -> None:
    status, details = Starts(*[TIMED_OUT] * len(PATIENCE)).play()
    assert status == "finished:failed"
    assert details.startswith("Ray has not started in 3 tries (The current node timed out during startup): the machine")
    assert "start again later" in details
    assert "\n" not in details


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        (NO_ROOM, "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE=1"),
        ("[Errno 28] No space left on device: '/tmp/winnow-x/session'", "make room"),
        ("validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes: /tmp/x", "--verbose"),
    ],
)
def test_what_time_does_not_cure_is_not_tried_again(reason: str, advice: str) -> None:
    starts = Starts(reason)
    status, details = starts.play()
    assert (status, starts.told, len(starts.waited)) == ("finished:failed", [], 1)
    assert details == explained(reason, 1)
    assert advice in details
    assert "\n" not in details


def test_any_other_failure_is_left_as_it_is() -> None:
    assert attempts(lambda _: ("finished:failed", "too few replies"), str, pytest.fail) == (
        "finished:failed",
        "too few replies",
    )


def test_the_user_s_own_patience_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "900")
    found = start_settings(60)
    assert "RAY_raylet_start_wait_time_s" not in found
    assert found["RAY_worker_register_timeout_seconds"] == "60"
    assert found["RAY_agent_register_timeout_ms"] == "60000"


def test_ray_still_reads_what_is_set_here() -> None:
    ray = pytest.importorskip("ray")
    library = (Path(ray.__file__).parent / "_raylet.so").read_bytes()
    assert [name for name in start_settings(1) if name.encode() not in library] == []
    assert TIMED_OUT[:40] in (Path(ray.__file__).parent / "_private/node.py").read_text()


def test_flower_still_writes_what_is_looked_for() -> None:
    flwr = pytest.importorskip("flwr")
    folder = Path(flwr.__file__).parent / "server/superlink/fleet/vce"
    source = (folder / "vce_api.py").read_text()
    assert 'log(ERROR, "An exception occured!! %s", ex)' in source
    assert 'log(WARN, "Stopping Simulation Runtime.")' in source
    assert "def init_ray(" in (folder / "backend/raybackend.py").read_text()


def test_the_record_of_a_run_that_is_tried_again_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checked = []
    records = [RunDirectory.create(tmp_path, "", Settings()) for _ in range(2)]

    def play(plan: RunPlan, log: RunLog, settings: object, variables: object) -> tuple[str, str]:
        settings()  # type: ignore[operator]
        record = records.pop(0)
        record.update_status(status="running")
        log.write(f"Run directory: {record.path}")
        for line in crash(TIMED_OUT) if records else []:
            log.write(line)
        return ("finished:failed", "Ending simulation.") if records else ("finished:completed", "")

    first, second = records
    monkeypatch.setattr(run, "_attempt", play)
    monkeypatch.setattr(run, "_checked", lambda plan, _wait: checked.append(plan))
    log = RunLog()
    assert run.simulate(RunPlan(tmp_path, {}, {}), log) == ("finished:completed", "")
    assert first.status()["status"] == "failed"
    assert "trying again, 2 of 3" in first.status()["reason"]
    assert log.run_directory == second.path
    assert second.status()["status"] == "running", "that is the ServerApp's to change"
    assert len(checked) == 1
    assert "Traceback" not in capsys.readouterr().out
