"""Decoded examples on disk: the same as reading again, and never used for files that have changed."""

import os
from pathlib import Path

import numpy as np
import pytest

from tasks.settings import TaskSettings
from tasks.shares import load_task
from tasks.site import cache, reading
from tasks.site.base import SiteTask
from tests.site_data import ARGS, KINDS, image_folder

NAMES = sorted(KINDS)


def task(kind: str, root: Path, folder: Path, more: str = "", bad_data: str = "refuse") -> SiteTask:
    load_task.cache_clear()
    found = load_task(TaskSettings(kind, ARGS[kind] + more, str(root), bad_data, str(folder)))
    assert isinstance(found, SiteTask)
    return found


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the name of every example that is decoded from here on."""
    seen: list[str] = []
    plain = reading.Item.__getattribute__

    def noting(self: reading.Item, name: str) -> object:
        if name == "read":
            seen.append(plain(self, "name"))
        return plain(self, name)

    monkeypatch.setattr(reading.Item, "__getattribute__", noting)
    return seen


@pytest.mark.parametrize("kind", NAMES)
def test_the_second_process_decodes_nothing_and_sees_the_same(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, folder = KINDS[kind](tmp_path / "data"), tmp_path / "state" / "of the node"
    first, plain = task(kind, root, folder), load_task(TaskSettings(kind, ARGS[kind], str(root)))
    expected = plain.train_examples()
    first.train_examples()
    seen = reads(monkeypatch)
    second = task(kind, root, folder)
    got = second.train_examples()
    assert seen == []
    assert got.features.dtype == expected.features.dtype
    np.testing.assert_array_equal(got.features, expected.features)
    np.testing.assert_array_equal(got.labels, expected.labels)
    assert second.example_names(second.train_ids()) == plain.example_names(plain.train_ids())
    np.testing.assert_array_equal(second.groups(), plain.groups())
    assert (folder.stat().st_mode & 0o777, (folder / cache.FILE).stat().st_mode & 0o777) == (0o700, 0o600)
    assert [path.name for path in folder.iterdir()] == [cache.FILE]


def changed(root: Path) -> None:
    (root / "dark" / "000.png").write_bytes((root / "dark" / "002.png").read_bytes())


def same_size_and_time(root: Path) -> None:
    path = root / "dark" / "000.png"
    before = path.stat()
    changed(root)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def moved(root: Path) -> None:
    (root / "dark" / "000.png").rename(root / "bright" / "renamed.png")


def removed(root: Path) -> None:
    (root / "dark" / "000.png").unlink()


@pytest.mark.parametrize("change", [changed, same_size_and_time, moved, removed])
def test_a_changed_file_is_seen(tmp_path: Path, change: object) -> None:
    root, folder = image_folder(tmp_path / "data"), tmp_path / "state"
    task("image-folder", root, folder).train_examples()
    assert callable(change)
    change(root)
    got = task("image-folder", root, folder)
    expected = load_task(TaskSettings("image-folder", ARGS["image-folder"], str(root)))
    np.testing.assert_array_equal(got.train_examples().features, expected.train_examples().features)
    np.testing.assert_array_equal(got.train_examples().labels, expected.train_examples().labels)


def test_other_declarations_are_other_examples(tmp_path: Path) -> None:
    root, folder = image_folder(tmp_path / "data"), tmp_path / "state"
    assert task("image-folder", root, folder).train_examples().features.shape[1:] == (3, 8, 8)
    other = task("image-folder", root, folder, ", channels = 3, crop_padding = 1").train_examples()
    assert other.features.shape[1:] == (3, 8, 8)
    load_task.cache_clear()
    args = 'classes = ["bright", "dark"], size = 4'
    got = load_task(TaskSettings("image-folder", args, str(root), cache_path=str(folder))).train_examples()
    assert got.features.shape[1:] == (3, 4, 4)
    np.testing.assert_array_equal(np.bincount(got.labels), [20, 20])


def test_what_was_left_out_is_said_again(tmp_path: Path) -> None:
    root, folder = image_folder(tmp_path / "data"), tmp_path / "state"
    (root / "dark" / "broken.png").write_bytes(b"no image")
    told = [task("image-folder", root, folder, bad_data="skip").remarks() for _ in range(2)]
    assert told[0] == told[1]
    assert "dark/broken.png: cannot be read as an image" in told[1][0]


def test_a_damaged_file_of_examples_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, folder = image_folder(tmp_path / "data"), tmp_path / "state"
    task("image-folder", root, folder).train_examples()
    whole = (folder / cache.FILE).read_bytes()
    (folder / cache.FILE).write_bytes(whole[: len(whole) // 2])
    assert len(task("image-folder", root, folder).train_examples()) == 40
    assert len((folder / cache.FILE).read_bytes()) == len(whole)
    seen = reads(monkeypatch)
    task("image-folder", root, folder).train_examples()
    assert seen == []


def test_a_folder_that_cannot_be_written_is_said_and_costs_time_only(tmp_path: Path) -> None:
    root, folder = image_folder(tmp_path / "data"), tmp_path / "state"
    folder.write_text("a file where a folder should be")
    found = task("image-folder", root, folder)
    assert len(found.train_examples()) == 40
    [remark] = found.remarks()
    assert remark.startswith(f"decoded examples cannot be kept in {folder}: ")
