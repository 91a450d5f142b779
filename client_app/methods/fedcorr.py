"""FedCorr (Xu, Chen, Quek, Chong, CVPR 2022), the client's part: train by mixup, score, relabel when asked.

Mixup trains between two examples instead of on each (Zhang, Cisse, Dauphin, Lopez-Paz, ICLR 2018).

The score is the local intrinsic dimensionality of the outputs: in how many directions the points around a point are
spread, by the maximum-likelihood estimate of Amsaleg, Chelly, Furon, Girard, Houle, Kawarabayashi and Nett (KDD 2015).
Ma et al. (ICML 2018) found that the outputs of a network that memorises wrong labels spread in more directions.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client_app.cohorts.batch_losses import JointBatch, JointGivenLabels, joins, rows_of_each
from client_app.cohorts.networks import StackedModel
from client_app.losses import GlobalParameters, L2ToGlobal, Objective
from client_app.losses.joint import of_clients
from client_app.methods.base import METHODS, FitResult, Plan, PlannedMethod, RoundConfig, State, TrainContext
from client_app.trainer import Batch, GivenLabels, Trained
from tasks.arguments import check_at_least, check_shares
from tasks.gaussian_mixture import upper_group
from tasks.issues import WARNING, Issue, RunContext
from tasks.plugins import is_own
from tasks.protocol import NOISE_LEVEL, QUESTION, RELABEL, RELABEL_CONFIDENT, SCORE, WANT_SCORE
from tasks.seeds import rng

LARGEST_DIMENSION = 1000.0
"""Largest estimate: it is infinite where all neighbours are equally far."""
DISTANCE_ROWS = 512
"""Points whose distances to all others are in memory at a time."""
Ranking = Literal["received", "own"]
LOSSES = "losses"
"""Name in the state of the losses under the client's own model."""

logger = logging.getLogger(__name__)


