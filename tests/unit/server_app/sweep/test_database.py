"""Database of a sweep: what is written is read back, nothing saved is lost, and foreign files are refused."""

import sqlite3
from dataclasses import replace

import pytest

from server_app.sweep.database import COMPLETED, FILE, SweepDatabase, SweepDesign, SweepError, SweepRun

DESIGN = SweepDesign(
    "digits", {"method": ("fedavg", "winnow"), "seed": ("1", "2")}, "method", "fedavg", tags=("a", "b")
)
RUN = SweepRun("k1", 0, {"method": "fedavg", "seed": "1"}, {"loss.name": "ce", "train.augment": False, "seed": 1})
SERIES = {"accuracy": ((0, 0.1), (1, 0.5), (2, 0.75)), "loss": ((2, 1.5),)}


@pytest.fixture
def database(tmp_path):
    opened = SweepDatabase(tmp_path, DESIGN)
    yield opened
    opened.close()


def test_runs_come_back_as_they_were_written(database, tmp_path):
    database.add([replace(RUN, key="k2", place=1), RUN])
    changes = {"state": COMPLETED, "seconds": 2.5, "best_round": 2, "versions": {"torch": "2"}}
    database.update("k1", SERIES, **changes)
    again = SweepDatabase(tmp_path)
    first, second = again.runs()
    assert (again.design(), second) == (DESIGN, replace(RUN, key="k2", place=1))
    assert first == replace(RUN, series=SERIES, **changes)
    assert again.runs(with_series=False)[0].series == {}


def test_a_known_run_keeps_its_results(database):
    database.add([RUN])
    database.update("k1", SERIES, state=COMPLETED)
    database.add([replace(RUN, place=7, point={"method": "other", "seed": "1"})])
    (found,) = database.runs()
    assert (found.place, found.point["method"], found.state, found.series) == (7, "other", COMPLETED, SERIES)


def test_a_change_that_fails_leaves_all_as_it_was(database):
    database.add([RUN])
    database.update("k1", SERIES)
    with pytest.raises(SweepError, match="no such column: nonsense"):
        database.update("k1", {"accuracy": ((1, 0.0),)}, seconds=1.0, nonsense=1)
    assert database.runs() == [replace(RUN, series=SERIES)]


def test_the_order_of_rounds_is_that_of_their_numbers(database):
    database.add([RUN])
    database.update("k1", {"accuracy": ((11, 0.3), (2, 0.2), (1, 0.1))})
    assert database.runs()[0].series == {"accuracy": ((1, 0.1), (2, 0.2), (11, 0.3))}


def test_a_folder_without_a_sweep_is_refused(tmp_path):
    with pytest.raises(SweepError, match=f"has no file {FILE}"):
        SweepDatabase(tmp_path)


@pytest.mark.parametrize(("version", "words"), [(99, "results of format 99"), (0, "another program's file")])
def test_a_foreign_file_is_refused(tmp_path, version, words):
    file = sqlite3.connect(tmp_path / FILE)
    file.executescript(f"CREATE TABLE things (a); PRAGMA user_version = {version}")
    file.close()
    with pytest.raises(SweepError, match=words):
        SweepDatabase(tmp_path, DESIGN)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / FILE).write_text("not a database, " * 100)
    with pytest.raises(SweepError, match="not a database"):
        SweepDatabase(tmp_path)
