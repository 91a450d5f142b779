"""Negative distillation against float64 by hand, Monte Carlo dropout with the same masks in NumPy, and limit cases."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from strategies.negative_distillation import distil, negative_loss, uncertainty


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()


INPUTS = torch.from_numpy(np.random.default_rng(0).standard_normal((6, 5)))
LOGITS = torch.from_numpy(np.random.default_rng(1).standard_normal((6, 3)) * 3)
TEACHERS = torch.from_numpy(np.random.default_rng(2).standard_normal((2, 6, 3)) * 3)


def test_the_loss_is_the_mean_divergence_from_the_contrary_of_each_teacher() -> None:
    z, t, temperature = LOGITS.numpy(), TEACHERS.numpy(), 2.0
    wanted, found = softmax(-t / temperature), softmax(z / temperature)
    expected = np.mean([(q * np.log(q / found)).sum(1) for q in wanted])
    assert negative_loss(LOGITS, TEACHERS, temperature).item() == pytest.approx(expected, rel=1e-12)


def test_its_gradient_is_that_of_the_formula() -> None:
    logits = LOGITS.clone().requires_grad_()
    negative_loss(logits, TEACHERS, 2.0).backward()  # type: ignore[no-untyped-call]
    wanted = softmax(-TEACHERS.numpy() / 2).mean(0)
    np.testing.assert_allclose(logits.grad, (softmax(LOGITS.numpy() / 2) - wanted) / (2 * len(LOGITS)), rtol=1e-10)


def test_the_contrary_of_a_teacher_has_no_loss_and_neither_has_one_that_knows_nothing() -> None:
    assert negative_loss(-TEACHERS[0] + 5, TEACHERS[:1], 2.0).item() == pytest.approx(0, abs=1e-12)
    assert negative_loss(torch.zeros(6, 3), torch.zeros(1, 6, 3), 2.0).item() == pytest.approx(0, abs=1e-7)


def test_uncertainty_is_the_entropy_of_the_mean_prediction_under_dropped_features() -> None:
    model = network().eval()
    found = uncertainty(model, INPUTS, 4, 0.3, torch.Generator().manual_seed(5))
    first, last = ([value.detach().numpy() for value in model[place].parameters()] for place in (0, 2))
    masks, hidden = torch.Generator().manual_seed(5), np.tanh(INPUTS.numpy() @ first[0].T + first[1])
    passes = []
    for _ in range(4):
        kept = (torch.rand(6, 7, generator=masks) >= 0.3).numpy()
        passes.append(softmax(hidden * kept / 0.7 @ last[0].T + last[1]))
    mean = np.mean(passes, 0)
    assert found == pytest.approx(float(-(mean * np.log(mean)).sum(1).mean()), rel=1e-6)
    with torch.no_grad():
        np.testing.assert_array_equal(model(INPUTS), model(INPUTS))  # nothing is dropped any more


@pytest.mark.parametrize(("scale", "expected"), [(0.0, np.log(3)), (1e6, 0.0)])
def test_who_knows_nothing_is_most_unsure_and_who_is_sure_is_not(scale: float, expected: float) -> None:
    model = network()
    with torch.no_grad():
        model[2].weight.mul_(0)
        model[2].bias.copy_(scale * torch.tensor([1.0, 0.0, 0.0]))
    assert uncertainty(model, INPUTS, 3, 0.3, torch.Generator()) == pytest.approx(expected, abs=1e-6)


def test_a_layer_that_is_given_its_features_by_name_is_dropped_from_too() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, inputs: Tensor) -> Tensor:
            return torch.as_tensor(self.inner[2](input=self.inner[:2](inputs)))

    both = [uncertainty(one, INPUTS, 4, 0.3, torch.Generator().manual_seed(5)) for one in (Named(), network())]
    assert both[0] == both[1]


def test_distillation_takes_steps_of_adam_on_drawn_batches_and_leaves_frozen_parameters() -> None:
    model, expected = network(1), network(1)
    for one in (model, expected):
        one[0].weight.requires_grad_(False)
    teachers = [TEACHERS[0], TEACHERS[1]]

    def inputs(places: Tensor) -> Tensor:
        return INPUTS.float()[places].double()

    options = {"rate": 0.01, "batch_size": 4, "temperature": 2.0}
    distil(model, teachers, inputs, steps=3, draws=np.random.default_rng(3), **options)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam([p for p in expected.parameters() if p.requires_grad], lr=0.01)
    draws = np.random.default_rng(3)
    for _ in range(3):
        places = draws.choice(6, 4, replace=False)
        optimizer.zero_grad()
        logits = expected(INPUTS.float()[places].double())
        wanted = torch.softmax(-TEACHERS[:, places].float() / 2, 2).mean(0)
        (-(wanted * torch.log_softmax(logits.float() / 2, 1)).sum(1).mean()).backward()
        optimizer.step()
    for found, other in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found, other, rtol=1e-4, atol=1e-6)
    assert torch.equal(model[0].weight, network(1)[0].weight)
    assert not torch.equal(model[2].weight, network(1)[2].weight)


def test_what_a_bad_teacher_finds_likely_becomes_less_likely_even_with_fewer_examples_than_a_batch() -> None:
    model = network(1)
    top = TEACHERS[0].argmax(1, keepdim=True)
    before = torch.softmax(model(INPUTS), 1).gather(1, top).mean().item()
    draws = np.random.default_rng(0)
    distil(
        model,
        [TEACHERS[0]],
        lambda places: INPUTS[places],
        steps=20,
        rate=0.01,
        batch_size=128,
        temperature=2.0,
        draws=draws,
    )
    assert torch.softmax(model(INPUTS), 1).gather(1, top).mean().item() < 0.8 * before
