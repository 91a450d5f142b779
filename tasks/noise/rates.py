"""Noise-rate distributions: which client gets which noise rate.

Groups of clients that are treated alike have a distribution each (``groups``), or a noise each (``mixed``).
"""

import csv
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.arguments import check_flag
from tasks.noise.base import NOISES, LabelNoise, NoiseError, check_share
from tasks.noise.human import below
from tasks.plugins import Registry

Rates = npt.NDArray[np.float64]


class RateDistribution(ABC):
    """Gives each client its noise rate. Subclass it to bring your own."""

    @abstractmethod
    def __call__(self, num_clients: int, rng: np.random.Generator) -> Rates:
        """Return the noise rates (num_clients,), each in [0, 1], in the order of the clients' numbers."""


RATE_DISTRIBUTIONS = Registry(
    "noise-rate distribution", RateDistribution, listed="noise-rates", run_sets=("data_root",)
)


@RATE_DISTRIBUTIONS.register("constant")
@dataclass(frozen=True)
class Constant(RateDistribution):
    """Give every client the same rate.

    Parameters
    ----------
    rate
        Share of wrong labels, from 0 to 1.
    """

    rate: float

    def __post_init__(self) -> None:
        check_share("rate", self.rate)

    def __call__(self, num_clients: int, rng: np.random.Generator) -> Rates:
        """Return ``rate`` for each client."""
        return np.full(num_clients, float(self.rate))


@dataclass(frozen=True)
class _Range(RateDistribution):
    """Rates from ``min`` to ``max``.

    Parameters
    ----------
    max
        Largest rate.
    min
        Smallest rate.
    """

    max: float
    min: float = 0.0

    def __post_init__(self) -> None:
        check_share("min", self.min)
        check_share("max", self.max)
        if self.min > self.max:
            raise NoiseError(f"min = {self.min:g} must not be above max = {self.max:g}")


@RATE_DISTRIBUTIONS.register("linear", "Jiang et al. (FNBench), 2025", "https://arxiv.org/abs/2505.06684")
@dataclass(frozen=True)
class Linear(_Range):
    """Spread the rates evenly: min for the first client up to max for the last.

    A single client gets ``max`` (``min`` if official).

    Parameters
    ----------
    official
        Whether the rates are those of published codes, which divide by n instead of n - 1: no client reaches ``max``.
    """

    official: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("official", self.official)

    def __call__(self, num_clients: int, rng: np.random.Generator) -> Rates:
        """Return ``min + k (max - min) / (n - 1)`` for client k."""
        if num_clients == 1 and not self.official:
            return np.array([float(self.max)])
        return np.linspace(self.min, self.max, num_clients, endpoint=not self.official)


@RATE_DISTRIBUTIONS.register("uniform", "Liang et al. (FedNoisy), 2023", "https://arxiv.org/abs/2306.11650")
@dataclass(frozen=True)
class Uniform(_Range):
    """Draw each client's rate uniformly between min and max."""

    def __call__(self, num_clients: int, rng: np.random.Generator) -> Rates:
        """Return independent draws from U(min, max)."""
        return rng.uniform(self.min, self.max, num_clients)


@RATE_DISTRIBUTIONS.register("bernoulli", "Xu et al. (FedCorr), CVPR 2022", "https://arxiv.org/abs/2204.04677")
@dataclass(frozen=True)
class Bernoulli(RateDistribution):
    """Make a client noisy with probability rho; a noisy one has a rate between tau and 1.

    Parameters
    ----------
    rho
        Probability that a client is noisy.
    tau
        Smallest rate of a noisy client; it is drawn from U(tau, 1).
    """

    rho: float
    tau: float

    def __post_init__(self) -> None:
        check_share("rho", self.rho)
        check_share("tau", self.tau)

    def __call__(self, num_clients: int, rng: np.random.Generator) -> Rates:
        """Return 0, or a draw from U(tau, 1) with probability rho."""
        noisy = rng.random(num_clients) < self.rho
        return np.where(noisy, rng.uniform(self.tau, 1.0, num_clients), 0.0)


@RATE_DISTRIBUTIONS.register("groups")
@dataclass(frozen=True)
class Groups(RateDistribution):
    """Give each group of consecutive clients a distribution of its own.

    Without a ``distribution`` a group's ``rate`` is constant.

    Example: ``winnow run noise.rates=groups noise.rates-args='groups = [{ clients = 15, rate = 0.0 }, { clients =
    5, rate = 0.4 }]'``

    Parameters
    ----------
    groups
        Tables with the number of ``clients``, and a ``rate`` or a ``distribution`` with its arguments.
    """

    groups: Sequence[Mapping[str, Any]]
    data_root: Path = Path()

    def __post_init__(self) -> None:
        self._distributions()

    def _distributions(self) -> list[tuple[int, RateDistribution]]:
        read = read_groups(self.groups, "distribution", default="constant")
        return [
            (group.clients, RATE_DISTRIBUTIONS.build(group.choice, group.args, data_root=self.data_root))
            for group in read
        ]

    def __call__(self, num_clients: int, rng: np.random.Generator) -> Rates:
        """Return the groups' rates one after the other.

        Raises
        ------
        NoiseError
            If the groups do not add up to ``num_clients``.
        """
        distributions = self._distributions()
        total = sum(clients for clients, _ in distributions)
        if total != num_clients:
            raise NoiseError(
                f"the groups of the noise-rate distribution hold {total} clients, but there are {num_clients}"
            )
        return np.concatenate([distribution(clients, rng) for clients, distribution in distributions])


