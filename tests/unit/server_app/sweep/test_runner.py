"""Runner of a sweep: nothing is played twice, what crashes is repeated once, and an interrupted sweep goes on."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from server_app.storage.run_directory import RunDirectory
from server_app.sweep import ledger as ledgers
from server_app.sweep.crew import Died, Event
from server_app.sweep.database import (
    COMPLETED,
    EARLIER,
    FAILED,
    FINAL,
    PENDING,
    RUNNING,
    TUNING,
    SweepDatabase,
    SweepError,
    SweepRun,
)
from server_app.sweep.file import SweepFileError
from server_app.sweep.keys import RunKey, run_key
from server_app.sweep.ledger import Entry, Ledger
from server_app.sweep.plan import SweepPlan
from server_app.sweep.player import Began, Job, Outcome
from server_app.sweep.runner import SweepRunner
from tasks.config import parse

FILE = """
[axes.method]
a = { loss.name = "ce" }
b = { loss.name = "gce" }
[axes]
seed = [1, 2]
"""
TUNE = '[tune]\nseeds = [9]\n"train.learning-rate" = [0.1, 0.2]\n'
Script = Callable[[Job, int], Event | BaseException]


def done(job: Job, accuracy: float = 0.5) -> Outcome:
    """A run that ends with an accuracy on validation data, and 5 points more on test data."""
    rounds, tested = (((1, value), (2, value)) for value in (accuracy, accuracy + 0.05))
    series = {"accuracy": tested, "validation_accuracy": rounds, "seconds": rounds}
    return Outcome(job.key, COMPLETED, "", "2026-01-31T10:15:00+00:00", 3.0, 2.0, 2, {"torch": "2"}, series)


class ScriptedCrew:
    """Plays as a script says, which gets a job and how often it has come before."""

    def __init__(self, script: Script = lambda job, before: done(job), size: int = 2) -> None:
        self.size, self._script = size, script
        self.jobs: list[Job] = []
        self._open: list[Job] = []

    def free(self) -> bool:
        return len(self._open) < self.size

    def begin(self, job: Job) -> None:
        assert self.free()
        self.jobs.append(job)
        self._open.append(job)
        job.folder.mkdir(parents=True, exist_ok=True)
        RunDirectory(job.folder).write_config(parse(job.settings))

    def events(self) -> list[Event]:
        job = self._open.pop(0)
        event = self._script(job, sum(other.key == job.key for other in self.jobs) - 1)
        if isinstance(event, BaseException):
            raise event
        return [Began(job.key, 1), event]

    def close(self) -> None:
        pass


class Sweep:
    """A sweep's folder, called again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.progress: list[tuple[int, int, float | None]] = []

    def __call__(
        self, text: str = FILE, script: Script = lambda job, before: done(job), **options: bool
    ) -> ScriptedCrew:
        file = self.folder / "trial.toml"
        file.write_text(text)
        plan = SweepPlan.read(file, self.folder)
        self.lines, self.progress, crew = [], [], ScriptedCrew(script)
        advance = lambda *told: self.progress.append(told)
        database = SweepDatabase(self.folder, plan.design())
        ledger = Ledger(file, database, **options)
        try:
            runner = SweepRunner(plan, self.folder, database, ledger, lambda: crew, self.lines.append, advance)
            self.failed = runner.run()
        finally:
            database.close()
        return crew

    @property
    def rows(self) -> list[SweepRun]:
        return SweepDatabase(self.folder).runs()

    def states(self, purpose: str = FINAL) -> dict[str, str]:
        return {", ".join(row.point.values()): row.state for row in self.rows if row.purpose == purpose}


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    return Sweep(tmp_path)  # type: ignore[return-value]


