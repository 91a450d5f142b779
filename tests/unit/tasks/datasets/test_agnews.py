"""AG News: both ways in which it is published, people's labels for it, and files that are not as published."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from server_app.validation.config import check, validate
from tasks.base import DataError
from tasks.client_data import client_dataset, divide, load_task
from tasks.config import ConfigError
from tasks.datasets.agnews import AgNews
from tasks.own_data.texts import hashed
from tasks.registry import TASKS
from tasks.setting_values import Value
from tasks.settings import TaskSettings

ROWS = [
    (topic, f"Title {number}", f"What happened, {word}")
    for number, (topic, word) in enumerate([(1, "un"), (2, "goal"), (3, "bank"), (4, "chip"), (2, "match")] * 8)
]
HUMAN: dict[str, Value] = {
    "noise.name": "human",
    "noise.args": 'path = "agnews/merged_train_small.csv", column = "human_noisy_med", clean_column = "gt"',
    "partition.name": "iid",
    "partition.args": "",
    "federation.num-clients": 4,
}


def write(path: Path, rows: list[tuple[object, ...]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """All three tables; of the small one every fourth row has no human label, and every fifth a wrong one."""
    write(tmp_path / "agnews/train.csv", ROWS)
    write(tmp_path / "agnews/test.csv", ROWS[:5])
    people = ["" if place % 4 == 3 else (topic if place % 5 == 0 else topic - 1) for place, (topic, *_) in tuples()]
    people = [min(3, label) if label != "" else "" for label in people]
    small = [(topic - 1, people[place], f"{title} . {text}") for place, (topic, title, text) in tuples()]
    write(tmp_path / "agnews/merged_train_small.csv", [("gt", "human_noisy_med", "text"), *small])
    return tmp_path


def tuples() -> list[tuple[int, tuple[int, str, str]]]:
    return list(enumerate(ROWS))


def agnews(root: Path, args: str = "") -> AgNews:
    task = TASKS.build("ag-news", args, data_path=root)
    assert isinstance(task, AgNews)
    return task


def refused(root: Path, **changes: Value) -> str:
    """What a dry run says of such a configuration; empty if it accepts it."""
    flat = {"task.name": "ag-news", "task.data-path": str(root), **HUMAN, "noise.name": "none", "noise.args": ""}
    load_task.cache_clear()
    divide.cache_clear()  # as in a process that has not seen the files before
    try:
        validate({**flat, **changes})
        return ""
    except ConfigError as error:
        return str(error)


@pytest.mark.parametrize(("args", "count"), [("", 40), ('train = "small"', 40), ('train = "human"', 30)])
def test_each_training_set_holds_the_words_of_title_and_text_with_their_topic(
    root: Path, args: str, count: int
) -> None:
    task = agnews(root, args)
    examples, ids = task.train_examples(), task.train_ids()
    assert len(examples) == len(ids) == count
    for place, features, label in zip(ids.tolist(), examples.features, examples.labels, strict=True):
        topic, title, text = ROWS[place]
        assert label == topic - 1
        np.testing.assert_array_equal(features, hashed(f"{title} {text}", 64, 20_000))
    assert task.test_examples().labels.tolist() == [0, 1, 2, 3, 1]
    assert task.class_names[3] == "Sci/Tech"


def test_people_s_labels_belong_to_the_texts_that_they_read(root: Path) -> None:
    flat = {"task.name": "ag-news", "task.args": 'train = "human"', "task.data-path": str(root), **HUMAN}
    settings = check(flat)
    for client in range(4):
        share = client_dataset(settings, client)
        expected = [
            min(3, ROWS[place][0] if place % 5 == 0 else ROWS[place][0] - 1) for place in share.data.ids.tolist()
        ]
        assert share.data.labels.tolist() == expected
    said = refused(root, **{"task.args": 'train = "small"', **HUMAN})
    assert "have no label in column 'human_noisy_med'" in said


def test_words_without_pairs_stay_in_their_order(root: Path) -> None:
    task = agnews(root, "words = 4, pairs = false, vocabulary = 500")
    assert task.input_shape == (4,)
    row = task.train_examples().features[0]
    assert row.tolist() == hashed("title 0 what happened", 4, 500).tolist()[:4]
    logits = task.build_model("text-transformer", "width = 8")(task.prepare(torch.stack([row, row.flip(0)])))
    assert not torch.allclose(logits[0], logits[1])


def test_a_missing_table_is_named_with_what_could_be_chosen_instead(root: Path) -> None:
    (root / "agnews/train.csv").unlink()
    with pytest.raises(DataError, match=r'cannot read train.csv .*; or choose .*: train = "small" or train = "human"'):
        agnews(root).check()
    agnews(root, 'train = "small"').check()
    (root / "agnews/merged_train_small.csv").unlink()
    with pytest.raises(DataError, match=r"cannot read merged_train_small.csv (?!.*or choose)"):
        agnews(root, 'train = "human"').check()
    write(root / "ag_news_csv/train.csv", ROWS)
    agnews(root).check()
    (root / "agnews/test.csv").unlink()
    with pytest.raises(DataError, match=r"cannot read test.csv (?!.*or choose)"):
        agnews(root).check()
    said = refused(root, **{"task.args": 'train = "all"'})
    assert "train must be 'official' or 'small' or 'human', not 'all'" in said


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("train", b'"3","",""', "line 41: there is no word in the text"),
        ("train", b'"3"," - ","..."', "line 41: there is no word in the text"),
        ("train", b'"3","Only a title"', "line 41: has more or fewer cells"),
        ("train", b'"5","Title","Text"', "line 41: unknown class '5'; choices: 1, 2, 3, 4"),
        ("train", b'"3","Title","Caf\xe9"', "is not UTF-8 (line 41"),
        ("train", b'"3","Title","Te\0xt"', "line 41 holds a zero byte"),
        ("train", b'"3","Title","Text', "begins in line 41 is never closed"),
        ("test", b'"0","Title","Text"', "test.csv line 6: unknown class '0'"),
        ("test", b'"1","Title"', "test.csv line 6: has more or fewer cells"),
    ],
)
def test_a_dry_run_names_the_line_that_is_not_as_published(root: Path, name: str, line: bytes, said: str) -> None:
    assert refused(root) == ""
    with (root / f"agnews/{name}.csv").open("ab") as file:
        file.write(line + b"\r\n")
    message = refused(root)
    assert said in message
    assert "- task: " in message, "what is wrong is the data, not the partition that asked for it"


def test_tables_of_other_columns_and_empty_ones_are_refused(root: Path) -> None:
    write(root / "agnews/train.csv", [(topic, text) for topic, _, text in ROWS])
    assert "has no row of 3 cells" in refused(root)
    (root / "agnews/train.csv").write_text("")
    assert "no texts in" in refused(root)
    write(root / "agnews/merged_train_small.csv", [("gt", "text"), (1, "News")])
    assert "has no column 'human_noisy_med'" in refused(root, **{"task.args": 'train = "human"'})


def test_features_are_kept_until_the_table_changes(root: Path, tmp_path: Path) -> None:
    settings = TaskSettings("ag-news", "", str(root), cache_path=str(tmp_path / "cache"), encoder="wordllama")
    first = load_task(settings).train_examples()
    assert (first.features.shape, first.labels[:3].tolist()) == ((40, 256), [0, 1, 2])
    write(root / "agnews/train.csv", ROWS[::-1])
    load_task.cache_clear()
    again = load_task(settings).train_examples()
    assert torch.equal(again.features, first.features.flip(0))


def test_the_published_files_are_read_whole(data_root: Path) -> None:
    task = agnews(data_root, 'train = "human", words = 2, pairs = false')
    test = task.test_examples()
    assert np.bincount(test.labels).tolist() == [1900] * 4
    assert (len(task.train_examples()), task.train_ids()[-1]) == (9_993, 9_992)
    assert np.bincount(task.train_examples().labels).tolist() == [2514, 2504, 2518, 2457]
