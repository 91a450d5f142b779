"""RoFL: class centroids travel beside the model, so that clients agree on what a class looks like ("RobustFL").

Yang, Park, Byun and Kim, "Robust Federated Learning With Noisy Labels" (IEEE Intelligent Systems 2022,
https://arxiv.org/abs/2012.01700). A centroid is the mean feature vector of a class, of examples with a small loss. An
example whose features lie nearest to the centroid of its own label is believed; another one is learned with the label
that the received model gives it, once that model is good enough.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client_app.losses import GlobalParameters, Objective
from client_app.methods.base import METHODS, FitResult, Plan, PlannedMethod, RoundConfig, State, TrainContext
from client_app.methods.selfie import kept_count
from client_app.methods.warmup import ramp_issues
from client_app.trainer import Batch, GivenLabels, Trained
from tasks.arguments import check_at_least
from tasks.base import Task
from tasks.extra_arrays import Doubles, ExtraArray
from tasks.issues import WARNING, Issue, RunContext

CENTROIDS = "centroids"


@METHODS.register("rofl", "Yang et al., IEEE Intelligent Systems 2022", "https://arxiv.org/abs/2012.01700")
@dataclass(frozen=True)
class RoFL(PlannedMethod):
    """Learn small losses near the federation's class centroids, and exchange these; meant for ce and the mean.

    In a batch of B the ceil((1 - R) B) examples with the smallest loss are kept, where R goes linearly to
    ``forget_rate`` in ``forget_rounds`` rounds. A kept example keeps its label y if the centroid with the largest
    cosine to its features is that of y; else its label is that of the received model, from round ``pseudo_after`` + 1
    on. A client minimises, over the kept ones,

    configured loss + lam mean ||z - f_y||^2 / F + entropy_weight x mean entropy of the predictions,

    where the distance of the features z (F numbers) is that of the examples that keep their label, and lam goes
    linearly to ``centroid_weight`` in ``pseudo_after`` rounds. After each batch the centroid of a class moves to
    (1 - s^2) f + s^2 f^, with f^ the mean of z over the kept examples that were given this label, and s = cos(f, f^).
    The server takes the mean of clients' centroids, weighted by their cosine with the present one
    (:func:`similar_mean`).

    The authors' program detaches the features, so that its distance has no gradient, and sums where this takes means;
    it starts from random centroids. Here they are unknown, 0, until a client has seen the class: nothing is
    nearest to an unknown centroid, and it becomes the first mean.

    Cost: one model and K x F numbers each way, the usual epochs, and after ``pseudo_after`` one pass of
    predictions. Beyond its update a client reveals, for each class that it has, the mean features of its examples.

    Example: ``winnow run method.name=rofl loss.name=ce strategy.aggregator=mean``

    Parameters
    ----------
    forget_rate, forget_rounds
        R and T_k of the paper; 0 keeps all.
    centroid_weight, entropy_weight
        lambda_cen and lambda_e. Both 0 with ``forget_rate`` 0 and within ``pseudo_after`` is plain local training.
    pseudo_after
        T_pl of the paper, of 1,000 rounds; FNBench has 10 of 120.
    """

    one_label_each: ClassVar[bool] = True
    needs_features: ClassVar[bool] = True
    forget_rate: float = 0.2
    forget_rounds: int = 10
    centroid_weight: float = 1.0
    entropy_weight: float = 0.8
    pseudo_after: int = 100

    def __post_init__(self) -> None:
        if not 0 <= self.forget_rate < 1:
            raise ValueError(f"forget_rate = {self.forget_rate}: must be from 0 to below 1")
        check_at_least(self, 0, "forget_rounds", "centroid_weight", "entropy_weight", "pseudo_after")

    def issues(self, context: RunContext) -> list[Issue]:
        """Return also that the run ends before the received model gives any label, or losses are left out, if so."""
        found, rounds = super().issues(context), context.settings.num_server_rounds
        if self.forget_rate:
            reached = ramped(1.0, rounds, self.forget_rounds)
            what = "the share of large losses that are left out"
            found += ramp_issues("rofl", "forget_rounds", self.forget_rounds, reached, context, what)
        if self.pseudo_after >= rounds:
            text = (
                f"method rofl takes labels of the received model after {self.pseudo_after} rounds (pseudo_after), and "
                f"the run has {rounds}: it only leaves out large losses"
            )
            remedy = f"set method.args = 'pseudo_after = {max(rounds // 10, 1)}', a tenth of the run, or more rounds"
            found.append(Issue(WARNING, "method", text, remedy))
        return found

    def extra_arrays(self, task: Task, model: nn.Module) -> Sequence[ExtraArray]:
        """Return the centroids, (K, F); see :class:`ClientMethod`."""
        training, kind = model.training, torch.float32 if task.has_smooth_inputs else torch.int64
        with torch.no_grad():
            width = task.features(model.eval(), torch.zeros(2, *task.input_shape, dtype=kind)).shape[1]
        model.train(training)
        shape = (task.num_classes, width)
        return [ExtraArray(CENTROIDS, shape, rule=similar_mean, robust_rule=median_of_known)]

    def plan(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> Plan:
        """Return the training; see :class:`PlannedMethod`."""
        received = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        server_round, device = round_config.server_round, context.local.labels.device
        pseudo, objective = context.local.labels, context.objective
        if server_round > self.pseudo_after:
            objective = context.objective_for(pseudo, any_class=True)
            pseudo = context.trainer.probabilities(model, context.local).argmax(1)
        batch_loss = NearCentroids(
            objective,
            received,
            torch.tensor(np.array(round_config.arrays[CENTROIDS]), dtype=torch.float32, device=device),
            pseudo,
            forget_rate=ramped(self.forget_rate, server_round, self.forget_rounds),
            centroid_weight=ramped(self.centroid_weight, server_round, self.pseudo_after),
            entropy_weight=self.entropy_weight,
        )

        def finish(trained: Trained) -> FitResult:
            return FitResult({"train-loss": trained.loss}, state, {CENTROIDS: batch_loss.centroids.cpu().numpy()})

        return Plan(context.local, batch_loss, finish)


def ramped(value: float, server_round: int, length: int) -> float:
    """Return what goes linearly from 0 to ``value`` in ``length`` rounds, in a round (1-based)."""
    return value * (min(server_round / length, 1.0) if length else 1.0)


class NearCentroids(GivenLabels):
    """RoFL's loss of a batch; moves the centroids (K, F) after it was computed."""

    needs_features = True

    def __init__(
        self,
        objective: Objective,
        global_parameters: GlobalParameters,
        centroids: Tensor,
        pseudo: Tensor,
        forget_rate: float,
        centroid_weight: float,
        entropy_weight: float,
    ) -> None:
        super().__init__(objective, global_parameters)
        self.centroids, self._pseudo = centroids, pseudo
        self._forget_rate = forget_rate
        self._centroid_weight, self._entropy_weight = centroid_weight, entropy_weight

    def loss(self, model: nn.Module, batch: Batch, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return the three parts; see :class:`BatchLoss`."""
        assert batch.deep_features is not None
        z, given = batch.deep_features, batch.labels
        kept = self._kept(logits, given)
        believed = nearest(z.detach(), self.centroids) == given
        labels = torch.where(believed, given, self._pseudo[batch.indices])
        value = self._of_kept(model, replace(batch, labels=labels), inputs, logits, kept)
        if self._centroid_weight:
            distance = (z - self.centroids[given]).square().mean(1)
            value = value + self._centroid_weight * _mean(distance, kept & believed)
        if self._entropy_weight:
            log_p = torch.log_softmax(logits, 1)
            value = value - self._entropy_weight * _mean((log_p.exp() * log_p).sum(1), kept)
        self.centroids = moved(self.centroids, z.detach()[kept], given[kept])
        return value

    def _kept(self, logits: Tensor, given: Tensor) -> Tensor:
        """Return which examples have small losses, (B,), bool."""
        count = kept_count(len(given), self._forget_rate)
        losses = self.objective.loss(logits.detach(), given)
        return torch.zeros_like(given, dtype=torch.bool).index_fill(0, torch.argsort(losses, stable=True)[:count], True)

    def _of_kept(self, model: nn.Module, batch: Batch, inputs: Tensor, logits: Tensor, kept: Tensor) -> Tensor:
        if kept_count(len(batch), self._forget_rate) == len(batch):
            return super().loss(model, batch, inputs, logits)
        share = kept.to(logits.dtype)
        return self._objective(logits, batch.labels, model, self._global_parameters, weights=share, inputs=inputs)


def nearest(features: Tensor, centroids: Tensor) -> Tensor:
    """Return the class of the centroid (K, F) with the largest cosine to each of ``features`` (B, F), (B,); -1 if none.

    An unknown centroid, 0, is nearest to nothing.
    """
    known = centroids.any(1)
    cosines = F.normalize(features, dim=1) @ F.normalize(centroids, dim=1).T
    best = cosines.masked_fill(~known, -torch.inf).max(1)
    return torch.where(best.values.isfinite(), best.indices, -1)


def moved(centroids: Tensor, features: Tensor, labels: Tensor) -> Tensor:
    """Return centroids (K, F) moved towards the mean of the features (B, F) of their class: (1 - s^2) f + s^2 f^.

    s is the cosine of f and f^. A class without features stays; an unknown centroid becomes f^.
    """
    sums = torch.zeros_like(centroids).index_add_(0, labels, features)
    counts = torch.bincount(labels, minlength=len(centroids))[:, None]
    means = sums / counts.clamp_min(1)
    share = F.cosine_similarity(centroids, means, dim=1).square()[:, None]
    share = torch.where(centroids.any(1, keepdim=True), share, 1.0)
    return torch.where(counts > 0, torch.lerp(centroids, means, share), centroids)


def similar_mean(values: Doubles, weights: Doubles, present: Doubles) -> Doubles:
    """Return the mean of clients' centroids (N, K, F), class by class weighted by their cosine with the present (K, F).

    As the paper: example counts do not matter. A negative cosine counts as 0. Where the present centroid is unknown, or
    no client's is similar to it, the mean is that of all clients that know one; where none does it stays.
    """
    lengths = np.linalg.norm(values, axis=2)
    known = (lengths > 0).astype(np.float64)
    scale = np.maximum(lengths * np.linalg.norm(present, axis=1), np.finfo(np.float64).tiny)
    cosines = np.maximum(np.einsum("nkf,kf->nk", values, present) / scale, 0.0)
    shares = np.where(cosines.sum(0) > 0, cosines, known)
    total = shares.sum(0)[:, None]
    mean = np.einsum("nk,nkf->kf", shares, values) / np.where(total > 0, total, 1.0)
    return np.asarray(np.where(total > 0, mean, present))


def median_of_known(values: Doubles, weights: Doubles, present: Doubles) -> Doubles:
    """Return the median of each number of a centroid over the clients that know it, behind a robust aggregator."""
    combined = present.copy()
    for label in range(len(present)):
        rows = values[np.any(values[:, label] != 0, axis=1), label]
        if len(rows):
            combined[label] = np.median(rows, axis=0)
    return combined


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean of the chosen ``values`` (B,), 0 if none is."""
    return (values * chosen).sum() / chosen.sum().clamp_min(1)