def test_all_runs_are_played_and_kept(sweep: Sweep) -> None:
    crew = sweep()
    assert len(crew.jobs) == 4
    assert [(job.settings["loss.name"], job.settings["seed"]) for job in crew.jobs] == [
        ("ce", 1),
        ("gce", 1),
        ("ce", 2),
        ("gce", 2),
    ]
    first = sweep.rows[0]
    assert first.series["validation_accuracy"] == ((1, 0.5), (2, 0.5))
    assert (first.state, first.attempts, first.seconds, first.cpu_seconds, first.best_round) == (
        COMPLETED,
        1,
        3.0,
        2.0,
        2,
    )
    assert first.folder == f"runs/{first.key[:12]}"
    assert crew.jobs[0].folder == sweep.folder / first.folder
    assert sweep.lines[0] == "[1/4] a, seed 1: validation accuracy 50.0 % after 3.0 s  about 4 s left"
    assert sweep.progress[0] == (0, 4, None)
    assert [told for told in sweep.progress if told[0] in (1, 4)] == [(1, 4, 4.5), (4, 4, 0.0)]
    assert sweep.failed == []


def test_what_is_finished_is_not_played_again(sweep: Sweep) -> None:
    sweep()
    assert sweep().jobs == []
    more = sweep(FILE.replace("[1, 2]", "[2, 3]"))
    assert [job.settings["seed"] for job in more.jobs] == [3, 3]
    assert {row.purpose for row in sweep.rows if row.point["seed"] == "1"} == {EARLIER}
    assert sweep(FILE.replace("[1, 2]", "[1, 3]")).jobs == []
    assert sweep.states() == dict.fromkeys(("a, 1", "b, 1", "a, 3", "b, 3"), COMPLETED)


@pytest.mark.parametrize("kind", ["dies", "raises"])
def test_a_run_that_crashes_is_repeated_once(sweep: Sweep, kind: str) -> None:
    def script(job: Job, before: int) -> Event:
        if (job.settings["loss.name"], job.settings["seed"]) != ("ce", 1) or before:
            return done(job)
        return Died(job.key, "killed") if kind == "dies" else replace(done(job), state=FAILED, reason="killed")

    crew = sweep(script=script)
    assert len(crew.jobs) == 5
    assert set(sweep.states().values()) == {COMPLETED}
    assert [row.attempts for row in sweep.rows] == [2, 1, 1, 1]
    assert "a, seed 1 failed and is repeated once: killed" in sweep.lines
    assert sweep.failed == []


def test_one_that_crashes_twice_has_failed_and_the_others_go_on(sweep: Sweep) -> None:
    crew = sweep(script=lambda job, before: Died(job.key, "killed") if job.settings["seed"] == 1 else done(job))
    assert len(crew.jobs) == 6
    assert sweep.failed == [("a, seed 1", "killed"), ("b, seed 1", "killed")]
    assert sweep.states() == {"a, 1": FAILED, "b, 1": FAILED, "a, 2": COMPLETED, "b, 2": COMPLETED}
    assert sweep.rows[0].reason == "killed"
    again = sweep()
    assert [job.settings["seed"] for job in again.jobs] == [1, 1], "a new call tries them again"
    assert set(sweep.states().values()) == {COMPLETED}
    assert sweep.rows[0].reason == ""


def test_an_interrupted_sweep_goes_on(sweep: Sweep) -> None:
    def script(job: Job, before: int) -> Event | BaseException:
        return KeyboardInterrupt() if job.settings["seed"] == 2 else done(job)

    with pytest.raises(KeyboardInterrupt):
        sweep(script=script)
    assert sweep.states() == {"a, 1": COMPLETED, "b, 1": COMPLETED, "a, 2": PENDING, "b, 2": PENDING}
    again = sweep(script=lambda job, before: Died(job.key, "x") if not before else done(job))
    assert [job.settings["seed"] for job in again.jobs] == [2, 2, 2, 2], "an interrupted attempt does not count"
    assert set(sweep.states().values()) == {COMPLETED}


