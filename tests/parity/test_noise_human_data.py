"""The real human labels: CIFAR-10N against its published noise rates, and AG News."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from tasks.base import Labels
from tasks.noise import NOISES, NoiseError, human_labels, realised_rate
from tasks.noise.human import read_column
from tasks.seeds import rng

pytestmark = pytest.mark.data

# Wei et al., ICLR 2022: the noise rates of CIFAR-10N
PUBLISHED = {
    "aggre_label": 0.0901,
    "worse_label": 0.4021,
    "random_label1": 0.1723,
    "random_label2": 0.1812,
    "random_label3": 0.1764,
}


@pytest.fixture(scope="module")
def clean(data_root: Path, vectors: Path) -> Labels:
    """The true labels, compared with those of the image batches through their hash."""
    labels = read_column(data_root / "cifar-n" / "cifar10n_labels.npz", "clean_label")
    golden = json.loads((vectors / "noise_vectors.json").read_text())
    assert hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest() == golden["clean"]["cifar10"]
    return labels


@pytest.mark.parametrize("file", ["cifar10n_labels.npz", "CIFAR-10_human.pt"])
@pytest.mark.parametrize("column", list(PUBLISHED))
def test_cifar10n_rates(data_root: Path, clean: Labels, file: str, column: str) -> None:
    given = human_labels(data_root / "cifar-n" / file, column, clean)
    assert realised_rate(clean, given) == pytest.approx(PUBLISHED[column], abs=5e-5)


def test_both_files_hold_the_same_labels(data_root: Path) -> None:
    for column in PUBLISHED:
        one, other = (
            read_column(data_root / "cifar-n" / f, column) for f in ("cifar10n_labels.npz", "CIFAR-10_human.pt")
        )
        np.testing.assert_array_equal(one, other)


def test_a_client_finds_its_labels_by_id(data_root: Path, clean: Labels) -> None:
    args = 'path = "cifar-n/cifar10n_labels.npz", column = "worse_label"'
    noise = NOISES.build("human", args, num_classes=10, rate=0.1, data_root=data_root)
    ids = np.sort(rng(1, "shard").choice(50_000, 500, replace=False))
    given = noise(clean[ids], rng(1), ids=ids)
    assert 0.33 < realised_rate(clean[ids], given) < 0.48
    with pytest.raises(NoiseError, match="another order"):
        noise(clean[ids], rng(1), ids=ids[::-1])


def test_ag_news(data_root: Path) -> None:
    path = data_root / "agnews" / "merged_train_small.csv"
    truth = read_column(path, "gt")
    given = human_labels(path, "human_noisy_med", truth, clean_column="gt")
    labelled = given >= 0
    assert len(given) == 14_547
    assert labelled.sum() == 9_993
    assert realised_rate(truth[labelled], given[labelled]) == pytest.approx(0.1971, abs=5e-5)
