"""Human labels from files: formats, order, gaps, and files that try to run code."""

import pickle
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tasks.noise import NOISES, NoiseError, human_labels
from tasks.noise.human import read_order
from tasks.plugins import PluginError
from tasks.seeds import rng

CLEAN = np.array([0, 1, 2, 0, 1])
GIVEN = np.array([0, 2, 2, 1, 1])


def write(folder: Path, suffix: str) -> Path:
    path = folder / f"labels{suffix}"
    if suffix == ".npz":
        np.savez(path, clean_label=CLEAN.astype(np.uint8), people=GIVEN.astype(np.uint8))
    elif suffix == ".pt":
        torch.save({"clean_label": CLEAN, "people": GIVEN.tolist()}, path)
    else:
        rows = "".join(f'{c},{g},"a, b"\n' for c, g in zip(CLEAN, GIVEN, strict=True))
        path.write_text("clean_label,people,text\n" + rows)
    return path


def build(path: Path, args: str = 'column = "people"', num_classes: int = 3) -> Any:
    return NOISES.build("human", f'path = "{path.name}", {args}', num_classes=num_classes, data_root=path.parent)


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".csv"])
def test_all_formats_give_the_same_labels(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix)
    np.testing.assert_array_equal(human_labels(path, "people", CLEAN), GIVEN)
    ids = np.array([4, 1])
    noisy = build(path)(CLEAN[ids], rng(1), ids=ids)
    assert noisy.tolist() == [1, 2]
    assert noisy.dtype == np.int64


def test_the_returned_labels_may_be_changed(tmp_path: Path) -> None:
    path = write(tmp_path, ".npz")
    human_labels(path, "people", CLEAN)[:] = 7
    np.testing.assert_array_equal(human_labels(path, "people", CLEAN), GIVEN)


def test_another_order_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, ".npz")
    with pytest.raises(NoiseError, match=r"only 40.0% of the true labels .* another order"):
        human_labels(path, "people", np.array([0, 1, 0, 1, 2]))
    with pytest.raises(NoiseError, match="another order"):
        build(path)(np.array([1, 0]), rng(1), ids=np.array([0, 1]))
    with pytest.raises(NoiseError, match="labels for 5 examples, but the data set has 4"):
        human_labels(path, "people", CLEAN[:4])


def test_gaps_are_an_error_unless_true_labels_may_fill_them(tmp_path: Path) -> None:
    path = tmp_path / "gaps.csv"
    path.write_text("gt,people\n0,\n1,2\n")
    assert human_labels(path, "people", np.array([0, 1]), "gt").tolist() == [-1, 2]
    args = 'column = "people", clean_column = "gt"'
    with pytest.raises(NoiseError, match="1 of 2 examples have no label"):
        build(path, args)(np.array([0, 1]), rng(1), ids=np.arange(2))
    assert build(path, args)(np.array([1]), rng(1), ids=np.array([1])).tolist() == [2]
    filled = build(path, args + ', missing = "clean"')(np.array([0, 1]), rng(1), ids=np.arange(2))
    assert filled.tolist() == [0, 2]


def test_lists_as_cifar100n_has_them_are_read(tmp_path: Path) -> None:
    fine, coarse = np.arange(100), np.arange(100) // 5
    given = {"clean_label": list(fine), "noisy_label": list(np.roll(fine, 1)), "clean_coarse_label": coarse.tolist()}
    torch.save(given, tmp_path / "CIFAR-100_human.pt")  # lists of NumPy's numbers, and of Python's
    noise = build(tmp_path / "CIFAR-100_human.pt", 'column = "noisy_label"', num_classes=100)
    assert noise(fine, rng(1), ids=np.arange(100)).tolist() == np.roll(fine, 1).tolist()
    with pytest.raises(NoiseError, match=r"only 5.0% of the true labels|only 1.0% of the true labels"):
        human_labels(tmp_path / "CIFAR-100_human.pt", "noisy_label", fine, "clean_coarse_label")


