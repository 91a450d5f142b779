"""SELFIE (Song, Kim and Lee, ICML 2019, https://proceedings.mlr.press/v97/song19b.html): refurbish labels by history.

"SELFIE: Refurbishing Unclean Samples for Robust Deep Learning". Examples with a small loss are learned as they are;
one to which the model has long answered the same is learned with that answer as its label; all others are left out.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client_app.losses import GlobalParameters, Objective
from client_app.methods.base import METHODS, FitResult, Plan, PlannedMethod, RoundConfig, State, TrainContext
from client_app.methods.history import History
from client_app.methods.warmup import history_issues, warmup_issues
from client_app.trainer import Batch, GivenLabels, Trained
from tasks.arguments import check_at_least
from tasks.issues import Issue, RunContext

HISTORY, LABELS, CLASSES = "history", "labels", "classes"


@METHODS.register("selfie", "Song et al., ICML 2019", "https://proceedings.mlr.press/v97/song19b.html")
@dataclass(frozen=True)
class SELFIE(PlannedMethod):
    """Train on small losses and on labels that a steady history of predictions has replaced; meant for the loss ce.

    In a batch of B examples the ceil((1 - noise_rate) B) with the smallest loss are kept with their given labels. An
    example whose last ``history`` predictions are all there, and have an entropy of at most ``threshold`` x log K, is
    kept with the most frequent of them as its label, whatever its loss. The mean is over those that are kept. A label
    may be replaced again, or no longer, when the history changes. The predictions are those of training, one an
    epoch; they are recorded from the first round on. The first ``warmup_rounds`` rounds learn from all given labels.

    Two things are left out. The authors train anew two or three times from the start, each time with the labels and the
    noise rate found before: a federation would pay for each with a whole run. And they estimate the noise rate
    where it is unknown: here it is an argument.

    Cost: one model each way and the usual epochs. A client reveals nothing beyond its update: the history
    (n, ``history``), 2 bytes each, and the labels stay in its own state.

    Parameters
    ----------
    noise_rate
        Share of wrong labels; 0 keeps all examples. FNBench has 0.2.
    threshold
        Largest entropy of a history that counts as steady, from 0 (always the same) to 1.
    history
        Predictions kept of each example.
    warmup_rounds
        FNBench's fifth of 120 rounds; the authors have 25 of 100 epochs.
    """

    one_label_each: ClassVar[bool] = True
    corrects_labels: ClassVar[bool] = True
    noise_rate: float = 0.2
    threshold: float = 0.05
    history: int = 15
    warmup_rounds: int = 24

    def __post_init__(self) -> None:
        if not 0 <= self.noise_rate < 1:
            raise ValueError(f"noise_rate = {self.noise_rate}: must be from 0 to below 1")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold = {self.threshold}: must be from 0 to 1")
        check_at_least(self, 1, "history")
        check_at_least(self, 0, "warmup_rounds")

    def issues(self, context: RunContext) -> list[Issue]:
        """Return also that the run ends within the warm-up, or before a history is full, if so."""
        found = super().issues(context) + warmup_issues("selfie", self.warmup_rounds, context)
        return found + history_issues("selfie", "history", self.history, context, "no label is replaced")

    def plan(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> Plan:
        """Return the training; see :class:`PlannedMethod`."""
        received = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        given = context.local.labels
        like = torch.zeros((), dtype=torch.int16, device=given.device)
        kept = History.restore(state, HISTORY, len(given), self.history, like)
        starts = round_config.server_round > self.warmup_rounds
        objective = context.objective_for(given, any_class=True) if starts else context.objective
        batch_loss = Refurbishing(objective, received, kept, context.num_classes)
        if starts:
            batch_loss.select(self.noise_rate, self.threshold)

        def finish(trained: Trained) -> FitResult:
            everything = torch.arange(len(given), device=given.device)
            steady, labels = steady_labels(kept, everything, context.num_classes, self.threshold)
            found = torch.where(steady, labels, given).cpu().numpy()
            own = {LABELS: found, CLASSES: np.array(context.num_classes)} if batch_loss.selects else {}
            return FitResult({"train-loss": trained.loss}, {**kept.arrays(HISTORY), **own})

        return Plan(context.local, batch_loss, finish)

    def corrected(self, state: State) -> npt.NDArray[np.float32] | None:
        """Return the present labels as distributions (n, K); None before the end of the warm-up."""
        if LABELS not in state:
            return None
        return F.one_hot(torch.tensor(state[LABELS]), int(state[CLASSES])).float().numpy()


def steady_labels(history: History, indices: Tensor, num_classes: int, threshold: float) -> tuple[Tensor, Tensor]:
    """Return of which examples the history is full and steady, (B,), bool, and its most frequent classes, (B,)."""
    shares = history.frequencies(indices, num_classes)
    uncertainty = torch.special.entr(shares).sum(1) / math.log(num_classes)
    full = history.filled(indices) == history.values.shape[1]
    return full & (uncertainty <= threshold), shares.argmax(1)


def kept_count(size: int, noise_rate: float) -> int:
    """Return how many of ``size`` examples have small losses: ceil((1 - noise_rate) size)."""
    return math.ceil((1 - noise_rate) * size - 1e-9)  # (1 - 0.2) * 5 is a little more than 4


class Refurbishing(GivenLabels):
    """The objective on chosen examples with refurbished labels; on all given labels until :meth:`select`."""

    def __init__(
        self, objective: Objective, global_parameters: GlobalParameters, history: History, num_classes: int
    ) -> None:
        super().__init__(objective, global_parameters)
        self._history, self._num_classes = history, num_classes
        self._noise_rate, self._threshold = 0.0, 0.0
        self.selects = False

    def select(self, noise_rate: float, threshold: float) -> None:
        """Choose examples from now on."""
        self._noise_rate, self._threshold, self.selects = noise_rate, threshold, True

    def loss(self, model: nn.Module, batch: Batch, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return the mean over the kept examples, and record the predictions; see :class:`BatchLoss`."""
        value = (
            self._of_kept(model, batch, inputs, logits) if self.selects else super().loss(model, batch, inputs, logits)
        )
        self._history.record(batch.indices, logits.argmax(1))
        return value

    def _of_kept(self, model: nn.Module, batch: Batch, inputs: Tensor, logits: Tensor) -> Tensor:
        steady, found = steady_labels(self._history, batch.indices, self._num_classes, self._threshold)
        labels = torch.where(steady, found, batch.labels)
        count = kept_count(len(batch), self._noise_rate)
        if count == len(batch):
            return super().loss(model, replace(batch, labels=labels), inputs, logits)
        losses = self.objective.loss(logits.detach(), batch.labels)
        kept = steady.index_fill(0, torch.argsort(losses, stable=True)[:count], True)
        return self._objective(
            logits, labels, model, self._global_parameters, weights=kept.to(logits.dtype), inputs=inputs
        )
