"""Validation split: what is held out, from whom, and that nobody trains on it."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from server_app.evaluation import CentralEvaluation
from server_app.validation.config import check
from tasks.base import ClientData, DataError
from tasks.client_data import (
    ClientDataset,
    _own_split,
    client_dataset,
    data_settings,
    site_dataset,
    validation_examples,
)
from tasks.config import Flat, parse
from tasks.images import Digits
from tasks.protocol import Mode
from tasks.seeds import rng
from tasks.validation_split import NOWHERE, SERVER, SITES, hold_out, validation_place

CLIENTS = 4
BASE: Flat = {
    "federation.num-clients": CLIENTS,
    "partition.name": "iid",
    "partition.args": "",
    "noise.rates": "constant",
    "noise.rates-args": "rate = 0.4",
}
AT_SITES: Flat = {"evaluate.validation-at": "sites", "federation.fraction-evaluate": 1.0}


def drawn(labels: npt.NDArray[np.int64], groups: npt.NDArray[np.int64] | None, share: float, seed: int = 0) -> set[int]:
    return set(hold_out(labels, groups, share, rng(seed, "test")).tolist())


@pytest.mark.parametrize("seed", range(5))
def test_as_many_of_each_class_are_held_out_as_its_share_says(seed: int) -> None:
    labels = np.repeat(np.arange(4), (400, 200, 41, 3))[rng(seed, "order").permutation(644)]

    places = hold_out(labels, None, 0.25, rng(seed, "draw"))

    assert len(set(places.tolist())) == len(places) == 161
    assert np.abs(np.bincount(labels[places], minlength=4) - 0.25 * np.array([400, 200, 41, 3])).max() <= 1.1
    np.testing.assert_array_equal(places, np.sort(places))


def test_all_examples_of_a_class_have_the_same_chance() -> None:
    labels = np.repeat([0, 1], 20)
    times = np.zeros(40)
    for seed in range(1500):
        times[hold_out(labels, None, 0.2, rng(seed, "chance"))] += 1
    np.testing.assert_allclose(times / 1500, 0.2, atol=5 * 0.0103)  # standard errors


def test_an_example_too_many_or_too_few_of_a_class_is_chance() -> None:
    labels = np.repeat([0, 1], 15)
    first = [sum(place < 15 for place in drawn(labels, None, 0.1, seed)) for seed in range(200)]
    assert set(first) == {1, 2}  # of 1.5
    assert np.mean(first) == pytest.approx(1.5, abs=5 * 0.5 / 200**0.5)


def test_groups_come_before_classes_and_each_keeps_an_example() -> None:
    groups, labels = np.repeat([0, 1, 2], (60, 30, 1)), np.tile([0, 1, 2], 31)[:91]

    for seed in range(20):
        places = sorted(drawn(labels, groups, 0.3, seed))
        assert abs(np.bincount(groups[places], minlength=3)[:2] - [18, 9]).max() <= 1
        assert 90 not in places  # the only one of its group


def test_every_class_keeps_an_example_however_large_the_share() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])

    for seed in range(20):
        assert set(labels[sorted(set(range(6)) - drawn(labels, None, 0.99, seed))].tolist()) == {0, 1, 2}
        assert len(drawn(labels, None, 0.99, seed)) == 3
        assert len(drawn(labels, None, 0.01, seed)) == 1  # at least one
        assert drawn(labels, None, 0.01, seed) <= {0, 1, 2, 3, 4}


def test_masks_are_drawn_whatever_they_show() -> None:
    assert len(drawn(np.zeros((50, 4, 4), dtype=np.int64), None, 0.1)) == 5


@pytest.mark.parametrize("labels", [np.arange(5), np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64)])
def test_where_none_can_be_spared_that_is_an_error(labels: npt.NDArray[np.int64]) -> None:
    with pytest.raises(DataError, match=r"none of \d training examples can be held out.*set evaluate.validation to 0"):
        hold_out(labels, None, 0.1, rng(0, "none"))


@pytest.mark.parametrize(
    ("changes", "own_data", "place"),
    [
        ({}, False, SERVER),
        ({"evaluate.validation": 0.0}, False, NOWHERE),
        ({"federation.fraction-evaluate": 1.0}, False, SERVER),
        (AT_SITES, False, SITES),
        ({"evaluate.validation-at": "sites"}, False, NOWHERE),
        ({}, True, NOWHERE),
        ({"federation.fraction-evaluate": 0.5}, True, SITES),
        ({"federation.fraction-evaluate": 0.5, "evaluate.validation": 0.0}, True, NOWHERE),
    ],
)
def test_who_holds_examples_out(changes: Flat, own_data: bool, place: str) -> None:
    assert validation_place(parse(changes), own_data) == place


def test_the_server_holds_out_clean_examples_that_no_client_has() -> None:
    settings = parse(BASE)
    held_out, task = validation_examples(settings, Mode.SIMULATION), Digits()
    clients = [client_dataset(settings, client) for client in range(CLIENTS)]
    trained = np.concatenate([dataset.data.ids for dataset in clients])
    left = np.setdiff1d(np.arange(1437), trained)

    assert held_out is not None
    assert len(held_out) == len(left) == 144
    assert len(np.unique(trained)) == len(trained)
    np.testing.assert_array_equal(held_out.labels, task.train_examples().labels[left])  # without the noise of the run
    assert held_out.features.equal(task.train_examples().features[left])
    assert all(dataset.noise_rate > 0.3 for dataset in clients)
    assert all(dataset.held_out is None for dataset in clients)


def test_without_validation_clients_have_all_examples_and_the_server_none() -> None:
    settings = parse(BASE | {"evaluate.validation": 0.0})

    assert validation_examples(settings, Mode.SIMULATION) is None
    assert sum(len(client_dataset(settings, client).data) for client in range(CLIENTS)) == 1437
    names = CentralEvaluation(settings).measure(CentralEvaluation(settings).initial_arrays())
    assert not [name for name in names if name.startswith("validation_")]


def test_what_is_held_out_follows_from_the_seed_and_nothing_else() -> None:
    def ids(changes: Flat) -> list[int]:
        settings = parse(BASE | changes)
        trained = [client_dataset(settings, client).data.ids for client in range(settings.federation.num_clients)]
        return np.setdiff1d(np.arange(1437), np.concatenate(trained)).tolist()  # type: ignore[no-any-return]

    assert ids({}) == ids({"federation.num-clients": 7, "partition.args": "min_size = 40", "noise.name": "none"})
    assert ids({}) != ids({"seed": 2})


def test_the_model_is_measured_on_what_is_held_out() -> None:
    evaluation = CentralEvaluation(parse(BASE))
    arrays = evaluation.initial_arrays()
    held_out = validation_examples(parse(BASE), Mode.SIMULATION)
    assert held_out is not None

    measures = evaluation.measure(arrays)

    right = [name for name in measures if name.startswith("validation_")]
    assert {f"validation_{name}" for name in measures if not name.startswith("validation_")} == set(right)
    # an accuracy is a whole number of right examples: of 144 here, of 360 in the test data
    assert (measures["validation_accuracy"] * 144) == pytest.approx(round(measures["validation_accuracy"] * 144))
    assert (measures["accuracy"] * 360) == pytest.approx(round(measures["accuracy"] * 360))


def test_sites_hold_out_their_own_examples_with_the_labels_they_were_given() -> None:
    settings, everything = parse(BASE | AT_SITES), parse(BASE | {"evaluate.validation": 0.0})

    assert validation_examples(settings, Mode.SIMULATION) is None
    for client in range(CLIENTS):
        whole, split = client_dataset(everything, client), client_dataset(settings, client)
        assert split.held_out is not None
        assert len(split.held_out) == round(0.1 * len(whole.data))
        both = np.concatenate([split.data.ids, split.held_out.ids])
        order = np.argsort(both)
        np.testing.assert_array_equal(both[order], whole.data.ids)
        np.testing.assert_array_equal(
            np.concatenate([split.data.labels, split.held_out.labels])[order], whole.data.labels
        )
        np.testing.assert_array_equal(split.true_labels, Digits().train_examples().labels[split.data.ids])
        assert split.noise_rate == pytest.approx(0.4, abs=0.05)
        np.testing.assert_array_equal(split.whole.data.ids, whole.data.ids)
        np.testing.assert_array_equal(split.whole.wrong(), whole.wrong())
        assert whole.whole is whole


def test_where_noise_replaced_examples_sites_know_it_of_those_that_are_left() -> None:
    data = ClientData(0, torch.arange(40.0).view(40, 1), np.arange(40) % 2, np.arange(100, 140), 2)
    split = _own_split(ClientDataset(data, data.labels.copy(), np.array([3, 7, 20, 21, 39])), 0.5, seed=1)

    assert split.held_out is not None
    kept = split.data.ids - 100
    np.testing.assert_array_equal(kept[split.replaced], np.intersect1d(kept, [3, 7, 20, 21, 39]))
    np.testing.assert_array_equal(split.data.features.flatten().numpy(), kept)
    np.testing.assert_array_equal(split.data.labels, kept % 2)
    np.testing.assert_array_equal(split.true_labels, kept % 2)
    assert len(np.intersect1d(split.held_out.ids, split.data.ids)) == 0


def test_settings_of_the_data_keep_who_holds_examples_out() -> None:
    for changes in ({}, AT_SITES, {"evaluate.validation": 0.0}, {"evaluate.validation-at": "sites"}):
        settings = data_settings(parse(BASE | changes))
        assert validation_place(settings, False) == validation_place(parse(BASE | changes), False)
        assert data_settings(settings) == settings


def test_two_sites_with_the_same_data_hold_out_the_same() -> None:
    settings = check(BASE | AT_SITES)
    one, other = (site_dataset(settings, client) for client in (0, 3))

    assert one.held_out is not None
    assert other.held_out is not None
    np.testing.assert_array_equal(one.held_out.ids, other.held_out.ids)
    assert len(one.held_out) == 144
    assert len(site_dataset(replace(settings, evaluate=replace(settings.evaluate, validation=0.0)), 0).data) == 1437