def test_labels_in_the_order_of_tensorflow_datasets_are_put_into_that_of_the_examples(tmp_path: Path) -> None:
    order = np.array([3, 0, 4, 1, 2])  # row i belongs to example order[i]
    np.savez(tmp_path / "ordered.npz", clean_label=CLEAN[order], noise_label=GIVEN[order])
    np.save(tmp_path / "image_order.npy", order)
    args = 'column = "noise_label", order = "image_order.npy"'
    assert build(tmp_path / "ordered.npz", args)(CLEAN, rng(1), ids=np.arange(5)).tolist() == GIVEN.tolist()
    with pytest.raises(NoiseError, match=r"another order.*name image_order_c10.npy in order"):
        build(tmp_path / "ordered.npz", 'column = "noise_label"')(CLEAN, rng(1), ids=np.arange(5))
    np.save(tmp_path / "image_order.npy", np.array([0, 0, 1, 2, 3]))
    read_order.cache_clear()
    with pytest.raises(PluginError, match="must hold each number from 0 to 4 once"):
        build(tmp_path / "ordered.npz", args)
    with pytest.raises(PluginError, match="lies outside of the data folder"):
        build(tmp_path / "ordered.npz", 'column = "noise_label", order = "../image_order.npy"')


def test_a_pickled_dict_is_refused_with_a_command_that_converts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "labels_ordered.npy", {"clean_label": CLEAN, "people": GIVEN}, allow_pickle=True)
    with pytest.raises(PluginError, match=r"make an .npz file of it") as caught:
        build(tmp_path / "labels_ordered.npy")
    words = shlex.split(str(caught.value).split("run  ")[1])
    monkeypatch.chdir(tmp_path)
    exec(words[2], {})
    np.testing.assert_array_equal(human_labels(tmp_path / "labels_ordered.npz", "people", CLEAN), GIVEN)


def test_ids_are_needed_and_checked(tmp_path: Path) -> None:
    noise = build(write(tmp_path, ".npz"))
    for ids in (None, np.arange(4)):
        with pytest.raises(NoiseError, match="one id a label"):
            noise(CLEAN, rng(1), ids=ids)
    for wrong in (5, -1):
        with pytest.raises(NoiseError, match=f"labels for 5 examples, but id {wrong} was asked for"):
            noise(np.array([1, 0]), rng(1), ids=np.array([wrong, 3]))


def test_wrong_files_and_columns_are_explained(tmp_path: Path) -> None:
    path = write(tmp_path, ".csv")
    (tmp_path / "broken.npz").write_bytes(b"not an archive")
    (tmp_path / "labels.txt").write_text("0")
    for target, args, message in (
        (path, 'column = "peple"', "did you mean 'people'"),
        (path, 'column = "text"', "must hold class numbers: .*'a, b'"),
        (path, 'column = "people", missing = "skip"', 'must be "error" or "clean"'),
        (tmp_path / "none.npz", 'column = "people"', "there is no label file"),
        (tmp_path / "labels.txt", 'column = "people"', "read from .npz, .pt or .csv"),
        (tmp_path / "broken.npz", 'column = "people"', "cannot read the labels"),
    ):
        with pytest.raises(PluginError, match=message):
            build(target, args)
    with pytest.raises(PluginError, match=r"outside 0\.\.1"):
        build(path, num_classes=2)


class Trap:
    """Runs code when it is unpickled by a careless reader."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.target,)


def test_a_file_cannot_run_code(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    torch.save({"clean_label": CLEAN, "people": Trap(sprung)}, tmp_path / "trap.pt")
    np.savez(tmp_path / "trap.npz", clean_label=CLEAN, people=np.array([Trap(sprung)], dtype=object))
    for name in ("trap.pt", "trap.npz"):
        with pytest.raises(NoiseError, match="cannot read the labels"):
            human_labels(tmp_path / name, "people", CLEAN)
    assert not sprung.exists()
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists(), "the trap does not work"
