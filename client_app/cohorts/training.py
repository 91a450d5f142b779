"""Cohort: several clients trained side by side, each step of all of them at once.

Every client sees its own batches in its own order and takes its own steps: gradient, clipping, penalties and momentum
are those of training it alone, equal to it within rounding. Small networks gain by it, because starting an operation
takes them longer than computing it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain

import torch
from torch import Tensor, nn

from client_app.cohorts.batch_losses import JointBatch, joint_loss
from client_app.cohorts.networks import StackedModel
from client_app.losses.joint import of_clients, squared_norms
from client_app.optimizers import ADAPTIVE, SGD, LocalOptimizer
from client_app.trainer import BatchLoss, LocalData, Trained, Trainer
from tasks.base import Task
from tasks.seeds import torch_seed
from tasks.settings import TrainSettings

PREPARED_BYTES = 256_000_000
"""As many bytes of a cohort's inputs are made once a round and kept; more of them are made anew for each batch."""


@dataclass(frozen=True)
class Member:
    """One client of a cohort: its ``model``, which it trains in place, its examples and what it minimises."""

    model: nn.Module
    trainer: Trainer
    local: LocalData
    batch_loss: BatchLoss
    rate: float
    stream: tuple[int, ...]

    @cached_property
    def steps(self) -> int:
        """How many steps its training has."""
        return sum(len(parts) for parts in self.trainer.orders(len(self.local), 0))

    @property
    def seed(self) -> int:
        """Seed of the order of its examples."""
        seed, *names = self.stream
        return torch_seed(seed, "train", *names)


def train_together(members: Sequence[Member]) -> list[Trained]:
    """Train the models of all members in place; returns what :meth:`Trainer.run` would, in their order.

    All start from the same weights, with the same options and learning rate, on batch losses of one kind.

    Raises
    ------
    NotJointError
        If their losses cannot be computed together; no model has changed.
    """
    order = sorted(range(len(members)), key=lambda place: -members[place].steps)
    cohort = Cohort([members[place] for place in order])
    while cohort.active:
        cohort.step()
    trained = dict(zip(order, cohort.trained(), strict=True))
    return [trained[place] for place in range(len(members))]


class Cohort:
    """The training of members, who are in the order of their steps, most first; those who are done drop out."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        trainer = members[0].trainer
        self._options, self._device = trainer.options, trainer.device
        self._model = StackedModel(members[0].model.to(self._device), len(members))
        self._optimizer = joint_optimizer(self._model.parameters, self._options, members[0].rate)
        self._loss = joint_loss([member.batch_loss for member in members])
        self._batches = Batches(members)
        self._totals = torch.zeros(len(members), device=self._device)
        self._seen = torch.zeros(len(members), device=self._device)
        self._done = 0
        self.active = len(members)
        self._drop_out()

    def step(self) -> None:
        """Take the next step of every client that has one."""
        self._optimizer.zero_grad()
        batch, inputs = self._batches.next(self.active)
        inputs = self._loss.transform_inputs(batch, inputs)
        values = self._loss(self._model, batch, inputs, self._model(inputs).float())
        values.sum().backward()  # type: ignore[no-untyped-call]
        if self._options.clip_norm:
            self._clip()
        self._optimizer.step()
        self._totals[: self.active] += values.detach() * batch.sizes
        self._seen[: self.active] += batch.sizes
        for member in self._members[: self.active]:
            member.batch_loss.end_step()
        self._done += 1
        self._drop_out()

    def trained(self) -> list[Trained]:
        """Return what training did, for each member."""
        losses = (self._totals / self._seen.clamp_min(1)).tolist()
        return [Trained(loss, member.steps) for loss, member in zip(losses, self._members, strict=True)]

    def _clip(self) -> None:
        gradients = [p.grad for p in self._model.parameters if p.grad is not None]
        share = self._options.clip_norm / (squared_norms(gradients).sqrt() + 1e-6)
        if self._device.type == "cpu" and bool((share >= 1).all()):
            return
        for gradient in gradients:
            gradient.mul_(of_clients(share.clamp(max=1.0), gradient))

    def _drop_out(self) -> None:
        """Hand their weights to the members who have taken all their steps, and go on without them."""
        left = sum(member.steps > self._done for member in self._members[: self.active])
        if left == self.active:
            return
        for place in range(left, self.active):
            self._model.write(place, self._members[place].model.to(self._device).train())
            self._batches.finish(place)
        self.active = left
        if left:
            self._model.narrow(left)
            self._optimizer.narrow(self._model.parameters, left)
            self._loss = joint_loss([member.batch_loss for member in self._members[:left]])


class JointSGD(SGD):
    """SGD of all models: each element moves by itself."""

    def narrow(self, parameters: Sequence[Tensor], count: int) -> None:
        """Keep what belongs to the first ``count`` models, whose ``parameters`` are new."""
        self.parameters = list(parameters)
        self._velocities = {place: velocity[:count] for place, velocity in self._velocities.items()}


class JointAdam(LocalOptimizer):
    """Adam or AdamW of torch, of all models: each element moves by itself, and all have taken as many steps."""

    def __init__(self, parameters: Sequence[Tensor], options: TrainSettings, rate: float) -> None:
        super().__init__(parameters, rate)
        self._make = partial(ADAPTIVE[options.optimizer], lr=rate, weight_decay=options.weight_decay, fused=True)
        self._inner = self._make(self.parameters)

    def step(self) -> None:
        """Move the parameters that have a gradient."""
        self._inner.step()

    def narrow(self, parameters: Sequence[Tensor], count: int) -> None:
        """Keep what belongs to the first ``count`` models, whose ``parameters`` are new."""
        before = self._inner.state_dict()["state"]
        self.parameters = list(parameters)
        self._inner = self._make(self.parameters)
        for place, parameter in enumerate(self.parameters):
            kept = before.get(place, {}).items()
            self._inner.state[parameter] = {name: _first(value, count) for name, value in kept}


def joint_optimizer(parameters: Sequence[Tensor], options: TrainSettings, rate: float) -> JointSGD | JointAdam:
    """Return a fresh optimizer for the stacked parameters of several models."""
    if options.optimizer == "sgd":
        return JointSGD(parameters, rate, options.momentum, options.weight_decay)
    return JointAdam(parameters, options, rate)


def _first(value: object, count: int) -> object:
    """Return the first clients' part of what an optimizer keeps; a count of steps is the same for all."""
    return value[:count] if isinstance(value, Tensor) and value.dim() else value


