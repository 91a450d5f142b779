"""Folders as people bring them: groups, Unicode forms, links, test data in odd places, and classes that get lost."""

import os
from pathlib import Path

import pytest

from tasks.base import DataError
from tasks.client_data import load_task
from tasks.own_data import BadDataError
from tasks.own_data.base import OwnDataTask
from tasks.plugins import PluginError
from tasks.settings import TaskSettings
from tests.site_data import image_folder, image_masks, save, shades
from tests.unit.tasks.own_data import test_files
from tests.unit.tasks.own_data.test_files import problems, task_of

IMAGES = [pixels for _, pixels in shades(8, 1)]
NFC, NFD = "M\u00e9ni\u00e8re", "Me\u0301nie\u0300re"


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a folder again that a test has changed: a process keeps its tasks."""
    monkeypatch.setattr(test_files, "load_task", load_task.__wrapped__)


def declared(root: Path, args: str, bad_data: str = "refuse", kind: str = "image-folder") -> OwnDataTask:
    task = load_task.__wrapped__(TaskSettings(kind, args, str(root), bad_data))
    assert isinstance(task, OwnDataTask)
    return task


def test_an_image_beside_the_folders_of_groups_is_a_problem(tmp_path: Path) -> None:
    root = image_folder(tmp_path, count=2)
    assert task_of("image-folder", root).groups() is None
    (root / "dark" / "docs").mkdir()
    (root / "dark" / "docs" / "notes.txt").write_text("no image makes no group")
    assert problems("image-folder", root)[0].startswith("dark/docs/notes.txt: is not an image")
    save(root / "dark" / "docs" / "7" / "a.png", IMAGES[0])
    (root / "dark" / "docs" / "notes.txt").unlink()
    lines = problems("image-folder", root)
    assert [line.split(":")[0] for line in lines] == ["bright/001.png", "dark/000.png"]
    assert "belongs to no group, though other images do, such as dark/docs/7/a.png; move it" in lines[0]
    (root / "dark" / "000.png").rename(root / "dark" / "docs" / "b.png")
    (root / "bright" / NFD).mkdir()
    (root / "bright" / "001.png").rename(root / "bright" / NFD / "b.png")
    groups = task_of("image-folder", root).groups()
    assert groups is not None
    assert groups.tolist() == [NFC, "docs", "docs"]


def test_the_groups_of_images_with_masks_are_checked_and_those_of_test_data_are_not(tmp_path: Path) -> None:
    root = image_masks(tmp_path / "data", count=3)
    for folder in ("images", "masks"):
        (root / folder / "clinic").mkdir()
        (root / folder / "000.png").rename(root / folder / "clinic" / "000.png")
    assert [line.split(":")[0] for line in problems("image-masks", root)] == ["images/001.png", "images/002.png"]
    save(image_folder(tmp_path / "x" / "test", count=2) / "dark" / "clinic" / "a.png", IMAGES[0])
    image_folder(tmp_path / "x", count=2)
    assert len(task_of("image-folder", tmp_path / "x").test_examples()) == 3


@pytest.mark.parametrize(("written", "stored"), [(NFC, NFD), (NFD, NFC), (NFC, NFC)])
def test_names_are_compared_whatever_their_unicode_form(tmp_path: Path, written: str, stored: str) -> None:
    args = f'classes = ["{written}", "healthy"], size = 8'
    for place, folder in enumerate((stored, "healthy", f"{stored} test/{stored}")):
        save(tmp_path / folder / f"{stored}.png", IMAGES[place])
    task = declared(tmp_path, args + f', test_path = "{written} test"')
    assert sorted(task.train_examples().labels.tolist()) == [0, 1]
    assert task.test_examples().labels.tolist() == [0]
    assert task.class_names == (NFC, "healthy")


@pytest.mark.parametrize(("written", "stored"), [(NFC, NFD), (NFD, NFC)])
def test_masks_are_found_whatever_the_unicode_form(tmp_path: Path, written: str, stored: str) -> None:
    save(tmp_path / f"{stored} x" / f"{stored}.png", IMAGES[0])
    save(tmp_path / "masks" / f"{written}_{stored}.png", IMAGES[0][..., 0] * 0)
    more = f', images = "{written} x", mask_suffix = "_{stored}"'
    assert len(task_of("image-masks", tmp_path, more).train_examples()) == 1


@pytest.mark.parametrize("name", ["classes", "values"])
def test_two_names_that_are_one_in_nfc_are_refused(name: str) -> None:
    args = {"classes": '["a", "b"]'} | {name: f'["{NFC}", "{NFD}"]'}
    with pytest.raises(PluginError, match=rf"{name} must be a list of different.*the same in Unicode NFC"):
        load_task(TaskSettings("image-folder", ", ".join(f"{key} = {value}" for key, value in args.items())))


def test_an_image_that_is_reached_twice_is_a_problem(tmp_path: Path) -> None:
    root = image_folder(tmp_path, count=4)
    (root / "dark" / "alias.png").symlink_to(root / "dark" / "000.png")
    (root / "bright" / "link.png").symlink_to("../dark/002.png")
    os.link(root / "bright" / "001.png", root / "bright" / "hard.png")
    lines = problems("image-folder", root)
    assert sorted(lines) == [
        "bright/hard.png: is the same file as bright/001.png",
        "bright/link.png: is the same file as dark/002.png, which has another label",
        "dark/002.png: is the same file as bright/link.png, which has another label",
        "dark/alias.png: is the same file as dark/000.png",
    ]
    assert len(task_of("image-folder", root, bad_data="skip").train_examples()) == 3


def test_a_class_folder_that_is_a_link_to_another_and_an_image_with_two_masks_are_problems(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "a", count=1)
    (root / "bright").symlink_to("dark")
    assert len(problems("image-folder", root)) == 2
    root = image_masks(tmp_path / "b", count=3)
    (root / "images" / "001.png").unlink()
    (root / "images" / "001.png").symlink_to("000.png")
    (root / "masks" / "002.png").unlink()
    (root / "masks" / "002.png").symlink_to("000.png")  # images may share a mask
    assert [line.split(":")[0] for line in problems("image-masks", root)] == ["images/000.png", "images/001.png"]


@pytest.mark.parametrize("place", ["neg/test", "neg/7/clean", "eval/clean", "clean"])
@pytest.mark.parametrize("linked", [False, True])
def test_test_data_is_left_out_wherever_it_lies(tmp_path: Path, place: str, linked: bool) -> None:
    root, clean = tmp_path / "data", tmp_path / "data" / place
    for name, count in (("pos", 2), ("neg", 3)):
        for number in range(count):
            save(root / name / "7" / f"{number}.png", IMAGES[number])
    stored = tmp_path / "elsewhere" if linked else clean
    save(stored / "neg" / "a.png", IMAGES[4])
    if linked:
        clean.parent.mkdir(exist_ok=True)
        clean.symlink_to(stored)
    task = declared(root, f'classes = ["neg", "pos"], size = 8, test_path = "{place}"')
    assert (len(task.train_examples()), len(task.test_examples())) == (5, 1)
    task.check()


def test_test_data_among_images_with_masks_is_left_out_and_so_is_a_link_to_it(tmp_path: Path) -> None:
    root = image_masks(tmp_path / "a", count=4)
    image_masks(root / "images" / "clean", count=2)
    assert len(task_of("image-masks", root, ', test_path = "images/clean"').train_examples()) == 4
    root = image_folder(tmp_path / "b", count=4)
    save(root / "test" / "dark" / "a.png", IMAGES[4])
    (root / "dark" / "a.png").symlink_to(root / "test" / "dark" / "a.png")
    assert problems("image-folder", root) == ["dark/a.png: is a link to test data, which is never trained on"]


@pytest.mark.parametrize("place", [".", "..", "../data", "dark/.."])
def test_test_data_that_would_be_trained_on_is_refused(tmp_path: Path, place: str) -> None:
    root = image_folder(tmp_path / "data", count=2)
    with pytest.raises(DataError, match=r"is the data folder .* or contains it.*name a folder for the test data alone"):
        task_of("image-folder", root, f', test_path = "{place}"').check()
    assert len(task_of("image-folder", root, f', test_path = "{place}"').train_examples()) == 2  # on a node


def test_what_systems_leave_behind_is_no_data(tmp_path: Path) -> None:
    root = image_folder(tmp_path, count=4)
    for name in ("__MACOSX", "lost+found", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "#recycle"):
        (root / name).mkdir()
        save(root / "dark" / name / "a.png", IMAGES[0])
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "._000.png"):
        (root / name).write_text("x")
        (root / "bright" / name).write_text("x")
    save(root / ".ipynb_checkpoints" / "a.png", IMAGES[0])
    assert len(task_of("image-folder", root).train_examples()) == 4
    assert task_of("image-folder", root).groups() is None
    with pytest.raises(PluginError, match=r"folders such as 'Lost\+Found' are never read"):
        declared(root, 'classes = ["dark", "Lost+Found"]')


def test_a_mistyped_folder_counts_its_files_and_its_class_must_not_get_lost(tmp_path: Path) -> None:
    root = image_folder(tmp_path, count=20)
    (root / "bright").rename(root / "brigth")
    (root / "dark" / "000.png").write_bytes(b"")
    for bad_data in ("refuse", "skip"):
        with pytest.raises(BadDataError) as caught:
            task_of("image-folder", root, bad_data=bad_data).train_examples()
        assert caught.value.summary.startswith("11 of 20 examples cannot be used")
    assert caught.value.summary == "11 of 20 examples cannot be used and none is left of 1 class"
    assert "no example is left of 'bright'; correct them, or, if sites may lack 'bright', add it to without" in str(
        caught.value
    )
    accepted = task_of("image-folder", root, ', without = ["bright"]', "skip")
    assert len(accepted.train_examples()) == 9
    assert accepted.data_issues()[0].line.startswith("11 of 20 examples cannot be used")
    with pytest.raises(PluginError, match="without names an unknown class 'brigth'; did you mean 'bright'"):
        task_of("image-folder", root, ', without = ["brigth"]')


def test_a_class_that_a_site_never_had_may_be_missing_beside_other_problems(tmp_path: Path) -> None:
    root = image_folder(tmp_path, count=4)
    for path in (root / "bright").iterdir():
        path.write_bytes(b"")
    with pytest.raises(BadDataError, match="no example is left of 'bright'"):
        task_of("image-folder", root, bad_data="skip").train_examples()
    for path in (root / "bright").iterdir():
        path.unlink()
    (root / "bright").rmdir()
    (root / "dark" / "000.png").write_bytes(b"")
    assert len(task_of("image-folder", root, bad_data="skip").train_examples()) == 1


def test_a_class_of_pixels_or_rows_that_gets_lost_is_refused(tmp_path: Path) -> None:
    root = image_masks(tmp_path, count=3)
    for number in (0, 1):
        save(root / "masks" / f"{number:03}.png", IMAGES[0][:8, :8, 0] * 0)
    save(root / "masks" / "002.png", IMAGES[0][..., 0].repeat(2, 0).repeat(2, 1)[:16, :16] * 0)
    with pytest.raises(BadDataError, match="2 of 3 examples cannot be used and none is left of 1 class"):
        task_of("image-masks", root, bad_data="skip").train_examples()
    (tmp_path / "texts.csv").write_text("text,label\nsnow,Bright\nnight,dark\n")
    with pytest.raises(BadDataError, match="no example is left of 'bright'"):
        task_of("text-csv", tmp_path, bad_data="skip").train_examples()
    (tmp_path / "texts.csv").write_text("text,label\ncave,dark\nnight,dark\n")
    assert len(task_of("text-csv", tmp_path, bad_data="skip").train_examples()) == 2


def test_a_circle_of_links_is_one_problem_and_no_crash(tmp_path: Path) -> None:
    root = image_folder(tmp_path, count=2)
    (root / "dark" / "a.png").symlink_to("b.png")
    (root / "dark" / "b.png").symlink_to("a.png")
    (root / "loop").symlink_to("loop")
    assert [line.split(":")[0] for line in problems("image-folder", root)] == ["loop", "dark/a.png", "dark/b.png"]


def test_lost_files_and_classes_are_counted_alike_by_a_process_that_decodes_nothing(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "data", count=20)
    (root / "bright").rename(root / "brigth")
    args = "classes = ['dark', 'bright'], size = 8"
    for more, found in (("", "none is left of 1 class"), (", without = ['bright']", "10 of 20 examples cannot")):
        for _ in range(2):
            settings = TaskSettings("image-folder", args + more, str(root), "skip", str(tmp_path / "kept"))
            task = load_task.__wrapped__(settings)
            if more:
                assert task.data_issues()[0].line.startswith(found)
            else:
                with pytest.raises(BadDataError, match=found):
                    task.train_examples()
