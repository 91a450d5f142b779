"""Client data in a simulation: what decides it, and that every built-in choice really yields some."""

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from flwr.app import ConfigRecord

from server_app.evaluation import CentralEvaluation
from server_app.validation.config import check
from strategies.aggregators import AGGREGATORS
from strategies.robust import RobustStrategy
from tasks.client_data import (
    ClientDataset,
    DatasetCache,
    _dataset,
    client_dataset,
    data_settings,
    divide,
    server_places,
)
from tasks.config import ConfigError, Flat, parse
from tasks.images import Digits
from tasks.noise import NOISES, RATE_DISTRIBUTIONS
from tasks.partition import PARTITIONS
from tasks.settings import Settings
from tests import messages

CLIENTS = 4
BASE: Flat = {
    "federation.num-clients": CLIENTS,
    "partition.name": "iid",
    "partition.args": "",
    "noise.rates": "constant",
    "noise.rates-args": "rate = 0.4",
}


class Hospitals(Digits):
    """Digits that come from three hospitals, in turn."""

    def groups(self) -> npt.NDArray[np.str_]:
        return np.array(["north", "east", "south"])[np.arange(len(self.train_examples())) % 3]


def held_out_of(changes: Flat) -> list[int]:
    """Places of the examples that the server holds out, in published order."""
    return server_places(parse(BASE | changes)).tolist()  # type: ignore[no-any-return]


SHARED = sorted(set(range(1437)) - set(held_out_of({})))


def datasets(changes: Flat) -> list[ClientDataset]:
    settings = check(BASE | changes)
    return [client_dataset(settings, client) for client in range(settings.federation.num_clients)]


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """The files that some noises and noise-rate distributions read, made for the digits task."""
    task = Digits()
    true, images = task.train_examples().labels, task.test_examples().features.numpy()
    np.savez(tmp_path / "human.npz", clean_label=true, worse_label=(true + (np.arange(len(true)) % 2)) % 10)
    np.savez(tmp_path / "outside.npz", images=images)
    (tmp_path / "rates.csv").write_text("client,rate\n0,0.0\n1,0.1\n2,0.2\n3,0.3\n")
    return tmp_path


MATRIX = [[0.0 if i == j else 1 / 9 for j in range(10)] for i in range(10)]
NOISE_ARGS = {
    "asymmetric": 'pairs = [[7, 1], ["3", "8"]]',
    "human": 'path = "human.npz", column = "worse_label"',
    "matrix": f"matrix = {MATRIX}",
    "mixed": 'groups = [{clients = 2, noise = "symmetric"}, {clients = 2, noise = "pair-flip"}]',
    "open-set": 'path = "outside.npz", array = "images"',
}
NOISE_REFUSED = {
    "asymmetric-cifar100-block": "made for the 100 classes of CIFAR-100, but the task has 10",
    "asymmetric-cifar100-superclass": "made for the 100 classes of CIFAR-100, but the task has 10",
    "masks": "made for background and one object, not for 10 classes",
}
# The share of wrong labels that the rate 0.4 leads to, where it is not 0.4 itself.
REALISED = {"none": 0.0, "human": 0.5, "symmetric-all": 0.36, "asymmetric": 0.08, "asymmetric-cifar10": 0.2}


@pytest.mark.filterwarnings("ignore::tasks.noise.NoiseWarning")
@pytest.mark.parametrize("name", [entry.name for entry in NOISES.entries()])
def test_every_noise_runs_on_the_digits_or_is_refused_with_a_reason(name: str, data_folder: Path) -> None:
    changes: Flat = {
        "task.data-path": str(data_folder),
        "noise.name": name,
        "noise.args": NOISE_ARGS.get(name, ""),
    }
    if reason := NOISE_REFUSED.get(name):
        with pytest.raises(ConfigError, match=f"1 error in the configuration:\n  - noise: .*{reason}"):
            datasets(changes)
        return
    built = datasets(changes)
    overall = np.average([dataset.noise_rate for dataset in built], weights=[len(dataset.data) for dataset in built])
    assert overall == pytest.approx(REALISED.get(name, 0.4), abs=0.04)
    assert sorted(np.concatenate([dataset.data.ids for dataset in built])) == SHARED


