"""Files of a node's own: what is read, what is refused, and that a problem says where and why."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.base import DataError
from tasks.client_data import load_task
from tasks.own_data import BadDataError
from tasks.own_data.base import OwnDataTask
from tasks.own_data.files import IMAGE_ENDINGS
from tasks.own_data.texts import hashed
from tasks.plugins import PluginError
from tasks.settings import TaskSettings
from tests.site_data import (
    ARGS,
    CLASSES,
    KINDS,
    image_folder,
    image_masks,
    image_table,
    save,
    shades,
    table,
    text_table,
)

ONE = shades(1, 0)[0][1]


def task_of(kind: str, root: Path, more: str = "", bad_data: str = "refuse") -> OwnDataTask:
    task = load_task(TaskSettings(kind, ARGS[kind] + more, str(root), bad_data))
    assert isinstance(task, OwnDataTask)
    return task


def problems(kind: str, root: Path, more: str = "") -> list[str]:
    """The lines about its data that a node's log shows."""
    with pytest.raises(BadDataError) as caught:
        task_of(kind, root, more).train_examples()
    assert str(root) not in caught.value.summary
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read_whole_with_a_name_for_each_example(kind: str, tmp_path: Path) -> None:
    task = task_of(kind, KINDS[kind](tmp_path))
    examples = task.train_examples()
    names = task.example_names(task.train_ids())
    assert len(set(names)) == len(examples) == (24 if kind == "image-masks" else 40)
    assert task.prepare(examples.features[:2]).shape == (2, *task.input_shape)
    assert set(np.unique(examples.labels)) == {0, 1}
    assert examples.labels.shape[1:] == ((16, 16) if kind == "image-masks" else ())
    assert task.train_examples() is examples
    assert task.data_issues() == []


def test_labels_belong_to_the_named_files(tmp_path: Path) -> None:
    task = task_of("image-folder", image_folder(tmp_path))
    names, examples = task.example_names(task.train_ids()), task.train_examples()
    assert [CLASSES[label] for label in examples.labels] == [name.split("/")[0] for name in names]
    bright = examples.features.float().mean((1, 2, 3)) > 127
    np.testing.assert_array_equal(bright.numpy(), examples.labels == 1)


def test_values_stand_for_classes(tmp_path: Path) -> None:
    root = table(tmp_path / "texts.csv", ("text", "label"), [("snow", "2"), ("night", "1")])
    task = load_task(TaskSettings("text-csv", 'classes = ["dark", "bright"], values = ["1", "2"]', str(root)))
    assert task.train_examples().labels.tolist() == [1, 0]
    assert task.class_names == CLASSES


