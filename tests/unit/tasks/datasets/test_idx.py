"""MNIST and Fashion-MNIST: read as torchvision reads them, packed or not, and files that do not fit."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from tasks.base import DataError
from tasks.datasets.idx import FashionMnist, IdxImages, Mnist
from tasks.registry import TASKS
from tests.named_data import idx

SIZES = {"train": 12, "test": 5}


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IdxImages, "sizes", SIZES)


@pytest.mark.parametrize("task", [Mnist, FashionMnist])
def test_files_are_read_as_torchvision_reads_them_packed_or_not(task: type[IdxImages], tmp_path: Path) -> None:
    plain = task(idx(tmp_path, task))
    packed = task(idx(tmp_path / "packed", task, packed=True))
    reader = getattr(datasets, task.folder)
    for train, part in ((True, "train"), (False, "test")):
        shown = reader(tmp_path, train=train)
        for loaded in (plain, packed):
            examples = loaded.train_examples() if train else loaded.test_examples()
            assert examples.features.shape == (SIZES[part], 1, 28, 28)
            assert np.array_equal(examples.features[:, 0], shown.data)
            assert examples.labels.tolist() == shown.targets.tolist()
    assert len(task.class_names) == len(reader.classes) == 10


def test_names_and_constants_are_those_of_the_sets(tmp_path: Path) -> None:
    shown = [name.lower().removesuffix("/top") for name in datasets.FashionMNIST.classes]
    assert list(FashionMnist.class_names) == shown
    task = TASKS.build("mnist", "train_samples = 7", data_path=idx(tmp_path, Mnist))
    assert len(task.train_examples()) == 7
    assert task.train_ids().tolist() == sorted(set(task.train_ids().tolist()))
    assert task.build_model("auto", "")(task.prepare(task.train_examples().features)).shape == (7, 10)


def test_missing_files_are_named_with_a_command_that_fetches_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"needs a data folder.*import MNIST; MNIST\('.', download=True\)"):
        Mnist().check()
    with pytest.raises(DataError, match=r"cannot read train-images-idx3-ubyte, .* in .*/FashionMNIST/raw; expected"):
        FashionMnist(idx(tmp_path, Mnist)).check()
    (tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="cannot read t10k-labels-idx1-ubyte in"):
        Mnist(tmp_path).check()


def cut(content: bytes) -> bytes:
    return content[:-1]


def other_type(content: bytes) -> bytes:
    return content[:2] + b"\x0d" + content[3:]


def one_less(content: bytes) -> bytes:
    return content[:7] + bytes([content[7] - 1]) + content[8 : -28 * 28]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, "is damaged or no IDX file of bytes"),
        (other_type, "is damaged or no IDX file of bytes: it begins with 00 00 0d 03"),
        (one_less, r"12 images of 28x28 pixels and 12 labels are expected for train, .* hold \(11, 28, 28\)"),
        (lambda _: b"", "cannot be read"),
    ],
)
def test_damaged_images_are_refused(spoil: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    path = idx(tmp_path, Mnist) / "MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        Mnist(tmp_path).train_examples()


def test_a_cut_archive_and_a_label_out_of_range_are_refused(tmp_path: Path) -> None:
    path = idx(tmp_path, Mnist, packed=True) / "MNIST/raw/train-labels-idx1-ubyte.gz"
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte.gz cannot be read"):
        Mnist(tmp_path).train_examples()
    path.write_bytes(gzip.compress(whole[:-1] + b"\x0a"))
    with pytest.raises(DataError, match=r"a label in .* is 10; 0 to 9 expected"):
        Mnist(tmp_path).train_examples()
