"""Attacks: what a hostile client does in a round in place of honest training.

An attack is of one of three kinds, by what the hostile client needs to know:

- :class:`DataAttack` changes the client's examples and then trains on them as everybody does;
- :class:`UpdateAttack` trains honestly and changes the result;
- :class:`CollusionAttack` makes one update from the honest updates of all hostile clients, and all of them send it.

An update is the trained minus the received parameters, one vector (P,), in the order of ``model.parameters()``. Only
floating-point parameters are in it: buffers such as BatchNorm statistics are sent as training left them. So are named
arrays of a method (:mod:`tasks.extra_arrays`); with several networks the update is that of all of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from client_app.methods import State
from tasks.base import ClientData, Examples
from tasks.issues import ERROR, Component, Issue, RunContext
from tasks.plugins import Registry
from tasks.seeds import rng
from tasks.settings import Settings


@dataclass(frozen=True)
class FederationFacts:
    """What the attackers know about the federation: how many they are, and what is learned.

    ``brightest`` is the stored value of a white pixel, None where features are no images.
    """

    num_clients: int
    num_hostile: int
    num_classes: int
    brightest: int | None = None


@dataclass(frozen=True)
class LocalUpdate:
    """What training gave: the update (P,), the buffers by name, the metrics to report and the method's state.

    The update and the buffers are those of all networks, one after the other; ``arrays`` are the method's named ones.
    """

    update: Tensor
    buffers: Mapping[str, Tensor]
    metrics: dict[str, float]
    state: State = field(default_factory=dict)
    arrays: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)


class Rule(Protocol):
    """The server's aggregator, for a round with ``num_honest`` honest clients and copies of one hostile update."""

    num_honest: int

    def __call__(self, honest: Tensor, sent: Tensor) -> Tensor:
        """Return what the server makes (P,) of honest updates (H, P) and copies of a hostile one (P,)."""


BuildRule = Callable[[Settings, Collection[int]], Rule]
"""``(settings, ids of the hostile clients) -> rule`` of a run."""


def _make(make: Callable[[], Tensor]) -> Tensor:
    return make()


@dataclass(frozen=True)
class AttackContext:
    """What a hostile client sees and can do in one round.

    Attributes
    ----------
    data
        The client's own examples.
    draws
        The attack's own random stream; it differs between clients and rounds.
    train
        ``(data, effort) -> LocalUpdate``: honest training from the received weights on any examples, for ``effort``
        times the configured epochs.
    honest_updates
        ``() -> updates``: what honest training gives each of the m hostile clients, by its id and in the order of the
        ids. What the state of another client's method may be is unknown, so others train as in their first round.
    shared_draws
        A random stream that is the same for all hostile clients of a round.
    once
        ``(make) -> Tensor``: what ``make()`` returns, made once a round by each process where all hostile clients would
        make the same.
    rule
        The server's aggregator, for attacks that know it; None outside of a run.
    """

    data: ClientData
    facts: FederationFacts
    draws: np.random.Generator
    train: Callable[[ClientData, int], LocalUpdate]
    honest_updates: Callable[[], Mapping[int, LocalUpdate]]
    shared_draws: np.random.Generator = field(default_factory=lambda: rng(0, "collusion"))
    once: Callable[[Callable[[], Tensor]], Tensor] = _make
    rule: Rule | None = None


class Attack(Component, ABC):
    """Any attack. Derive your own from one of the three kinds, or from this class if none of them fits.

    ``changes_labels`` tells whether it is made of changed examples, one label each; ``knows_rule`` whether it is made
    against the server's aggregator, which it is then given.
    """

    changes_labels: ClassVar[bool] = False
    knows_rule: ClassVar[bool] = False

    @abstractmethod
    def act(self, context: AttackContext) -> LocalUpdate:
        """Return what the hostile client sends."""

    def issues(self, context: RunContext) -> list[Issue]:
        """Return which labels it cannot change; whether the federation allows it is :meth:`problem`."""
        if not (self.changes_labels and context.labels_pixels):
            return []
        text = f"attack {context.settings.attack.name} changes one label per example, and {context.pixels}"
        return [Issue(ERROR, "attack", text, "choose one that changes updates")]

    def problem(self, facts: FederationFacts) -> str:
        """Return why the attack cannot be made in such a federation; empty if it can."""
        return ""

    def probe(self, test: Examples, facts: FederationFacts) -> Examples | None:
        """Return test examples with the labels that the attackers want for them, or None if they want no such thing.

        The share of them that the global model predicts as wanted is measured as ``backdoor_success``.
        """
        return None


ATTACKS = Registry("attack", Attack)


class DataAttack(Attack):
    """Train on changed examples, as everybody does; the update is multiplied by ``scale``."""

    changes_labels: ClassVar[bool] = True
    scale: float

    @abstractmethod
    def poison(self, data: ClientData, facts: FederationFacts, draws: np.random.Generator) -> ClientData:
        """Return the examples to train on; ``data`` itself must not change."""

    def act(self, context: AttackContext) -> LocalUpdate:
        """Return the update that the changed examples lead to."""
        poisoned = context.train(self.poison(context.data, context.facts, context.draws), 1)
        return poisoned if self.scale == 1 else replace(poisoned, update=self.scale * poisoned.update)


class UpdateAttack(Attack):
    """Train honestly and change the update."""

    @abstractmethod
    def forge(self, update: Tensor, facts: FederationFacts, draws: np.random.Generator) -> Tensor:
        """Return what to send in place of the honest ``update``, both (P,)."""

    def act(self, context: AttackContext) -> LocalUpdate:
        """Return what honest training gives, with another update."""
        honest = context.train(context.data, 1)
        return replace(honest, update=self.forge(honest.update, context.facts, context.draws))


class CollusionAttack(Attack):
    """Send what all hostile clients agreed on, made from their honest updates."""

    @abstractmethod
    def agree(self, updates: Tensor, facts: FederationFacts) -> Tensor:
        """Return the common update (P,) from the m honest ones (m, P)."""

    def act(self, context: AttackContext) -> LocalUpdate:
        """Return what honest training gives, with the common update."""
        honest = context.honest_updates()
        common = self.agree(torch.stack([one.update for one in honest.values()]), context.facts)
        return replace(honest[context.data.client], update=common)