@RATE_DISTRIBUTIONS.register("table")
@dataclass(frozen=True)
class Table(RateDistribution):
    """Read each client's rate from a CSV file with the columns client,rate, clients counted from 0.

    Example: ``winnow run noise.rates=table noise.rates-args='path = "rates.csv"'``

    Parameters
    ----------
    path
        The file, below the data folder and relative to it.
    """

    path: str
    data_root: Path = Path()

    def __call__(self, num_clients: int, rng: np.random.Generator) -> Rates:
        """Return the rates in the file.

        Raises
        ------
        NoiseError
            If the file lies elsewhere, cannot be read, or does not name every client exactly once.
        """
        file = below(self.data_root, self.path)
        rates: dict[int, float] = {}
        for line, (client, rate) in enumerate(self._rows(file), start=2):
            try:
                number, value = int(client), float(rate)
            except ValueError:
                raise NoiseError(
                    f"{file}, line {line}: expected client,rate such as 3,0.4, not {client},{rate}"
                ) from None
            check_share(f"{file}, line {line}: the rate", value)
            if number in rates or not 0 <= number < num_clients:
                raise NoiseError(f"{file}, line {line}: expected each client 0..{num_clients - 1} once, not {number}")
            rates[number] = value
        if len(rates) < num_clients:
            missing = [client for client in range(num_clients) if client not in rates]
            raise NoiseError(f"{file} has no rate for the clients {missing[:10]}")
        return np.array([rates[client] for client in range(num_clients)])

    @staticmethod
    def _rows(file: Path) -> list[tuple[str, str]]:
        try:
            text = file.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise NoiseError(f"cannot read the noise rates in {file}: {error}") from error
        rows = list(csv.DictReader(text.splitlines()))
        if any(row.get("client") is None or row.get("rate") is None for row in rows):
            raise NoiseError(f"{file} must have the columns client,rate")
        return [(row["client"], row["rate"]) for row in rows]


@NOISES.register("mixed", "Jiang et al. (FNBench), 2025", "https://arxiv.org/abs/2505.06684")
def mixed(
    groups: Sequence[Mapping[str, Any]],
    num_classes: int,
    rate: float,
    client: int,
    class_names: Sequence[str] = (),
    data_root: Path = Path(),
) -> LabelNoise:
    """Give each group of clients a noise of its own.

    ``client`` is the number of the client that asks.

    Example: ``winnow run noise.name=mixed noise.args='groups = [{ clients = 10, noise = "symmetric" }, { clients =
    10, noise = "pair-flip" }]'``

    Parameters
    ----------
    groups
        Tables with the number of ``clients``, a ``noise`` and its arguments.

    Raises
    ------
    NoiseError
        If the groups do not reach ``client``, or cannot be read.
    PluginError
        If a group's noise is unknown or refuses its arguments.
    """
    read = read_groups(groups, "noise")
    for group in read:
        if group.first <= client < group.first + group.clients:
            return NOISES.build(
                group.choice,
                group.args,
                num_classes=num_classes,
                rate=rate,
                client=client,
                class_names=class_names,
                data_root=data_root,
            )
    total = sum(group.clients for group in read)
    raise NoiseError(f"the groups hold {total} clients, but there is a client {client}; name a group for it")


@dataclass(frozen=True)
class Group:
    """Consecutive clients ``first`` .. ``first + clients - 1`` and the choice made for them, with its arguments."""

    first: int
    clients: int
    choice: str
    args: Mapping[str, Any]


def read_groups(groups: Sequence[Mapping[str, Any]], kind: str, default: str = "") -> list[Group]:
    """Read tables such as ``{clients = 5, distribution = "uniform", max = 0.4}``, ``kind`` is the key of the choice.

    Raises
    ------
    NoiseError
        If there is no group, or one lacks its number of clients or its choice.
    """
    example = f'groups = [{{clients = 5, {kind} = "..."}}, ...]'
    if isinstance(groups, str | Mapping) or not groups or not all(isinstance(table, Mapping) for table in groups):
        raise NoiseError(f"expected a list of tables, {example}, not {groups!r}")
    read: list[Group] = []
    first = 0
    for table in groups:
        clients, choice = table.get("clients"), table.get(kind, default)
        if type(clients) is not int or clients < 1:
            raise NoiseError(f"each group needs its number of clients, {example}, but one is {dict(table)!r}")
        if not choice:
            raise NoiseError(f"each group needs its {kind}, {example}, but one is {dict(table)!r}")
        args = {key: value for key, value in table.items() if key not in ("clients", kind)}
        read.append(Group(first, clients, choice, args))
        first += clients
    return read