Rates = list[float]
RATES_ARGS: dict[str, tuple[str, Rates | Callable[[Rates], bool]]] = {
    "bernoulli": ("rho = 1.0, tau = 0.6", lambda rates: len(set(rates)) == 4 and min(rates) > 0.59),
    "constant": ("rate = 0.4", [0.4, 0.4, 0.4, 0.4]),
    "groups": ("groups = [{clients = 3, rate = 0.0}, {clients = 1, rate = 0.8}]", [0, 0, 0, 0.8]),
    "linear": ("max = 0.6", [0, 0.2, 0.4, 0.6]),
    "table": ('path = "rates.csv"', [0, 0.1, 0.2, 0.3]),
    "uniform": ("max = 0.6", lambda rates: len(set(rates)) == 4 and max(rates) < 0.61),
}


@pytest.mark.filterwarnings("ignore::tasks.noise.NoiseWarning")
@pytest.mark.parametrize("distribution", [entry.name for entry in RATE_DISTRIBUTIONS.entries()])
def test_every_distribution_sets_the_rates_of_the_digits(distribution: str, data_folder: Path) -> None:
    args, expected = RATES_ARGS[distribution]
    rates = [
        dataset.noise_rate
        for dataset in datasets(
            {"task.data-path": str(data_folder), "noise.rates": distribution, "noise.rates-args": args}
        )
    ]
    if callable(expected):
        assert expected(rates)
    else:
        assert rates == pytest.approx(expected, abs=0.002)  # the nearest whole number of about 360 labels


PARTITION_ARGS = {
    "bernoulli-dirichlet": "p = 0.7, alpha = 5.0",
    "dirichlet": "alpha = 0.5",
    "flwr-datasets": 'partitioner = "IidPartitioner"',
    "pathological": "classes_per_client = 3",
    "quantity-skew": "alpha = 2.0",
    "shards": "shards_per_client = 2",
}


@pytest.mark.parametrize("name", [entry.name for entry in PARTITIONS.entries()])
def test_every_partition_divides_the_digits_or_is_refused_with_a_reason(name: str) -> None:
    changes: Flat = {"partition.name": name, "partition.args": PARTITION_ARGS.get(name, "")}
    refused = {"natural": "needs a task that says which group"}
    if importlib.util.find_spec("flwr_datasets") is None:
        refused["flwr-datasets"] = "pip install flwr-datasets"
    if name in refused:
        with pytest.raises(ConfigError, match=f"1 error in the configuration:\n  - partition: .*{refused[name]}"):
            datasets(changes)
        return
    built = datasets(changes)
    assert len(built) == CLIENTS
    assert sorted(np.concatenate([dataset.data.ids for dataset in built])) == SHARED


def test_natural_makes_each_group_of_a_task_a_client() -> None:
    changes: Flat = {
        "task.name": f"{__name__}:Hospitals",
        "partition.name": "natural",
        "federation.num-clients": 3,
    }
    for client, first in enumerate((1, 0, 2)):  # east, north, south
        ids = datasets(changes)[client].data.ids
        np.testing.assert_array_equal(ids, np.setdiff1d(np.arange(first, 1437, 3), held_out_of(changes)))
        assert len(ids) == 431  # a tenth of each hospital's 479 is held out
    with pytest.raises(ConfigError, match="in 3 groups, but there are 4 clients; set the number of clients to 3"):
        check(BASE | changes | {"federation.num-clients": 4})
    with pytest.raises(ConfigError, match="groups is set by the run itself"):
        check(BASE | changes | {"partition.args": 'groups = ["a", "b", "c"]'})


