import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client_app.losses import L2ToGlobal, Objective, build
from client_app.methods.fedcorr import Mixup
from client_app.trainer import Batch, GivenLabels

INPUTS = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
BATCH = Batch(torch.arange(8), INPUTS, torch.arange(8) % 3)
GLOBAL = {"weight": torch.zeros(3, 5), "bias": torch.zeros(3)}


def linear() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(5, 3)


def mixed(alpha: float, seed: int = 0, objective: Objective | None = None) -> tuple[Tensor, Tensor]:
    """What the model is shown, and the loss of what it answers."""
    batch_loss = Mixup(objective or build("ce", 3), GLOBAL, alpha, np.random.default_rng(seed))
    model, shown = linear(), batch_loss.shown(BATCH, INPUTS)
    return shown, batch_loss.loss(model, BATCH, shown, model(shown))


@pytest.mark.parametrize("alpha", [0.0, 1e-9])
def test_no_mixup_is_the_limit_of_small_alpha(alpha: float):
    model = linear()
    shown, loss = mixed(alpha)
    assert torch.equal(shown, INPUTS)
    assert torch.equal(loss, GivenLabels(build("ce", 3), GLOBAL).loss(model, BATCH, INPUTS, model(INPUTS)))


@pytest.mark.parametrize("seed", range(5))
def test_inputs_and_labels_are_mixed_in_the_same_way(seed: int):
    draws = np.random.default_rng(seed)
    drawn = draws.beta(1.0, 1.0)
    share, partners = max(drawn, 1 - drawn), draws.permutation(8)
    shown, loss = mixed(1.0, seed)
    torch.testing.assert_close(shown, share * INPUTS + (1 - share) * INPUTS[partners])
    own, theirs = (F.one_hot(BATCH.labels[order], 3).float() for order in (np.arange(8), partners))
    torch.testing.assert_close(loss, F.cross_entropy(linear()(shown), share * own + (1 - share) * theirs))


def test_a_penalty_counts_once():
    objective = build("ce", 3)
    model = linear()
    distance = sum(float((p.detach() ** 2).sum()) for p in model.parameters()) / 2
    added = mixed(1.0, objective=objective.with_regularizer(4.0, L2ToGlobal()))[1] - mixed(1.0)[1]
    assert added.item() == pytest.approx(4.0 * distance, rel=1e-5)


def test_batches_differ_and_a_seed_repeats():
    batch_loss = Mixup(build("ce", 3), GLOBAL, 1.0, np.random.default_rng(0))
    assert not torch.equal(batch_loss.shown(BATCH, INPUTS), batch_loss.shown(BATCH, INPUTS))
    assert torch.equal(mixed(1.0, 3)[0], mixed(1.0, 3)[0])
