"""Building losses by name: arguments, presets, import paths, and errors that help."""

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from client_app.losses import (
    L1,
    L2,
    LOSSES,
    PRESETS,
    EntropyOfMean,
    Focal,
    GeneralizedCrossEntropy,
    Jacobian,
    L1ToGlobal,
    LabelLoss,
    LogitAdjustedCrossEntropy,
    Objective,
    build,
)
from tasks.plugins import PluginError
from tests.loss_members import COUNTS, K, batch

HERE = __name__


@dataclass(frozen=True)
class Squared(LabelLoss):
    """A user's loss: power of the probability missed."""

    power: float = 2.0

    def value(self, log_p: Tensor) -> Tensor:
        return (1 - log_p.exp()).pow(self.power)


def penalised(num_classes: int, class_counts: Any = None) -> Objective:
    """A user's factory that asks for the context."""
    assert class_counts is not None
    return Objective(Squared(float(num_classes))).with_regularizer(1.0, L1())


def not_a_loss() -> int:
    """A user's mistake."""
    return 3


def test_all_losses_are_listed_with_a_summary_and_their_paper() -> None:
    for entry in LOSSES.entries():
        assert len(entry.summary) > 15
        assert entry.paper or entry.name == "ce"


@pytest.mark.parametrize("entry", LOSSES.entries(), ids=lambda entry: str(entry.name))
def test_every_argument_has_a_default(entry: Any) -> None:
    parameters = inspect.signature(entry.factory).parameters.values()
    assert all(p.default is not p.empty for p in parameters if p.name != "num_classes")


def test_arguments_as_text_and_as_mapping() -> None:
    assert build("gce", K, "q = 0.5").loss == GeneralizedCrossEntropy(0.5)
    assert build("gce", K, {"q": 0.5}) == build("gce", K, "q = 0.5")
    assert build("focal", K, "gamma = 2, detach_modulator = false").loss == Focal(2, False)


def test_objectives_of_the_active_negative_losses() -> None:
    assert build("anl-ce", K).regularizers == ((5e-5, L1()),)
    assert build("anl-ce", K, "delta = 0").regularizers == ()
    assert build("anl-ce", K, 'regularizer = "l2", delta = 1e-3').regularizers == ((1e-3, L2()),)
    assert build("anl-ce", K, 'regularizer = "none"') == build("anl-ce", K, "delta = 0")
    assert build("anl-fl", K, 'regularizer = "jacobian", delta = 0.1').regularizers == ((0.1, Jacobian()),)
    assert build("anl-ce*", K, "entropy_weight = 0") == build("anl-ce", K)
    assert build("anl-fl*", K).regularizers == ((2.0, EntropyOfMean()), (5e-5, L1()))
    assert build("anl-fl*", K).loss == build("anl-fl", K).loss


def test_three_readings_of_fsanl() -> None:
    assert build("fsanl", K).regularizers == ((5e-5, L1ToGlobal()),)
    assert build("fsanl", K, 'l1_mode = "weight"').regularizers == ((5e-5, L1()),)
    assert build("fsanl", K, 'l1_mode = "none"').regularizers == ()
    assert "not public" in (inspect.getdoc(LOSSES.find("fsanl")) or "")


@pytest.mark.parametrize("name", sorted(PRESETS["cifar-10"]))
def test_defaults_are_the_cifar_10_preset(name: str) -> None:
    assert build(name, 10) == build(name, 10, preset="cifar-10")


@pytest.mark.parametrize(("preset", "name"), [(preset, name) for preset in PRESETS for name in PRESETS[preset]])
def test_every_preset_builds_and_has_only_arguments_of_its_loss(preset: str, name: str) -> None:
    objective = build(name, 10, preset=preset)
    logits, labels = batch((4,), 10)
    assert objective.data_term(logits, labels).isfinite()
    accepted = inspect.signature(LOSSES.find(name)).parameters
    assert set(PRESETS[preset][name]) <= set(accepted)


def test_preset_values() -> None:
    assert build("anl-ce", 100, preset="cifar-100") == build("anl-ce", 100, "alpha = 10, beta = 1, delta = 5e-7")
    assert build("anl-ce", 14, preset="clothing1m").regularizers == ((1e-3, L2()),)
    assert build("gce", 10, preset="animal-10n").loss == GeneralizedCrossEntropy(0.5)
    assert build("nce+agce", 10, preset="mnist").loss != build("nce+agce", 10).loss


def test_arguments_override_the_preset() -> None:
    assert build("sce", K, "beta = 3.0", preset="cifar-100") == build("sce", K, "alpha = 6.0, beta = 3.0")


@pytest.mark.parametrize("counts", [COUNTS, np.array(COUNTS), torch.tensor(COUNTS), [float(n) for n in COUNTS]])
def test_class_counts_of_any_kind(counts: Any) -> None:
    loss = build("la-ce", K, class_counts=counts).loss
    assert isinstance(loss, LogitAdjustedCrossEntropy)
    expected = (torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS)).log()
    assert torch.equal(loss.margin, expected)
    assert loss.margin[2] == -torch.inf


