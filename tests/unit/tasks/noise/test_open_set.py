"""Open-set noise replaces examples and keeps labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.noise import FederatedNoise, NoiseError, replace_examples
from tasks.plugins import PluginError
from tasks.seeds import rng

INSIDE = np.arange(20, dtype=np.uint8).reshape(20, 1)
OUTSIDE = np.arange(100, 130, dtype=np.uint8).reshape(30, 1)


def test_exactly_its_share_is_replaced_by_different_outsiders() -> None:
    replaced, places = replace_examples(INSIDE, OUTSIDE, 0.3, rng(1))
    assert len(places) == 6
    np.testing.assert_array_equal(np.flatnonzero(replaced[:, 0] != INSIDE[:, 0]), places)
    assert len(set(replaced[places, 0].tolist())) == 6
    assert set(replaced[places, 0].tolist()) <= set(OUTSIDE[:, 0].tolist())
    assert INSIDE.max() == 19


def test_few_outsiders_are_used_more_than_once() -> None:
    replaced, places = replace_examples(INSIDE, OUTSIDE[:2], 1.0, rng(1))
    assert len(places) == 20
    assert set(replaced[:, 0].tolist()) == {100, 101}


@pytest.mark.parametrize(
    "outside",
    [OUTSIDE.astype(np.float32), np.zeros((3, 2), dtype=np.uint8), OUTSIDE[:0], np.array([1, 2], dtype=np.uint8)],
)
def test_other_kinds_of_examples_are_refused(outside: Any) -> None:
    with pytest.raises(NoiseError, match="must be like the task's, uint8 of shape"):
        replace_examples(INSIDE, outside, 0.3, rng(1))


def federation(path: str, array: str, root: Path) -> FederatedNoise:
    args = f'path = "{path}", array = "{array}"'
    return FederatedNoise(1, 2, 10, "open-set", args, "linear", "max = 0.5", data_root=root)


def test_a_client_keeps_its_labels_and_gets_outsiders(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=OUTSIDE)
    noise = federation("other.npz", "x", tmp_path)
    labels = np.arange(20) % 10
    for client, expected in ((0, 0), (1, 10)):
        given = noise.apply(client, labels, INSIDE, np.arange(20))
        np.testing.assert_array_equal(given.labels, labels)
        assert len(given.replaced) == expected
        np.testing.assert_array_equal(np.flatnonzero(given.features[:, 0] >= 100), given.replaced)
        np.testing.assert_array_equal(given.features, noise.apply(client, labels, INSIDE, np.arange(20)).features)


def test_a_missing_file_or_array_is_explained(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", images=OUTSIDE)
    np.save(tmp_path / "plain.npy", OUTSIDE)
    for path, array, message in (
        ("none.npz", "x", "cannot read the examples"),
        ("plain.npy", "x", "expected an .npz file"),
        ("other.npz", "image", "did you mean 'images'"),
    ):
        with pytest.raises(PluginError, match=message):
            federation(path, array, tmp_path).of(0)
