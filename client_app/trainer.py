"""Trainer: local training in plain PyTorch, the reference path on any device, and the batch losses it minimises."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain

import torch
from torch import Tensor, nn

from client_app.acceleration import CHANNELS_LAST, compiled, laid_out_inputs, lay_out
from client_app.batch_splits import has_batch_norm, single_example, split_batches
from client_app.decorrelation import feature_correlation
from client_app.losses import GlobalParameters, Objective, Penalties
from client_app.optimizers import ADAM, LocalOptimizer, make_optimizer
from tasks.base import ClientData, Task, predict
from tasks.features import recorded_features
from tasks.images import ImageTask
from tasks.seeds import torch_seed
from tasks.settings import TrainSettings

logger = logging.getLogger(__name__)

PREDICTION_BATCH = 512


@dataclass(frozen=True)
class LocalData:
    """A client's examples on its device: raw ``features`` (n, ...) and given ``labels`` (n,)."""

    features: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Batch:
    """Some of a client's examples: their ``indices`` (B,), raw ``features`` (B, ...) and given ``labels`` (B,).

    ``deep_features`` (B, F), float32, are what the model's last layer was given; only for a batch loss that
    ``needs_features``.
    """

    indices: Tensor
    features: Tensor
    labels: Tensor
    deep_features: Tensor | None = None

    def __len__(self) -> int:
        return len(self.indices)


class BatchLoss(ABC):
    """What training minimises, batch by batch; subclass it for a method whose loss depends on which example it sees."""

    needs_inputs: bool = False
    """Whether ``inputs`` must require a gradient during the forward pass."""
    needs_features: bool = False
    """Whether the batch must hold ``deep_features``."""

    def transform_inputs(self, batch: Batch, inputs: Tensor) -> Tensor:
        """Return what the model is given in place of ``inputs`` (B, ...), float32; the default changes nothing."""
        return inputs

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return the scalar to minimise on one batch.

        Parameters
        ----------
        model
            The model being trained.
        batch
            The examples.
        inputs
            What the model was given, float32, (B, ...).
        logits
            What it answered, float32, (B, K).
        """

    def apart(self, model: nn.Module) -> Penalties | None:
        """Return what is added to the loss after the backward pass; ``loss`` then leaves it out. The default is None.

        The trainer asks before each call of ``loss``.
        """
        return None

    def end_step(self) -> None:
        """Do what is due after each step of the optimizer; the default does nothing."""
        return

    def end_epoch(self) -> None:
        """Do what is due between two epochs; the default does nothing."""
        return


class GivenLabels(BatchLoss):
    """Minimise an objective on the labels as they were given, also by what its loss learns itself.

    ``global_parameters`` are those received, by name, for the regularizers that measure a distance to them.
    """

    def __init__(self, objective: Objective, global_parameters: GlobalParameters) -> None:
        self._objective = objective
        self._global_parameters = global_parameters
        self.needs_inputs = objective.needs_inputs
        learned = list(objective.loss.parameters().values())
        self._own = ADAM(learned, objective.loss.parameter_rate) if learned else None
        self._apart: Penalties | None = None

    def loss(self, model: nn.Module, batch: Batch, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return the objective, without the penalties that were asked for :meth:`apart`; see :class:`BatchLoss`."""
        if self._apart is not None:
            return self._objective.data_term(logits, batch.labels, inputs=inputs)
        return self._objective(logits, batch.labels, model, self._global_parameters, inputs=inputs)

    def apart(self, model: nn.Module) -> Penalties | None:
        """Return the objective's penalties, unless a subclass does something with the whole in its ``loss``."""
        if self._apart is None and type(self).loss is GivenLabels.loss and (terms := self._objective.penalties()):
            self._apart = Penalties(terms, model, self._global_parameters)
        return self._apart

    @property
    def objective(self) -> Objective:
        """What is minimised."""
        return self._objective

    def end_step(self) -> None:
        """Move what the loss learns itself."""
        if self._own is not None:
            self._own.step()
            self._own.zero_grad(set_to_none=True)


@dataclass(frozen=True)
class Trained:
    """What an epoch loop did: mean loss over all examples seen, and the number of optimizer steps."""

    loss: float
    steps: int


