"""Client data: its part of the training examples with the labels that it is given, or its own folder.

Everything here is a function of the settings alone, so any process can compute any client's data.
"""

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tasks.base import ClientData, DataError, Examples, FittedTask, Labels, Task
from tasks.encoders import ENCODERS, EncodedTask, Encoder, FeatureStore, TextEncoder
from tasks.files import user_path
from tasks.noise import FederatedNoise, chosen_noise
from tasks.noise.clients import NO_NOISE
from tasks.own_data.reading import Cache
from tasks.partition import PARTITIONS, PartitionError
from tasks.protocol import Mode
from tasks.registry import TASKS
from tasks.seeds import rng
from tasks.settings import EvaluateSettings, FederationSettings, PartitionSettings, Settings, TaskSettings
from tasks.validation_split import NOWHERE, SERVER, SITES, Place, hold_out, validation_place

KEPT_BYTES = 2**29
"""Of the examples of simulated clients that a process keeps at hand."""


@dataclass(frozen=True)
class ClientDataset:
    """One client's data, and the truth about it, which only measurement may see.

    ``true_labels`` are shaped like the given ones; ``replaced`` (m,) are the places of examples that come from outside
    the task, for which no label is right. ``held_out`` are the client's own validation examples with the labels it was
    given, on which it does not train; None where clients hold none out. ``undivided`` is the same before any were.
    """

    data: ClientData
    true_labels: Labels
    replaced: npt.NDArray[np.int64]
    held_out: ClientData | None = None
    undivided: "ClientDataset | None" = None

    @property
    def whole(self) -> "ClientDataset":
        """All of the client's examples in their own order, those that it holds out too."""
        return self.undivided or self

    @property
    def nbytes(self) -> int:
        """Bytes of the features that are kept."""
        return self.data.features.nbytes + (self.undivided.nbytes if self.undivided else 0)

    def wrong(self) -> npt.NDArray[np.bool_]:
        """Tell which of the given labels are wrong, shaped like them."""
        wrong = self.true_labels != self.data.labels
        wrong[self.replaced] = True
        return np.asarray(wrong)

    @property
    def noise_rate(self) -> float:
        """Share of the given labels that are wrong; 0 where there are none."""
        return float(self.wrong().mean()) if len(self.data) else 0.0


def data_root(path: str) -> Path:
    """Return the data folder: the configured one, else ``$WINNOW_DATA``, else ``data/``.

    Raises
    ------
    ValueError
        If that is no path.
    """
    return Path(user_path(path or os.environ.get("WINNOW_DATA", "data")))


@lru_cache(maxsize=4)
def load_task(settings: TaskSettings) -> Task:
    """Build the task; its data is loaded when first asked for and kept for the life of the process."""
    root = data_root(settings.data_path)
    encoder = chosen_encoder(settings) if settings.encoder else None
    digest = encoder.digest() if encoder else ""
    tokens = encoder.tokens if isinstance(encoder, TextEncoder) else None
    args = " ".join([settings.args, *([digest] if tokens else []), *filter(None, [settings.statistics])])
    cache = Cache(feature_folder(settings), settings.name, args, keeps_few=bool(settings.cache_path))
    context = {"data_path": root, "bad_data": settings.bad_data, "cache": cache, "tokens": tokens}
    task = TASKS.build(settings.name, settings.args, **context, statistics=settings.statistics)
    if encoder is None:
        return task
    declared = str([settings.name, settings.args, settings.bad_data, settings.encoder, settings.encoder_args])
    return EncodedTask(task, encoder, digest, FeatureStore(feature_folder(settings)), declared)


def chosen_encoder(settings: TaskSettings) -> Encoder:
    """Build the configured encoder.

    Raises
    ------
    PluginError
        If it is unknown, or refuses its arguments or weights.
    """
    return ENCODERS.build(settings.encoder, settings.encoder_args, weights_path=weights_folder(settings))


def weights_folder(settings: TaskSettings) -> Path:
    """Return where files of weights lie: as configured, else the data folder."""
    return Path(settings.weights_path) if settings.weights_path else data_root(settings.data_path)


def feature_folder(settings: TaskSettings) -> Path:
    """Return where encoded and decoded examples are kept: as configured, else the user's folder for caches."""
    if settings.cache_path:
        return Path(settings.cache_path)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "winnow"


def encode_examples(settings: TaskSettings) -> None:
    """Encode the examples that are not encoded yet, so that no client has to wait for it; nothing without an encoder.

    Raises
    ------
    DataError
        If an example cannot be encoded, or the features cannot be kept.
    """
    if settings.encoder:
        task = load_task(settings)
        task.train_examples()
        if task.has_test_examples():
            task.test_examples()


