"""FedNoRo (Wu, Yu, Jiang, Cheng, Yan, IJCAI 2023): noisy clients also learn from the global model."""

import copy
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from client_app.losses import LogitAdjustedCrossEntropy, Objective
from client_app.methods.base import METHODS, ClientMethod, FitResult, RoundConfig, State, TrainContext
from client_app.methods.sgd import train
from client_app.trainer import Batch, BatchLoss
from tasks.protocol import SINCE_DETECTION


@METHODS.register("fednoro", "Wu et al., IJCAI 2023")
@dataclass(frozen=True)
class FedNoRo(ClientMethod):
    """Distil the received global model at noisy clients; meant for the loss la-ce and the aggregator distance-aware.

    A client of role noisy minimises (1 - lam) x the configured loss on its given labels + lam KL(q || s), where
    q = softmax(teacher logits / temperature) comes from the received model in evaluation mode and
    s = softmax(logits + log class share at the client). Classes without examples, for which s = 0, are left
    out of the sum. A client of any other role trains on the configured loss.

    lam = weight x exp(-5 (1 - t)^2), where t goes from 0 to 1 in ``ramp_rounds`` rounds after detection.

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

    def fit(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> FitResult:
        """Train in place; see :class:`ClientMethod`.

        Raises
        ------
        ValueError
            If the strategy calls the client noisy and does not say since when.
        """
        if round_config.role != "noisy":
            return train(model, context, round_config, context.objective)
        if SINCE_DETECTION not in round_config.config:
            raise ValueError(
                f"fednoro needs {SINCE_DETECTION!r} from the strategy; choose strategy.name = noise-partition"
            )
        since = int(str(round_config.config[SINCE_DETECTION]))
        batch_loss = Distillation(model, context, self.temperature, ramp(self.weight, since, self.ramp_rounds))
        trained = context.trainer.run(model, context.local, batch_loss, round_config.learning_rate, round_config.stream)
        return FitResult({"train-loss": trained.loss})


def ramp(weight: float, rounds: int, length: int) -> float:
    """Return the weight of the teacher ``rounds`` rounds after detection: weight x exp(-5 (1 - t)^2)."""
    progress = min(rounds / length, 1.0) if length else 1.0
    return weight * math.exp(-5 * (1 - progress) ** 2)


class Distillation(BatchLoss):
    """(1 - weight) x the objective on the given labels + weight x the distance to the received model's prediction."""

    def __init__(self, received: nn.Module, context: TrainContext, temperature: float, weight: float) -> None:
        counts = torch.bincount(context.local.labels, minlength=context.num_classes)
        self._margin = LogitAdjustedCrossEntropy.from_counts(counts).margin.float()
        self._teacher = copy.deepcopy(received).to(context.trainer.device).eval()
        self._global_parameters = {name: parameter.detach() for name, parameter in self._teacher.named_parameters()}
        self._objective: Objective = context.objective
        self._temperature, self._weight = temperature, weight
        self.needs_inputs = context.objective.needs_inputs

    def loss(self, model: nn.Module, batch: Batch, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return both parts, weighted; see :class:`BatchLoss`."""
        with torch.no_grad():
            log_teacher = torch.log_softmax(self._teacher(inputs).float() / self._temperature, 1)
        own = self._objective(logits, batch.labels, model, self._global_parameters, inputs=inputs)
        return (1 - self._weight) * own + self._weight * self._distance(log_teacher, logits).mean()

    def _distance(self, log_teacher: Tensor, logits: Tensor) -> Tensor:
        """Return sum_k q_k (log q_k - log s_k) over the classes that the client has, (B,)."""
        present = self._margin.isfinite()
        log_student = torch.log_softmax(logits + self._margin, 1)[:, present]
        log_teacher = log_teacher[:, present]
        return (log_teacher.exp() * (log_teacher - log_student)).sum(1)
