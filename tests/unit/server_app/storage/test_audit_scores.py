import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, roc_auc_score

from client_app.label_audit_files import Columns
from server_app.storage.audit_scores import (
    SCORES,
    Relabelling,
    Score,
    Scores,
    read_scores,
    write_scores,
)
from server_app.storage.audit_scoring import relabelling, score_list
from tasks.base import ClientData
from tasks.client_data import ClientDataset

NAMES = ("a", "b", "c", "d", "e")
CLASSES = ("cat", "dog")
#             a  b  c  d  e
TRUTH = np.array([0, 0, 0, 1, 1])
GIVEN = np.array([0, 1, 1, 1, 0])  # wrong: b, c, e


def share(given: np.ndarray = GIVEN, truth: np.ndarray = TRUTH, replaced: tuple[int, ...] = ()) -> ClientDataset:
    data = ClientData(3, torch.zeros(len(given), 1), given, np.arange(len(given)), 2)
    return ClientDataset(data, truth, np.array(replaced, np.int64))


def columns(order: str, suggested: str, changed_to: str) -> Columns:
    """A list with a letter per example: c for cat, d for dog, - for nothing."""
    words = {"c": "cat", "d": "dog", "-": ""}
    return {
        "id": list(order),
        "suggested": [words[letter] for letter in suggested],
        "changed_to": [words[letter] for letter in changed_to],
        "changed": [letter != "-" for letter in changed_to],
        "look": [rank < 4 for rank in range(len(order))],
    }


def test_a_list_is_scored_by_hand():
    #        wrong:    b a c e d    b and d get another label (d a wrong one), the method changed b and a
    score = score_list(columns("bacde", "ccdcc", "cd---"), share(), NAMES, CLASSES)
    assert score == Score(
        client=3,
        examples=5,
        wrong=3,
        estimated_noise_rate=4 / 5,
        auc=pytest.approx(3 / 6),  # b before a and d, c before d; a and d before e, a before c
        precision_at_wrong=pytest.approx(2 / 3),
        precision_at_10=3 / 5,
        precision_at_20=3 / 5,
        suggested=Relabelling(right=2, fixed=1, damaged=1, differing=2, differing_right=1),
        corrected=Relabelling(right=2, fixed=1, damaged=1, differing=2, differing_right=1),
    )
    assert score.given_accuracy == pytest.approx(2 / 5)


@pytest.mark.parametrize("seed", range(10))
def test_scores_of_random_lists_agree_with_sklearn(seed: int):
    draw = np.random.default_rng(seed)
    size, classes = 40, ("x", "y", "z")
    truth, given, suggested = (draw.integers(0, 3, size) for _ in range(3))
    order = draw.permutation(size)
    listed: Columns = {
        "id": [str(i) for i in order],
        "suggested": [classes[suggested[i]] for i in order],
        "changed_to": [""] * size,
        "changed": [False] * size,
        "look": [False] * size,
    }
    data = ClientData(0, torch.zeros(size, 1), given, np.arange(size), 3)
    score = score_list(
        listed, ClientDataset(data, truth, np.array([], np.int64)), [str(i) for i in range(size)], classes
    )
    rank = np.empty(size)
    rank[order] = np.arange(size)
    wrong = truth != given
    assert score.auc == pytest.approx(roc_auc_score(wrong, size - rank))
    assert score.precision_at_20 == pytest.approx(wrong[order[:20]].mean())
    table = confusion_matrix(given == truth, suggested == truth, labels=[False, True])
    assert score.suggested.fixed == table[0, 1]
    assert score.suggested.damaged == table[1, 0]
    assert score.suggested.right == table[:, 1].sum()
    assert score.corrected is None


@pytest.mark.parametrize("given", [TRUTH, 1 - TRUTH], ids=["all right", "all wrong"])
def test_a_client_with_one_kind_of_label_has_no_auc(given: np.ndarray):
    score = score_list(columns("abcde", "cccdd", "-----"), share(given), NAMES, CLASSES)
    assert score.auc is None
    assert score.precision_at_wrong == (None if given is TRUTH else 1.0)


def test_no_label_is_right_for_an_example_from_outside_the_task():
    score = score_list(columns("abcde", "cccdd", "-----"), share(TRUTH, TRUTH, replaced=(4,)), NAMES, CLASSES)
    assert (score.wrong, score.suggested.right, score.suggested.fixed) == (1, 4, 0)


@pytest.mark.parametrize("order", ["abcd", "abcdd", "abcdx", "abcdee"])
def test_a_list_of_other_examples_is_not_scored(order: str):
    with pytest.raises(ValueError, match="name each of the client's examples once"):
        score_list(columns(order, "c" * len(order), "-" * len(order)), share(), NAMES, CLASSES)


def test_a_list_with_a_class_of_another_task_is_not_scored():
    with pytest.raises(ValueError, match="names the class 'dog', which the task does not have"):
        score_list(columns("abcde", "ccccd", "-----"), share(), NAMES, ("cat", "cow"))


def test_what_relabelling_counts_is_exhaustive():
    cases = np.array(list(product(range(3), repeat=3)))
    given, final, truth = cases.T
    found = relabelling(given, final, truth)
    by_hand = [(g != t and f == t, g == t and f != t, f != g, f != g and f == t, f == t) for g, f, t in cases]
    fixed, damaged, differing, differing_right, right = map(sum, zip(*by_hand, strict=True))
    assert found == Relabelling(right, fixed, damaged, differing, differing_right)


def two_clients() -> Scores:
    first = Score(0, 10, 4, 0.3, 0.75, 0.5, 0.4, 0.4, Relabelling(8, 3, 1, 5, 3), Relabelling(7, 1, 0, 1, 1))
    second = Score(1, 30, 0, 0.1, None, None, 0.0, 0.0, Relabelling(27, 0, 3, 3, 0), None)
    return Scores((first, second))


def test_clients_are_summed_by_their_examples_and_averaged_where_they_have_a_score():
    scores = two_clients()
    assert (scores.examples, scores.wrong) == (40, 4)
    assert scores.mean("auc") == 0.75
    assert scores.mean("given_accuracy") == pytest.approx((0.6 + 1.0) / 2)
    assert scores.rates("suggested") == {
        "accuracy": 35 / 40,
        "fix_rate": 3 / 4,
        "damage_rate": 4 / 36,
        "precision": 3 / 8,
    }
    assert scores.rates("corrected") == {"accuracy": 37 / 40, "fix_rate": 1 / 4, "damage_rate": 0.0, "precision": 1.0}
    assert Scores(()).mean("auc") is None
    assert set(Scores(()).rates("suggested").values()) == {None}


def test_scores_are_read_as_they_were_written(tmp_path: Path):
    write_scores(tmp_path, two_clients())
    assert read_scores(json.loads((tmp_path / SCORES).read_text())) == two_clients()