@lru_cache(maxsize=4)
def held_out(task: TaskSettings, share: float, seed: int) -> npt.NDArray[np.int64]:
    """Return the places of the training examples that the server holds out, sorted; none for a share of 0.

    Raises
    ------
    DataError
        If none can be spared.
    """
    if not share:
        return np.empty(0, dtype=np.int64)
    loaded = load_task(task)
    return hold_out(loaded.train_labels(), loaded.groups(), share, rng(seed, "validation"))


def place_of_validation(settings: Settings, mode: Mode) -> Place:
    """Return who holds out validation examples in a run whose clients are there: the server, the sites, or nobody."""
    return validation_place(settings, mode is Mode.DEPLOYMENT and load_task(settings.task).brings_own_data)


def validation_examples(settings: Settings, mode: Mode) -> Examples | None:
    """Return the examples that the server holds out, with the labels of the data set; None where it holds none out.

    Raises
    ------
    DataError
        If none can be spared.
    """
    if place_of_validation(settings, mode) != SERVER:
        return None
    return load_task(settings.task).train_examples().take(server_places(settings))


def server_places(settings: Settings) -> npt.NDArray[np.int64]:
    """Return the places of the examples that a server with training examples holds out; see :func:`held_out`."""
    return held_out(settings.task, _share_at(SERVER, settings), settings.seed)


@lru_cache(maxsize=4)
def divide(
    task: TaskSettings, partition: PartitionSettings, num_clients: int, seed: int, validation: float = 0.0
) -> tuple[npt.NDArray[np.int64], ...]:
    """Return each client's example indices; the share ``validation`` of the examples stays at the server.

    Raises
    ------
    PluginError
        If the partition is unknown, or refuses its arguments.
    PartitionError
        If the examples cannot be divided like this, or a partition of the user's own loses or repeats examples.
    """
    loaded = load_task(task)
    labels = loaded.train_labels()
    kept_back = held_out(task, validation, seed)
    shared = np.delete(np.arange(len(labels)), kept_back)
    of_shared = labels[shared] if len(kept_back) else labels  # masks are large
    partitioner = PARTITIONS.build(partition.name, partition.args, groups=loaded.groups())
    try:
        partitioner = partitioner.restricted_to(shared, len(labels))
        parts = tuple(partitioner(of_shared, num_clients, rng(seed, "partition")))
    except PartitionError as error:
        raise _after_validation(error, len(labels), len(shared)) from error
    if len(parts) != num_clients or not np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(shared))):
        raise PartitionError(
            f"partition {partition.name!r} must return {num_clients} disjoint lists "
            f"that cover all {len(shared)} examples"
        )
    return tuple(shared[part] for part in parts)


def _after_validation(error: PartitionError, count: int, shared: int) -> PartitionError:
    """Return the error with what is held out, which a user who counts the examples misses."""
    if count == shared:
        return error
    return PartitionError(f"{error} (evaluate.validation holds out {count - shared} of {count} examples; 0 = none)")


def client_parts(settings: Settings) -> tuple[npt.NDArray[np.int64], ...]:
    """Return each client's example indices under these settings; see :func:`divide`."""
    share = _share_at(SERVER, settings)
    return divide(settings.task, settings.partition, settings.federation.num_clients, settings.seed, share)


def _share_at(place: Place, settings: Settings, sites_own_data: bool = False) -> float:
    """Return the share of the examples that is held out at that place; 0 where it is at another one."""
    return settings.evaluate.validation if validation_place(settings, sites_own_data) == place else 0.0


def federated_noise(settings: Settings) -> FederatedNoise:
    """Return which noise the clients of a run have, and how much of it."""
    task, noise = load_task(settings.task), settings.noise
    return FederatedNoise(
        seed=settings.seed,
        num_clients=settings.federation.num_clients,
        num_classes=task.num_classes,
        noise=chosen_noise(noise.name, task.keeps_labels),
        noise_args=noise.args,
        distribution=noise.rates,
        rates_args=noise.rates_args,
        class_names=task.class_names,
        data_root=data_root(settings.task.data_path),
    )


def knows_right_labels(settings: Settings) -> bool:
    """Tell whether a simulation knows which labels are right: those of a published data set, or before its own noise.

    Nobody knows it of labels that are somebody's own or wrong from the start, as long as the run makes none wrong.
    """
    task = load_task(settings.task)
    return not (task.brings_own_data or task.has_own_noise) or federated_noise(settings).noise != NO_NOISE