def test_examples_from_outside_count_as_wrong(data_folder: Path) -> None:
    open_set: Flat = {
        "task.data-path": str(data_folder),
        "noise.name": "open-set",
        "noise.args": NOISE_ARGS["open-set"],
    }
    dataset = datasets(open_set)[0]
    task = Digits()
    original = task.train_examples().take(dataset.data.ids).features
    np.testing.assert_array_equal(dataset.true_labels, dataset.data.labels)
    changed = np.flatnonzero((dataset.data.features != original).flatten(1).any(1).numpy())
    np.testing.assert_array_equal(changed, dataset.replaced)
    np.testing.assert_array_equal(np.flatnonzero(dataset.wrong()), dataset.replaced)
    assert dataset.noise_rate == round(0.4 * len(dataset.data)) / len(dataset.data)


def test_settings_that_leave_the_data_alone_share_it() -> None:
    one, other = parse(BASE | {"loss.name": "ce"}), parse(BASE | {"train.epochs": 1})
    assert data_settings(one) == data_settings(other)
    assert client_dataset(one, 0) is client_dataset(other, 0)
    others: Flat = {"seed": 9, "federation.num-clients": 5, "noise.args": "exact = false", "evaluate.validation": 0.2}
    for key, value in others.items():
        assert data_settings(parse(BASE | {key: value})) != data_settings(one)


@pytest.mark.parametrize(
    ("key", "args", "name"),
    [
        ("partition.args", 'alpha = 0.5, capped = "false"', "capped"),
        ("noise.args", 'exact = "false"', "exact"),
        ("noise.rates-args", 'max = 0.5, official = "false"', "official"),
    ],
)
def test_a_quoted_truth_value_is_refused(key: str, args: str, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} must be true or false \(without quotes\), not 'false'"):
        check({"federation.num-clients": CLIENTS, "partition.args": "alpha = 0.5", key: args})


class FortyClients:
    """As much of a grid as sampling needs."""

    def get_node_ids(self) -> Iterable[int]:
        return range(40)


def partition_of(seed: int) -> list[list[int]]:
    settings = parse(BASE)
    return [part.tolist() for part in divide(settings.task, settings.partition, CLIENTS, seed)]


def wrong_of(seed: int) -> list[int]:
    """The wrong labels of a client that has all examples: the seed cannot move any by another partition."""
    settings = parse(BASE | {"seed": seed, "federation.num-clients": 1})
    return client_dataset(settings, 0).data.labels.tolist()


def rates_of(seed: int) -> list[float]:
    settings = parse(BASE | {"seed": seed, "noise.rates": "uniform", "noise.rates-args": "max = 0.9"})
    return [client_dataset(settings, client).noise_rate for client in range(CLIENTS)]


def sample_of(seed: int) -> list[int]:
    strategy = RobustStrategy(AGGREGATORS.build("mean"), seed=seed, fraction_train=0.25)
    model = messages.record(messages.MODEL)
    sent = strategy.configure_train(1, model, ConfigRecord(), FortyClients())  # type: ignore[arg-type]
    return [message.metadata.dst_node_id for message in sent]


def weights_of(seed: int) -> list[float]:
    arrays = CentralEvaluation(Settings(seed=seed)).initial_arrays()
    return np.concatenate([array.ravel() for array in arrays.values()]).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("draw", [partition_of, wrong_of, rates_of, sample_of, weights_of])
def test_each_random_draw_follows_from_the_seed(draw: Callable[[int], list[object]]) -> None:
    first = draw(1)
    assert first
    divide.cache_clear()
    _dataset.cache_clear()
    assert draw(1) == first
    assert draw(2) != first


def test_what_a_process_keeps_of_its_clients_data_is_limited_and_the_last_used_stays() -> None:
    settings = data_settings(parse(BASE))
    asked: list[int] = []

    def make(data: Settings, client: int) -> ClientDataset:
        asked.append(client)
        return client_dataset(data, client)

    most = sum(client_dataset(settings, client).data.features.nbytes for client in (0, 1))
    cache = DatasetCache(make, most)
    for client in (0, 1, 0, 2, 0, 1):
        assert torch.equal(cache(settings, client).data.features, client_dataset(settings, client).data.features)
    assert asked == [0, 1, 2, 1]
    tiny = DatasetCache(make, 1)
    assert tiny(settings, 3) is tiny(settings, 3), "one is kept, however large"
