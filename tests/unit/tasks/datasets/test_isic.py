"""ISIC-2017: the layout of the challenge, the small one, the split without official test masks, and damaged pairs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.base import DataError
from tasks.datasets.isic import Isic2017, held_out
from tasks.plugins import PluginError
from tasks.registry import TASKS
from tests.named_data import isic2017, photograph

ALL = ("Training", "Validation", "Test_v2")


def test_the_official_layout_is_read_part_by_part(tmp_path: Path) -> None:
    task = TASKS.build("isic-2017", "size = 16", data_path=isic2017(tmp_path, ALL, count=4))
    train, test = task.train_examples(), task.test_examples()
    assert train.features.shape == (4, 3, 16, 16)
    assert list(task.example_names(task.train_ids()))[3] == "ISIC-2017_Training_Data/ISIC_0000003.jpg"
    choosing = Isic2017(evaluate_on="validation", size=16, data_path=tmp_path).test_examples()
    for labels, first in ((train.labels, 0), (choosing.labels, 100), (test.labels, 200)):
        shares = [(2 + (first + i) % 16) / 18 / 3 for i in range(4)]
        np.testing.assert_allclose(labels.mean((1, 2)), shares, atol=1 / 16)
    assert task.data_issues() == []
    assert (task.keeps_labels, task.brings_own_data) == (True, False)


def test_without_official_test_masks_the_same_images_are_held_out_in_every_run(tmp_path: Path) -> None:
    isic2017(tmp_path)
    test = Isic2017(size=16, data_path=tmp_path)
    choosing = Isic2017(size=16, data_path=tmp_path, evaluate_on="validation")
    parts = [test.train_examples(), test.test_examples(), choosing.test_examples()]
    assert list(map(len, parts)) == [14, 4, 2]
    assert np.array_equal(choosing.train_ids(), test.train_ids())
    seen = [image.tobytes() for part in parts for image in part.features.numpy()]
    assert len(set(seen)) == 20, "no image is in two parts"
    assert "20% of the training images are the test data" in test.data_issues()[0].line
    assert held_out(2000)["test"][:3].tolist() == HELD_OUT, "another split would make results incomparable"


HELD_OUT = [2, 6, 17]


def test_real_photographs_and_masks_are_read(data_root: Path) -> None:
    task = Isic2017(size=32, data_path=data_root, train_samples=3, test_samples=2)
    train = task.train_examples()
    assert (len(train), len(task.test_examples())) == (3, 2)
    names = [Path(name).stem for name in task.example_names(task.train_ids())]
    for name, labels in zip(names, train.labels, strict=True):
        with Image.open(data_root / f"isic2017/train/mask256/{name}_segmentation.png") as mask:
            share = (np.asarray(mask) == 255).mean()
        assert labels.mean() == pytest.approx(share, abs=0.02)
        assert 0 < share < 1
    logits = task.build_model("auto", "width = 8, depth = 2")(task.prepare(train.features))
    assert logits.shape == (3, 2, 32, 32)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda mask: mask.unlink(), "_segmentation.png: is listed, but there is no such file"),
        (lambda mask: mask.write_bytes(b""), "its mask .* cannot be read as an image"),
        (lambda mask: photograph(mask, 1, (24, 18)), "its mask .* has pixels of the kind 'RGB'"),
        (lambda mask: Image.new("L", (24, 18), 7).save(mask), "its mask .* holds the values 7; declared are 0, 255"),
        (lambda mask: Image.new("L", (9, 9)).save(mask), r"its mask .* has \(9, 9\) pixels, the image \(24, 18\)"),
    ],
)
def test_a_mask_that_does_not_fit_is_named(spoil: object, message: str, tmp_path: Path) -> None:
    folder = isic2017(tmp_path, ALL, count=2) / "ISIC-2017/ISIC-2017_Training_Part1_GroundTruth"
    assert callable(spoil)
    spoil(folder / "ISIC_0000001_segmentation.png")
    with pytest.raises(DataError, match=message):
        Isic2017(size=16, data_path=tmp_path).train_examples()


def test_a_folder_without_images_and_a_model_of_whole_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read ISIC-2017_Training_Data, .*expected: a folder isic2017 with"):
        Isic2017(data_path=tmp_path).check()
    with pytest.raises(DataError, match="must answer for each pixel"):
        Isic2017(size=16).build_model("mlp", "")
    with pytest.raises(PluginError, match="evaluate_on"):
        TASKS.build("isic-2017", 'evaluate_on = "train"')