def test_a_table_without_a_header_and_with_two_columns_of_text(tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text('dark;"cave;\nnight";coal\nbright;sun;day\n')
    more = ', header = ["label", "title", "body"], text = ["title", "body"], delimiter = ";"'
    task = task_of("text-csv", tmp_path, more)
    np.testing.assert_array_equal(task.train_examples().features[0].numpy(), hashed("cave night coal", 8, 200))
    assert task.example_names(task.train_ids()) == ["texts.csv line 1", "texts.csv line 3"]


def test_words_are_hashed_alike_everywhere() -> None:
    known = 1 + 0xCBF43926 % 999  # CRC-32 of "123456789" is its published check value
    assert hashed("(123456789)", 2, 1000).tolist() == [known, 0, 0]
    first, second, both = hashed("Sun, sun! shine", 2, 1000).tolist()
    assert first == second != both
    assert hashed("moon sun", 2, 1000).tolist()[1] == first


def test_each_thing_that_does_not_fit_in_a_folder_is_named(tmp_path: Path) -> None:
    root, outside = image_folder(tmp_path / "data"), save(tmp_path / "outside.png", ONE)
    save(root / "brigth" / "a.png", ONE)
    (root / "dark" / "notes.txt").write_text("x")
    (root / "dark" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (root / "dark" / "link.png").symlink_to(outside)
    (root / "dark" / "gone.png").symlink_to(root / "nothing.png")
    (root / "dark" / "folder.png").symlink_to(tmp_path, target_is_directory=True)
    (root / "stray.png").write_bytes((root / "bright" / "001.png").read_bytes())
    (root / "dark" / ".DS_Store").write_text("hidden files do not count")
    lines = problems("image-folder", root)
    assert lines[0] == "brigth: unknown class 'brigth'; did you mean 'bright'? choices: bright, dark"
    assert lines[1] == "stray.png: is not in the folder of a class: dark, bright"
    assert sorted(line.split(":")[0] for line in lines[2:]) == [
        f"dark/{name}" for name in ("broken.jpg", "folder.png", "gone.png", "link.png", "notes.txt")
    ]
    for name, why in {
        "link.png": "lies outside of the data folder",
        "folder.png": "lies outside of the data folder",
        "gone.png": "there is no such file",
        "broken.jpg": "cannot be read as an image",
        "notes.txt": "is not an image; known endings",
    }.items():
        assert any(line.startswith(f"dark/{name}: {why}") for line in lines)


def test_an_empty_folder_is_a_problem_and_a_missing_class_is_none(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    (root / "bright" / "empty").mkdir()
    for path in (root / "bright").glob("*.png"):
        path.unlink()
    assert problems("image-folder", root)[0].startswith("bright: the folder is empty; remove it")
    (root / "bright" / "empty").rmdir()
    (root / "bright").rmdir()
    task = load_task(TaskSettings("image-folder", ARGS["image-folder"] + ", mean = [0.5, 0.5, 0.5]", str(root)))
    assert set(task.train_examples().labels.tolist()) == {0}


def test_only_the_first_problems_are_listed(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    for number in range(25):
        (root / "dark" / f"x{number}.png").write_bytes(b"")
    lines = problems("image-folder", root)
    assert (len(lines), lines[-1]) == (11, "and 15 more")


def test_a_name_cannot_forge_a_line_of_the_log(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    (root / "dark" / "a\nINFO: all is well\udcff.png").write_bytes(b"")
    assert problems("image-folder", root) == [
        "dark/a?INFO: all is well?.png: cannot be read as an image (UnidentifiedImageError)"
    ]


def test_what_is_unusable_is_left_out_if_the_run_says_so(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    (root / "dark" / "000.png").write_bytes(b"")
    task = task_of("image-folder", root, bad_data="skip")
    assert (len(task.train_examples()), len(task.example_names(task.train_ids()))) == (39, 39)
    (issue,) = task.data_issues()
    assert issue.line.startswith(
        f"1 of 40 examples cannot be used in {root} and are left out:\n    dark/000.png: cannot"
    )


@pytest.mark.parametrize("bad_data", ["refuse", "skip"])
def test_data_without_a_usable_example_is_refused(tmp_path: Path, bad_data: str) -> None:
    (tmp_path / "dark").mkdir()
    with pytest.raises(BadDataError, match="1 of 1 examples cannot be used"):
        task_of("image-folder", tmp_path, bad_data=bad_data).train_examples()
    (tmp_path / "dark").rmdir()
    with pytest.raises(DataError, match=r"no examples in .*; expected folders of images: dark, bright"):
        task_of("image-folder", tmp_path, ", channels = 3", bad_data).train_examples()


def test_each_row_that_does_not_fit_in_a_table_is_named(tmp_path: Path) -> None:
    root = image_table(tmp_path / "data", count=2)
    save(tmp_path / "secret.png", ONE)
    rows = [
        ("scans/000.png", "dark", "a"),
        ("scans/000.png", "dark", "a"),
        ("../secret.png", "dark", "a"),
        (str(tmp_path / "secret.png"), "dark", "a"),
        ("scans/007.png", "dark", "a"),
        ("scans/001.png", "Bright", "a"),
        ("", "dark", "a"),
        ("scans/001.png", "dark"),
    ]
    table(root / "labels.csv", ("image", "label", "hospital"), rows)
    assert problems("image-csv", root) == [
        "labels.csv line 3, scans/000.png: is listed in line 2 already",
        "labels.csv line 4, ../secret.png: lies outside of the data folder",
        f"labels.csv line 5, {tmp_path}/secret.png: lies outside of the data folder",
        "labels.csv line 6, scans/007.png: there is no such file",
        "labels.csv line 7, scans/001.png: unknown class 'Bright'; did you mean 'bright'? choices: bright, dark",
        "labels.csv line 8: the column 'image' is empty",
        "labels.csv line 9, scans/001.png: has more or fewer cells than there are columns; "
        "is a quote or a delimiter missing?",
    ]


def test_each_text_that_does_not_fit_is_named(tmp_path: Path) -> None:
    rows = [("snow", "bright"), ("...", "dark"), (" ", "dark"), ("night", "")]
    assert problems("text-csv", table(tmp_path / "texts.csv", ("text", "label"), rows)) == [
        "texts.csv line 3: there is no word in the text",
        "texts.csv line 4: the column 'text' is empty",
        "texts.csv line 5: the column 'label' is empty",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the table .*texts.csv: No such file"),
        (b"text,lable\nsnow,dark\n", "has no column 'label'; did you mean 'lable'"),
        (b"", "has no column 'text'"),
        (b"text,label\n", "no examples in .*expected a table texts.csv with the columns text and label"),
        ("text,label\nschnöd,dark\n".encode("latin-1"), "is not UTF-8"),
        (b"text,label\n" + b"x" * 1_000_001 + b",dark\n", "is damaged: field larger than"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_as_a_whole(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "texts.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        task_of("text-csv", tmp_path, bad_data="skip").train_examples()


def test_a_byte_order_mark_and_blank_lines_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_bytes(b"\xef\xbb\xbftext,label\n\n snow , bright \n\n")
    assert task_of("text-csv", tmp_path).train_examples().labels.tolist() == [1]


def test_each_mask_that_does_not_fit_is_named(tmp_path: Path) -> None:
    root = image_masks(tmp_path, count=8)
    save(root / "masks" / "000.png", np.full((16, 16), 17))
    save(root / "masks" / "001.png", np.zeros((8, 16)))
    save(root / "masks" / "002.png", np.zeros((16, 16, 3)))
    (root / "masks" / "003.png").unlink()
    save(root / "masks" / "other.png", np.zeros((16, 16)))
    save(root / "images" / "004.jpg", np.zeros((16, 16)))
    (root / "images" / "notes.txt").write_text("no image")
    assert problems("image-masks", root) == [
        "masks/other.png: there is no image for this mask",
        "images/000.png: its mask holds the values 17; declared are 0, 255",
        "images/001.png: has (16, 16) pixels, its mask (16, 8)",
        "images/002.png: its mask has pixels of the kind 'RGB'; a mask has one number a pixel (grey or palette)",
        "images/003.png: has 0 masks in masks/; one of the same name is expected",
        "images/004.jpg: 2 images have this name but for their endings",
        "images/004.png: 2 images have this name but for their endings",
        f"images/notes.txt: is not an image; known endings: {', '.join(IMAGE_ENDINGS)}",
    ]


def test_masks_with_a_suffix_and_pixels_without_a_class(tmp_path: Path) -> None:
    mask = np.zeros((16, 16), np.uint8)
    mask[0, :3] = (255, 9, 9)
    save(tmp_path / "x" / "a.png", np.zeros((16, 16)))
    save(tmp_path / "y" / "a_seg.png", mask)
    task = task_of("image-masks", tmp_path, ', images = "x", masks = "y", mask_suffix = "_seg", ignored = [9]')
    labels = task.train_examples().labels
    assert labels[0, 0, :4].tolist() == [1, -100, -100, 0]
    logits = torch.zeros(1, 2, 16, 16)
    logits[:, 0] = 1
    assert task.metrics(logits, torch.from_numpy(labels))["accuracy"] == pytest.approx(253 / 254)


@pytest.mark.parametrize(
    ("kind", "args", "message"),
    [
        ("image-folder", 'classes = ["a"]', "at least 2 classes"),
        ("image-folder", 'classes = "ab"', "classes must be a list of different texts"),
        ("image-folder", 'classes = ["a", "a"]', "classes must be a list of different texts"),
        ("image-folder", "size = 8", "missing argument classes"),
        ("image-folder", 'classes = ["a", "b"], colour = 3', "unknown argument 'colour'"),
        ("image-folder", 'classes = ["a", "b"], data_path = "/etc"', "data_path is set by the run itself"),
        ("image-folder", 'classes = ["a", "b"], channels = 2', "channels = 2: 1"),
        ("image-folder", 'classes = ["a", "b"], size = 0', "size = 0"),
        ("image-folder", 'classes = ["a", "b"], mean = [0.5]', "a list of 3 numbers"),
        ("image-folder", 'classes = ["a", "b"], std = [0.5, 0, 1]', "numbers above 0"),
        ("image-folder", 'classes = ["a", "b"], crop_padding = -1', "crop_padding = -1"),
        ("image-folder", 'classes = ["a", "b"], values = ["x"]', "2 classes but 1 values"),
        (
            "image-masks",
            'classes = ["a", "b"], values = ["x", "y"]',
            "values must be a list of different whole numbers",
        ),
        ("image-masks", 'classes = ["a", "b"], ignored = [1]', "values and ignored both hold"),
        ("image-masks", 'classes = ["a", "b"], crop_padding = 2', "leave it out"),
        ("text-csv", 'classes = ["a", "b"], words = 0', "words = 0"),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused(kind: str, args: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        load_task(TaskSettings(kind, args))


@pytest.mark.parametrize("name", ["../other", "/etc"])
def test_folders_and_tables_outside_of_the_data_folder_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "other").mkdir()
    root = image_masks(tmp_path / "data")
    with pytest.raises(DataError, match="lies outside of the data folder"):
        task_of("image-masks", root, f', masks = "{name}"').train_examples()
    with pytest.raises(DataError, match="lies outside of the data folder"):
        task_of("text-csv", text_table(root), f', file = "{name}/texts.csv"').train_examples()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    (root / "dark" / "000.png").chmod(0)
    assert problems("image-folder", root) == ["dark/000.png: may not be read by this user"]


def test_training_images_are_cropped_and_mirrored_if_declared(tmp_path: Path) -> None:
    image_folder(tmp_path)
    plain, moved = task_of("image-folder", tmp_path), task_of("image-folder", tmp_path, ", crop_padding = 2")
    features = plain.train_examples().features
    assert plain.augment(features, torch.Generator()) is features
    changed = moved.augment(features, torch.Generator().manual_seed(0))
    assert changed.shape == features.shape
    assert not torch.equal(changed, features)