def test_an_interrupt_keeps_the_run_whose_end_was_just_said(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(runner: SweepRunner, *told: object) -> list[Entry]:
        ended(runner, *told)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    ended = SweepRunner._ended
    monkeypatch.setattr(SweepRunner, "_ended", stop)
    with pytest.raises(KeyboardInterrupt):
        sweep()
    assert sweep.states() == {"a, 1": COMPLETED, "b, 1": PENDING, "a, 2": PENDING, "b, 2": PENDING}
    assert sweep.rows[1].attempts == 0


def test_a_run_left_by_a_killed_sweep_is_played(sweep: Sweep) -> None:
    sweep()
    database = SweepDatabase(sweep.folder)
    database.update(sweep.rows[1].key, {}, state=RUNNING)
    database.close()
    assert len(sweep().jobs) == 1


def test_a_full_disk_ends_the_sweep_and_keeps_what_is_finished(sweep: Sweep) -> None:
    def script(job: Job, before: int) -> Event:
        full = Outcome(job.key, FAILED, "WriteError: cannot write x: No space left on device", stops_all=True)
        return full if job.settings["seed"] == 2 else done(job)

    with pytest.raises(SweepError, match="No space left on device; what is finished is kept"):
        sweep(script=script)
    assert sweep.states() == {"a, 1": COMPLETED, "b, 1": COMPLETED, "a, 2": PENDING, "b, 2": PENDING}


def test_two_runs_alike_are_refused_by_name(sweep: Sweep) -> None:
    text = FILE.replace('"gce"', '"ce"')
    with pytest.raises(SweepFileError, match="two runs are alike: a, seed 1  and  b, seed 1"):
        sweep(text)


def test_tuning_comes_first_and_what_it_chose_is_played_and_kept(sweep: Sweep) -> None:
    def script(job: Job, before: int) -> Event:
        better = {("ce", 0.1), ("gce", 0.2)}
        return done(job, 0.9 if (job.settings["loss.name"], job.settings["train.learning-rate"]) in better else 0.2)

    crew = sweep(FILE + TUNE, script)
    assert [job.settings["seed"] for job in crew.jobs] == [9, 9, 9, 9, 1, 1, 2, 2]
    rates = {job.settings["loss.name"]: job.settings["train.learning-rate"] for job in crew.jobs[4:]}
    assert rates == {"ce": 0.1, "gce": 0.2}
    assert set(sweep.states(TUNING)) == {f"{method}, 9, {rate}" for method in "ab" for rate in (0.1, 0.2)}
    assert SweepDatabase(sweep.folder).design().tuning["chosen"] == {
        "a": {"train.learning-rate": 0.1},
        "b": {"train.learning-rate": 0.2},
    }
    assert any(line.endswith("\nb       20.0    90.0 *") for line in sweep.lines)
    assert sweep.lines[0].startswith(
        "[1/8] tuning a, seed 9, train.learning-rate 0.1: validation accuracy 90.0 % after"
    )
    assert sweep(FILE + TUNE, script).jobs == []


def test_runs_of_other_code_are_played_again_unless_they_are_to_be_kept(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep()
    monkeypatch.setattr(ledgers, "run_key", lambda flat: RunKey(run_key(flat).content, "other code"))
    assert sweep(keep_older_code=True).jobs == []
    assert sweep.lines == ["The code has changed since 4 of 4 runs were finished; they are kept."]
    assert set(sweep.states().values()) == {COMPLETED}
    assert len(sweep().jobs) == 4
    assert sweep.lines[0].startswith("The code has changed since 4 of 4 runs were finished; they are played again")
    assert {row.state for row in sweep.rows if row.purpose == EARLIER} == {COMPLETED}
    assert len(sweep.rows) == 8
    assert sweep().jobs == []
    assert sweep.lines == []


def test_a_run_of_older_code_that_had_another_default_is_none_of_these(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep()
    changed, lost = (sweep.folder / row.folder / "config.toml" for row in sweep.rows[1:3])
    changed.write_text(changed.read_text().replace("momentum = 0.9\n", "momentum = 0.8\n"))
    lost.unlink()
    monkeypatch.setattr(ledgers, "run_key", lambda flat: RunKey(run_key(flat).content, "other code"))
    assert [job.settings["loss.name"] for job in sweep(keep_older_code=True).jobs] == ["gce", "ce"]
    assert sweep.lines[0] == "The code has changed since 2 of 4 runs were finished; they are kept."


def test_a_setting_that_an_older_run_did_not_know_is_what_it_did_without(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep()
    for row in sweep.rows:  # before there was a moving average of the models
        file = sweep.folder / row.folder / "config.toml"
        file.write_text("".join(line for line in file.read_text().splitlines(True) if not line.startswith("ema = ")))
    monkeypatch.setattr(ledgers, "run_key", lambda flat: RunKey(run_key(flat).content, "other code"))
    assert len(sweep(keep_older_code=True).jobs) == 4