@METHODS.register("fedcorr", "Xu et al., CVPR 2022", "https://arxiv.org/abs/2204.04677")
@dataclass(frozen=True)
class FedCorr(PlannedMethod):
    """Train by mixup, and relabel by the global model when asked; meant for the strategy fedcorr and the loss ce.

    In a round the client minimises the configured loss under mixup on its present labels, plus
    ``beta`` x noise level x ||w - w_global||^2, squared as in the paper; the noise level is what the strategy says, 0
    where it says nothing. On demand it reports ``lid``, the mean local intrinsic dimensionality of what the trained
    model answers to its examples (:func:`local_dimensions`).

    Two questions are answered, each with the received model. ``relabel``: the noise level is the share of examples in
    the upper of two groups by cross-entropy; the n x level x ``relabel_ratio`` examples with the largest
    one get the label that the model predicts, if it is surer than ``confidence``; ``ranking`` says by which model they
    are ranked. ``relabel-confident``: every example gets it that the model is so sure of. Only the noise level leaves
    the client.

    The state is empty until the first question. Then it holds the labels (n,) as they were ``given``, as they are now
    (``labels``) and as they were ``before`` the last question, the round of that question (``asked``) and the
    number of ``classes``.

    Cost: one model each way and the usual epochs; where a score is asked for also one pass of predictions, and for each
    question another.

    Example: ``winnow run fedcorr-digits``

    Parameters
    ----------
    mixup_alpha
        Of the Beta distribution; 0 is no mixup.
    beta
        Weight of the distance to the received model; 0 leaves it out.
    neighbours
        For the dimensionality.
    relabel_ratio
        Share of the estimated wrong labels that ``relabel`` may change.
    confidence
        Probability above which a prediction becomes a label.
    ranking
        Whose cross-entropies give the noise level and the order of ``relabel``. ``received``: the model that comes with
        the question, as the paper reads. ``own``: the client's own model as it was when it last trained in stage 1, as
        in the authors' program (which takes the cross-entropy of probabilities as if they were logits; not here). Then
        the state also keeps the losses (n,).
    """

    one_label_each: ClassVar[bool] = True
    corrects_labels: ClassVar[bool] = True
    mixes_inputs: ClassVar[bool] = True
    mixup_alpha: float = 1.0
    beta: float = 5.0
    neighbours: int = 20
    relabel_ratio: float = 0.5
    confidence: float = 0.5
    ranking: Ranking = "received"

    def __post_init__(self) -> None:
        check_at_least(self, 0, "mixup_alpha", "beta")
        check_shares(self, "relabel_ratio", "confidence")
        if self.ranking not in get_args(Ranking):
            raise ValueError(f"ranking = {self.ranking!r}: must be 'received' or 'own'")
        if self.neighbours < 2:
            raise ValueError(f"neighbours = {self.neighbours}: must be at least 2")

    def plan(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> Plan:
        """Return the training; see :class:`PlannedMethod`."""
        global_parameters = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        level = float(str(round_config.config.get(NOISE_LEVEL, 0.0)))
        coefficient = 2 * self.beta * level  # L2ToGlobal is half the square
        labels = present_labels(context, round_config, state)
        objective = context.objective_for(labels).with_regularizer(coefficient, L2ToGlobal())
        seed, *names = round_config.stream
        batch_loss = Mixup(objective, global_parameters, self.mixup_alpha, rng(seed, "mixup", *names))
        local = replace(context.local, labels=labels)

        def finish(trained: Trained) -> FitResult:
            metrics = {"train-loss": trained.loss}
            if round_config.config.get(WANT_SCORE):
                outputs = context.trainer.probabilities(model, context.local)
                metrics[SCORE] = local_dimensions(outputs, self.neighbours).mean().item()
                if self.ranking == "own":
                    return FitResult(metrics, {**state, LOSSES: cross_entropies(outputs, labels).cpu().numpy()})
            return FitResult(metrics, state)

        return Plan(local, batch_loss, finish)

    def answer(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> FitResult:
        """Relabel; see :class:`ClientMethod`. Asked twice in a round, both start from the same labels.

        Raises
        ------
        ValueError
            If it is another question, or an example has more than one label.
        """
        question = round_config.config.get(QUESTION)
        if question not in (RELABEL, RELABEL_CONFIDENT):
            raise ValueError(f"fedcorr answers {RELABEL!r} and {RELABEL_CONFIDENT!r}, not {question!r}")
        if context.local.labels.ndim != 1:
            shape = tuple(context.local.labels.shape)
            raise ValueError(f"fedcorr corrects one label per example, got labels of shape {shape}")
        again = "asked" in state and int(state["asked"]) == round_config.server_round
        before = present_labels(context, round_config, {**state, "labels": state["before"]} if again else state)
        predicted = context.trainer.probabilities(model, context.local)
        sure = predicted.max(1).values > self.confidence
        metrics: dict[str, float] = {}
        if question == RELABEL:
            losses = self._losses(cross_entropies(predicted, before), state, round_config)
            level, suspects = self._suspects(losses, round_config.stream[0])
            metrics[NOISE_LEVEL], sure = level, sure & suspects
        labels = torch.where(sure, predicted.argmax(1), before)
        kept = {"given": context.local.labels, "before": before, "labels": labels}
        own = {LOSSES: state[LOSSES]} if LOSSES in state else {}
        state = {**own, **{name: values.cpu().numpy() for name, values in kept.items()}}
        return FitResult(
            metrics, {**state, "asked": np.array(round_config.server_round), "classes": np.array(context.num_classes)}
        )

    def issues(self, context: RunContext) -> list[Issue]:
        """Return also that the strategy never asks it to relabel, if so; one of the user's own may ask."""
        asked = context.strategy.asks_method or is_own(context.settings.strategy.name)
        text = "method fedcorr corrects labels only where the strategy asks for it"
        unasked = [] if asked else [Issue(WARNING, "method", text, "set strategy.name = 'fedcorr'")]
        return super().issues(context) + unasked

    def corrected(self, state: State) -> npt.NDArray[np.float32] | None:
        """Return the present labels as distributions (n, K); None if the client was never asked to relabel."""
        if "labels" not in state:
            return None
        return F.one_hot(torch.tensor(state["labels"]), int(state["classes"])).float().numpy()

    def _losses(self, received: Tensor, state: State, round_config: RoundConfig) -> Tensor:
        """Return the losses (n,) to rank by, given those under the received model."""
        if self.ranking == "received":
            return received
        if LOSSES in state and state[LOSSES].shape == received.shape:
            return torch.tensor(state[LOSSES], device=received.device)
        where = round_config.stream[1], round_config.server_round
        logger.warning("Client %d relabels by the received model in round %d: its own losses were lost", *where)
        return received

    def _suspects(self, losses: Tensor, seed: int) -> tuple[float, Tensor]:
        """Return the noise level, and which examples (n,) have the largest losses among as many as may change."""
        level = float(upper_group(losses.cpu().numpy(), seed).mean())
        count = int(len(losses) * level * self.relabel_ratio + 1e-9)  # 100 * 0.29 is a little less than 29
        suspects = torch.zeros(len(losses), dtype=torch.bool, device=losses.device)
        suspects[torch.argsort(losses, descending=True, stable=True)[:count]] = True
        return level, suspects


def present_labels(context: TrainContext, round_config: RoundConfig, state: State) -> Tensor:
    """Return the labels (n,) to train on: the corrected ones where they were changed, else those of the data."""
    given = context.local.labels
    if "labels" in state and state["labels"].shape == given.shape:
        labels, old = (torch.tensor(state[name], device=given.device) for name in ("labels", "given"))
        return torch.where(labels == old, given, labels)
    if "labels" in state or round_config.role == "noisy":
        problem = "do not fit the data" if "labels" in state else "were lost"
        where = round_config.stream[1], round_config.server_round
        logger.warning("Client %d starts from its given labels in round %d: its corrected labels %s", *where, problem)
    return given


def cross_entropies(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return -log p_y of probabilities (n, K) and labels (n,), float64; finite, also where p_y is 0."""
    rows = torch.arange(len(labels), device=labels.device)
    return -probabilities.double().clamp_min(torch.finfo(torch.float32).tiny).log()[rows, labels]


class Mixup(GivenLabels):
    """Show share x one example + (1 - share) x another of the batch; the loss is mixed likewise.

    A batch has one share, max(s, 1 - s) with s from Beta(alpha, alpha), and partners by a random permutation;
    alpha = 0 leaves every example as it is, which is also the limit of small alpha.
    """

    def __init__(
        self, objective: Objective, global_parameters: GlobalParameters, alpha: float, draws: np.random.Generator
    ) -> None:
        super().__init__(objective, global_parameters)
        self._alpha = alpha
        self._draws = draws
        self._share = 1.0
        self._partners = torch.zeros(0, dtype=torch.int64)

    def transform_inputs(self, batch: Batch, inputs: Tensor) -> Tensor:
        """Return the mixed inputs; see :class:`BatchLoss`."""
        if not self._alpha:
            return inputs
        self._share, self._partners = self.draw(len(batch), inputs.device)
        return self._share * inputs + (1 - self._share) * inputs[self._partners]

    def draw(self, size: int, device: torch.device) -> tuple[float, Tensor]:
        """Return the share and the partners (B,) of the next batch; without mixup every example is its own partner."""
        if not self._alpha:
            return 1.0, torch.arange(size, device=device)
        drawn = self._draws.beta(self._alpha, self._alpha)
        return max(drawn, 1 - drawn), torch.from_numpy(self._draws.permutation(size)).to(device)

    def loss(self, model: nn.Module, batch: Batch, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return share x the objective on the own labels + (1 - share) x that on the partners'."""
        own = super().loss(model, batch, inputs, logits)
        if self._share == 1:
            return own
        theirs = Batch(batch.indices, batch.features, batch.labels[self._partners])
        return self._share * own + (1 - self._share) * super().loss(model, theirs, inputs, logits)


@joins(Mixup)
class JointMixup(JointGivenLabels):
    """Mixup of each client's batch with a share and partners of its own."""

    def __init__(self, batch_losses: Sequence[Mixup]) -> None:
        super().__init__(batch_losses)
        self._batch_losses = batch_losses
        self._shares = self._rows = torch.zeros(0)

    def transform_inputs(self, batch: JointBatch, inputs: Tensor) -> Tensor:
        """Return the mixed inputs; see :class:`JointLoss`."""
        places = torch.zeros(inputs.shape[:2], dtype=torch.int64, device=inputs.device)
        shares = list[float]()
        for place, (own, indices) in enumerate(zip(self._batch_losses, batch.indices, strict=True)):
            drawn, places[place, : len(indices)] = own.draw(len(indices), inputs.device)
            shares.append(drawn)
        self._shares, self._rows = torch.tensor(shares, device=inputs.device), rows_of_each(places)
        share = of_clients(self._shares, inputs)
        return share * inputs + (1 - share) * inputs.flatten(0, 1)[self._rows]

    def __call__(self, model: StackedModel, batch: JointBatch, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return share x the objectives on the own labels + (1 - share) x those on the partners'."""
        own = self.objectives(model, batch, logits, batch.labels)
        theirs = self.objectives(model, batch, logits, batch.labels.flatten(0, 1)[self._rows])
        return self._shares * own + (1 - self._shares) * theirs


def local_dimensions(points: Tensor, neighbours: int = 20) -> Tensor:
    """Return the estimate -k / sum_{j=1..k} log(r_j / r_k) at each of ``points`` (n, d), float64 on the CPU, (n,).

    r_1 to r_k are the Euclidean distances to the k nearest other points; k is ``neighbours``, but at most n - 1.
    Points that lie on each other have dimension 0: the estimate goes to 0 with the distance of a neighbour. With fewer
    than three points there is nothing to compare, and the estimate is 0 too.
    """
    everywhere = points.detach().cpu().double()
    k = min(neighbours, len(points) - 1)
    if k < 2:
        return torch.zeros(len(points), dtype=torch.float64)
    rows = torch.split(torch.arange(len(points)), DISTANCE_ROWS)
    return torch.cat([_dimensions(_nearest(everywhere, part, k)) for part in rows])


def _nearest(points: Tensor, rows: Tensor, k: int) -> Tensor:
    """Return the distances of some points to their k nearest other points in ascending order, (b, k)."""
    distances = torch.cdist(points[rows], points, compute_mode="donot_use_mm_for_euclid_dist")
    distances[torch.arange(len(rows)), rows] = torch.inf
    return distances.topk(k, largest=False).values


def _dimensions(distances: Tensor) -> Tensor:
    k = distances.shape[1]
    farthest = distances[:, -1:]
    logarithms = (distances / farthest.clamp_min(torch.finfo(torch.float64).tiny)).log().sum(1)
    return (k / -logarithms.clamp_max(-k / LARGEST_DIMENSION)).masked_fill(farthest[:, 0] == 0, 0.0)