def pick_device(wanted: str) -> torch.device:
    """Return the wanted device; ``auto`` takes cuda, then mps, then cpu.

    Raises
    ------
    ValueError
        If a device is asked for that this machine does not have.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(name for name, here in present.items() if here))
    if not present[wanted]:
        here = ", ".join(name for name, is_here in present.items() if is_here)
        raise ValueError(f"train.device = {wanted!r}, but this machine has only: {here}")
    return torch.device(wanted)


def to_device(data: ClientData, device: torch.device) -> LocalData:
    """Copy a client's examples to its device, where they stay for the round."""
    return LocalData(data.features.to(device), torch.from_numpy(data.labels).to(device))


def learning_rate(options: TrainSettings, server_round: int, num_rounds: int) -> float:
    """Return the learning rate of a round (1-based): constant, cosine to zero, or divided at every step.

    Cosine: rate * (1 + cos(pi * (r - 1) / R)) / 2 (Loshchilov and Hutter, ICLR 2017, without restarts).
    """
    if options.schedule == "cosine":
        horizon = options.schedule_rounds or num_rounds
        return options.learning_rate * (1 + math.cos(math.pi * min(server_round - 1, horizon) / horizon)) / 2
    if options.schedule == "step":
        return float(options.learning_rate * options.step_factor ** ((server_round - 1) // options.step_rounds))
    return options.learning_rate


class Trainer:
    """Runs epochs of one client in one round; every random draw comes from (seed, "train", client, round)."""

    def __init__(self, task: Task, options: TrainSettings, device: torch.device) -> None:
        self.task = task
        self.options = options
        self.device = device

    def fit(
        self,
        model: nn.Module,
        data: LocalData,
        objective: Objective,
        global_parameters: GlobalParameters,
        rate: float,
        stream: tuple[int, ...],
    ) -> Trained:
        """Train ``model`` in place on the given labels, for the configured epochs at learning rate ``rate``.

        ``global_parameters`` holds the received global parameters by name; ``stream`` is (seed, client, round).
        """
        return self.run(model, data, GivenLabels(objective, global_parameters), rate, stream)

    def run(
        self, model: nn.Module, data: LocalData, batch_loss: BatchLoss, rate: float, stream: tuple[int, ...]
    ) -> Trained:
        """Train ``model`` in place on any batch loss; see :meth:`fit`."""
        model.to(self.device).train()
        channels_last = self.options.precision.endswith(CHANNELS_LAST)
        if channels_last:
            lay_out(model, channels_last)
        seed, *names = stream
        optimizer = make_optimizer(model, self.options, rate)
        total = torch.zeros((), device=self.device)
        seen = steps = 0
        for epoch in self.epochs(model, data, torch_seed(seed, "train", *names)):
            for batch in epoch:
                loss = self.step(model, optimizer, batch_loss, batch)
                total += loss.detach() * len(batch)
                seen, steps = seen + len(batch), steps + 1
            batch_loss.end_epoch()
        if channels_last:
            lay_out(model, False)
        return Trained(total.item() / max(seen, 1), steps)

    def batches(self, model: nn.Module, data: LocalData, seed: int) -> Iterator[Batch]:
        """Yield every batch of every epoch, augmented."""
        return chain.from_iterable(self.epochs(model, data, seed))

    def epochs(self, model: nn.Module, data: LocalData, seed: int) -> Iterator[Iterator[Batch]]:
        """Yield the augmented batches of each epoch, reshuffled each time; exhaust one epoch before the next."""
        changes = torch.Generator(self.device).manual_seed(seed ^ 1)  # another stream than the order's
        for parts in self.orders(len(data), seed, has_batch_norm(model)):
            yield (self._batch(data, part, changes) for part in parts)

    def orders(self, count: int, seed: int, batch_norm: bool = False) -> Iterator[list[Tensor]]:
        """Yield which of ``count`` examples are in each batch of each epoch, (B,) on the device."""
        order = torch.Generator().manual_seed(seed)
        for _ in range(self.options.epochs):
            shuffled = torch.randperm(count, generator=order).to(self.device)
            yield split_batches(shuffled, self.options, batch_norm)

    def _batch(self, data: LocalData, indices: Tensor, changes: torch.Generator) -> Batch:
        features = data.features[indices]
        shown = self.task.augment(features, changes) if self.options.augment else features
        return Batch(indices, shown, data.labels[indices])

    def step(self, model: nn.Module, optimizer: LocalOptimizer, batch_loss: BatchLoss, batch: Batch) -> Tensor:
        """Take one optimizer step and return the loss before it."""
        optimizer.zero_grad()
        penalties = batch_loss.apart(model)
        inputs = batch_loss.transform_inputs(batch, self.task.prepare(batch.features))
        inputs = laid_out_inputs(inputs, self.options.precision)
        if batch_loss.needs_inputs:
            inputs.requires_grad_()
        with single_example(model) if len(batch) == 1 else nullcontext():
            value = self._value(batch_loss, batch)(model, batch_loss, batch, inputs, self.options.precision)
        value.backward()  # type: ignore[no-untyped-call]
        if penalties is not None:
            value = penalties.add(value.detach())
        if self.options.clip_norm:
            optimizer.clip(self.options.clip_norm)
        optimizer.step()
        batch_loss.end_step()
        return value

    def _value(self, batch_loss: BatchLoss, batch: Batch) -> Callable[..., Tensor]:
        """Return what computes the loss; a last batch that is not full is not worth compiling for."""
        if batch_loss.needs_features or self.options.decorrelation:
            if self.options.engine == "compile":
                say_that_it_is_eager("a loss on features")
            return partial(value_of_features, decorrelation=self.options.decorrelation)
        if self.options.engine != "compile" or len(batch) != self.options.batch_size:
            return batch_value
        if type(batch_loss) is not GivenLabels or batch_loss.needs_inputs:
            say_that_it_is_eager(type(batch_loss).__name__)
            return batch_value
        return compiled(batch_value, self.device.type)

    def view(self, features: Tensor, changes: torch.Generator, strong: bool = False) -> Tensor:
        """Return another randomly changed view of raw examples (B, ...), as the model takes it.

        The augmentation is the task's, or its strong one; ``changes``, on the trainer's device, is the source of draws.

        Raises
        ------
        ValueError
            If the task has no strong augmentation and it is asked for.
        """
        if strong and not isinstance(self.task, ImageTask):
            raise ValueError(f"a strong augmentation is there for tasks of images, {type(self.task).__name__} is none")
        augment = self.task.strong_augment if strong and isinstance(self.task, ImageTask) else self.task.augment
        return laid_out_inputs(self.task.prepare(augment(features, changes)), self.options.precision)

    def answers(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Return the logits (B, K) of prepared inputs, in float32: a further forward pass within a batch loss."""
        return answers(model, inputs, self.options.precision).float()

    def probabilities(self, model: nn.Module, data: LocalData) -> Tensor:
        """Return the class probabilities (n, K) of a client's examples: evaluation mode, no augmentation, float32."""
        logits = predict(model, self.task, data.features, PREDICTION_BATCH, self.device)
        return torch.softmax(logits, dim=1).to(self.device)


def batch_value(model: nn.Module, batch_loss: BatchLoss, batch: Batch, inputs: Tensor, precision: str) -> Tensor:
    """Return the loss of a batch, which is differentiable; ``inputs`` (B, ...) are what the model is given."""
    return batch_loss.loss(model, batch, inputs, answers(model, inputs, precision).float())


def answers(model: nn.Module, inputs: Tensor, precision: str) -> Tensor:
    """Return the logits of inputs (B, ...), computed in the number format ``precision``."""
    if precision.startswith("bfloat16"):
        with torch.autocast(inputs.device.type, torch.bfloat16):
            logits: Tensor = model(inputs)
    else:
        logits = model(inputs)
    return logits


def value_of_features(
    model: nn.Module, batch_loss: BatchLoss, batch: Batch, inputs: Tensor, precision: str, decorrelation: float
) -> Tensor:
    """Return :func:`batch_value` for a loss that looks at the features too, plus their weighted decorrelation."""
    with recorded_features(model) as record:
        logits = answers(model, inputs, precision)
        features = record.of(logits)
    value = batch_loss.loss(model, replace(batch, deep_features=features), inputs, logits.float())
    return value + decorrelation * feature_correlation(features) if decorrelation else value


@cache
def say_that_it_is_eager(kind: str) -> None:
    """Log that a kind of training is not compiled, once in a process."""
    logger.warning(
        "train.engine = compile: %s is not compiled, only a loss on given labels is; it trains as eager", kind
    )
