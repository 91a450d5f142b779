"""Client methods, what they have in common: what a client does in a round.

A method is init and fit with explicit state: ``init_state`` once, then ``fit`` takes the state and returns the
next one. The state is a dictionary of arrays, so that it can be kept between rounds and across restarts.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from client_app.losses import Objective
from client_app.trainer import BatchLoss, LocalData, Trained, Trainer
from tasks.base import ClientData, Task
from tasks.extra_arrays import ExtraArray
from tasks.issues import ERROR, WARNING, Component, Issue, RunContext
from tasks.plugins import Registry
from tasks.protocol import Arrays

State = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class RoundConfig:
    """What the server asks of one client in one round.

    ``role`` is clean, noisy or unknown; ``stream`` is (seed, client, round); ``config`` holds whatever else
    the strategy sent.

    ``networks`` are the second, third, ... network, with the received weights, of a method that trains several: they
    are trained in place as the model is. ``arrays`` are the method's named arrays as the server has combined them, and
    ``given`` what a strategy of the method's own sends this client beside them; neither may be written to.
    """

    server_round: int
    learning_rate: float
    stream: tuple[int, ...]
    role: str = "unknown"
    config: Mapping[str, object] = field(default_factory=dict)
    networks: Sequence[nn.Module] = field(default=(), repr=False)
    arrays: Arrays = field(default_factory=dict, repr=False)
    given: Arrays = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class TrainContext:
    """What a method works with: the trainer, the objective, the data on the device, the number of classes K."""

    trainer: Trainer
    objective: Objective
    local: LocalData
    num_classes: int

    def objective_for(self, labels: Tensor, any_class: bool = False) -> Objective:
        """Return the objective of a client with other ``labels`` now, (n,); only some losses look at their counts.

        With ``any_class`` each class counts as one example at least: labels may come to be of one that was never given,
        and la-ce has an infinite loss there.
        """
        counts = torch.bincount(labels.cpu(), minlength=self.num_classes)
        return self.objective.for_counts(counts.clamp_min(1) if any_class else counts)


@dataclass(frozen=True)
class FitResult:
    """The next state and the measures to report; the model is trained in place.

    ``arrays`` are the method's named arrays for the server, all that it declares. ``networks`` is filled in by the
    caller: those of the round config, as they are after training.
    """

    metrics: dict[str, float]
    state: State = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)
    networks: Sequence[nn.Module] = ()


class ClientMethod(Component, ABC):
    """Subclass this to bring your own method; :class:`client_app.methods.sgd.LocalSGD` is the shortest one.

    Attributes
    ----------
    one_label_each
        Whether it only works with one label per example, (n,); tasks with a label per pixel are then refused.
    mixes_inputs
        Whether it computes with inputs; tasks whose inputs are word numbers are then refused.
    reads_role
        Whether it treats noisy clients in another way than clean ones; without a strategy that tells them apart, the
        run then says that the method does nothing special.
    needs_features
        Whether it looks at what the model's last layer is given; models without such features are then refused.
    answers_questions
        Whether it has an :meth:`answer` of its own; follows from the class.
    networks
        How many networks it trains, all of them the configured model, each with random first weights of its own.
    exchanges_arrays
        Whether it has :meth:`extra_arrays` of its own; follows from the class.
    ensemble
        Whether the server evaluates the mean of the logits of all networks, and not the first network alone. What
        clients audit their labels with is always the first one.
    """

    mixes_inputs: ClassVar[bool] = False
    needs_features: ClassVar[bool] = False
    ensemble: ClassVar[bool] = False

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        cls.answers_questions = cls.answer is not ClientMethod.answer
        cls.exchanges_arrays = cls.extra_arrays is not ClientMethod.extra_arrays

    def issues(self, context: RunContext) -> list[Issue]:
        """Return which of its needs the run does not meet."""
        name, found = context.settings.method.name, []
        if self.one_label_each and context.labels_pixels:
            found.append(context.needs_one_label("method", name, "choose sgd or fedprox"))
        if self.mixes_inputs and not context.has_smooth_inputs:
            text = f"method {name} mixes inputs, and {context.words}"
            found.append(Issue(ERROR, "method", text, "choose another method"))
        if self.reads_role and not context.strategy.gives_roles and context.judges_roles:
            text = (
                f"method {name} trains all clients on their given labels: "
                f"the strategy {context.settings.strategy.name} calls no client noisy"
            )
            found.append(Issue(WARNING, "method", text, "set strategy.name = 'noise-partition'"))
        return found + self._extra_issues(context)

    def _extra_issues(self, context: RunContext) -> list[Issue]:
        """Return why what it sends beside the model cannot be combined, or not with this privacy."""
        if self.networks == 1 and not self.exchanges_arrays:
            return []
        settings, found = context.settings, []
        what = f"{self.networks} networks" if self.networks > 1 else "named arrays beside the model"
        if not context.strategy.combines_extras:
            text = f"method {settings.method.name} sends {what}, and strategy {settings.strategy.name} combines a model"
            found.append(Issue(ERROR, "method", text, "set strategy.name = 'robust'"))
        if settings.privacy.mode != "none":
            text = (
                f"method {settings.method.name} sends {what}, and the clipping and noise of privacy.mode = "
                f"{settings.privacy.mode!r} are made for one model"
            )
            found.append(Issue(ERROR, "privacy.mode", text, "set privacy.mode = 'none', or choose another method"))
        return found

    def init_state(self, data: ClientData) -> State:
        """Return the state before the first round; the default method keeps none."""
        return {}

    def extra_arrays(self, task: Task, model: nn.Module) -> Sequence[ExtraArray]:
        """Return the named arrays that it exchanges with the server in every round; the default has none.

        The server asks once, with the run's task and its model; clients learn names and shapes from what they are sent.
        """
        return ()

    @abstractmethod
    def fit(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> FitResult:
        """Train ``model``, which holds the received global weights, in place."""

    def corrected(self, state: State) -> npt.NDArray[np.float32] | None:
        """Return what the method now believes of each example's label, (n, K) distributions; None if nothing.

        The examples are in the order of the client's data. The client's own label audit asks this.
        """
        return None

    def answer(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> FitResult:
        """Answer a question that the strategy asks outside of training, about the received ``model``.

        The question is in ``round_config.config``, the answer in the metrics. It comes before its round's training,
        which continues from the returned state. After a restart the same question may come again: asked twice
        it must leave the state that it leaves asked once.

        Raises
        ------
        ValueError
            By default: most methods are only trained.
        """
        raise ValueError(f"the client method {type(self).__name__} answers no questions; choose the strategy's own")


@dataclass(frozen=True)
class Plan:
    """A round's training before it is done.

    Attributes
    ----------
    local
        The examples to train on, with their present labels.
    batch_loss
        What is minimised.
    finish
        ``Trained -> FitResult``: what follows when the model has been trained.
    """

    local: LocalData
    batch_loss: BatchLoss
    finish: Callable[[Trained], FitResult]

    def carry_out(self, model: nn.Module, context: TrainContext, round_config: RoundConfig) -> FitResult:
        """Train ``model`` in place as planned."""
        rate, stream = round_config.learning_rate, round_config.stream
        return self.finish(context.trainer.run(model, self.local, self.batch_loss, rate, stream))


class PlannedMethod(ClientMethod):
    """A method whose round is one training of the model: subclasses say what is to be done, :meth:`plan`.

    Several clients with such a method can be trained side by side; see :mod:`client_app.cohorts.training`.
    """

    @abstractmethod
    def plan(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> Plan:
        """Return what this round's training is; ``model`` holds the received weights and must stay as it is."""

    def fit(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> FitResult:
        """Train in place as planned; see :class:`ClientMethod`."""
        return self.plan(model, context, round_config, state).carry_out(model, context, round_config)


METHODS = Registry("client method", ClientMethod, listed="method")