class Batches:
    """The batches of all members, step by step, and the inputs made of them.

    Where inputs do not change at random, they are made once and gathered for all members at once, if they are small.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._members, self._trainer = members, members[0].trainer
        self._changing = self._trainer.options.augment and type(self._trainer.task).augment is not Task.augment
        self._labels = torch.cat([member.local.labels for member in members])
        counts = torch.tensor([len(member.local) for member in members])
        self._starts = (counts.cumsum(0) - counts).to(self._trainer.device)[:, None]
        self._inputs = None if self._changing else self._prepared()
        self._parts = [self._of(member) for member in members]

    def next(self, count: int) -> tuple[JointBatch, Tensor]:
        """Return the next batch of each of the first ``count`` members, and the inputs (C, B, ...)."""
        parts = [next(part) for part in self._parts[:count]]
        indices = [indices for indices, _ in parts]
        sizes = [len(own) for own in indices]
        places = torch.stack([_padded(own, max(sizes)) for own in indices])
        rows = places + self._starts[:count]
        size = torch.tensor(sizes, device=places.device)
        share = (torch.arange(max(sizes), device=places.device) < size[:, None]).float()
        batch = JointBatch(indices, self._labels[rows], share, size.float())
        if self._inputs is not None:
            return batch, _by_client(self._inputs.index_select(0, rows.flatten()), rows)
        raw = torch.cat([_padded(features, max(sizes)) for _, features in parts])
        return batch, _by_client(self._trainer.task.prepare(raw), rows)

    def finish(self, place: int) -> None:
        """End the last epoch of a member that has taken all its steps."""
        assert next(self._parts[place], None) is None

    def _prepared(self) -> Tensor | None:
        """Return the inputs of all members' examples, one member after the other; None if they are too large."""
        task = self._trainer.task
        one = task.prepare(self._members[0].local.features[:1])
        if one.nbytes * len(self._labels) > PREPARED_BYTES:
            return None
        inputs = one.new_empty(len(self._labels), *one.shape[1:])
        done = 0
        for features in chain.from_iterable(torch.split(member.local.features, 512) for member in self._members):
            inputs[done : done + len(features)] = task.prepare(features)
            done += len(features)
        return inputs

    def _of(self, member: Member) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a member's batches: the indices (b,) and, where inputs are not made yet, the features (b, ...)."""
        nothing = member.local.labels[:0]
        if self._inputs is not None:
            for parts in member.trainer.orders(len(member.local), member.seed):
                yield from ((part, nothing) for part in parts)
                member.batch_loss.end_epoch()
            return
        for epoch in member.trainer.epochs(member.model, member.local, member.seed):
            yield from ((batch.indices, batch.features) for batch in epoch)
            member.batch_loss.end_epoch()


def _by_client(values: Tensor, rows: Tensor) -> Tensor:
    """Return ``values`` (C B, ...) as (C, B, ...), the shape of ``rows``."""
    return values.view(*rows.shape, *values.shape[1:])


def _padded(values: Tensor, size: int) -> Tensor:
    """Return ``values`` (b, ...) with the first one repeated at the end, (size, ...)."""
    missing = size - len(values)
    return torch.cat([values, values[:1].expand(missing, *values.shape[1:])]) if missing else values
