"""Joint Optim: network and labels are learned in turn (Tanaka, Ikami, Yamasaki and Aizawa, CVPR 2018).

"Joint Optimization Framework for Learning with Noisy Labels", https://arxiv.org/abs/1803.11364. Labels become the mean
of the network's last predictions; two more terms keep it from calling everything one class, and from being unsure.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client_app import losses
from client_app.losses import GlobalParameters, Objective
from client_app.losses.base import MIN_PROB
from client_app.methods.base import METHODS, FitResult, Plan, PlannedMethod, RoundConfig, State, TrainContext
from client_app.methods.history import History
from client_app.methods.warmup import warmup_issues
from client_app.trainer import Batch, GivenLabels, Trained
from tasks.arguments import check_at_least
from tasks.issues import ERROR, Issue, RunContext

HISTORY, SOFT_LABELS = "history", "soft_labels"


@METHODS.register("joint-optim", "Tanaka et al., CVPR 2018", "https://arxiv.org/abs/1803.11364")
@dataclass(frozen=True)
class JointOptim(PlannedMethod):
    """Train on the mean of the last predictions as soft labels, balanced and sure; meant for the loss ce.

    A client minimises the configured loss + alpha x KL(uniform || mean prediction of the batch) + beta x the mean
    entropy of its predictions, on its given labels during the first ``warmup_rounds`` rounds. Afterwards the label of
    an example is the mean of its last ``history`` predictions, of as many as there are, renewed after each local
    epoch. Predictions are those of training, recorded from the first round on. An example never seen keeps its label.

    The authors train a new network on the labels in the end; that is another run, and left out. With the loss ce the
    first term is their KL(label || prediction) up to the label's entropy, which has no gradient.

    Cost: one model each way and the usual epochs. A client reveals nothing beyond its update: the history
    (n, ``history``, K) and the labels (n, K), 4 bytes each, stay in its own state.

    Parameters
    ----------
    alpha, beta
        Published for symmetric noise of 0.7: 1.2 and 0.8; for asymmetric noise of 0.4: 0.8 and 0.4. Both 0 within the
        warm-up is plain local training.
    history
        Predictions in the mean; FNBench has 15.
    warmup_rounds
        FNBench's fifth of 120 rounds; the authors have 70 of 200 epochs.
    """

    one_label_each: ClassVar[bool] = True
    corrects_labels: ClassVar[bool] = True
    alpha: float = 1.2
    beta: float = 0.8
    history: int = 10
    warmup_rounds: int = 24

    def __post_init__(self) -> None:
        check_at_least(self, 0, "alpha", "beta", "warmup_rounds")
        check_at_least(self, 1, "history")

    def issues(self, context: RunContext) -> list[Issue]:
        """Return also that the loss is not defined for soft labels, or the run ends within the warm-up, if so."""
        found = super().issues(context) + warmup_issues("joint-optim", self.warmup_rounds, context)
        if self.warmup_rounds < context.settings.num_server_rounds and not takes_soft_labels(context):
            text = (
                f"method joint-optim learns soft labels, and the loss {context.settings.loss.name} takes one class each"
            )
            found.append(Issue(ERROR, "loss", text, "set loss.name = 'ce'"))
        return found

    def plan(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> Plan:
        """Return the training; see :class:`PlannedMethod`."""
        received = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        given, classes = context.local.labels, context.num_classes
        kept = History.restore(state, HISTORY, len(given), self.history, torch.zeros(classes, device=given.device))
        starts = round_config.server_round > self.warmup_rounds
        objective = context.objective_for(given, any_class=True) if starts else context.objective
        batch_loss = SoftLabels(objective, received, kept, self.alpha, self.beta)
        if starts:
            batch_loss.replace_labels(F.one_hot(given, classes).float())

        def finish(trained: Trained) -> FitResult:
            labels = batch_loss.labels
            own = {} if labels is None else {SOFT_LABELS: labels.cpu().numpy()}
            return FitResult({"train-loss": trained.loss}, {**kept.arrays(HISTORY), **own})

        return Plan(context.local, batch_loss, finish)

    def corrected(self, state: State) -> npt.NDArray[np.float32] | None:
        """Return the soft labels (n, K); None before the end of the warm-up."""
        return np.asarray(state[SOFT_LABELS], np.float32) if SOFT_LABELS in state else None


def takes_soft_labels(context: RunContext) -> bool:
    """Tell whether the configured loss has a value for a label distribution; what cannot be built is not judged."""
    chosen = context.settings.loss
    try:
        objective = losses.build(chosen.name, 2, chosen.args, chosen.preset, [1, 1])
    except ValueError:
        return True
    try:
        objective.loss(torch.zeros(1, 2), torch.full((1, 2), 0.5))
    except (ValueError, RuntimeError, IndexError, TypeError):  # a loss of the user's own may raise what it likes
        return False
    return True


class SoftLabels(GivenLabels):
    """The objective on soft labels, which follow the history epoch by epoch, plus both regularizers of the paper."""

    def __init__(
        self,
        objective: Objective,
        global_parameters: GlobalParameters,
        history: History,
        alpha: float,
        beta: float,
    ) -> None:
        super().__init__(objective, global_parameters)
        self._history, self._alpha, self._beta = history, alpha, beta
        self.labels: Tensor | None = None

    def replace_labels(self, given: Tensor) -> None:
        """Learn soft labels from now on; where there is no history they are ``given`` (n, K)."""
        self.labels = given.clone()
        self.end_epoch()

    def loss(self, model: nn.Module, batch: Batch, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return the three parts, and record the predictions; see :class:`BatchLoss`."""
        shown = batch if self.labels is None else replace(batch, labels=self.labels[batch.indices])
        value = super().loss(model, shown, inputs, logits)
        log_p = torch.log_softmax(logits, 1)
        self._history.record(batch.indices, log_p.exp())
        if self._alpha:
            value = value + self._alpha * from_uniform(log_p.exp().mean(0))
        if self._beta:
            value = value - self._beta * (log_p.exp() * log_p).sum(1).mean()
        return value

    def end_epoch(self) -> None:
        """Set the labels of all examples seen so far to the mean of their last predictions."""
        if self.labels is None:
            return
        everything = torch.arange(len(self.labels), device=self.labels.device)
        seen = self._history.seen > 0
        self.labels = torch.where(seen[:, None], self._history.mean(everything), self.labels)


def from_uniform(mean: Tensor) -> Tensor:
    """Return KL(uniform || mean) of a mean prediction (K,), clipped at 1e-7; 0 when it is uniform."""
    return -mean.clamp_min(MIN_PROB).log().mean() - math.log(len(mean))
