"""FedCorr at the client: mixup, local intrinsic dimensionality, training, score, relabelling, odd data."""

import logging
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client_app.losses import L2ToGlobal, Objective, build
from client_app.methods import METHODS, FitResult, RoundConfig, State, TrainContext
from client_app.methods.fedcorr import LARGEST_DIMENSION, FedCorr, Mixup, local_dimensions
from client_app.trainer import Batch, GivenLabels
from tasks.base import ClientData
from tasks.gaussian_mixture import upper_group
from tasks.settings import TrainSettings
from tests.unit.client_app.methods.stepping import TASK, context_of
from tests.unit.client_app.methods.stepping import data as digits
from tests.unit.client_app.methods.stepping import linear as network

INPUTS = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
BATCH = Batch(torch.arange(8), INPUTS, torch.arange(8) % 3)
GLOBAL = {"weight": torch.zeros(3, 5), "bias": torch.zeros(3)}


def data(count: int = 120, wrong: float = 0.3, keep_classes: int = 10) -> ClientData:
    return digits(count, 10, wrong, keep_classes)


def truth(own: ClientData) -> np.ndarray:
    return TASK.train_examples().labels[own.ids]


context = partial(context_of, epochs=1, clip_norm=TrainSettings().clip_norm)


def round_config(server_round: int = 1, role: str = "unknown", **config: object) -> RoundConfig:
    sent = {name.replace("_", "-"): value for name, value in config.items()}
    return RoundConfig(server_round, 0.1, (1, 0, server_round), role, sent)


def taught() -> nn.Module:
    """A model that has learned from true labels."""
    model, own = network(), data(400, wrong=0.0)
    METHODS.build("sgd").fit(model, context(own, epochs=20), round_config(), {})
    return model


MODEL = taught()


def ask(own: ClientData, question: str, state: State | None = None, server_round: int = 1, **args: float) -> FitResult:
    return FedCorr(**args).answer(MODEL, context(own), round_config(server_round, question=question), state or {})


def test_without_mixup_and_level_it_is_plain_training():
    plain, own = network(), data()
    METHODS.build("sgd").fit(plain, context(own), round_config(), {})
    model = network()
    result = FedCorr(mixup_alpha=0.0).fit(model, context(own), round_config(noise_level=0.0), {})
    for got, expected in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(got, expected)
    assert result.state == {}
    assert set(result.metrics) == {"train-loss"}


def test_the_noise_level_holds_the_model_back_by_the_squared_distance():
    own, model, expected = data(), network(), network()
    options = {"epochs": 3, "learning_rate": 0.01}
    FedCorr(mixup_alpha=0.0).fit(model, context(own, **options), round_config(noise_level=0.4), {})
    work = context(own, **options)
    global_parameters = {name: p.detach().clone() for name, p in expected.named_parameters()}
    objective = work.objective.with_regularizer(2 * 5.0 * 0.4, L2ToGlobal())  # 5 x 0.4 x ||w - w_g||^2
    work.trainer.fit(expected, work.local, objective, global_parameters, 0.1, (1, 0, 1))
    for got, wanted in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(got, wanted)


