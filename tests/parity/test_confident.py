"""Our part of confident learning against cleanlab, the authors' package."""

import numpy as np
import pytest
from cleanlab.count import compute_confident_joint, estimate_joint
from cleanlab.rank import get_label_quality_scores

from client_app.label_quality import confident_joint, estimated_joint, suspicion


def noisy_model(seed: int, size: int, classes: int):
    """Labels with 30 % noise, and a model that knows the true ones with some doubt."""
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, classes, size)
    given = np.where(draw.random(size) < 0.3, draw.integers(0, classes, size), truth)
    logits = 2.5 * np.eye(classes)[truth] + draw.normal(size=(size, classes))
    beliefs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return beliefs, given


@pytest.mark.parametrize(("size", "classes"), [(200, 2), (500, 5), (3000, 10)])
@pytest.mark.parametrize("seed", range(3))
def test_the_confident_joint_is_cleanlabs(seed: int, size: int, classes: int):
    beliefs, given = noisy_model(seed, size, classes)
    theirs = compute_confident_joint(given, beliefs, calibrate=False)
    ours = confident_joint(beliefs, given)
    assert np.diag(ours).min() >= 1  # where it is 0, cleanlab writes 1
    assert ours.tolist() == theirs.tolist()
    whole_examples = 1.01 / size  # cleanlab rounds to them
    assert estimated_joint(beliefs, given) == pytest.approx(estimate_joint(given, beliefs), abs=whole_examples)


def test_a_class_in_which_the_model_does_not_believe_counts_as_in_cleanlab():
    beliefs = np.array([[0.99, 0.01, 1e-9], [0.9, 0.1, 1e-9], [0.01, 0.99, 1e-9], [1, 1e-9, 1e-9]])
    given = np.array([0, 0, 1, 2])
    theirs = compute_confident_joint(given, beliefs, calibrate=False)
    assert (confident_joint(beliefs, given) == theirs - np.diag([0, 0, 1])).all()  # it writes 1 for 0 on the diagonal


@pytest.mark.parametrize("seed", range(3))
def test_suspicion_is_one_minus_the_normalised_margin(seed: int):
    beliefs, given = noisy_model(seed, 300, 7)
    theirs = get_label_quality_scores(given, beliefs, method="normalized_margin")
    assert suspicion(beliefs, given) == pytest.approx(1 - theirs)
