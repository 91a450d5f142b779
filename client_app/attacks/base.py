"""What an attack is: what a hostile client does in a round in place of honest training.

An attack is of one of three kinds, by what the hostile client needs to know:

- :class:`DataAttack` changes the client's examples and then trains on them as everybody does;
- :class:`UpdateAttack` trains honestly and changes the result;
- :class:`CollusionAttack` makes one update from the honest updates of all hostile clients, and all of them send it.

An update is the trained minus the received parameters, one vector (P,), in the order of ``model.parameters()``. Only
floating-point parameters are in it: buffers such as BatchNorm statistics are sent as training left them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from client_app.methods import State
from tasks.base import ClientData, Examples
from tasks.issues import ERROR, Component, Issue, RunContext
from tasks.plugins import Registry


@dataclass(frozen=True)
class Facts:
    """What the attackers know about the federation: how many they are, and what is learned.

    ``brightest`` is the stored value of a white pixel, None where features are no images.
    """

    num_clients: int
    num_hostile: int
    num_classes: int
    brightest: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What training gave: the update (P,), the buffers by name, the metrics to report and the method's state."""

    update: Tensor
    buffers: Mapping[str, Tensor]
    metrics: dict[str, float]
    state: State = field(default_factory=dict)


@dataclass(frozen=True)
class Scene:
    """What a hostile client sees and can do in one round.

    Attributes
    ----------
    data
        The client's own examples.
    draws
        The attack's own random stream; it differs between clients and rounds.
    train
        ``(data, effort) -> Outcome``: honest training from the received weights on any examples, for ``effort`` times
        the configured epochs.
    pool
        ``() -> outcomes``: the honest outcome of each of the m hostile clients by its id, in the order of the ids. What
        the state of another client's method may be is unknown, so others train as in their first round.
    """

    data: ClientData
    facts: Facts
    draws: np.random.Generator
    train: Callable[[ClientData, int], Outcome]
    pool: Callable[[], Mapping[int, Outcome]]


class Attack(Component, ABC):
    """Any attack. Derive your own from one of the three kinds, or from this class if none of them fits.

    ``changes_labels`` tells whether it is made of changed examples, one label each.
    """

    changes_labels: ClassVar[bool] = False

    @abstractmethod
    def act(self, scene: Scene) -> Outcome:
        """Return what the hostile client sends."""

    def issues(self, context: RunContext) -> list[Issue]:
        """Return which labels it cannot change; whether the federation allows it is :meth:`problem`."""
        if not (self.changes_labels and context.labels_pixels):
            return []
        text = f"attack {context.settings.attack.name} changes one label per example, and {context.pixels}"
        return [Issue(ERROR, "attack", text, "choose one that changes updates")]

    def problem(self, facts: Facts) -> str:
        """Return why the attack cannot be made in such a federation; empty if it can."""
        return ""

    def probe(self, test: Examples, facts: Facts) -> Examples | None:
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
    def poison(self, data: ClientData, facts: Facts, draws: np.random.Generator) -> ClientData:
        """Return the examples to train on; ``data`` itself must not change."""

    def act(self, scene: Scene) -> Outcome:
        """Return the update that the changed examples lead to."""
        outcome = scene.train(self.poison(scene.data, scene.facts, scene.draws), 1)
        return outcome if self.scale == 1 else replace(outcome, update=self.scale * outcome.update)


class UpdateAttack(Attack):
    """Train honestly and change the update."""

    @abstractmethod
    def forge(self, update: Tensor, facts: Facts, draws: np.random.Generator) -> Tensor:
        """Return what to send in place of the honest ``update``, both (P,)."""

    def act(self, scene: Scene) -> Outcome:
        """Return the honest outcome with another update."""
        outcome = scene.train(scene.data, 1)
        return replace(outcome, update=self.forge(outcome.update, scene.facts, scene.draws))


class CollusionAttack(Attack):
    """Send what all hostile clients agreed on, made from their honest updates."""

    @abstractmethod
    def agree(self, updates: Tensor, facts: Facts) -> Tensor:
        """Return the common update (P,) from the m honest ones (m, P)."""

    def act(self, scene: Scene) -> Outcome:
        """Return the honest outcome with the common update."""
        pool = scene.pool()
        common = self.agree(torch.stack([outcome.update for outcome in pool.values()]), scene.facts)
        return replace(pool[scene.data.client], update=common)
