"""Noise with thousands of classes: no table of classes by classes, and still the labels that the table would give."""

import tracemalloc
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tasks.noise import NOISES, ClassConditional, Matrix, NoiseError, NoiseWarning, dominant
from tasks.noise.base import confusions_of, draw_from_rows, exact_count
from tasks.noise.class_conditional import MAX_TABLE_CLASSES
from tasks.noise.instance import MAX_CLASSES
from tasks.plugins import PluginError
from tasks.seeds import rng

LAWS = ("symmetric", "symmetric-all", "pair-flip", "asymmetric")
MANY = 9_140


def build(name: str, num_classes: int, rate: float, **args: Any) -> Any:
    if name == "asymmetric":
        args["pairs"] = [[true, (true * 7 + 1) % num_classes] for true in range(0, num_classes, 3)]
        args["pairs"] = [pair for pair in args["pairs"] if pair[0] != pair[1]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoiseWarning)
        return NOISES.build(name, args, num_classes=num_classes, rate=rate)


def by_the_table(noise: Any, labels: Any, draws: np.random.Generator) -> Any:
    """Draw from rows of the whole matrix, as the definition says."""
    noisy, matrix = labels.copy(), noise.redraw_matrix()
    candidates = np.flatnonzero(np.diag(matrix)[noisy] < 1)
    if noise.exact:
        chosen = draws.choice(candidates, exact_count(noise.rate, len(candidates)), replace=False)
    else:
        chosen = candidates[draws.random(len(candidates)) < noise.rate]
    noisy[chosen] = draw_from_rows(matrix[noisy[chosen]], draws.random(len(chosen)))
    return noisy


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("num_classes", [2, 3, 10, 97, 400])
@pytest.mark.parametrize("name", LAWS)
def test_the_labels_are_those_of_the_table(name: str, num_classes: int, exact: bool) -> None:
    labels = rng(5).integers(num_classes, size=3_000)
    for seed, rate in enumerate((0.0, 0.2, 0.85, 1.0)):
        noise = build(name, num_classes, rate, exact=exact)
        np.testing.assert_array_equal(noise(labels, rng(seed)), by_the_table(noise, labels, rng(seed)))


@pytest.mark.parametrize("num_classes", [2, 3, 10, 64])
@pytest.mark.parametrize("name", LAWS)
def test_each_border_of_the_distribution_function_belongs_to_the_same_class(name: str, num_classes: int) -> None:
    noise = build(name, num_classes, 0.5)
    for true, row in enumerate(noise.redraw_matrix()):
        borders = (row.cumsum() / row.cumsum()[-1]).clip(0, np.nextafter(1, 0))
        uniforms = np.concatenate([borders, np.nextafter(borders, 0), np.nextafter(borders, 0.999)])
        expected = draw_from_rows(np.repeat(row[None], len(uniforms), axis=0), uniforms)
        np.testing.assert_array_equal(noise.redraw(np.full(len(uniforms), true), uniforms), expected)


@pytest.mark.parametrize("num_classes", [2, 3, 10, 64])
@pytest.mark.parametrize("name", LAWS)
def test_the_confusions_are_those_of_the_table(name: str, num_classes: int) -> None:
    noise = build(name, num_classes, 0.5)
    for own, expected in zip(noise.confusions(), confusions_of(noise.redraw_matrix()), strict=True):
        np.testing.assert_array_equal(own, expected)


@pytest.mark.parametrize("rate", [0.0, 0.4, 0.5, 0.66, 0.67, 0.9, 1.0])
@pytest.mark.parametrize("name", LAWS)
def test_the_warning_comes_where_the_transition_matrix_is_not_dominant(name: str, rate: float) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        NOISES.build(name, "pairs = [[0, 2]]" if name == "asymmetric" else "", num_classes=3, rate=rate)
    assert bool(caught) is not dominant(build(name, 3, rate).transition_matrix())


@pytest.mark.parametrize("name", LAWS)
def test_thousands_of_classes_need_little_memory(name: str) -> None:
    labels = np.arange(2_000) % MANY
    tracemalloc.start()
    noisy = build(name, MANY, 0.85)(labels, rng(1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000  # one table takes 668 MB
    assert 0 < (noisy != labels).sum() <= 1_700
    assert noisy.max() < MANY


def test_names_of_thousands_of_classes_are_found() -> None:
    names = [f"class {number}" for number in range(MANY)]
    pairs = [[names[true], names[true - 1]] for true in range(MANY)]
    noise = NOISES.build("asymmetric", {"pairs": pairs}, num_classes=MANY, rate=0.1, class_names=names)
    assert noise.targets().tolist() == [MANY - 1, *range(MANY - 1)]  # type: ignore[attr-defined]


@dataclass(frozen=True, kw_only=True)
class Own(ClassConditional):
    """A law that writes down its table, as a user's own does."""

    def redraw_matrix(self) -> Matrix:
        raise AssertionError("too many classes to write the table down")


def test_more_classes_than_a_table_can_hold_are_refused_with_the_remedy() -> None:
    with pytest.raises(
        NoiseError, match=f"Own noise looks at every pair of classes.* up to {MAX_TABLE_CLASSES} classes"
    ):
        Own(num_classes=MAX_TABLE_CLASSES + 1, rate=0.1)
    with pytest.raises(PluginError, match=f"instance noise .* has {MAX_CLASSES + 1}; choose symmetric"):
        NOISES.build("instance", num_classes=MAX_CLASSES + 1, rate=0.1)
