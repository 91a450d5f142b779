"""Regularizers of the weights, of a batch's predictions and of their slope in the inputs."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from client_app.losses import (
    L1,
    L2,
    EntropyOfMean,
    GlobalParameters,
    Jacobian,
    L1ToGlobal,
    L2ToGlobal,
    Regularizer,
    RegularizerInput,
)
from client_app.losses.regularizers import half_squared_l2_norm, l1_norm
from tests.loss_members import batch, gradient

PENALTIES: list[tuple[Regularizer, Callable[[Tensor, Tensor], Tensor]]] = [
    (L1(), lambda w, _: w.abs().sum()),
    (L2(), lambda w, _: (w**2).sum() / 2),
    (L1ToGlobal(), lambda w, a: (w - a).abs().sum()),
    (L2ToGlobal(), lambda w, a: ((w - a) ** 2).sum() / 2),
]
every = pytest.mark.parametrize(("penalty", "reference"), PENALTIES, ids=lambda value: type(value).__name__)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4)).double()


def anchor_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def weights(model: nn.Module, global_parameters: GlobalParameters | None = None) -> RegularizerInput:
    return RegularizerInput(model=model, global_parameters=global_parameters)


def entropy(logits: Tensor, valid: Tensor | None = None) -> Tensor:
    return EntropyOfMean()(RegularizerInput(logits=logits, valid=valid))


def jacobian(logits: Tensor, inputs: Tensor) -> Tensor:
    return Jacobian()(RegularizerInput(logits=logits, inputs=inputs))


@every
def test_value_and_gradient(penalty: Regularizer, reference: Callable[[Tensor, Tensor], Tensor]) -> None:
    model, global_parameters = network(0), anchor_of(network(1))
    value = penalty(weights(model, global_parameters))
    parts = [reference(p, global_parameters[name]) for name, p in model.named_parameters()]
    assert value.shape == ()
    assert value.item() == pytest.approx(sum(part.item() for part in parts), rel=1e-12)
    found = torch.autograd.grad(value, list(model.parameters()))
    expected = torch.autograd.grad(torch.stack(parts).sum(), list(model.parameters()), allow_unused=True)
    for first, second in zip(found, expected, strict=True):
        assert second is not None
        assert torch.allclose(first, second)


@pytest.mark.parametrize("norm", [l1_norm, half_squared_l2_norm])
def test_gradients_of_the_norms_are_their_derivatives(norm: Callable[[list[Tensor]], Tensor]) -> None:
    parts = tuple(batch(shape, 3)[0].requires_grad_() for shape in [(2,), (1, 2), (2, 1, 2)])
    assert torch.autograd.gradcheck(lambda *tensors: norm(list(tensors)), parts)


@every
def test_traces_into_one_graph(penalty: Regularizer, reference: Callable[[Tensor, Tensor], Tensor]) -> None:
    model, global_parameters = network(0), anchor_of(network(1))
    torch._dynamo.reset()
    compiled = torch.compile(lambda: penalty(weights(model, global_parameters)), backend="aot_eager", fullgraph=True)
    assert compiled().item() == pytest.approx(penalty(weights(model, global_parameters)).item(), rel=1e-12)


@every
def test_no_slope_at_the_minimum(penalty: Regularizer, reference: Callable[[Tensor, Tensor], Tensor]) -> None:
    model = network()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    value = penalty(weights(model, anchor_of(model)))
    assert value.item() == 0
    assert all((slope == 0).all() for slope in torch.autograd.grad(value, list(model.parameters())))


def test_l2_acts_like_weight_decay() -> None:
    decayed, penalised = network(), network()
    first = torch.optim.SGD(decayed.parameters(), lr=0.1, weight_decay=0.01)
    for p in decayed.parameters():
        p.grad = torch.zeros_like(p)
    first.step()
    (0.01 * L2()(weights(penalised))).backward()  # type: ignore[no-untyped-call]
    torch.optim.SGD(penalised.parameters(), lr=0.1).step()
    for one, other in zip(decayed.parameters(), penalised.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-12)


def test_l1_to_global_pulls_back_to_the_received_model() -> None:
    model = network()
    global_parameters = anchor_of(model)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    before = L1ToGlobal()(weights(model, global_parameters)).item()
    for _ in range(50):
        optimizer.zero_grad()
        L1ToGlobal()(weights(model, global_parameters)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert L1ToGlobal()(weights(model, global_parameters)).item() < before / 2


@pytest.mark.parametrize("penalty", [L1ToGlobal(), L2ToGlobal()])
def test_anchor_that_does_not_fit_is_named(penalty: Regularizer) -> None:
    model = network()
    global_parameters = anchor_of(model)
    del global_parameters["0.bias"]
    global_parameters["3.weight"] = torch.zeros(4, 11)
    with pytest.raises(ValueError, match=r"missing or different: 0\.bias, 3\.weight"):
        penalty(weights(model, global_parameters))


def test_anchor_of_another_type_is_converted_and_gets_no_gradient() -> None:
    model, other = network(0), network(1)
    global_parameters = {name: p.float() for name, p in other.named_parameters()}
    L1ToGlobal()(weights(model, global_parameters)).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in other.parameters())
    assert all(p.grad is not None for p in model.parameters())


def test_half_precision_weights_are_summed_in_float32() -> None:
    model = nn.Linear(300, 300).to(torch.bfloat16)
    value = L1()(weights(model))
    assert value.dtype == torch.float32
    exact = sum(p.double().abs().sum().item() for p in model.parameters())
    assert value.item() == pytest.approx(exact, rel=1e-5)


def test_entropy_of_uniform_collapsed_and_balanced_predictions() -> None:
    def term(probabilities: Tensor) -> Tensor:
        return entropy(probabilities.log())  # softmax(log p) = p

    uniform = torch.full((5, 4), 0.25, dtype=torch.float64)
    collapsed = torch.tensor([[1.0, 0, 0, 0]] * 5, dtype=torch.float64)
    balanced = torch.eye(4, dtype=torch.float64)
    assert term(uniform).item() == pytest.approx(0, abs=1e-9)
    assert term(collapsed).item() == pytest.approx(torch.log(torch.tensor(4.0)).item(), abs=1e-4)
    assert term(balanced).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("classes", [2, 4])
def test_predictions_and_their_mean_are_clipped_on_both_sides(classes: int) -> None:
    """Ye et al.'s program: torch.clamp(p, 1e-7, 1 - 1e-7), a mean that is divided by its sum, and the same again."""
    p = np.full((5, classes), 1e-7)
    p[:, 0] = 1 - 1e-7
    mean = np.clip(p.sum(0) / p.sum(), 1e-7, 1 - 1e-7)
    expected = np.log(classes) + (mean * np.log(mean)).sum()
    sure = torch.tensor([[800.0] + [0.0] * (classes - 1)] * 5, dtype=torch.float64)
    assert entropy(sure).item() == pytest.approx(expected, rel=1e-12)


