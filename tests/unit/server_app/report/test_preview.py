"""The numbers of a preview agree with the shares that clients really get."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from server_app.report.preview_data import (
    Survey,
    choices,
    main_numbers,
    span,
    summary,
    take_survey,
    title,
    wrong_labels,
)
from server_app.report.preview_page import shades
from server_app.validation.config import check
from tasks.base import DataError, Examples
from tasks.client_data import client_dataset, server_places
from tasks.config import Flat, parse
from tasks.images import Digits
from tasks.settings import Settings

DEMO: Flat = {"federation.num-clients": 6, "partition.args": "alpha = 0.5"}


def survey(**changes: bool | int | float | str) -> Survey:
    return take_survey(check(DEMO | {key.replace("__", ".").replace("_", "-"): v for key, v in changes.items()}))


def hand_made(**changes: object) -> Survey:
    """Two clients with 3 and 1 examples of two classes; of client 0 one label is wrong, of client 1 its only one."""
    known = {
        "settings": Settings(),
        "class_names": ("cat", "dog"),
        "examples": np.array([3, 1]),
        "held_out": 5,
        "counts": np.array([[2, 1], [0, 1]]),
        "realised": np.array([1 / 3, 1.0]),
        "wanted": np.array([0.4, 0.9]),
        "transitions": np.array([[1, 1], [1, 1]]),
    }
    return Survey(**(known | changes))  # type: ignore[arg-type]


def test_the_numbers_are_those_of_the_shares() -> None:
    found = survey()
    shares = [client_dataset(found.settings, client) for client in range(6)]
    true = np.concatenate([share.true_labels for share in shares])
    given = np.concatenate([share.data.labels for share in shares])
    np.testing.assert_array_equal(found.transitions, confusion_matrix(true, given, labels=range(10)))
    normalized = confusion_matrix(true, given, labels=range(10), normalize="true")
    np.testing.assert_allclose(found.transition_matrix, normalized)
    np.testing.assert_array_equal(found.counts.sum(axis=1), found.examples)
    np.testing.assert_array_equal(found.counts.sum(axis=0), np.bincount(_shared_labels(found)))
    for client, share in enumerate(shares):
        np.testing.assert_array_equal(found.counts[client], np.bincount(share.true_labels, minlength=10))
        assert found.realised[client] == np.mean(share.true_labels != share.data.labels)
    assert found.overall == pytest.approx(np.mean(true != given))
    assert found.wanted == pytest.approx(np.linspace(0, 0.85, 6))


def _shared_labels(found: Survey) -> np.ndarray:
    """Labels of the examples that the server does not hold out."""
    labels = Digits().train_examples().labels
    return np.delete(labels, server_places(found.settings))


def test_a_noise_without_a_rate_wants_none() -> None:
    found = survey(noise__name="none")
    assert found.wanted is None
    assert found.overall == 0
    np.testing.assert_array_equal(found.transition_matrix, np.eye(10))
    assert "rates" not in choices(found)["noise"]
    assert wrong_labels(found) == "none"


def test_examples_from_outside_have_a_row_of_their_own(tmp_path: Path) -> None:
    np.savez(tmp_path / "outside.npz", images=Digits().test_examples().features.numpy())
    args = 'path = "outside.npz", array = "images"'
    found = survey(task__data_path=str(tmp_path), noise__name="open-set", noise__args=args)
    assert found.transitions.shape == (11, 10)
    assert found.row_names[-1] == "(outside)"
    assert found.transitions[10].sum() == round(found.overall * 1293)
    np.testing.assert_array_equal(found.transition_matrix[:10], np.eye(10))
    assert found.transitions.sum() == 1293  # of 1437; a tenth is held out


class Organs(Digits):
    """Masks of 2 x 2 pixels instead of digits; the corner belongs to no class."""

    class_names = ("background", "organ")

    def train_examples(self) -> Examples:
        masks = np.zeros((40, 2, 2), dtype=np.int64)
        masks[:10, 1] = 1
        masks[:, 0, 0] = -100
        return Examples(torch.zeros(40, 1, 2, 2, dtype=torch.uint8), masks)


def test_masks_are_counted_by_pixel() -> None:
    flat: Flat = {"task.name": f"{__name__}:Organs", "partition.name": "iid", "partition.args": ""}
    found = take_survey(parse(DEMO | flat | {"noise.name": "none", "evaluate.validation": 0.0}))
    assert found.counts.sum(axis=0).tolist() == [100, 20]
    assert found.transitions.tolist() == [[100, 0], [0, 20]]
    assert found.examples.sum() == 40


def test_overall_counts_examples_and_not_clients() -> None:
    assert hand_made().overall == pytest.approx(0.5)


def test_a_class_that_nobody_has_has_an_empty_row() -> None:
    matrix = hand_made(transitions=np.array([[2, 2], [0, 0]])).transition_matrix
    np.testing.assert_array_equal(matrix, [[0.5, 0.5], [0, 0]])


def test_the_words_give_the_extremes() -> None:
    assert main_numbers(hand_made()) == {
        "examples": "4 examples of 2 clients; a client has 1 to 3, median 2; 5 more are held out for validation",
        "classes": "a client has 1 to 2 of 2",
        "wrong labels": "50.0 % of all; a client has 33.3 % to 100.0 % (the distribution asks for 40.0 % to 90.0 %)",
    }
    assert title(hand_made()) == "digits, 20 clients, partition dirichlet, noise symmetric"
    assert summary(hand_made()).splitlines()[1] == "partition:    dirichlet (alpha = 0.5, min_size = 20)"
    assert span(np.array([2, 2])) == "2"


def test_shades_show_small_counts() -> None:
    np.testing.assert_allclose(shades(np.array([[0, 1], [25, 100]])), [[0, 0.1], [0.5, 1]])
    assert shades(np.zeros((2, 2), dtype=np.int64)).max() == 0


class ManyOrgans(Organs):
    """More classes than a page can show pair by pair; its examples are not read."""

    class_names = tuple(f"organ {number}" for number in range(501))

    def train_examples(self) -> Examples:
        raise AssertionError("read although it cannot be shown")


def test_too_many_classes_for_a_page_are_said_before_anything_is_read() -> None:
    with pytest.raises(DataError, match="up to 500 of them, and the task has 501; winnow run --dry-run"):
        take_survey(parse(DEMO | {"task.name": f"{__name__}:ManyOrgans"}))
