"""Decoded examples on disk: the same as reading again, and never used for files that have changed."""

import fcntl
import importlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tasks.base import Examples
from tasks.client_data import load_task
from tasks.own_data import ImageFolder, reading
from tasks.own_data.base import OwnDataTask
from tasks.settings import TaskSettings
from tests.site_data import ARGS, KINDS, image_folder, text_table

NAMES = sorted(KINDS)


def task(kind: str, root: Path, folder: Path, more: str = "", bad_data: str = "refuse") -> OwnDataTask:
    load_task.cache_clear()
    found = load_task(TaskSettings(kind, ARGS[kind] + more, str(root), bad_data, str(folder)))
    assert isinstance(found, OwnDataTask)
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


@pytest.mark.parametrize("kind", [kind for kind in NAMES if kind != "table"])  # kept once its statistics are known
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
    assert (folder.stat().st_mode & 0o777, (folder / reading.CACHE_FILE).stat().st_mode & 0o777) == (0o700, 0o600)
    assert [path.name for path in folder.iterdir()] == [reading.CACHE_FILE]


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
    issues = [task("image-folder", root, folder, bad_data="skip").data_issues() for _ in range(2)]
    assert issues[0] == issues[1]
    assert "dark/broken.png: cannot be read as an image" in issues[1][0].line


