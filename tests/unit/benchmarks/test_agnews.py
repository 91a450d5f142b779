"""The comparison on news texts: what is held out, how learning rates are chosen, and that methods see the same."""

import csv
from pathlib import Path

import numpy as np

from benchmarks.agnews import METHODS, Case, HeldOut, Outcome, best_rates, table
from tasks.config import read, to_flat
from tasks.datasets.agnews import AgNews


def test_a_tenth_of_the_training_texts_is_held_out_and_the_others_keep_their_ids(tmp_path: Path) -> None:
    (tmp_path / "agnews").mkdir()
    with (tmp_path / "agnews/merged_train_small.csv").open("w", newline="") as file:
        written = [(number % 4, number % 3 or "", f"number{number}") for number in range(60)]
        csv.writer(file).writerows([("gt", "human_noisy_med", "text"), *written])
    (tmp_path / "agnews/test.csv").write_text("")
    for train, count in (("small", 60), ("human", 40)):
        task, whole = (kind(train, vocabulary=10**6, data_path=tmp_path) for kind in (HeldOut, AgNews))
        train_part, held = task.train_examples(), task.test_examples()
        assert (len(train_part), len(held)) == (count * 9 // 10, count // 10)
        rows = map(tuple, whole.train_examples().features.tolist())
        rows_of = dict(zip(rows, whole.train_ids().tolist(), strict=True))
        ids = [rows_of[tuple(row)] for row in train_part.features.tolist()]
        assert task.train_ids().tolist() == ids
        assert train_part.labels.tolist() == [place % 4 for place in ids]
        others = {rows_of[tuple(row)] for row in held.features.tolist()}
        assert others == {*rows_of.values()} - {*ids}
        assert np.array_equal(held.labels, [place % 4 for place in sorted(others)])


def test_every_method_sees_the_same_clients_and_labels() -> None:
    shared = ("seed", "federation.", "partition.", "noise.", "task.", "model.", "train.")
    for noise, features in (("0-0.4", "bag"), ("human", "wordllama")):
        seen = []
        for method in METHODS:
            settings, problems = read(Case(features, noise, method, 0.004, 2, False).configuration())
            assert not problems
            seen.append({key: value for key, value in to_flat(settings).items() if key.startswith(shared)})
        assert all(one == seen[0] for one in seen)
        assert (seen[0]["seed"], seen[0]["train.learning-rate"], seen[0]["task.name"]) == (2, 0.004, "ag-news")
        assert ("human" in str(seen[0]["task.args"])) == (noise == "human")


def test_the_rate_is_the_best_on_held_out_texts_and_each_cell_has_its_own() -> None:
    held = {("fedavg", 0.001): 80.0, ("fedavg", 0.004): 82.0, ("winnow", 0.001): 85.0, ("winnow", 0.004): 84.0}
    tuned = {Case("bag", "human", name, rate, 11, True): Outcome(a, 1.0) for (name, rate), a in held.items()}
    cell = {name: Case("bag", "human", name, 0.0, 0, False) for name in ("fedavg", "winnow")}
    assert best_rates(tuned) == {cell["fedavg"]: 0.004, cell["winnow"]: 0.001}


def test_the_table_has_a_column_for_each_noise_and_features_and_names_the_rate() -> None:
    runs = {
        Case("bag", "human", "fedavg", 0.004, seed, False): Outcome(accuracy, 1.0)
        for seed, accuracy in ((1, 80.0), (2, 82.0))
    }
    runs[Case("wordllama", "0-0.8", "fedavg", 0.001, 1, False)] = Outcome(85.0, 1.0)
    head, _, row = table(runs).splitlines()
    assert head == "| method | bag, human | wordllama, 0-0.8 |"
    assert row == "| fedavg | 81.00 ± 1.41 (0.004) | 85.00 (0.001) |"
