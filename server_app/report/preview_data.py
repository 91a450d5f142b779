"""Preview of the data of every client of a simulation, in numbers and words, before anything is trained."""

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from server_app.report.text import counted, number, percent
from tasks.base import DataError
from tasks.client_data import ClientDataset, client_dataset, federated_noise, load_task, server_places
from tasks.noise import NoiseWarning, uses_rates
from tasks.settings import Settings

Counts = npt.NDArray[np.int64]
Rates = npt.NDArray[np.float64]
MAX_CLASSES = 500
"""The page has a cell for each pair of classes: with so many it takes some 20 MB."""


@dataclass(frozen=True)
class Survey:
    """What N clients hold of K classes.

    Attributes
    ----------
    settings
        The settings that the data follows from.
    class_names
        The K classes.
    examples
        Examples of each client, (N,).
    held_out
        Examples that are held out for validation, at the server or at the clients.
    counts
        How many labels of each true class a client has, before the noise, (N, K). Masks have a label a pixel.
    realised
        Share of each client's given labels that are wrong, (N,).
    wanted
        Rate that the noise-rate distribution gives to each client, (N,), or None for a noise that takes no rate.
    transitions
        How often a label of true class i is given as j, (K, K), with one more row if examples come from outside.
    """

    settings: Settings
    class_names: tuple[str, ...]
    examples: Counts
    held_out: int
    counts: Counts
    realised: Rates
    wanted: Rates | None
    transitions: Counts

    @property
    def overall(self) -> float:
        """Share of all given labels that are wrong."""
        return float(np.average(self.realised, weights=self.examples))

    @property
    def transition_matrix(self) -> Rates:
        """Share of the labels of true class i that are given as j, shaped like ``transitions``; 0 for an empty row."""
        totals = self.transitions.sum(axis=1, keepdims=True)
        return np.asarray(self.transitions / np.maximum(totals, 1))

    @property
    def row_names(self) -> tuple[str, ...]:
        """Names of the rows of ``transitions``."""
        return (*self.class_names, "(outside)")[: len(self.transitions)]


def take_survey(settings: Settings) -> Survey:
    """Build the data of every client and count.

    Raises
    ------
    DataError, NoiseError, PartitionError
        If the data cannot be read, has more than ``MAX_CLASSES`` classes, or does not fit the partition or the noise.
    """
    names = load_task(settings.task).class_names
    if len(names) > MAX_CLASSES:
        raise DataError(
            f"the preview shows every pair of classes, for up to {MAX_CLASSES} of them, and the task has {len(names)}; "
            "winnow run --dry-run checks the same data without a picture"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoiseWarning)  # the checks of the configuration say it once
        datasets = [client_dataset(settings, client) for client in range(settings.federation.num_clients)]
        noise = federated_noise(settings)
        wanted = noise.rates() if uses_rates(noise.noise) else None
    return Survey(
        settings=settings,
        class_names=tuple(names),
        examples=np.array([len(dataset.data) for dataset in datasets]),
        held_out=len(server_places(settings)) + sum(len(dataset.held_out or ()) for dataset in datasets),
        counts=np.stack([_class_counts(dataset.true_labels, len(names)) for dataset in datasets]),
        realised=np.array([dataset.noise_rate for dataset in datasets]),
        wanted=wanted,
        transitions=_transitions(datasets, len(names)),
    )


def _class_counts(labels: Counts, num_classes: int) -> Counts:
    known = labels[(labels >= 0) & (labels < num_classes)]  # a mask may have pixels of no class
    return np.bincount(known, minlength=num_classes).astype(np.int64)


def _transitions(datasets: list[ClientDataset], num_classes: int) -> Counts:
    outside = num_classes
    counts = np.zeros((num_classes + 1, num_classes), dtype=np.int64)
    for dataset in datasets:
        true, given = dataset.true_labels.copy(), dataset.data.labels
        true[dataset.replaced] = outside
        known = (true >= 0) & (given >= 0) & (given < num_classes)
        np.add.at(counts, (true[known], given[known]), 1)
    return counts if counts[outside].any() else counts[:outside]


def title(survey: Survey) -> str:
    """Say what is divided among whom.

    For example "digits, 20 clients, partition dirichlet, noise symmetric".
    """
    settings = survey.settings
    clients = counted(settings.federation.num_clients, "client")
    return f"{settings.task.name}, {clients}, partition {settings.partition.name}, noise {_noise(settings)}"


def choices(survey: Survey) -> dict[str, str]:
    """Return the choices behind the data, with their arguments."""
    settings = survey.settings
    distribution = (
        f", rates {_choice(settings.noise.rates, settings.noise.rates_args)}" if survey.wanted is not None else ""
    )
    return {
        "task": _choice(settings.task.name, settings.task.args),
        "partition": _choice(settings.partition.name, settings.partition.args),
        "noise": _choice(_noise(settings), settings.noise.args) + distribution,
        "seed": str(settings.seed),
    }


def _noise(settings: Settings) -> str:
    return federated_noise(settings).noise  # what auto means


def _choice(name: str, args: str) -> str:
    return f"{name} ({args})" if args else name


def main_numbers(survey: Survey) -> dict[str, str]:
    """Return the most important numbers: sizes, classes and wrong labels."""
    held = (survey.counts > 0).sum(axis=1)
    total, clients = counted(survey.examples.sum(), "example"), counted(len(survey.examples), "client")
    median = number(float(np.median(survey.examples)))
    more = f"; {survey.held_out} more are held out for validation" if survey.held_out else ""
    return {
        "examples": f"{total} of {clients}; a client has {span(survey.examples)}, median {median}{more}",
        "classes": f"a client has {span(held)} of {len(survey.class_names)}",
        "wrong labels": wrong_labels(survey),
    }


def wrong_labels(survey: Survey) -> str:
    """Say how many labels are wrong, overall and at the clients, and what the distribution asked for."""
    if not survey.realised.any() and (survey.wanted is None or not survey.wanted.any()):
        return "none"
    wanted = "" if survey.wanted is None else f" (the distribution asks for {_rates(survey.wanted)})"
    return f"{percent(survey.overall)} of all; a client has {_rates(survey.realised)}{wanted}"


def summary(survey: Survey) -> str:
    """Return the choices and the most important numbers as aligned lines."""
    lines = {**choices(survey), **main_numbers(survey)}
    return "\n".join(f"{name + ':':<14}{text}" for name, text in lines.items())


def span(counts: npt.NDArray[np.int64]) -> str:
    """Write the smallest and the largest of some counts."""
    least, most = int(counts.min()), int(counts.max())
    return str(least) if least == most else f"{least} to {most}"


def _rates(rates: npt.NDArray[np.float64]) -> str:
    least, most = percent(float(rates.min())), percent(float(rates.max()))
    return least if least == most else f"{least} to {most}"
