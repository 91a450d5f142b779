"""Relabelled copies of own data: what is changed, what stays to the byte, and what is refused."""

import os
from pathlib import Path

import pytest

from tasks.base import DataError
from tasks.client_data import load_task
from tasks.own_data.base import OwnDataTask
from tasks.own_data.relabelling import given_labels, relabelled_copy
from tasks.own_data.tables import TableFormat, rewrite_table
from tasks.settings import TaskSettings
from tests.site_data import ARGS, KINDS

FOLDERS = ("image-folder", "image-csv", "text-csv", "table")


def task_of(kind: str, data: Path, args: str = "") -> OwnDataTask:
    task = load_task(TaskSettings(kind, args or ARGS[kind], str(data)))
    assert isinstance(task, OwnDataTask)
    return task


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_copy_has_the_new_labels_and_no_others_and_the_original_stays(tmp_path: Path, kind: str):
    task = task_of(kind, KINDS[kind](tmp_path / "data", 20))
    before, names = tree(tmp_path / "data"), list(given_labels(task))
    assert len(names) == 20
    changes = {names[0]: 1 - given_labels(task)[names[0]], names[5]: 1 - given_labels(task)[names[5]], names[7]: None}
    moved = relabelled_copy(task, changes, tmp_path / "new")
    assert tree(tmp_path / "data") == before
    again = task_of(kind, tmp_path / "new")
    found = given_labels(again)
    assert len(found) == 19
    if kind in ("text-csv", "table"):  # a row is gone, so lines after it have other numbers
        expected = [changes.get(name, label) for name, label in given_labels(task).items()]
        assert [*found.values()] == [label for label in expected if label is not None]
    else:
        expected_names = {moved.get(name, name): changes.get(name, label) for name, label in given_labels(task).items()}
        assert found == {name: label for name, label in expected_names.items() if label is not None}
    assert len(again.train_examples()) == 19


def test_a_moved_image_never_takes_the_place_of_another(tmp_path: Path):
    task = task_of("image-folder", KINDS["image-folder"](tmp_path / "data", 8))
    data = tmp_path / "data"
    for name in ("bright/000.png", "bright/000-from-dark.png"):
        (data / name).write_bytes((data / "bright/001.png").read_bytes() + name.encode())
    content = (data / "dark/000.png").read_bytes()
    moved = relabelled_copy(task, {"dark/000.png": 1, "bright/001.png": 0}, tmp_path / "new")
    assert moved == {"dark/000.png": "bright/000-from-dark-2.png", "bright/001.png": "dark/001.png"}
    assert (tmp_path / "new/bright/000-from-dark-2.png").read_bytes() == content
    assert (tmp_path / "new/bright/000.png").read_bytes().endswith(b"bright/000.png")
    assert len(tree(tmp_path / "new")) == len(tree(data))


def test_groups_and_test_data_go_along(tmp_path: Path):
    data = KINDS["image-folder"](tmp_path / "data", 6)
    (data / "dark/clinic").mkdir()
    for path in (data / "dark").glob("*.png"):
        path.rename(data / "dark/clinic" / path.name)
    KINDS["image-folder"](data / "test", 4)
    relabelled_copy(task_of("image-folder", data), {"dark/clinic/000.png": 1}, tmp_path / "new")
    assert (tmp_path / "new/bright/clinic/000.png").is_file()
    assert tree(tmp_path / "new/test") == tree(data / "test")


@pytest.mark.parametrize("linked", [True, False])
def test_files_are_linked_only_if_that_is_asked_for_and_a_new_table_never_is(tmp_path: Path, linked: bool):
    task = task_of("image-csv", KINDS["image-csv"](tmp_path / "data", 6))
    relabelled_copy(task, {"scans/000.png": 1}, tmp_path / "new", hard_links=linked)
    assert os.path.samefile(tmp_path / "data/scans/001.png", tmp_path / "new/scans/001.png") is linked
    assert not os.path.samefile(tmp_path / "data/labels.csv", tmp_path / "new/labels.csv")


def test_masks_can_only_be_left_out_and_go_with_their_images(tmp_path: Path):
    task = task_of("image-masks", KINDS["image-masks"](tmp_path / "data", 5))
    relabelled_copy(task, {"images/002.png": None}, tmp_path / "new")
    assert {*tree(tmp_path / "data")} - {*tree(tmp_path / "new")} == {"images/002.png", "masks/002.png"}
    with pytest.raises(DataError, match="a mask has no class"):
        relabelled_copy(task, {"images/002.png": 1}, tmp_path / "other")


@pytest.mark.parametrize("where", ["data", "data/below", ".", "full"])
def test_nothing_is_written_over_or_into_the_originals(tmp_path: Path, where: str):
    task = task_of("image-folder", KINDS["image-folder"](tmp_path / "data", 4))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(DataError, match=r"lie in each other|is there already"):
        relabelled_copy(task, {}, tmp_path / where)
    assert tree(tmp_path) == before


def test_a_link_out_of_the_folder_is_not_followed_and_leaves_nothing(tmp_path: Path):
    data = KINDS["image-folder"](tmp_path / "data", 4)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (data / "dark/link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match="leads outside"):
        relabelled_copy(task_of("image-folder", data), {}, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert not [*tmp_path.glob(".*partial")]


def test_an_example_that_is_not_there_is_named(tmp_path: Path):
    task = task_of("image-folder", KINDS["image-folder"](tmp_path / "data", 4))
    with pytest.raises(DataError, match=r"no example 'dark/9\.png' \(1 are missing\)"):
        relabelled_copy(task, {"dark/9.png": 1}, tmp_path / "new")


ODD = '\ufeffid;text;label\r\n1;"two\r\nlines; ""quoted""";a\r\n\r\n2; plain ;a \r\n3;x;b'


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({}, ODD),
        ({2: "b"}, ODD.replace('quoted""";a', 'quoted""";b')),
        ({5: "b"}, ODD.replace("2; plain ;a ", "2; plain ;b")),
        ({6: None}, ODD.removesuffix("3;x;b")),
        ({2: None, 6: "a;b"}, ODD.replace('1;"two\r\nlines; ""quoted""";a\r\n', "").replace("3;x;b", '3;x;"a;b"')),
    ],
)
def test_all_other_rows_of_a_table_stay_to_the_byte(tmp_path: Path, cells: dict[int, str | None], expected: str):
    (tmp_path / "t.csv").write_bytes(ODD.encode())
    table = TableFormat("t.csv", ";")
    assert rewrite_table(tmp_path, table, "label", cells) == expected.encode()


def test_a_table_without_quotes_cannot_hold_a_delimiter(tmp_path: Path):
    (tmp_path / "t.csv").write_text('x\t"a\n')
    table = TableFormat("t.csv", "\t", ("text", "label"), "")
    assert rewrite_table(tmp_path, table, "label", {1: "b"}) == b"x\tb\n"
    with pytest.raises(DataError, match="without quotes"):
        rewrite_table(tmp_path, table, "label", {1: "b\tc"})
