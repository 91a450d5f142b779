"""Noise of one client: its rate from the noise-rate distribution, its labels from its own random stream."""

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.base import Labels
from tasks.issues import WARNING, Issue
from tasks.noise.base import NOISES, Features, LabelNoise, NoiseError, NoiseWarning
from tasks.noise.rates import RATE_DISTRIBUTIONS, Rates
from tasks.seeds import rng
from tasks.settings import AUTO, NoiseSettings

NO_NOISE = "none"
SIMULATED_NOISE = "symmetric"
"""What a data set with clean labels gets unless told otherwise: without wrong labels there is nothing to compare."""


class GivenData(NamedTuple):
    """What a client is given: labels (n,), examples (n, ...), and which examples (m,) come from outside the task."""

    labels: Labels
    features: Features
    replaced: Labels


@dataclass(frozen=True)
class FederatedNoise:
    """Which noise the clients of a federation have, and how much; the same for every process that builds it.

    ``noise`` and ``distribution`` are names in NOISES and RATE_DISTRIBUTIONS, their arguments inline TOML.
    """

    seed: int
    num_clients: int
    num_classes: int
    noise: str
    noise_args: str = ""
    distribution: str = "constant"
    rates_args: str = "rate = 0.0"
    class_names: Sequence[str] = ()
    data_root: Path = Path()

    def rates(self) -> Rates:
        """Return the noise rate that the distribution gives to each client, (num_clients,).

        Raises
        ------
        PluginError
            If the distribution is unknown, or refuses its arguments.
        NoiseError
            If a distribution of the user's own returns something else than rates.
        """
        distribution = RATE_DISTRIBUTIONS.build(self.distribution, self.rates_args, data_root=self.data_root)
        rates = np.asarray(distribution(self.num_clients, rng(self.seed, "noise-law")))
        if rates.shape != (self.num_clients,) or not ((rates >= 0) & (rates <= 1)).all():
            raise NoiseError(
                f"noise-rate distribution {self.distribution!r} must return {self.num_clients} rates between 0 and 1, "
                f"got shape {rates.shape} with values from {rates.min():g} to {rates.max():g}"
            )
        return rates

    def of(self, client: int) -> LabelNoise:
        """Build the noise of client number ``client`` (0 to num_clients - 1).

        Raises
        ------
        PluginError
            If noise or distribution is unknown, or refuses its arguments.
        """
        assert 0 <= client < self.num_clients, f"client {client} of {self.num_clients}"
        return NOISES.build(
            self.noise,
            self.noise_args,
            num_classes=self.num_classes,
            rate=float(self.rates()[client]),
            client=client,
            class_names=self.class_names,
            data_root=self.data_root,
        )

    def issues(self) -> list[Issue]:
        """Say in one issue at how many clients no method can see the true labels, if at any (:class:`NoiseWarning`)."""
        found = {client: reasons[0] for client in range(self.num_clients) if (reasons := self._warnings(client))}
        if not found:
            return []
        first, reason = next(iter(found.items()))
        count = f"{len(found)} of {self.num_clients} clients"
        return [Issue(WARNING, "noise", f"{count} have labels that hide the true ones. Client {first}: {reason}")]

    def _warnings(self, client: int) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", NoiseWarning)
            self.of(client)
        return [str(warning.message) for warning in caught if issubclass(warning.category, NoiseWarning)]

    def apply(self, client: int, labels: Labels, features: Features, ids: Labels) -> GivenData:
        """Return what a client is given instead of its true labels and examples.

        Parameters
        ----------
        client
            Number of the client; its random stream depends on nothing but this and the seed.
        labels, features, ids
            The client's true labels, its examples, and their places in the whole data set.

        Raises
        ------
        NoiseError
            If labels or examples do not fit the noise, or a noise of the user's own returns something else than labels.
        """
        noise = self.of(client)
        given = noise(labels.copy(), rng(self.seed, "noise", client), features=features, ids=ids)
        self._check_given(given, labels)
        return GivenData(given, *noise.replace_features(features, rng(self.seed, "noise-features", client)))

    def _check_given(self, given: Labels, labels: Labels) -> None:
        label = f"noise {self.noise!r} must return"
        if not isinstance(given, np.ndarray) or given.dtype != np.int64 or given.shape != labels.shape:
            found = f"{given.dtype} of shape {given.shape}" if isinstance(given, np.ndarray) else type(given).__name__
            raise NoiseError(f"{label} int64 labels of shape {labels.shape}, got {found}")
        outside = (given != labels) & ((given < 0) | (given >= self.num_classes))
        if outside.any():
            raise NoiseError(f"{label} labels in 0..{self.num_classes - 1}, got {given[outside][0]}")


def chosen_noise(name: str, keeps_labels: bool) -> str:
    """Return the noise that ``noise.name`` means: ``auto`` adds none where a task keeps its labels as they are."""
    if name != AUTO:
        return name
    return NO_NOISE if keeps_labels else SIMULATED_NOISE


def unasked_issues(settings: NoiseSettings) -> list[Issue]:
    """Return the settings of the noise that were changed although there is none, as ``noise.name`` names none."""
    if settings.name != AUTO:
        return []
    default = NoiseSettings()
    changed = [name for name in ("args", "rates", "rates_args") if getattr(settings, name) != getattr(default, name)]
    text = "has no effect: the labels of this task are kept unless noise.name says how to make them wrong"
    remedy = f"set noise.name={SIMULATED_NOISE}, or leave it out"
    keys = [f"noise.{name.replace('_', '-')}" for name in changed]
    return [Issue(WARNING, key, f"{key} {text}", remedy) for key in keys]


def rate_issues(settings: NoiseSettings) -> list[Issue]:
    """Return that the distribution has no effect, because the noise has rates of its own; none for no noise at all."""
    default = NoiseSettings()
    changed = (settings.rates, settings.rates_args) != (default.rates, default.rates_args)
    if settings.name in (NO_NOISE, AUTO) or uses_rates(settings.name) or not changed:
        return []
    text = f"noise.rates has no effect: {settings.name} noise has a rate of its own"
    return [Issue(WARNING, "noise.rates", text)]


def uses_rates(noise: str) -> bool:
    """Tell whether a noise takes its rate from the distribution; human labels, for example, have their own."""
    return "rate" in inspect.signature(NOISES.find(noise)).parameters
