"""Pictures of the documentation: what is drawn is what the run recorded."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.doc_pictures import client_lines, demo_picture, round_picture
from server_app.report.reading import RunRecord, read_run
from tests.run_directories import accuracies, write_run

REGISTERED = [
    {"round": 0, "client": 0, "examples": 10, "noise_rate": 0.0},
    {"round": 0, "client": 1, "examples": 30, "noise_rate": 0.8},
]
TRAINED = [
    {"round": 1, "client": 0, "examples": 10, "weight": 0.75, "distance": 1.0, "train_loss": 0.5, "quarantine": None},
    {"round": 1, "client": 1, "examples": 30, "weight": 0.25, "distance": 3.0, "train_loss": 2.0, "quarantine": None},
]


def record(path: Path, *lines: dict[str, object]) -> RunRecord:
    return read_run(write_run(path, accuracies(0.1, 0.9), [*REGISTERED, *lines]))


def test_a_line_has_the_wrong_labels_and_the_weight_of_a_plain_mean(tmp_path: Path) -> None:
    first, second = client_lines(record(tmp_path / "run", *TRAINED), 1)
    assert (first.wrong, second.wrong) == (0, 24)
    assert (first.share, second.share) == (0.25, 0.75)
    assert (second.train_loss, second.distance, second.weight) == (2.0, 3.0, 0.25)


def test_pictures_are_whole_files_and_the_same_each_time(tmp_path: Path) -> None:
    run = record(tmp_path / "run", *TRAINED)
    drawn = round_picture(run, 1)
    assert drawn == round_picture(run, 1)
    for picture in (drawn, demo_picture(run, run)):
        assert ElementTree.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"


def test_a_round_that_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no round 2 with clients; it has rounds 1 to 1"):
        client_lines(record(tmp_path / "run", *TRAINED), 2)
    broken = {**TRAINED[1], "weight": None, "quarantine": "NaN"}
    with pytest.raises(ValueError, match=r"client 1 of round 1 lacks what is drawn"):
        client_lines(record(tmp_path / "broken", TRAINED[0], broken), 1)
