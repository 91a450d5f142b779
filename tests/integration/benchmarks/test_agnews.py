"""The comparison on news texts: its runs are accepted, methods see the same, and people's labels find their texts."""

import csv
from pathlib import Path

import pytest

from benchmarks.agnews import FEATURES, METHODS, NOISES, TEXTS, comparison
from benchmarks.tuned import Case
from tasks.client_data import client_dataset
from tasks.config import to_flat

PEOPLE = {number: number * 7 % 4 for number in range(1800) if number % 3}


@pytest.fixture
def _texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,800 training texts, two thirds of them with a person's label, and four for the test."""
    monkeypatch.setenv("WINNOW_DATA", str(tmp_path))
    (tmp_path / "agnews").mkdir()
    rows = [(number % 4, PEOPLE.get(number, ""), f"text {number}") for number in range(1800)]
    with (tmp_path / "agnews/merged_train_small.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("gt", "human_noisy_med", "text"), *rows])
    with (tmp_path / "agnews/test.csv").open("w", newline="") as file:
        csv.writer(file).writerows([(topic, "A test", f"text {topic}") for topic in (1, 2, 3, 4)])


@pytest.mark.usefixtures("_texts")
def test_every_method_sees_the_same_clients_with_the_labels_of_people() -> None:
    shared, seen = ("seed", "federation.", "partition.", "noise.", "task.", "model.", "train."), []
    for method in METHODS:
        settings = comparison("bag").settings(Case("human", method, 0.004, 2, "validation"))
        seen.append({key: value for key, value in to_flat(settings).items() if key.startswith(shared)})
    assert all(one == seen[0] for one in seen)
    shares = [client_dataset(settings, client).data for client in range(20)]
    assert sum(map(len, shares)) == 0.9 * len(PEOPLE)
    for data in shares:
        assert data.labels.tolist() == [PEOPLE[place] for place in data.ids.tolist()]


def test_noises_and_features_say_what_they_train_on() -> None:
    for features in FEATURES:
        compared = comparison(features)
        assert compared.noises.keys() == NOISES.keys()
        for noise, flat in compared.noises.items():
            assert f'{TEXTS} = "{"human" if noise == "human" else "small"}"' in str(flat["task.args"])
