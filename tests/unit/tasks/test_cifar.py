"""CIFAR without the published files: what is missing, what is damaged, and a small folder of the same format."""

import hashlib
import pickle
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from tasks.base import DataError
from tasks.images import Cifar10, Cifar100
from tasks.plugins import PluginError
from tasks.registry import TASKS

SIZES = {"train": 12, "test": 5}


def write_cifar100(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a CIFAR-100 of a few random images and make torchvision expect its MD5 sums."""
    folder = root / "cifar-100-python"
    folder.mkdir()
    rng = np.random.default_rng(0)
    contents: dict[str, dict[str, object]] = {"meta": {"fine_label_names": list(Cifar100.class_names)}}
    for part, count in SIZES.items():
        pixels = rng.integers(256, size=(count, 3072), dtype=np.uint8)
        contents[part] = {"data": pixels, "fine_labels": rng.integers(100, size=count).tolist()}
    sums = {}
    for name, content in contents.items():
        stored = pickle.dumps(content)
        (folder / name).write_bytes(stored)
        sums[name] = hashlib.md5(stored).hexdigest()
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(datasets.CIFAR100, "meta", {**datasets.CIFAR100.meta, "md5": sums["meta"]})
    monkeypatch.setattr(Cifar100, "sizes", SIZES)


def test_small_cifar100_is_read_as_torchvision_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar100(tmp_path, monkeypatch)
    task = TASKS.build("cifar-100", data_path=tmp_path)
    task.check()
    for train, examples in ((True, task.train_examples()), (False, task.test_examples())):
        shown = datasets.CIFAR100(tmp_path, train=train)
        assert examples.features.is_contiguous()
        assert np.array_equal(examples.features.permute(0, 2, 3, 1).numpy(), shown.data)
        assert examples.labels.tolist() == shown.targets
    assert tuple(shown.classes) == task.class_names
    assert task.train_examples() is task.train_examples()


def test_subset_is_fixed_nested_and_knows_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar100(tmp_path, monkeypatch)
    whole = Cifar100(tmp_path)
    some = Cifar100(tmp_path, train_samples=7, test_samples=2)
    fewer = Cifar100(tmp_path, train_samples=3)
    places = some.positions("train")
    assert len(set(places)) == 7
    assert set(fewer.positions("train")) < set(places)
    assert torch.equal(some.train_examples().features, whole.train_examples().features[torch.from_numpy(places)])
    assert some.train_examples().labels.tolist() == whole.train_examples().labels[places].tolist()
    assert len(some.test_examples()) == 2
    assert whole.positions("test").tolist() == list(range(5))


def test_missing_folder_and_files_are_named_with_the_remedy(tmp_path: Path) -> None:
    task = TASKS.build("cifar-10", data_path=tmp_path)
    for attempt in (task.check, task.train_examples, task.test_examples):
        with pytest.raises(DataError, match="cannot read data_batch_1, data_batch_2") as caught:
            attempt()
        assert str(tmp_path / "cifar-10-batches-py") in str(caught.value)
        assert f"in {tmp_path}, or let task.data-path" in str(caught.value)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in Cifar10.files[:-1]:
        (folder / name).touch()
    with pytest.raises(DataError, match=r"cannot read batches\.meta in"):
        task.check()


def test_the_remedy_is_a_command_that_a_shell_and_python_understand() -> None:
    with pytest.raises(DataError) as caught:
        Cifar10(Path("nowhere")).check()
    words = shlex.split(str(caught.value).split("run  ")[1].split("  in ")[0])
    assert words[:2] == ["python", "-c"]
    compile(words[2], "remedy", "exec")
    assert words[2].endswith("CIFAR10('.', download=True)")


def test_no_folder_at_all_is_an_error_too() -> None:
    with pytest.raises(DataError, match="CIFAR-100 needs a data folder and none is given"):
        TASKS.build("cifar-100", data_path=None).check()


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_damaged_file_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar100(tmp_path, monkeypatch)
    path = tmp_path / "cifar-100-python" / name
    path.write_bytes(path.read_bytes()[:-7])
    task = Cifar100(tmp_path)
    task.check()  # cheap: contents are looked at when they are read
    with pytest.raises(DataError, match=f"damaged in .*: {name}; delete that folder and fetch it: run"):
        task.train_examples()


@pytest.mark.parametrize(
    "args", ["train_samples = 50001", "test_samples = -1", "train_samples = 0.5", "samples = 3", "data_path = 3"]
)
def test_arguments_that_do_not_fit(args: str) -> None:
    with pytest.raises(PluginError, match="cifar-10"):
        TASKS.build("cifar-10", args, data_path=None)


def test_class_names() -> None:
    assert Cifar10.class_names[9] == "truck"
    assert len(set(Cifar100.class_names)) == 100
    assert list(Cifar100.class_names) == sorted(Cifar100.class_names)
    trees, fish = [47, 52, 56, 59, 96], [1, 32, 67, 73, 91]  # two of the published superclasses
    assert all(Cifar100.class_names[index].endswith("_tree") for index in trees)
    assert [Cifar100.class_names[index] for index in fish] == ["aquarium_fish", "flatfish", "ray", "shark", "trout"]
