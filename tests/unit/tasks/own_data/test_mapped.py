"""Many examples of a site: decoded once into mapped files, the same as in memory, and for this user alone."""

import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks import example_store
from tasks.base import DataError
from tasks.client_data import load_task
from tasks.own_data import reading
from tasks.own_data.base import OwnDataTask
from tasks.own_data.images import ImageFolder
from tasks.settings import TaskSettings
from tests.site_data import ARGS, KINDS, image_folder
from tests.unit.tasks.own_data.test_reading import changed, reads, task


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LARGE", 0)


def in_memory(kind: str, root: Path, bad_data: str = "refuse") -> OwnDataTask:
    found = reading.Cache.place
    reading.Cache.place = lambda *_: None  # type: ignore[method-assign, assignment]
    try:
        load_task.cache_clear()
        plain = load_task(TaskSettings(kind, ARGS[kind], str(root), bad_data))
        plain.train_examples()
    finally:
        reading.Cache.place = found  # type: ignore[method-assign]
    assert isinstance(plain, OwnDataTask)
    return plain


@pytest.mark.parametrize("kind", ["image-csv", "image-folder", "image-masks"])
def test_mapped_examples_are_those_in_memory_and_decoded_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, folder = KINDS[kind](tmp_path / "data"), tmp_path / "state"
    folder.mkdir()  # by its owner, for all to look into
    plain = in_memory(kind, root)
    task(kind, root, folder).train_examples()
    seen = reads(monkeypatch)
    second = task(kind, root, folder)
    got, expected = second.train_examples(), plain.train_examples()
    assert seen == []
    assert got.features.dtype == torch.uint8
    np.testing.assert_array_equal(got.features, expected.features)
    np.testing.assert_array_equal(got.labels, expected.labels)
    assert second.example_names(second.train_ids()) == plain.example_names(plain.train_ids())
    np.testing.assert_array_equal(second.groups(), plain.groups())
    files = [path for path in folder.iterdir() if path.name.startswith("examples-")]
    assert len(files) == 4, "features, labels, facts and a lock"
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_what_cannot_be_used_is_left_out_and_said_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example_store, "BLOCK", 7)
    root, folder = image_folder(tmp_path / "data"), tmp_path / "state"
    for name in ("000", "014", "016", "038"):
        (root / "dark" / f"{name}.png").write_bytes(b"no image")
    plain = in_memory("image-folder", root, "skip")
    for _ in range(2):
        found = task("image-folder", root, folder, bad_data="skip")
        np.testing.assert_array_equal(found.train_examples().features, plain.train_examples().features)
        np.testing.assert_array_equal(found.train_examples().labels, plain.train_examples().labels)
        assert found.example_names(found.train_ids()) == plain.example_names(plain.train_ids())
        assert found.data_issues() == plain.data_issues()


def test_an_interrupted_decoding_goes_on_and_forgets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example_store, "BLOCK", 4)
    monkeypatch.setattr(example_store, "SECONDS_BETWEEN_MARKS", 0.0)
    root, folder = image_folder(tmp_path / "data"), tmp_path / "state"
    (root / "bright" / "003.png").write_bytes(b"no image")
    plain = in_memory("image-folder", root, "skip")
    decode, left = ImageFolder.pixels, [13]

    def interrupted(self: ImageFolder, root: Path, path: Path) -> object:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return decode(self, root, path)

    monkeypatch.setattr(ImageFolder, "pixels", interrupted)
    with pytest.raises(KeyboardInterrupt):
        task("image-folder", root, folder, bad_data="skip").train_examples()
    monkeypatch.setattr(ImageFolder, "pixels", decode)
    seen = reads(monkeypatch)
    found = task("image-folder", root, folder, bad_data="skip")
    np.testing.assert_array_equal(found.train_examples().features, plain.train_examples().features)
    assert len(seen) == 40 - 12, "three blocks of four were done"
    assert found.data_issues() == plain.data_issues()


def test_the_files_of_an_earlier_state_go_and_those_of_another_declaration_stay(tmp_path: Path) -> None:
    root, folder = image_folder(tmp_path / "data"), tmp_path / "state"
    task("image-folder", root, folder, ", crop_padding = 1").train_examples()
    other = {path.name for path in folder.iterdir()}
    task("image-folder", root, folder).train_examples()
    before = {path.name for path in folder.iterdir()} - other
    changed(root)
    task("image-folder", root, folder).train_examples()
    after = {path.name for path in folder.iterdir()}
    assert len(after) == 8
    assert other < after
    assert not before & after


def test_a_cache_inside_of_the_data_folder_is_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = KINDS["image-csv"](tmp_path / "data")
    task("image-csv", root, root).train_examples()
    seen = reads(monkeypatch)
    task("image-csv", root, root).train_examples()
    assert seen == []


def test_where_nothing_can_be_written_all_stays_in_memory_and_that_is_said(tmp_path: Path) -> None:
    root, folder = image_folder(tmp_path / "data"), tmp_path / "state"
    folder.write_text("a file where a folder should be")
    found = task("image-folder", root, folder)
    assert len(found.train_examples()) == 40
    assert any("examples stay in memory" in issue.line for issue in found.data_issues())


def test_test_data_is_mapped_too_and_does_not_push_the_training_data_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, folder = image_folder(tmp_path / "data"), tmp_path / "state"
    image_folder(root / "test", count=6)
    for _ in range(2):
        found = task("image-folder", root, folder)
        assert (len(found.train_examples()), len(found.test_examples())) == (40, 6)
        seen = reads(monkeypatch)
    assert seen == []


def test_a_full_disk_is_an_error_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, folder = image_folder(tmp_path / "data"), tmp_path / "state"

    def full(*_: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(example_store, "_go_to_end", full)
    with pytest.raises(DataError, match=r"No space left on device; they need 0 MB: name another folder in task.cache-"):
        task("image-folder", root, folder).train_examples()


def test_few_examples_that_are_not_kept_cost_no_look_at_the_whole_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LARGE", 2**28)
    monkeypatch.setattr(reading, "_file_states", None)
    plain = load_task(TaskSettings("image-folder", ARGS["image-folder"], str(image_folder(tmp_path / "data"))))
    assert len(plain.train_examples()) == 40
