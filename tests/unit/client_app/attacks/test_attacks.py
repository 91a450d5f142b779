"""Each attack does what its formula says, measured against NumPy and SciPy."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm

from client_app.attacks import (
    ATTACKS,
    Alie,
    AttackContext,
    Backdoor,
    FederationFacts,
    Gaussian,
    InnerProduct,
    LabelFlip,
    LocalUpdate,
    Scaling,
    SignFlip,
    SmallLoss,
    flipped,
    largest_hidden_shift,
)
from tasks.base import ClientData, Examples
from tasks.plugins import PluginError

FACTS = FederationFacts(num_clients=20, num_hostile=4, num_classes=10, brightest=16)
UPDATES = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 30)))


def draws() -> np.random.Generator:
    return np.random.default_rng(5)


def client_data(examples: int = 50) -> ClientData:
    source = np.random.default_rng(1)
    images = torch.from_numpy(source.integers(0, 15, (examples, 1, 8, 8)).astype(np.uint8))
    return ClientData(2, images, source.integers(0, 10, examples), np.arange(examples), 10)


def attack_context(data: ClientData, trained: list[tuple[ClientData, int]]) -> AttackContext:
    """A context in which honest training gives rows of ``UPDATES``, one after the other, and is written down."""

    def train(examples: ClientData, effort: int) -> LocalUpdate:
        trained.append((examples, effort))
        number = len(trained) - 1
        return LocalUpdate(
            (1 + number) * UPDATES[number], {"mean": torch.full((2,), number)}, {"train-loss": 0.5 + number}
        )

    pool = {client: LocalUpdate(update, {}, {"train-loss": float(client)}) for client, update in enumerate(UPDATES)}
    return AttackContext(data, FACTS, draws(), train, lambda: pool)


def test_flipped_labels_are_all_wrong_in_the_way_that_is_asked_for():
    labels = np.array([0, 3, 9, 5, 0])
    assert flipped(labels, 10, "reverse", draws()).tolist() == [9, 6, 0, 4, 9]
    assert flipped(labels, 10, "pair", draws()).tolist() == [1, 4, 0, 6, 1]
    many = np.repeat(np.arange(4), 3000)
    random = flipped(many, 4, "random", draws())
    shares = np.array([[np.mean(random[many == true] == given) for given in range(4)] for true in range(4)])
    assert np.abs(shares - (1 - np.eye(4)) / 3).max() < 0.03
    assert not shares.diagonal().any()


@pytest.mark.parametrize("mode", ["reverse", "random", "pair"])
def test_elements_without_a_label_stay_without_one(mode: str):
    labels = np.array([[0, -100], [-100, 3]])
    wrong = flipped(labels, 10, mode, draws())
    assert (wrong == -100).tolist() == [[False, True], [True, False]]
    assert (wrong != labels).tolist() == [[True, False], [False, True]]


def test_a_label_flip_trains_once_on_the_same_examples_with_wrong_labels():
    data, trained = client_data(), []
    outcome = LabelFlip(scale=2.5).act(attack_context(data, trained))
    ((seen, effort),) = trained
    assert effort == 1
    assert torch.equal(seen.features, data.features)
    assert np.array_equal(seen.labels, 9 - data.labels)
    assert torch.equal(outcome.update, 2.5 * UPDATES[0])


@pytest.mark.parametrize(
    ("corner", "rows", "columns"),
    [("top-left", [0, 1, 2], [0, 1, 2]), ("bottom-right", [5, 6, 7], [5, 6, 7]), ("top-right", [0, 1, 2], [5, 6, 7])],
)
def test_the_patch_lies_where_it_should_and_nowhere_else(corner: str, rows: list[int], columns: list[int]):
    images = client_data().features
    stamped = Backdoor(corner=corner, size=3, value=0.5).stamp(images, FACTS).numpy()
    expected = images.numpy().copy()
    expected[np.ix_(range(50), [0], rows, columns)] = 8
    assert np.array_equal(stamped, expected)
    assert not np.array_equal(images, stamped)


def test_a_backdoor_changes_the_share_that_is_asked_for_and_leaves_the_clients_data_alone():
    data = client_data()
    before = data.features.clone(), data.labels.copy()
    attack = Backdoor(target=3, share=0.3)
    poisoned = attack.poison(data, FACTS, draws())
    changed = np.flatnonzero((poisoned.features != data.features).flatten(1).any(1).numpy())
    assert len(changed) == 15
    assert (poisoned.labels[changed] == 3).all()
    others = np.setdiff1d(np.arange(50), changed)
    assert np.array_equal(poisoned.labels[others], data.labels[others])
    assert torch.equal(before[0], data.features)
    assert np.array_equal(before[1], data.labels)


def test_the_probe_holds_patched_examples_of_all_other_classes():
    data = client_data()
    probe = Backdoor(target=3).probe(Examples(data.features, data.labels), FACTS)
    assert probe is not None
    assert len(probe) == np.count_nonzero(data.labels != 3)
    assert (probe.labels == 3).all()
    assert (probe.features[:, :, -2:, -2:] == 16).all()
    assert LabelFlip().probe(Examples(data.features, data.labels), FACTS) is None


def test_sign_flip_and_scaling_multiply_the_update():
    update = UPDATES[0]
    assert torch.equal(SignFlip(scale=3.0).forge(update, FACTS, draws()), -3.0 * update)
    assert torch.equal(Scaling(factor=7.0).forge(update, FACTS, draws()), 7.0 * update)
    assert torch.equal(Scaling().forge(update, FACTS, draws()), 5.0 * update)  # 20 clients / 4 hostile ones


def test_scaled_updates_of_the_attackers_make_the_mean_theirs():
    honest = np.zeros((16, 30))
    sent = np.stack([Scaling().forge(update, FACTS, draws()).numpy() for update in UPDATES])
    assert np.allclose(np.concatenate([honest, sent]).mean(0), UPDATES.numpy().mean(0))


def test_gaussian_noise_has_its_standard_deviation_and_follows_from_the_stream():
    zero = torch.zeros(20_000)
    noise = Gaussian(std=3.0).forge(zero + 100, FACTS, draws()).numpy()
    assert abs(noise.mean()) < 0.1
    assert abs(noise.std() - 3) < 0.05
    added = Gaussian(std=3.0, mode="add").forge(zero + 100, FACTS, draws()).numpy()
    assert np.allclose(added - 100, noise, atol=1e-4)


@pytest.mark.parametrize(("clients", "hostile"), [(50, 12), (20, 4), (100, 20), (25, 5), (51, 24)])
def test_the_hidden_shift_is_the_quantile_of_the_paper(clients: int, hostile: int):
    supporters = np.floor(clients / 2 + 1) - hostile
    expected = norm.ppf((clients - hostile - supporters) / (clients - hostile))
    assert largest_hidden_shift(clients, hostile) == pytest.approx(expected, abs=1e-9)


def test_alie_is_the_mean_less_z_standard_deviations_and_all_send_the_same():
    values = UPDATES.numpy()
    z = norm.ppf((20 - 4 - 7) / 16)
    expected = values.mean(0) - z * np.sqrt(((values - values.mean(0)) ** 2).mean(0))
    assert np.allclose(Alie().agree(UPDATES, FACTS), expected)
    assert np.allclose(Alie(z=1.5).agree(UPDATES, FACTS), values.mean(0) - 1.5 * values.std(0))
    outcome = Alie().act(attack_context(client_data(), []))
    assert np.allclose(outcome.update, expected)
    assert outcome.metrics == {"train-loss": 2.0}  # its own honest metrics


@pytest.mark.parametrize(
    ("clients", "hostile", "message"),
    [(20, 1, "one hostile client"), (10, 2, "expected one above 0"), (10, 6, "is inf")],
)
def test_alie_says_where_it_has_no_shift(clients: int, hostile: int, message: str):
    facts = replace(FACTS, num_clients=clients, num_hostile=hostile)
    assert message in Alie().problem(facts)
    assert hostile == 1 or Alie(z=1.0).problem(facts) == ""


def test_the_inner_product_with_the_mean_is_negative():
    common = InnerProduct(epsilon=0.3).agree(UPDATES, FACTS)
    mean = UPDATES.numpy().mean(0)
    assert np.allclose(common, -0.3 * mean)
    assert common.numpy() @ mean < 0


def test_small_loss_sends_a_longer_lesson_in_wrong_labels_with_the_honest_length_and_loss():
    data, trained = client_data(), []
    outcome = SmallLoss(effort=4).act(attack_context(data, trained))
    assert [effort for _, effort in trained] == [1, 4]
    assert np.array_equal(trained[0][0].labels, data.labels)
    assert np.array_equal(trained[1][0].labels, (data.labels + 1) % 10)
    honest, taught = UPDATES[0].numpy(), 2 * UPDATES[1].numpy()
    assert np.linalg.norm(outcome.update) == pytest.approx(np.linalg.norm(honest))
    assert np.allclose(outcome.update, taught * np.linalg.norm(honest) / np.linalg.norm(taught))
    assert outcome.metrics == {"train-loss": 0.5}
    assert outcome.buffers["mean"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("label-flip", {"mode": "all"}, "must be one of reverse, random, pair"),
        ("label-flip", {"scale": 0.0}, "scale = 0.0: must be above 0"),
        ("backdoor", {"target": -1}, "target = -1"),
        ("backdoor", {"size": 0}, "at least 1 pixel"),
        ("backdoor", {"value": 2.0}, "from 0 (black) to 1 (white)"),
        ("backdoor", {"corner": "left"}, "must be one of top-left"),
        ("backdoor", {"share": 0.0}, "share = 0.0"),
        ("sign-flip", {"scale": -1.0}, "scale = -1.0"),
        ("gaussian", {"std": 0.0}, "std = 0.0"),
        ("gaussian", {"mode": "times"}, "must be one of replace, add"),
        ("scaling", {"factor": -2.0}, "factor = -2.0"),
        ("alie", {"z": -1.0}, "z = -1.0"),
        ("inner-product", {"epsilon": 0.0}, "epsilon = 0.0"),
        ("small-loss", {"effort": 0}, "effort = 0"),
    ],
)
def test_a_wrong_parameter_says_what_is_right(name: str, args: dict[str, Any], message: str):
    with pytest.raises(PluginError) as caught:
        ATTACKS.build(name, args)
    assert message in str(caught.value)


def test_a_backdoor_needs_images_and_a_class_of_the_task():
    assert "needs a task with images" in Backdoor().problem(replace(FACTS, brightest=None))
    assert "classes 0 to 9" in Backdoor(target=10).problem(FACTS)
    assert Backdoor(target=9).problem(FACTS) == ""