def test_entropy_of_dense_predictions_equals_flattened() -> None:
    logits, _ = batch((2, 3, 5), 4)
    flat = logits.movedim(1, -1).reshape(-1, 4)
    assert entropy(logits).item() == pytest.approx(entropy(flat).item(), rel=1e-12)


def test_entropy_leaves_out_what_is_not_valid() -> None:
    logits, _ = batch((6,), 4)
    valid = torch.tensor([True, True, False, True, False, True])
    assert entropy(logits, valid).item() == pytest.approx(entropy(logits[valid]).item())
    nothing = torch.zeros(6, dtype=torch.bool)
    assert (gradient(lambda z: entropy(z, nothing), logits) == 0).all()


def test_entropy_gradient_is_the_derivative() -> None:
    logits, _ = batch((3,), 4)
    assert torch.autograd.gradcheck(entropy, logits.requires_grad_())


def test_jacobian_of_a_linear_model_is_its_weight() -> None:
    model = nn.Linear(3, 4, dtype=torch.float64)
    inputs = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    value = jacobian(model(inputs), inputs)
    assert value.item() == pytest.approx(model.weight.square().sum().item() / 2, rel=1e-12)
    value.backward()  # type: ignore[no-untyped-call]
    assert model.weight.grad is not None
    assert torch.allclose(model.weight.grad, model.weight, rtol=1e-12)


def test_jacobian_trains_a_network_with_batch_norm() -> None:
    model = network()
    inputs = torch.randn(5, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    jacobian(model(inputs), inputs).backward()  # type: ignore[no-untyped-call]
    slope = next(model.parameters()).grad
    assert slope is not None
    assert slope.isfinite().all()
    assert slope.abs().max() > 0


def test_jacobian_says_what_it_needs() -> None:
    model, inputs = nn.Linear(3, 4), torch.randn(6, 3)
    with pytest.raises(ValueError, match=r"requires_grad_\(\) before the forward"):
        jacobian(model(inputs), inputs)
    with pytest.raises(ValueError, match=r"one per example, got \(2, 4, 5\)"):
        jacobian(torch.zeros(2, 4, 5), inputs.requires_grad_())


def test_what_was_not_given_is_asked_for_by_name() -> None:
    for regularizer, missing in [(L1(), "model"), (L2ToGlobal(), "global_parameters"), (EntropyOfMean(), "logits")]:
        given = RegularizerInput(model=None if missing == "model" else network())
        with pytest.raises(ValueError, match=f"needs the {missing} of this step: pass {missing}="):
            regularizer(given)


def test_predictions_are_computed_once_and_only_if_asked_for() -> None:
    once = RegularizerInput(logits=batch((3,), 4)[0])
    assert once.probabilities is once.probabilities
    assert torch.equal(once.probabilities, once.logits.softmax(1))
    half = RegularizerInput(logits=once.logits.bfloat16())
    assert half.probabilities.dtype == torch.float32
