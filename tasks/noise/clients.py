"""The noise of one client: its rate from the law, its labels from its own random stream."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tasks.noise.base import NOISES, Features, LabelNoise, Labels
from tasks.noise.laws import LAWS, Rates
from tasks.seeds import rng


class GivenData(NamedTuple):
    """What a client is given: labels (n,), examples (n, ...), and which examples (m,) come from outside the task."""

    labels: Labels
    features: Features
    replaced: Labels


@dataclass(frozen=True)
class FederatedNoise:
    """Which noise the clients of a federation have, and how much; the same for every process that builds it.

    ``noise`` and ``law`` are names in :data:`NOISES` and :data:`LAWS`, their arguments inline TOML.
    """

    seed: int
    num_clients: int
    num_classes: int
    noise: str
    noise_args: str = ""
    law: str = "constant"
    law_args: str = "rate = 0.0"
    class_names: Sequence[str] = ()
    data_root: Path = Path()

    def rates(self) -> Rates:
        """Return the noise rate that the law gives to each client, (num_clients,)."""
        law = LAWS.build(self.law, self.law_args, data_root=self.data_root)
        return law(self.num_clients, rng(self.seed, "noise-law"))

    def of(self, client: int) -> LabelNoise:
        """Build the noise of client number ``client`` (0 to num_clients - 1).

        Raises
        ------
        PluginError
            If noise or law is unknown, or refuses its arguments.
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
            If labels or examples do not fit the noise.
        """
        noise = self.of(client)
        given = noise(labels, rng(self.seed, "noise", client), features=features, ids=ids)
        return GivenData(given, *noise.replace_features(features, rng(self.seed, "noise-features", client)))


def obeys_law(noise: str) -> bool:
    """Tell whether a noise takes its rate from the law; human labels, for example, have a rate of their own."""
    return "rate" in inspect.signature(NOISES.find(noise)).parameters
