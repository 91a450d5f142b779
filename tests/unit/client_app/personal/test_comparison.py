"""Paired comparison of two models: the exact test against scipy's, and what counts as right."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from client_app.personal.comparison import MOST_PAIRS, compare, right_shares, sign_test
from tasks.base import ClientData
from tasks.images import Digits
from tasks.metrics import IGNORED


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (1, 0), (3, 3), (9, 2), (2, 9), (40, 60), (700, 820)])
def test_it_is_the_exact_two_sided_test(better: int, worse: int) -> None:
    expected = binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert sign_test(better, worse) == pytest.approx(expected)


def test_for_very_many_pairs_it_is_an_approximation_that_is_as_good() -> None:
    better, total = 5_150, MOST_PAIRS + 2
    assert sign_test(better, total - better) == pytest.approx(binomtest(better, total).pvalue, rel=1e-3)


def test_only_examples_on_which_the_models_differ_count() -> None:
    first = np.array([1.0, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    second = np.array([1.0, 0, 1, 1, 1, 1, 1, 1, 1, 0])
    found = compare(first, second)
    assert (found.better, found.worse, found.first, found.second) == (7, 1, 0.2, 0.8)
    assert found.p_value == pytest.approx(2 * 9 / 2**8)
    assert found.verdict == "not told apart"
    assert compare(np.zeros(6), np.ones(6)).verdict == "better"
    assert compare(np.ones(6), np.zeros(6)).verdict == "worse"


class Fixed(nn.Module):
    """Answers fixed logits."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.logits


def test_of_masks_the_share_of_known_pixels_is_right() -> None:
    labels = np.array([[[0, 1], [1, IGNORED]], [[IGNORED, IGNORED], [IGNORED, IGNORED]]])
    guesses = torch.tensor([[[0, 1], [0, 0]], [[1, 1], [1, 1]]])
    logits = nn.functional.one_hot(guesses, 2).permute(0, 3, 1, 2).float()
    data = ClientData(0, torch.zeros(2, 1, 8, 8, dtype=torch.uint8), labels, np.arange(2), 2)
    np.testing.assert_allclose(right_shares(Fixed(logits), Digits(), data, 8, torch.device("cpu")), [2 / 3, 1])