def test_mixup_changes_training_and_repeats():
    models = [network(), network(), network()]
    for model, alpha in zip(models, (1.0, 1.0, 0.0), strict=True):
        FedCorr(mixup_alpha=alpha).fit(model, context(data()), round_config(), {})
    weights = [nn.utils.parameters_to_vector(model.parameters()) for model in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_score_is_that_of_the_trained_model_and_only_on_demand():
    own, model = data(), network()
    result = FedCorr(neighbours=7).fit(model, context(own), round_config(want_lid=True), {})
    outputs = torch.softmax(model(TASK.prepare(own.features)), 1)
    assert result.metrics["lid"] == pytest.approx(np.mean(by_loops(outputs.detach().double(), 7)), rel=1e-4)


def test_relabelling_takes_the_largest_losses_of_which_the_model_is_sure():
    own = data(wrong=0.4)
    result = ask(own, "relabel", confidence=0.6, relabel_ratio=0.7)
    with torch.no_grad():
        probabilities = torch.softmax(MODEL(TASK.prepare(own.features)).double(), 1).numpy()
    losses = -np.log(probabilities[np.arange(len(own)), own.labels])
    level = upper_group(losses, 1).mean()
    expected = own.labels.copy()
    for i in np.argsort(-losses)[: int(len(own) * level * 0.7)]:
        if probabilities[i].max() > 0.6:
            expected[i] = probabilities[i].argmax()
    assert result.metrics == {"noise-level": pytest.approx(level)}
    np.testing.assert_array_equal(result.state["labels"], expected)
    assert level == pytest.approx(0.4, abs=0.1)
    assert (expected == truth(own)).mean() > (own.labels == truth(own)).mean() + 0.1


def test_confident_relabelling_takes_every_prediction_that_is_sure():
    own = data(wrong=0.5)
    result = ask(own, "relabel-confident", confidence=0.8)
    with torch.no_grad():
        sure, predicted = torch.softmax(MODEL(TASK.prepare(own.features)), 1).max(1)
    np.testing.assert_array_equal(result.state["labels"], np.where(sure > 0.8, predicted, own.labels))
    assert result.metrics == {}


def test_asked_twice_in_a_round_it_answers_the_same_and_in_the_next_round_it_goes_on():
    own = data(wrong=0.5)
    once = ask(own, "relabel", server_round=3)
    twice = ask(own, "relabel", once.state, server_round=3)
    assert once.metrics == twice.metrics
    for name, values in once.state.items():
        np.testing.assert_array_equal(values, twice.state[name])
    later = ask(own, "relabel", once.state, server_round=4)
    np.testing.assert_array_equal(later.state["before"], once.state["labels"])
    assert (later.state["labels"] != once.state["labels"]).any()


def test_corrected_labels_are_trained_on_and_kept():
    own = data(wrong=0.5)
    state = ask(own, "relabel-confident").state
    corrected = ClientData(0, own.features, np.array(state["labels"]), own.ids, 10)
    model, expected = network(), network()
    result = FedCorr().fit(model, context(own), round_config(2), state)
    FedCorr().fit(expected, context(corrected), round_config(2), {})
    assert torch.equal(
        nn.utils.parameters_to_vector(model.parameters()), nn.utils.parameters_to_vector(expected.parameters())
    )
    assert result.state is state


def adjusted(own: ClientData) -> TrainContext:
    """Return the context with the loss la-ce, whose margins are those of the given labels."""
    return replace(context(own), objective=build("la-ce", 10, class_counts=own.class_counts()))


def test_class_counts_follow_corrected_labels_also_to_a_class_that_was_never_given():
    """With those of the given labels the loss would be infinite, and the server would set the reply aside."""
    own, labels = data(wrong=0.0, keep_classes=9), truth(data(keep_classes=9)).copy()
    labels[:7] = 9
    corrected = ClientData(0, own.features, labels, own.ids, 10)
    state = {"given": own.labels, "labels": labels, "before": own.labels, "asked": np.array(1), "classes": np.array(10)}
    model, expected = network(), network()
    result = FedCorr().fit(model, adjusted(own), round_config(2), state)
    wanted = FedCorr().fit(expected, adjusted(corrected), round_config(2), {})
    assert math.isfinite(result.metrics["train-loss"])
    assert result.metrics == wanted.metrics
    assert torch.equal(
        nn.utils.parameters_to_vector(model.parameters()), nn.utils.parameters_to_vector(expected.parameters())
    )


def test_the_official_ranking_is_by_the_losses_of_the_own_trained_model():
    own, model = data(wrong=0.4), network()
    method = FedCorr(ranking="own", confidence=0.0)
    state = method.fit(model, context(own, epochs=3), round_config(want_lid=True), {}).state
    with torch.no_grad():
        answers = [one(TASK.prepare(own.features)).double() for one in (model, MODEL)]
    losses, received = (F.cross_entropy(logits, torch.from_numpy(own.labels), reduction="none") for logits in answers)
    np.testing.assert_allclose(state["losses"], losses.numpy(), rtol=1e-4, atol=1e-6)
    result = method.answer(MODEL, context(own), round_config(2, question="relabel"), state)
    level = upper_group(losses.numpy(), 1).mean()
    assert result.metrics["noise-level"] == pytest.approx(level)
    assert level != pytest.approx(upper_group(received.numpy(), 1).mean())
    expected = own.labels.copy()
    chosen = np.argsort(-losses.numpy())[: int(len(own) * level * 0.5)]
    expected[chosen] = answers[1].argmax(1).numpy()[chosen]
    np.testing.assert_array_equal(result.state["labels"], expected)
    again = method.answer(MODEL, context(own), round_config(2, question="relabel"), result.state)
    np.testing.assert_array_equal(again.state["labels"], expected)
    assert FedCorr().fit(network(), context(own), round_config(want_lid=True), {}).state == {}


def test_lost_losses_are_said_and_the_received_model_ranks(caplog: pytest.LogCaptureFixture):
    own = data(wrong=0.4)
    with caplog.at_level(logging.WARNING):
        found = FedCorr(ranking="own").answer(MODEL, context(own), round_config(2, question="relabel"), {})
    assert "Client 0 relabels by the received model in round 2: its own losses were lost" in caplog.text
    np.testing.assert_array_equal(found.state["labels"], ask(own, "relabel", server_round=2).state["labels"])


def test_the_audit_sees_corrected_labels_and_nothing_before_the_first_question():
    own = data(wrong=0.5)
    assert FedCorr().corrected({}) is None
    state = ask(own, "relabel").state
    belief = FedCorr().corrected(state)
    assert belief is not None
    np.testing.assert_array_equal(belief, F.one_hot(torch.tensor(state["labels"]), 10).numpy())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_client_with_hardly_any_examples_takes_part(count: int):
    own = data(count, wrong=0.0)
    result = FedCorr().fit(network(), context(own), round_config(want_lid=True, noise_level=0.5), {})
    assert all(np.isfinite(value) for value in result.metrics.values())
    answer = ask(own, "relabel")
    assert 0 <= answer.metrics["noise-level"] < 1
    assert len(answer.state["labels"]) == count


@pytest.mark.parametrize(("classes", "wrong"), [(1, 0.0), (2, 1.0), (10, 1.0)])
def test_one_class_or_all_labels_wrong_give_a_finite_answer(classes: int, wrong: float):
    own = data(60, wrong, classes)
    result = FedCorr().fit(network(), context(own), round_config(want_lid=True, noise_level=1.0), {})
    assert all(np.isfinite(value) for value in result.metrics.values())
    answer = ask(own, "relabel")
    assert 0 <= answer.metrics["noise-level"] <= 1
    assert set(answer.state["labels"].tolist()) <= set(range(10))


def test_lost_labels_and_labels_of_other_data_are_said(caplog: pytest.LogCaptureFixture):
    own, state = data(), ask(data(60), "relabel").state
    with caplog.at_level(logging.WARNING):
        FedCorr().fit(network(), context(own), round_config(2, role="clean"), {})
        assert not caplog.records
        FedCorr().fit(network(), context(own), round_config(2, role="noisy"), {})
        FedCorr().fit(network(), context(own), round_config(2), state)
    first, second = (record.getMessage() for record in caplog.records)
    assert "its corrected labels were lost" in first
    assert "its corrected labels do not fit the data" in second


def test_labels_that_were_not_corrected_are_those_of_the_data():
    own = data(wrong=0.3)
    state = ask(own, "relabel").state
    flipped = ClientData(0, own.features, (own.labels + 5) % 10, own.ids, 10)
    changed = state["labels"] != own.labels
    model, expected = network(), network()
    FedCorr().fit(model, context(flipped), round_config(2), state)
    labels = np.where(changed, state["labels"], flipped.labels)
    FedCorr().fit(expected, context(ClientData(0, own.features, labels, own.ids, 10)), round_config(2), {})
    assert changed.any()
    assert not changed.all()
    for got, wanted in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(got, wanted)


def test_other_questions_and_other_tasks_are_refused():
    with pytest.raises(ValueError, match="'relabel' and 'relabel-confident', not 'who'"):
        ask(data(), "who")
    pixels = data(4)
    masks = ClientData(0, pixels.features, np.zeros((4, 8, 8), np.int64), pixels.ids, 10)
    with pytest.raises(ValueError, match=r"one label per example, got labels of shape \(4, 8, 8\)"):
        ask(masks, "relabel")


def linear() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(5, 3)


def mixed(alpha: float, seed: int = 0, objective: Objective | None = None) -> tuple[Tensor, Tensor]:
    """What the model is shown, and the loss of what it answers."""
    batch_loss = Mixup(objective or build("ce", 3), GLOBAL, alpha, np.random.default_rng(seed))
    model, shown = linear(), batch_loss.transform_inputs(BATCH, INPUTS)
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


def test_a_regularizer_counts_once():
    objective = build("ce", 3)
    model = linear()
    distance = sum(float((p.detach() ** 2).sum()) for p in model.parameters()) / 2
    added = mixed(1.0, objective=objective.with_regularizer(4.0, L2ToGlobal()))[1] - mixed(1.0)[1]
    assert added.item() == pytest.approx(4.0 * distance, rel=1e-5)


def test_batches_differ_and_a_seed_repeats():
    batch_loss = Mixup(build("ce", 3), GLOBAL, 1.0, np.random.default_rng(0))
    assert not torch.equal(batch_loss.transform_inputs(BATCH, INPUTS), batch_loss.transform_inputs(BATCH, INPUTS))
    assert torch.equal(mixed(1.0, 3)[0], mixed(1.0, 3)[0])


def by_loops(points: Tensor, neighbours: int) -> list[float]:
    """The estimate as the formula says it, one point at a time, in Python's own floats."""
    found = []
    rows = points.tolist()
    for i, own in enumerate(rows):
        others = sorted(math.dist(own, other) for j, other in enumerate(rows) if j != i)
        nearest = others[: min(neighbours, len(others))]
        found.append(-len(nearest) / sum(math.log(r / nearest[-1]) for r in nearest))
    return found


@pytest.mark.parametrize(("count", "neighbours"), [(60, 20), (60, 2), (10, 20), (3, 20), (600, 5)])
def test_the_estimate_is_the_formula(count: int, neighbours: int):
    points = torch.softmax(torch.randn(count, 4, generator=torch.Generator().manual_seed(count)), 1)
    np.testing.assert_allclose(local_dimensions(points, neighbours), by_loops(points.double(), neighbours), rtol=1e-9)


@pytest.mark.parametrize("dimension", [1, 2, 4])
def test_points_spread_evenly_in_d_directions_have_dimension_d(dimension: int):
    angles = 2 * math.pi * torch.rand(5000, dimension, generator=torch.Generator().manual_seed(dimension))
    found = local_dimensions(torch.cat([angles.cos(), angles.sin()], 1), 20)  # a torus has no border
    # -sum log(r_j / r_k) is a sum of k - 1 exponentials of rate d, so the mean is d k / (k - 2)
    assert found.mean().item() * 18 / 20 == pytest.approx(dimension, rel=0.04)


def test_scale_and_place_do_not_matter():
    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(local_dimensions(7 * points + 3), local_dimensions(points), rtol=1e-9, atol=0.0)


def test_points_on_each_other_have_dimension_zero():
    assert local_dimensions(torch.ones(30, 10)).tolist() == [0.0] * 30
    twins = torch.randn(30, 4, generator=torch.Generator().manual_seed(2)).repeat(2, 1)
    assert local_dimensions(twins).tolist() == [0.0] * 60


def test_neighbours_that_are_equally_far_give_the_largest_estimate():
    assert local_dimensions(torch.eye(6)).tolist() == pytest.approx([LARGEST_DIMENSION] * 6)


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_points_have_no_dimension(count: int):
    assert local_dimensions(torch.eye(3)[:count]).tolist() == [0.0] * count