def test_a_damaged_file_of_examples_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, folder = image_folder(tmp_path / "data"), tmp_path / "state"
    task("image-folder", root, folder).train_examples()
    whole = (folder / reading.CACHE_FILE).read_bytes()
    (folder / reading.CACHE_FILE).write_bytes(whole[: len(whole) // 2])
    assert len(task("image-folder", root, folder).train_examples()) == 40
    assert len((folder / reading.CACHE_FILE).read_bytes()) == len(whole)
    seen = reads(monkeypatch)
    task("image-folder", root, folder).train_examples()
    assert seen == []


def test_a_damaged_byte_is_seen_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, folder = image_folder(tmp_path / "data", count=4), tmp_path / "state"
    expected = task("image-folder", root, folder).train_examples()
    whole = (folder / reading.CACHE_FILE).read_bytes()
    for place in [*range(0, len(whole), 61), len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[place] ^= 0x80
        (folder / reading.CACHE_FILE).write_bytes(damaged)
        seen = reads(monkeypatch)
        got = task("image-folder", root, folder).train_examples()
        assert len(seen) == 4, place
        np.testing.assert_array_equal(got.features, expected.features)
        np.testing.assert_array_equal(got.labels, expected.labels)
        monkeypatch.undo()


def test_a_file_with_a_digest_but_without_names_is_written_anew(tmp_path: Path) -> None:
    root, folder = image_folder(tmp_path / "data"), tmp_path / "state"
    own = reading.Cache(folder, "image-folder", ARGS["image-folder"])
    facts, arrays = {"key": own._key(root, ImageFolder)}, {"features": torch.zeros(1), "labels": torch.zeros(1)}
    folder.mkdir()
    save_file(arrays, folder / reading.CACHE_FILE, {**facts, "sha256": reading._digest(facts, arrays)})
    assert len(task("image-folder", root, folder).train_examples()) == 40


PLUGIN = """
from dataclasses import replace
from tasks.own_data import ImageFolder
from {module}_part import FACTOR

class Mine(ImageFolder):
    def read(self, root):
        found = super().read(root)
        return replace(found, examples=replace(found.examples, features=found.examples.features // FACTOR))

def made(data_path, bad_data, cache):
    return ImageFolder(classes={classes}, size=8, data_path=data_path, bad_data=bad_data, cache=cache)
"""


def plugin(folder: Path, factor: int, classes: list[str]) -> str:
    """Write a task of the user's own and a module beside it, as if this process had never imported them."""
    module = f"reader_{folder.parent.name}".replace("-", "_")
    (folder / f"{module}.py").write_text(PLUGIN.format(module=module, classes=classes))
    (folder / f"{module}_part.py").write_text(f"FACTOR = {factor}\n")
    for name in (module, f"{module}_part"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    return module


def test_other_code_reads_other_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, code = image_folder(tmp_path / "data"), tmp_path / "app"
    code.mkdir()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(code))

    def examples(name: str, args: str, factor: int, classes: list[str]) -> Examples:
        load_task.cache_clear()
        settings = TaskSettings(
            f"{plugin(code, factor, classes)}:{name}", args, str(root), cache_path=str(tmp_path / name)
        )
        return load_task(settings).train_examples()

    plain = load_task(TaskSettings("image-folder", ARGS["image-folder"], str(root))).train_examples()
    for factor in (1, 2):
        got = examples("Mine", ARGS["image-folder"], factor, [])
        np.testing.assert_array_equal(got.features, plain.features // factor)
    dark, bright = (examples("made", "", 1, classes) for classes in (["dark", "bright"], ["bright", "dark"]))
    np.testing.assert_array_equal(dark.labels, 1 - bright.labels)


def test_another_pillow_reads_other_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, folder = image_folder(tmp_path / "data"), tmp_path / "state"
    task("image-folder", root, folder).train_examples()
    monkeypatch.setattr(reading, "version", lambda package: f"another {package}")
    seen = reads(monkeypatch)
    task("image-folder", root, folder).train_examples()
    assert len(seen) == 40


@pytest.mark.parametrize("place", ["data", "data/state", "link/state"])
def test_a_cache_in_the_data_folder_is_no_change_of_the_data(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = text_table(tmp_path / "data")
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    task("text-csv", root, Path(place)).train_examples()
    seen = reads(monkeypatch)
    found = task("text-csv", root, Path(place))
    assert len(found.train_examples()) == 40
    assert (seen, found.data_issues()) == ([], [])


def test_what_a_crash_has_left_is_removed_and_passes_on_no_mode(tmp_path: Path) -> None:
    root, folder = image_folder(tmp_path / "data"), tmp_path / "state"
    folder.mkdir()
    (folder / reading.PARTIAL_FILE).write_bytes(b"half")
    (folder / reading.PARTIAL_FILE).chmod(0o644)
    task("image-folder", root, folder).train_examples()
    assert [path.name for path in folder.iterdir()] == [reading.CACHE_FILE]
    assert (folder / reading.CACHE_FILE).stat().st_mode & 0o777 == 0o600


def test_while_another_process_writes_nothing_is_written(tmp_path: Path) -> None:
    root, folder = image_folder(tmp_path / "data"), tmp_path / "state"
    folder.mkdir()
    (folder / reading.PARTIAL_FILE).write_bytes(b"half")
    other = os.open(folder, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    found = task("image-folder", root, folder)
    assert (len(found.train_examples()), found.data_issues()) == (40, [])
    assert [path.name for path in folder.iterdir()] == [reading.PARTIAL_FILE]
    os.close(other)
    task("image-folder", root, folder).train_examples()
    assert [path.name for path in folder.iterdir()] == [reading.CACHE_FILE]


def test_a_link_that_may_not_be_followed_and_a_file_that_vanishes_stop_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, folder = text_table(tmp_path / "data"), tmp_path / "state"
    (root / "locked.png").symlink_to(tmp_path / "elsewhere.png")
    (root / "gone.txt").write_text("here while the folder is listed")
    stat, lstat = Path.stat, Path.lstat

    def refused(path: Path, **more: bool) -> os.stat_result:
        if path.name == "locked.png":
            raise PermissionError(13, "Permission denied")
        return stat(path, **more)

    def vanished(path: Path) -> os.stat_result:
        if path.name == "gone.txt":
            raise FileNotFoundError(2, "No such file or directory")
        return lstat(path)

    monkeypatch.setattr(Path, "stat", refused)
    monkeypatch.setattr(Path, "lstat", vanished)
    assert len(task("text-csv", root, folder).train_examples()) == 40
    seen = reads(monkeypatch)
    assert len(task("text-csv", root, folder).train_examples()) == 40
    assert seen == []


def test_a_folder_that_cannot_be_written_is_said_and_costs_time_only(tmp_path: Path) -> None:
    root, folder = image_folder(tmp_path / "data"), tmp_path / "state"
    folder.write_text("a file where a folder should be")
    found = task("image-folder", root, folder)
    assert len(found.train_examples()) == 40
    [issue] = found.data_issues()
    assert issue.line.startswith(f"decoded examples cannot be kept in {folder}: ")
