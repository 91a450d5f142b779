"""Real photographs, masks and texts through the tasks on a site's own data; needs the data folder."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.client_data import load_task
from tasks.settings import TaskSettings
from tests.integration.conftest import Play
from tests.site_data import save, table

pytestmark = pytest.mark.data
PLAIN = {"partition.name": "iid", "partition.args": "", "loss.name": "ce", "audit.enabled": False}
NEWS = 'classes = ["World", "Sports", "Business", "Sci/Tech"], label = "gt"'


def test_the_dermoscopy_folder_is_read_as_it_was_published(data_root: Path, tmp_path: Path) -> None:
    for kind, ending, folder in (("images", ".jpg", "image"), ("masks", "_segmentation.png", "mask256")):
        (tmp_path / kind).mkdir()
        for number in range(12):
            name = f"ISIC_{number:07}{ending}"
            source = data_root / "isic2017" / "train" / folder / name
            if source.exists():
                (tmp_path / kind / name).write_bytes(source.read_bytes())
    args = 'classes = ["skin", "lesion"], values = [0, 255], mask_suffix = "_segmentation", size = 256'
    task = load_task(TaskSettings("image-masks", args, str(tmp_path)))
    examples, names = task.train_examples(), task.example_names(task.train_ids())
    assert len(examples) >= 8
    for place, name in enumerate(names):
        stem = Path(name).stem
        mask = np.asarray(Image.open(tmp_path / "masks" / f"{stem}_segmentation.png"))
        np.testing.assert_array_equal(examples.labels[place], mask == 255)
        image = np.asarray(Image.open(tmp_path / "images" / f"{stem}.jpg"))
        np.testing.assert_array_equal(examples.features[place].permute(1, 2, 0).numpy(), image)


def test_a_small_unet_finds_lesions(play: Play, data_root: Path, tmp_path: Path) -> None:
    stored = np.load(data_root / "small" / "isic2017_64px_200_50.npz")
    for part, folder in (("train", tmp_path / "data"), ("val", tmp_path / "data" / "test")):
        for place, (pixels, mask) in enumerate(zip(stored[f"x_{part}"], stored[f"m_{part}"], strict=True)):
            save(folder / "images" / f"{place:03}.png", pixels.transpose(1, 2, 0))
            save(folder / "masks" / f"{place:03}.png", mask)
    values = sorted(set(np.unique(stored["m_train"]).tolist()))
    run = play(
        **PLAIN,
        **{
            "task.name": "image-masks",
            "task.args": f'classes = ["skin", "lesion"], values = {values}, size = 32',
            "task.data-path": str(tmp_path / "data"),
            "model.name": "unet",
            "model.args": "width = 8, depth = 2",
            "noise.name": "masks",
            "noise.rates-args": "max = 0.5",
            "train.optimizer": "adam",
            "train.learning-rate": 0.01,
            "train.batch-size": 8,
            "train.epochs": 2,
        },
    )
    start, end = run.metrics[0], run.metrics[-1]
    assert end["mean-iou"] > max(start["mean-iou"], 0.6)


def test_news_are_told_apart(play: Play, data_root: Path, tmp_path: Path) -> None:
    import csv

    with (data_root / "small" / "agnews_2k_1k.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for part, folder in (("train", tmp_path), ("test", tmp_path / "test")):
        table(folder / "texts.csv", ("gt", "text"), [(row["gt"], row["text"]) for row in rows if row["split"] == part])
    run = play(
        **PLAIN,
        **{
            "task.name": "text-csv",
            "task.args": NEWS + ', values = ["0", "1", "2", "3"]',
            "task.data-path": str(tmp_path),
            "model.name": "auto",
            "noise.name": "none",
            "train.optimizer": "adam",
            "train.learning-rate": 0.01,
            "train.epochs": 4,
        },
    )
    assert run.metrics[-1]["accuracy"] > 0.75


def test_the_published_table_of_news_is_read_without_a_header(data_root: Path) -> None:
    more = ', values = ["1", "2", "3", "4"], file = "test.csv", header = ["gt", "title", "about"], '
    args = NEWS + more + 'text = ["title", "about"]'
    task = load_task(TaskSettings("text-csv", args, str(data_root / "agnews")))
    assert np.bincount(task.train_examples().labels).tolist() == [1900] * 4
