"""Clothing1M, mini-WebVision and ANIMAL-10N: their published lists, and lists and images that do not fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import ResNet18_Weights
from torchvision.transforms import functional

from tasks.base import DataError
from tasks.client_data import federated_noise, load_task
from tasks.datasets.image_files import ImageFiles
from tasks.datasets.web import Animal10N, Clothing1M, WebVisionMini
from tasks.plugins import PluginError
from tasks.registry import TASKS
from tasks.settings import NoiseSettings, Settings, TaskSettings
from tests.named_data import animal10n, clothing1m, lines, webvision


def as_torchvision(path: Path, size: int, short: int) -> torch.Tensor:
    with Image.open(path) as image:
        return functional.pil_to_tensor(
            functional.center_crop(functional.resize(image.convert("RGB"), [short]), [size])
        )


@pytest.mark.parametrize("annotations", ["", "annotations"])
def test_clothing1m_learns_from_the_noisy_list_and_is_measured_on_the_clean_one(
    annotations: str, tmp_path: Path
) -> None:
    task = TASKS.build("clothing1m", "size = 28", data_path=clothing1m(tmp_path, annotations), bad_data="refuse")
    task.check()
    train, test = task.train_examples(), task.test_examples()
    assert train.labels.tolist() == [(5 * i + 1) % 14 for i in range(12)]
    assert test.labels.tolist() == [(5 * i + 1) % 14 for i in range(5)]
    names = task.example_names(task.train_ids())
    assert names[2] == "images/2/2/2,2.jpg"
    for name, image in zip(names, train.features, strict=True):
        assert torch.equal(image, as_torchvision(tmp_path / "clothing1m" / name, 28, 32))
    assert (train.features.dtype, train.features.shape[1:]) == (torch.uint8, (3, 28, 28))


def test_clothing1m_takes_other_training_sets_and_the_validation_data(tmp_path: Path) -> None:
    clothing1m(tmp_path)
    clean = Clothing1M(train="clean", evaluate_on="validation", data_path=tmp_path, size=16)
    assert (len(clean.train_examples()), len(clean.test_examples())) == (4, 3)
    assert clean.train_examples().labels.tolist() == [1, 6, 11, 2], "their clean labels, not their noisy ones"
    both = Clothing1M(train="both", data_path=tmp_path, size=16)
    assert len(both.train_examples()) == 16
    assert (clean.keeps_labels, both.keeps_labels) == (False, True)
    some = Clothing1M(data_path=tmp_path, size=16, train_samples=5)
    fewer = Clothing1M(data_path=tmp_path, size=16, train_samples=3)
    assert set(fewer.train_ids()) < set(some.train_ids()) <= set(range(12))
    assert some.train_labels().tolist() == [(5 * i + 1) % 14 for i in some.train_ids()]
    (tmp_path / "clothing1m/clean_test_key_list.txt").unlink()
    assert len(clean.test_examples()) == 3
    with pytest.raises(DataError, match=r"cannot read clean_test_key_list.txt in .*clothing1m; expected: a folder"):
        Clothing1M(data_path=tmp_path).check()


def test_webvision_takes_the_first_50_of_its_classes(tmp_path: Path) -> None:
    task = TASKS.build("webvision-mini", "size = 16", data_path=webvision(tmp_path))
    assert task.train_examples().labels.tolist() == [0, 7, 14, 21, 28, 35]
    assert task.test_examples().labels.tolist() == [49, 49, 49]
    assert list(task.class_names) == ResNet18_Weights.DEFAULT.meta["categories"][:50]
    expected = as_torchvision(tmp_path / "webvision/val_images_256/val000001.jpg", 16, 18)
    assert torch.equal(task.test_examples().features[1], expected)


def test_animal10n_has_its_labels_in_its_names(tmp_path: Path) -> None:
    task = TASKS.build("animal-10n", data_path=animal10n(tmp_path))
    assert (len(task.train_examples()), len(task.test_examples())) == (15, 5)
    assert task.build_model("auto", "").eval()(task.prepare(task.train_examples().features[:2])).shape == (2, 10)
    names = task.example_names(task.train_ids())
    assert list(names) == sorted(names)
    assert task.train_examples().labels.tolist() == [int(name.split("/")[1][0]) for name in names]
    with Image.open(tmp_path / "animal-10n" / names[4]) as image:
        assert torch.equal(task.train_examples().features[4], functional.pil_to_tensor(image))


@pytest.mark.parametrize("name", ["clothing1m", "webvision-mini", "animal-10n"])
def test_labels_that_are_wrong_already_get_no_noise_that_nobody_asked_for(name: str, tmp_path: Path) -> None:
    make = {"clothing1m": clothing1m, "webvision-mini": webvision, "animal-10n": animal10n}[name]
    settings = TaskSettings(name, data_path=str(make(tmp_path)), cache_path=str(tmp_path / "cache"))
    assert federated_noise(Settings(task=settings)).noise == "none"
    assert federated_noise(Settings(task=settings, noise=NoiseSettings("symmetric"))).noise == "symmetric"
    load_task.cache_clear()


@pytest.mark.parametrize("task", [Clothing1M, WebVisionMini, Animal10N])
def test_a_missing_folder_is_named_with_its_layout_and_where_it_comes_from(
    task: type[ImageFiles], tmp_path: Path
) -> None:
    for given, start in (
        (None, "needs a data folder and none is given"),
        (tmp_path, f"in {tmp_path / task.folders[0]}"),
    ):
        with pytest.raises(DataError) as caught:
            task(data_path=given).check()
        assert start in str(caught.value)
        assert f"expected: {task.layout}. {task.source}" in str(caught.value)


def test_a_listed_image_that_is_missing_is_told_before_any_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clothing1m(tmp_path)
    (tmp_path / "clothing1m/images/1/4/4,4.jpg").unlink()
    monkeypatch.setattr(Clothing1M, "pixels", None)
    with pytest.raises(DataError, match=r"1 of 12 examples cannot be used in .*task.bad-data = 'skip'") as caught:
        Clothing1M(data_path=tmp_path).train_examples()
    assert "images/1/4/4,4.jpg: is listed, but there is no such file" in str(caught.value)


def test_an_unreadable_image_is_named_or_left_out_with_its_id(tmp_path: Path) -> None:
    clothing1m(tmp_path)
    (tmp_path / "clothing1m/images/1/4/4,4.jpg").write_bytes(b"no image")
    (tmp_path / "clothing1m/images/0/6/6,6.jpg").unlink()
    skipping = Clothing1M(data_path=tmp_path, size=16, bad_data="skip")
    assert skipping.train_ids().tolist() == [0, 1, 2, 3, 5, 7, 8, 9, 10, 11]
    assert skipping.train_labels().tolist() == [(5 * i + 1) % 14 for i in skipping.train_ids()]
    assert "images/1/4/4,4.jpg: cannot be read as an image" in skipping.data_issues()[0].line
    (tmp_path / "clothing1m/images/0/6/6,6.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match="2 of 12 examples cannot be used"):
        Clothing1M(data_path=tmp_path, size=16).train_examples()
    (tmp_path / "clothing1m/images/0/6/300,300.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 of 5 examples cannot be used in .*; fetch them again:"):
        skipping.test_examples()


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("noisy_label_kv.txt", ["images/0/0/0,0.jpg 14"], "gives images/0/0/0,0.jpg the class 14; 0 to 13"),
        ("noisy_label_kv.txt", ["images/0/0/0,0.jpg 3"], "noisy_train_key_list.txt, line 2: images/1/1/1,1.jpg has no"),
        ("noisy_label_kv.txt", ["images/0/0/0,0.jpg"], "line 1: a file and a class number expected, got 'images/0"),
        ("clean_test_key_list.txt", ["images/9.jpg"], "clean_test_key_list.txt, line 1: images/9.jpg has no label"),
        ("noisy_train_key_list.txt", [], "no example is listed in .*clothing1m"),
    ],
)
def test_lists_that_do_not_fit_are_named_by_line(path: str, content: list[str], message: str, tmp_path: Path) -> None:
    lines(clothing1m(tmp_path) / "clothing1m" / path, *content)
    with pytest.raises(DataError, match=message):
        Clothing1M(data_path=tmp_path, size=16).train_examples()


def test_other_names_and_classes_are_refused(tmp_path: Path) -> None:
    for name in ("x_1.jpg", "10_1.jpg", "3.jpg"):
        animal10n(tmp_path / name)
        (tmp_path / name / "animal-10n/training" / name).write_bytes(b"")
        with pytest.raises(DataError, match=f"training/{name}: a name such as 3_1234.jpg"):
            Animal10N(data_path=tmp_path / name).train_labels()
    lines(webvision(tmp_path) / "webvision/info/val_filelist.txt", "a.jpg 1000")
    with pytest.raises(DataError, match=r"gives a.jpg the class 1000; 0 to 999"):
        WebVisionMini(data_path=tmp_path).train_labels()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ('train = "dirty"', "'noisy', 'clean' or 'both' is expected"),
        ('evaluate_on = "train"', "'test' or 'validation' is expected"),
        ("size = 4", "8 to 4096 pixels a side"),
        ("train_samples = -1", "a number from 0"),
        ("samples = 3", "samples"),
    ],
)
def test_arguments_that_do_not_fit(args: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=message):
        TASKS.build("clothing1m", args, data_path=tmp_path)


def test_more_examples_than_there_are_is_an_error(tmp_path: Path) -> None:
    many: dict[str, Any] = {"data_path": clothing1m(tmp_path), "train_samples": 13}
    with pytest.raises(DataError, match="train_samples = 13: Clothing1M lists 12 of them here"):
        Clothing1M(**many).train_labels()


def test_augmentation_moves_and_mirrors_without_changing_the_size() -> None:
    images = torch.randint(1, 256, (64, 3, 28, 28), dtype=torch.uint8)
    changed = Clothing1M(size=28).augment(images, torch.Generator().manual_seed(0))
    assert changed.shape == images.shape
    assert not np.array_equal(changed, images)
    assert (changed.amax((1, 3)) == 0).any(), "black comes in where an image was moved"
