"""A plain function and a module as losses: values as ours, no label -100, no reduction, and errors that help."""

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client_app.losses import Focal, Loss, Objective, build
from client_app.losses.plain import PlainLoss
from tasks.plugins import PluginError
from tests.loss_members import K, batch

HERE = __name__


def scaled(scores: Tensor, target: Tensor, scale: float = 1.0) -> Tensor:
    return scale * F.cross_entropy(scores, target, reduction="none")


def gathered(logits: Tensor, labels: Tensor) -> Tensor:
    """Fails at the label -100."""
    return -logits.log_softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)


def averaged(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels)


def optional(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    return F.cross_entropy(logits, labels, reduction=reduction)


def number(logits: Tensor, labels: Tensor) -> float:
    return 0.5


def per_class(logits: Tensor, labels: Tensor) -> Tensor:
    return logits


smooth = functools.partial(F.cross_entropy, label_smoothing=0.1)


class Module(nn.Module):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return scaled(logits, labels, self.scale)


class Inherited(nn.CrossEntropyLoss):
    """Takes no arguments, so that it has PyTorch's default reduction, the mean."""

    def __init__(self) -> None:
        super().__init__()


class Weighted(nn.CrossEntropyLoss):
    def __init__(self, num_classes: int, **options: Any) -> None:
        super().__init__(torch.ones(num_classes), **options)


class Trained(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(()))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return scaled(logits / self.temperature, labels)


class Other:
    pass


def made(gamma: float, detach: bool) -> Loss:
    """A factory all of whose arguments must be given."""
    return Focal(gamma, detach)


def module_of(num_classes: int, class_counts: Any) -> nn.Module:
    """A factory of what the run gives."""
    assert class_counts is not None
    return Module(float(num_classes))


@pytest.mark.parametrize("shape", [(6,), (3, 4, 5)], ids=["examples", "pixels"])
@pytest.mark.parametrize(
    ("name", "args", "scale"),
    [
        ("scaled", "", 1),
        ("scaled", "scale = 3", 3),
        ("gathered", "", 1),
        ("optional", "", 1),
        ("Module", "", 1),
        ("Module", "scale = 3.0", 3),
        ("Inherited", "", 1),
        ("Weighted", "", 1),
        ("module_of", "", K),
    ],
)
def test_every_form_has_the_values_and_gradients_of_ours(
    name: str, args: str, scale: float, shape: tuple[int, ...]
) -> None:
    logits, labels = batch(shape, K)
    logits = logits.float()
    labels.view(-1)[1] = -100
    found = []
    for loss in (build(f"{HERE}:{name}", K, args, class_counts=[1] * K).loss, build("ce", K).loss):
        leaf = logits.clone().requires_grad_()
        value = loss(leaf, labels)
        found.append((value.detach(), *torch.autograd.grad(value.sum(), leaf)))
    for own, ours in zip(*found, strict=True):
        torch.testing.assert_close(own, scale * ours)
    assert found[0][0].view(-1)[1] == 0


@pytest.mark.parametrize("path", ["torch.nn:CrossEntropyLoss", "torch.nn.functional:cross_entropy"])
def test_pytorchs_own_losses_work(path: str) -> None:
    logits, labels = batch((6,), K)
    own = build(path, K, "label_smoothing = 0.1").loss(logits, labels)
    torch.testing.assert_close(own, F.cross_entropy(logits, labels, label_smoothing=0.1, reduction="none"))
    torch.testing.assert_close(build(f"{HERE}:smooth", K).loss(logits, labels), own)


def test_label_distributions_and_half_precision_reach_the_function() -> None:
    logits, labels = batch((6,), K)
    spread = F.one_hot(labels, K).to(logits.dtype)
    loss = build(f"{HERE}:scaled", K).loss
    torch.testing.assert_close(loss(logits, spread), loss(logits, labels))
    assert loss(logits.bfloat16(), labels).dtype == torch.float32


def test_a_factory_is_still_one_if_its_arguments_are_given() -> None:
    assert build(f"{HERE}:made", K, "gamma = 2.0, detach = true") == Objective(Focal(2.0, True))


def test_a_loss_names_itself() -> None:
    assert str(PlainLoss(scaled)) == "scaled"
    assert str(PlainLoss(smooth)) == "cross_entropy"
    assert str(PlainLoss(Module())) == "Module"


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("scaled", "scale = 'x'", "argument scale must be a number, not 'x' .its arguments: scale."),
        ("scaled", "scal = 2", "unknown argument 'scal'; did you mean 'scale'"),
        ("optional", 'reduction = "sum"', "reduction is set by the run itself"),
        ("Trained", "", r"Trained has parameters \(temperature\): those of a loss are not trained; use buffers"),
        ("made", "", "missing argument gamma, detach"),
        ("Other", "", r"a torch.nn.Module, or a function of \(logits, labels\), got the class Other"),
    ],
)
def test_what_cannot_be_built_is_explained(name: str, args: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        build(f"{HERE}:{name}", K, args)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("averaged", r"averaged must return one value per label, \(6,\), got \(\); leave out its mean or sum"),
        ("number", "number must return a tensor, got float"),
        ("per_class", r"per_class must return one value per label, \(6,\), got \(6, 4\)$"),
    ],
)
def test_what_is_not_one_value_per_label_is_explained(name: str, message: str) -> None:
    logits, labels = batch((6,), K)
    with pytest.raises(ValueError, match=message):
        build(f"{HERE}:{name}", K).loss(logits, labels)
