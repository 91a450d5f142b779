"""FedLSR: its step against NumPy, the ramp, the divergence, limit cases, and tasks without two views."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from client_app.methods.fedlsr import FedLSR, entropies, jensen_shannon, mixed_log_probabilities
from client_app.methods.sgd import LocalSGD
from client_app.trainer import Trainer
from tasks.issues import RunContext
from tasks.seeds import rng, torch_seed
from tasks.settings import Settings, TaskSettings, TrainSettings
from tests.unit.client_app.methods.stepping import (
    CPU,
    STREAM,
    TASK,
    Array,
    data,
    inputs_of,
    linear,
    normed,
    one_step,
    play,
    probabilities,
    start,
    stepped,
    trained,
)

FIRST = torch.randn(6, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SECOND = torch.randn(6, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
PLAIN = FedLSR(distil_weight=0.0, entropy_weight=0.0, mix_alpha=0.0, sharpness=1.0)


def power(p: Array, exponent: float) -> Array:
    raised = p**exponent
    return np.asarray(raised / raised.sum(1, keepdims=True))


@pytest.mark.parametrize(("server_round", "ramp"), [(1, 0.05), (10, 0.5), (20, 1.0), (35, 1.0)])
def test_a_step_is_the_published_one(server_round: int, ramp: float) -> None:
    own = data(count=20)
    draws = torch.Generator().manual_seed(torch_seed(1, "fedlsr", 0, 1))
    order = next(
        iter(Trainer(TASK, TrainSettings(epochs=1, batch_size=20), CPU).orders(20, torch_seed(1, "train", 0, 1)))
    )
    shuffled = order[0].numpy()
    second_raw = TASK.strong_augment(own.features[order[0]], draws)
    first, second = inputs_of(own)[shuffled], second_raw.double().flatten(1).numpy() / 16
    share = rng(1, "fedlsr", 0, 1).beta(1.0, 1.0)
    labels = own.labels[shuffled]
    assert (second_raw != own.features[order[0]]).any()

    def loss(parameters: Array) -> float:
        p, q = probabilities(parameters, first), probabilities(parameters, second)
        mixed = power(share * p + (1 - share) * q, 2.0)
        likely = -np.log(mixed[np.arange(20), labels]).mean()
        sharp_p, sharp_q = power(p, 3.0), power(q, 3.0)
        middle = (sharp_p + sharp_q) / 2
        js = (sharp_p * np.log(sharp_p / middle) + sharp_q * np.log(sharp_q / middle)).sum(1).mean() / 2
        entropy = -(p * np.log(p) + q * np.log(q)).sum(1).mean() / 2
        return float(likely + ramp * 0.4 * js + 0.6 * entropy)

    found, result = one_step(FedLSR(), own, server_round=server_round)
    np.testing.assert_allclose(found, stepped(loss), rtol=0, atol=2e-6)
    assert result.metrics["train-loss"] == pytest.approx(loss(start()), rel=1e-5)


def test_the_divergence_is_that_of_scipy() -> None:
    first, second = torch.softmax(FIRST, 1).numpy(), torch.softmax(SECOND, 1).numpy()
    expected = jensenshannon(first, second, axis=1) ** 2
    np.testing.assert_allclose(jensen_shannon(FIRST, SECOND).numpy(), expected, rtol=1e-12)
    assert jensen_shannon(FIRST, FIRST).abs().max() < 1e-15
    apart = torch.tensor([[100.0, -100.0]]), torch.tensor([[-100.0, 100.0]])
    assert jensen_shannon(*apart).item() == pytest.approx(math.log(2))


def test_mixtures_and_entropies() -> None:
    p, q = torch.softmax(FIRST, 1), torch.softmax(SECOND, 1)
    torch.testing.assert_close(mixed_log_probabilities(FIRST, SECOND, 0.3), (0.3 * p + 0.7 * q).log())
    torch.testing.assert_close(mixed_log_probabilities(FIRST, SECOND, 1.0), p.log())
    torch.testing.assert_close(mixed_log_probabilities(FIRST, SECOND, 0.0), q.log())
    torch.testing.assert_close(entropies(FIRST), torch.special.entr(p).sum(1))


def test_without_any_term_it_is_plain_training() -> None:
    own = data()
    expected = trained(LocalSGD(), own)
    assert torch.equal(trained(PLAIN, own), expected)
    for change in ({"distil_weight": 0.4}, {"entropy_weight": 0.6}, {"mix_alpha": 1.0}, {"sharpness": 2.0}):
        assert not torch.equal(trained(replace(PLAIN, **change), own), expected)


def test_views_and_shares_are_those_of_client_and_round() -> None:
    own = data()
    assert torch.equal(trained(FedLSR(), own), trained(FedLSR(), own))
    assert STREAM == (1, 0, 1)


def test_both_views_reach_batch_normalisation_and_a_last_batch_of_one_works() -> None:
    own, model = data(count=17), normed()
    result = play(FedLSR(), model, own, epochs=2)
    assert math.isfinite(result.metrics["train-loss"])
    assert int(model[2].num_batches_tracked) == 2 * 2  # type: ignore[index, arg-type]  # two views of one batch, twice


def test_it_makes_the_model_answer_alike_to_both_views() -> None:
    own = data(count=60, wrong=0.0)
    views = Trainer(TASK, TrainSettings(), CPU).view(own.features, torch.Generator().manual_seed(9), strong=True)
    apart = {}
    for weight in (0.0, 4.0):
        model = linear()
        method = replace(PLAIN, distil_weight=weight, mix_alpha=0.0, sharpness=1.0 + 1e-6, ramp_rounds=0)
        play(method, model, own, epochs=30, batch_size=30)
        with torch.no_grad():
            apart[weight] = jensen_shannon(model(TASK.prepare(own.features)), model(views)).mean().item()
    assert apart[4.0] < 0.7 * apart[0.0]


@pytest.mark.parametrize("task", ["text-folder", "table"])
def test_a_task_without_images_is_refused_before_the_start(task: str) -> None:
    context = RunContext(Settings(task=TaskSettings(task)), sampled=6, has_strong_augmentation=False)
    (issue,) = FedLSR().issues(context)
    assert issue.level == "error"
    assert (
        f"method fedlsr compares two views of an image, and the examples of the task {task} are no images" in issue.line
    )
    assert FedLSR().issues(replace(context, has_strong_augmentation=True)) == []
    with pytest.raises(ValueError, match="strong augmentation is there for tasks of images, Words is none"):
        Trainer(Words(), TrainSettings(), CPU).view(torch.zeros(1, 2), torch.Generator(), strong=True)  # type: ignore[arg-type]


class Words:
    """No task of images."""
