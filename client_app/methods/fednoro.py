"""FedNoRo (Wu, Yu, Jiang, Cheng, Yan, IJCAI 2023): noisy clients also learn from the global model."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from client_app.cohorts.batch_losses import JointBatch, JointLoss, joins
from client_app.cohorts.networks import StackedModel
from client_app.losses import LogitAdjustedCrossEntropy, Objective
from client_app.losses.joint import JointObjective, mean_of_each
from client_app.methods.base import METHODS, FitResult, Plan, PlannedMethod, RoundConfig, State, TrainContext
from client_app.methods.sgd import given_labels
from client_app.methods.warmup import ramp_issues
from client_app.trainer import Batch, BatchLoss, Trained
from tasks.issues import Issue, RunContext
from tasks.protocol import SINCE_DETECTION


@METHODS.register("fednoro", "Wu et al., IJCAI 2023", "https://arxiv.org/abs/2305.05230")
@dataclass(frozen=True)
class FedNoRo(PlannedMethod):
    """Distil the received global model at noisy clients; meant for the loss la-ce and the aggregator distance-aware.

    A client of role noisy minimises (1 - lam) x the configured loss on its given labels + lam KL(q || s), where
    q = softmax(teacher logits / temperature) comes from the received model in evaluation mode and
    s = softmax(logits + log class share at the client). Classes without examples, for which s = 0, are left
    out of the sum. A client of any other role trains on the configured loss.

    lam = weight x exp(-5 (1 - t)^2), where t goes from 0 to 1 in ``ramp_rounds`` rounds after detection.

    Cost: one model each way and the usual epochs; at noisy clients also a forward pass of the received model.

    Example: ``winnow run fednoro-digits``

    Parameters
    ----------
    weight
        lam at the end of the ramp; 0 is plain local training.
    temperature
        Of the teacher; below 1 it is surer than it was.
    ramp_rounds
        Length of the ramp; 0 starts at the end. The authors' code has 39, for 100 rounds with 10 of warm-up.
    """

    one_label_each: ClassVar[bool] = True
    reads_role: ClassVar[bool] = True
    weight: float = 0.8
    temperature: float = 0.8
    ramp_rounds: int = 39

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight = {self.weight}: must be from 0 to 1")
        if self.temperature <= 0:
            raise ValueError(f"temperature = {self.temperature}: must be above 0")
        if self.ramp_rounds < 0:
            raise ValueError(f"ramp_rounds = {self.ramp_rounds}: must be at least 0")

    def issues(self, context: RunContext) -> list[Issue]:
        """Return also that noisy clients hardly learn from the received model even in the end, if so."""
        warmup, total = getattr(context.strategy, "warmup_rounds", None), context.settings.num_server_rounds
        found = super().issues(context)
        if not isinstance(warmup, int) or warmup >= total:  # then the strategy says that nobody is ever called noisy
            return found
        reached = ramp(1.0, total - warmup - 1, self.ramp_rounds)
        what = "the weight of the received model, after detection,"
        return found + ramp_issues("fednoro", "ramp_rounds", self.ramp_rounds, reached, context, what)

    def plan(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> Plan:
        """Return the training; see :class:`PlannedMethod`.

        Raises
        ------
        ValueError
            If the strategy calls the client noisy and does not say since when.
        """
        if round_config.role != "noisy":
            return given_labels(model, context, context.objective)
        if SINCE_DETECTION not in round_config.config:
            raise ValueError(
                f"fednoro needs {SINCE_DETECTION!r} from the strategy; choose strategy.name = noise-partition"
            )
        since = int(str(round_config.config[SINCE_DETECTION]))
        batch_loss = Distillation(model, context, self.temperature, ramp(self.weight, since, self.ramp_rounds))

        def finish(trained: Trained) -> FitResult:
            return FitResult({"train-loss": trained.loss})

        return Plan(context.local, batch_loss, finish)


def ramp(weight: float, rounds: int, length: int) -> float:
    """Return the weight of the teacher ``rounds`` rounds after detection: weight x exp(-5 (1 - t)^2)."""
    progress = min(rounds / length, 1.0) if length else 1.0
    return weight * math.exp(-5 * (1 - progress) ** 2)


class Distillation(BatchLoss):
    """(1 - weight) x the objective on the given labels + weight x the distance to the received model's prediction."""

    def __init__(self, received: nn.Module, context: TrainContext, temperature: float, weight: float) -> None:
        counts = torch.bincount(context.local.labels, minlength=context.num_classes)
        self.margin = LogitAdjustedCrossEntropy.from_counts(counts).margin.float()
        self.teacher = copy.deepcopy(received).to(context.trainer.device).eval()
        self._global_parameters = {name: parameter.detach() for name, parameter in self.teacher.named_parameters()}
        self.objective: Objective = context.objective
        self.temperature, self.weight = temperature, weight
        self.needs_inputs = context.objective.needs_inputs

    def loss(self, model: nn.Module, batch: Batch, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return both parts, weighted; see :class:`BatchLoss`."""
        with torch.no_grad():
            log_teacher = torch.log_softmax(self.teacher(inputs).float() / self.temperature, 1)
        own = self.objective(logits, batch.labels, model, self._global_parameters, inputs=inputs)
        return (1 - self.weight) * own + self.weight * self._distance(log_teacher, logits).mean()

    def _distance(self, log_teacher: Tensor, logits: Tensor) -> Tensor:
        """Return sum_k q_k (log q_k - log s_k) over the classes that the client has, (B,)."""
        present = self.margin.isfinite()
        log_student = torch.log_softmax(logits + self.margin, 1)[:, present]
        log_teacher = log_teacher[:, present]
        return (log_teacher.exp() * (log_teacher - log_student)).sum(1)


@joins(Distillation)
class JointDistillation(JointLoss):
    """Distillation at several clients; the received model, which is the same for all, is asked once."""

    def __init__(self, batch_losses: Sequence[Distillation]) -> None:
        self._objective = JointObjective([one.objective for one in batch_losses])
        self._teacher, self._temperature = batch_losses[0].teacher, batch_losses[0].temperature
        self._margins = torch.stack([one.margin for one in batch_losses])[:, None]
        self._weights = torch.tensor([one.weight for one in batch_losses], device=self._margins.device)

    def __call__(self, model: StackedModel, batch: JointBatch, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return both parts, weighted; see :class:`JointLoss`."""
        with torch.no_grad():
            answers = self._teacher(inputs.flatten(0, 1)).float().view(logits.shape)
            log_teacher = torch.log_softmax(answers / self._temperature, 2)
        absent = ~self._margins.isfinite()
        log_student = torch.log_softmax(logits + self._margins, 2).masked_fill(absent, 0.0)
        distance = (log_teacher.exp() * (log_teacher - log_student)).masked_fill(absent, 0.0).sum(2)
        own = self._objective(logits, batch.labels, batch.share, model.parameters, model.start)
        return (1 - self._weights) * own + self._weights * mean_of_each(distance, batch.share)