def test_absent_class_is_impossible_and_tau_0_is_cross_entropy() -> None:
    logits, labels = batch((6,), K)
    loss = build("la-ce", K, class_counts=COUNTS).loss
    assert (loss(logits, torch.full_like(labels, 2)) == torch.inf).all()
    spread = torch.full((6, K), 1 / 3, dtype=torch.float64)
    spread[:, 2] = 0
    assert loss(logits, spread).isfinite().all()
    assert (loss(logits, torch.full_like(spread, 1 / K)) == torch.inf).all()
    plain = build("la-ce", K, "tau = 0", class_counts=COUNTS).loss
    for args in ("", "tau = 0.5"):
        changed = build("la-ce", K, args, class_counts=[1] * K).for_counts(torch.tensor(COUNTS)).loss
        assert torch.equal(changed.margin, build("la-ce", K, args, class_counts=COUNTS).loss.margin)  # type: ignore[attr-defined]
    assert torch.allclose(plain(logits, labels), build("ce", K).loss(logits, labels), rtol=1e-12)


def test_import_path_to_a_class_and_to_a_factory() -> None:
    objective = build(f"{HERE}:Squared", K, "power = 3.0")
    logits, labels = batch((5,), K)
    missed = 1 - logits.softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)
    assert torch.allclose(objective.loss(logits, labels), missed**3)
    assert build(f"{HERE}:penalised", K, class_counts=COUNTS).regularizers == ((1.0, L1()),)


ERRORS: list[tuple[str, dict[str, Any], str]] = [
    ("anl-cee", {}, "unknown loss 'anl-cee'; did you mean 'anl-ce'"),
    (
        "focal",
        {"args": "gama = 1"},
        r"unknown argument 'gama'; did you mean 'gamma'\? \(its arguments: gamma, detach_modulator\)",
    ),
    ("focal", {"args": "gamma: 1"}, "not inline TOML"),
    ("focal", {"args": "gamma = -1"}, "gamma must be at least 0, got -1"),
    ("focal", {"args": 'gamma = "2"'}, "loss 'focal'"),
    ("mae", {"args": "scale = 0"}, "scale must be positive"),
    ("gce", {"args": "q = 1.5"}, r"q must be in \(0, 1\], got 1.5"),
    ("phce", {"args": "tau = 0.5"}, "tau must be at least 1"),
    ("tce", {"args": "t = 2.5"}, "t must be a whole number, not 2.5"),
    ("agce", {"args": "a = 0"}, "a must be positive"),
    ("agce", {"args": "q = 0"}, "q must be positive"),
    ("aul", {"args": "a = 1"}, "a must be above 1"),
    ("aul", {"args": "q = -1"}, "q must be positive"),
    ("ael", {"args": "a = 0"}, "a must be positive"),
    ("anl-ce", {"args": "delta = -1"}, "coefficient of L1 must be at least 0, got -1"),
    ("anl-ce", {"args": 'regularizer = "l3"'}, "one of l1, l2, none, jacobian, got 'l3'"),
    ("fsanl", {"args": 'l1_mode = "proximal"'}, "one of prox, weight, none, got 'proximal'"),
    ("la-ce", {}, "needs class_counts"),
    ("la-ce", {"class_counts": [1, 2, 3]}, "3 entries for 4 classes"),
    ("la-ce", {"class_counts": [1, -2, 3, 4]}, "counts >= 0"),
    ("la-ce", {"class_counts": [0, 0, 0, 0]}, "not all 0"),
    ("la-ce", {"class_counts": [1, 2, 3, 4], "args": "tau = -1"}, "tau must be at least 0"),
    ("t-loss", {}, "2 classes .* not 4"),
    ("gce", {"preset": "cifar10"}, "unknown loss preset 'cifar10'; did you mean 'cifar-10'"),
    ("t-loss", {"preset": "mnist"}, "preset 'mnist' has no values for loss 't-loss'"),
    (
        f"{HERE}:not_a_loss",
        {},
        r"expected a subclass of .*, a torch.nn.Module, or a function of \(logits, labels\), got an int",
    ),
    (f"{HERE}:Sqared", {}, "has no 'Sqared'; did you mean 'Squared'"),
    ("no.such.module:Loss", {}, "there is no module 'no'"),
]


@pytest.mark.parametrize(("name", "options", "message"), ERRORS)
def test_errors_say_what_would_fit(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        build(name, K, **options)


def test_one_class_is_not_enough() -> None:
    with pytest.raises(PluginError, match="at least 2 classes, got 1"):
        build("ce", 1)


def test_margin_of_another_number_of_classes() -> None:
    with pytest.raises(ValueError, match="class_counts has 4 classes, the logits 5"):
        build("la-ce", K, class_counts=COUNTS).loss(torch.zeros(2, 5), torch.zeros(2, dtype=torch.int64))