def client_dataset(settings: Settings, client: int) -> ClientDataset:
    """Return the data of client number ``client`` (0 to num-clients - 1); what was asked for last is kept."""
    return _dataset(data_settings(settings), client)


class DatasetCache:
    """The clients' data that was asked for last, as much of it as ``most`` bytes, one at least.

    Features of a million examples are mapped from a file; the copies of all clients would be as large as that.
    """

    def __init__(self, make: Callable[[Settings, int], ClientDataset], most: int) -> None:
        self._make, self._most, self._bytes = make, most, 0
        self._kept: OrderedDict[tuple[Settings, int], ClientDataset] = OrderedDict()

    def __call__(self, data: Settings, client: int) -> ClientDataset:
        """Return a client's data."""
        key = (data, client)
        if key not in self._kept:
            self._kept[key] = self._make(data, client)
            self._bytes += self._kept[key].nbytes
        self._kept.move_to_end(key)
        while self._bytes > self._most and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return self._kept[key]

    def cache_clear(self) -> None:
        """Forget all."""
        self._kept.clear()
        self._bytes = 0


def _make_dataset(data: Settings, client: int) -> ClientDataset:
    return _own_split(_whole_part(data, client), _share_at(SITES, data), data.seed)


def _own_split(dataset: ClientDataset, share: float, seed: int) -> ClientDataset:
    """Return a client's dataset with its own validation examples apart; as it is for a share of 0.

    Two sites with the same data hold out the same, whatever their numbers are. One that cannot spare an example holds
    none out.
    """
    if not share:
        return dataset
    whole = dataset.data
    try:
        places = hold_out(whole.labels, None, share, rng(seed, "validation"))
    except DataError:
        places = np.empty(0, dtype=np.int64)
    rest = np.delete(np.arange(len(whole)), places)
    replaced = np.flatnonzero(np.isin(rest, dataset.replaced))
    return ClientDataset(whole.take(rest), dataset.true_labels[rest], replaced, whole.take(places), dataset)


def _whole_part(data: Settings, client: int) -> ClientDataset:
    task = load_task(data.task)
    if isinstance(task, FittedTask) and task.statistics:
        return _fitted_dataset(task, data, client)
    indices = client_parts(data)[client]
    examples, ids = task.train_examples().take(indices), task.train_ids()[indices]
    given = federated_noise(data).apply(client, examples.labels, examples.features.numpy(), ids)
    if isinstance(task, FittedTask) and len(given.replaced):
        raise DataError(
            f"noise {data.noise.name!r} replaces examples, whose columns this task asks for: choose another"
        )
    shown = ClientData(client, torch.from_numpy(given.features), given.labels, ids, task.num_classes)
    return ClientDataset(shown, examples.labels, given.replaced)


def _fitted_dataset(task: FittedTask, data: Settings, client: int) -> ClientDataset:
    """Return the client's data by merged statistics: noise has drawn its labels before they were known."""
    unfitted = replace(data, task=replace(data.task, statistics=""))
    before = _whole_part(unfitted, client)
    indices = client_parts(unfitted)[client]
    return replace(before, data=replace(before.data, features=task.train_examples().take(indices).features))


_dataset = DatasetCache(_make_dataset, KEPT_BYTES)


def site_dataset(settings: Settings, client: int) -> ClientDataset:
    """Return the data of a site with data of its own, all that is in its folder, with the labels as they are.

    Raises
    ------
    DataError
        If the data cannot be used; the message names files and must not leave the site.
    """
    return _site_dataset(settings.task, client, _share_at(SITES, settings, sites_own_data=True), settings.seed)


@lru_cache(maxsize=1)
def _site_dataset(settings: TaskSettings, client: int, share: float, seed: int) -> ClientDataset:
    task = load_task(settings)
    examples = task.train_examples()
    data = ClientData(client, examples.features, examples.labels, task.train_ids(), task.num_classes)
    return _own_split(ClientDataset(data, examples.labels, np.empty(0, dtype=np.int64)), share, seed)


def data_settings(settings: Settings) -> Settings:
    """Return the settings that decide what each client's data is, all others at their defaults.

    Two variants with equal data settings have the same data.
    """
    place = validation_place(settings, False)
    return Settings(
        seed=settings.seed,
        federation=FederationSettings(
            num_clients=settings.federation.num_clients, fraction_evaluate=float(place == SITES)
        ),
        task=settings.task,
        partition=settings.partition,
        noise=settings.noise,
        evaluate=EvaluateSettings(
            validation=0.0 if place == NOWHERE else settings.evaluate.validation,
            validation_at=SERVER if place == NOWHERE else place,
        ),
    )
