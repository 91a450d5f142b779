"""Noise against numbers made outside this project: published noisy labels, maps and masks, by hash."""

import hashlib
import json
import pickle
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.anl_claims import class_quota_labels
from tasks.noise import NOISES, NoiseError, NoiseWarning, part_dependent_labels
from tasks.noise.asymmetric import CIFAR100_SUPERCLASSES
from tasks.noise.masks import displace, grow, shrink

Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def golden(vectors: Path) -> Any:
    return json.loads((vectors / "noise_vectors.json").read_text())


@pytest.fixture(scope="module")
def cifar10(data_root: Path) -> tuple[Array, Array]:
    """Raw training pixels (50000, 3072), channel by channel, and labels (50000,)."""
    batches = []
    for number in range(1, 6):
        with (data_root / "cifar-10-batches-py" / f"data_batch_{number}").open("rb") as file:
            batches.append(pickle.load(file, encoding="bytes"))
    return np.concatenate([b[b"data"] for b in batches]), np.concatenate([b[b"labels"] for b in batches])


def sha256(array: Array, kind: str = "<i8") -> str:
    return hashlib.sha256(array.astype(kind).tobytes()).hexdigest()


def transition(name: str, num_classes: int, rate: float) -> Array:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoiseWarning)
        matrix = NOISES.build(name, num_classes=num_classes, rate=rate).transition_matrix()
    assert matrix is not None
    return matrix


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("asymmetric-cifar100-block", "asym_cifar100_block5_map_official"),
        ("asymmetric-cifar100-superclass", "asym_cifar100_superclass_map"),
    ],
)
def test_cifar100_maps(golden: Any, name: str, key: str) -> None:
    assert transition(name, 100, 1.0).argmax(1).tolist() == golden[key]
    assert list(CIFAR100_SUPERCLASSES) == golden["cifar100_fine_to_coarse"]


def test_cifar10_map(golden: Any) -> None:
    targets = transition("asymmetric-cifar10", 10, 1.0).argmax(1)
    changed = {str(i): int(j) for i, j in enumerate(targets) if i != j}
    assert changed == golden["asym_cifar10_map"]


def test_only_six_block_pairs_share_a_superclass(golden: Any) -> None:
    targets = transition("asymmetric-cifar100-block", 100, 1.0).argmax(1)
    superclass = np.array(CIFAR100_SUPERCLASSES)
    assert (superclass[targets] == superclass).sum() == golden["block5_map_within_true_superclass"]


def test_class_quotas_tiny(golden: Any) -> None:
    case = golden["anl"]["tiny_K3_sym0.4_seed1"]
    noisy = class_quota_labels(np.array(case["labels"]), transition("symmetric", 3, 0.4), 1)
    assert noisy.tolist() == case["noisy"]


@pytest.mark.data
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("kind", "rate"), [("sym", 0.2), ("sym", 0.4), ("sym", 0.6), ("sym", 0.8), ("asym", 0.2), ("asym", 0.4)]
)
def test_class_quotas_of_cifar10(golden: Any, cifar10: tuple[Array, Array], kind: str, rate: float, seed: int) -> None:
    labels = cifar10[1]
    case = golden["anl"][f"cifar10_{kind}_{rate}_seed{seed}"]
    name = {"sym": "symmetric", "asym": "asymmetric-cifar10"}[kind]
    noisy = class_quota_labels(labels, transition(name, 10, rate), seed)
    assert int((noisy != labels).sum()) == case["n_changed"]
    assert sha256(noisy) == case["sha256_le_int64"]


def test_class_quotas_need_labels_of_the_matrix() -> None:
    with pytest.raises(NoiseError, match=r"0\.\.2"):
        class_quota_labels(np.array([0, 3]), transition("symmetric", 3, 0.4), 1)


def test_part_dependent_tiny(golden: Any) -> None:
    case = golden["pdn"]["tiny"]
    noisy = part_dependent_labels(np.array(case["y"]), np.array(case["x"]), case["K"], case["n"], case["seed"])
    assert noisy.tolist() == case["noisy"]


@pytest.mark.data
@pytest.mark.parametrize(
    ("order", "rate", "seed"), [("hwc", 0.5, 123), ("chw", 0.2, 1), ("chw", 0.4, 1), ("chw", 0.2, 5), ("chw", 0.4, 5)]
)
def test_part_dependent_cifar10(golden: Any, cifar10: tuple[Array, Array], order: str, rate: float, seed: int) -> None:
    pixels, labels = cifar10
    if order == "hwc":
        pixels = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    case = golden["pdn"][f"cifar10_{order}_raw255_{rate}_seed{seed}"]
    noisy = part_dependent_labels(labels, pixels, 10, rate, seed)
    assert noisy[:20].tolist() == case["first20"]
    assert sha256(noisy) == case["sha256_le_int64"]


def test_masks(golden: Any) -> None:
    y, x = np.mgrid[:64, :64]
    mask = ((y - 30) ** 2 + (x - 34) ** 2 <= 196) | ((y >= 28) & (y < 33) & (x >= 40) & (x < 56))
    assert mask.sum() == golden["segmentation"]["fg"]
    # the published list of directions, whose negative steps also shift forward
    published = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, 1), (0, -1), (1, -1)]
    for case in golden["segmentation"]["cases"]:
        if case["type"] == "affine":
            stream = random.Random(case["py_random_seed"])
            angle, (down, right) = stream.uniform(-30, 30), stream.choice(published)
            changed = displace(mask, case["beta"], angle, (abs(down), abs(right)))
        else:
            changed = {"dilate": grow, "erode": shrink}[case["type"]](mask, case["beta"])
        assert (changed ^ mask).sum() / mask.sum() == pytest.approx(case["xor_over_fg"], abs=1e-12)
        assert sha256(changed, "u1") == case["sha256_uint8_C"], case
