"""FedDiv (Li, Li, Cheng, Liao, Yu, AAAI 2024): a federated noise filter, a mixture of two Gaussians for all clients.

Losses of right and wrong labels form two groups, but few examples of one client show them badly. So the parameters of
the two groups are averaged over all clients, as models are, and every client tells its labels apart by the common ones.

https://arxiv.org/abs/2312.12263
"""

import logging
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from client_app.losses import GlobalParameters, Objective
from client_app.methods.base import METHODS, ClientMethod, FitResult, RoundConfig, State, TrainContext
from client_app.methods.fedcorr import Mixup
from client_app.methods.side_by_side import received_parameters
from client_app.methods.warmup import warmup_issues
from client_app.trainer import Batch, LocalData
from tasks.arguments import check_at_least, check_shares
from tasks.base import Task
from tasks.extra_arrays import ExtraArray
from tasks.gaussian_mixture import Doubles, between_zero_and_one, fit_mixture, lower_posterior
from tasks.issues import Issue, RunContext
from tasks.seeds import rng, torch_seed

FILTER = "noise-filter"
"""Named array: mean, variance and weight of the group of small losses, then of the group of large ones, (2, 3)."""
LEAST_VARIANCE = 1e-6
HALF = 0.5

logger = logging.getLogger(__name__)


@METHODS.register("feddiv", "Li et al., AAAI 2024", "https://arxiv.org/abs/2312.12263")
@dataclass(frozen=True)
class FedDiv(ClientMethod):
    """Filter labels by a mixture model of all clients' losses, relabel, and train where predictions are consistent.

    After the warm-up a client (1) computes the cross-entropy of its labels under the received model, scaled to 0..1,
    and calls those examples clean that belong to the filter's lower group with probability 0.5 or more. If at most
    ``clean_threshold`` of them are noisy it trains on all given labels. Else (2) noisy examples of which the model
    is sure, max p >= ``confidence``, get its prediction as their label, the other noisy ones are left out; and (3) of
    what is left those are kept whose predicted class is also what the client's own model predicted after its last
    round without its bias, argmax(log p - ``debias`` log prior). In the client's first round all are kept; if nothing
    is left all clean ones are, and all examples if there are none.

    It trains by mixup on the configured loss plus ``prior_weight`` x KL(uniform, mean prediction of the batch). Then
    prior <- ``momentum`` x prior + (1 - ``momentum``) x mean p, and expectation maximisation fits the filter to the
    losses under the trained model, from the received filter on. The server averages, over the last filters of
    all clients, by example counts. The two groups are sent in the order of their means, so that they are not mixed up.

    The authors' program squares the weights of variances in that mean, so that they shrink, applies ``prior_weight``
    twice, and has other defaults; here it is as in the paper. With ``clean_threshold`` = 1, ``mixup_alpha`` = 0 and
    ``prior_weight`` = 0 it is plain training.

    Cost: one model each way and 6 numbers; the configured epochs, and one pass over the examples before and after.
    Meant for the loss ce and the aggregator mean. What it corrects, and what it predicts, stays in the state.

    Parameters
    ----------
    warmup_rounds
        Rounds on all given labels. The paper has 5 passes over all clients: 5 / federation.fraction-train rounds.
    clean_threshold
        Largest share of noisy examples of a client that counts as clean.
    confidence
        zeta of the paper; 0.70 in its supplement for some data.
    debias
        xi of the paper; 0 takes the prediction as it is.
    momentum
        Of the prior; m of the paper.
    mixup_alpha
        Of the Beta distribution; 0 is no mixup.
    prior_weight
        eta of the paper: 1 where clients have different classes.
    """

    one_label_each: ClassVar[bool] = True
    corrects_labels: ClassVar[bool] = True
    mixes_inputs: ClassVar[bool] = True
    warmup_rounds: int = 5
    clean_threshold: float = 0.1
    confidence: float = 0.75
    debias: float = 0.5
    momentum: float = 0.2
    mixup_alpha: float = 1.0
    prior_weight: float = 1.0

    def __post_init__(self) -> None:
        check_at_least(self, 0, "warmup_rounds", "debias", "mixup_alpha", "prior_weight")
        check_shares(self, "clean_threshold", "confidence", "momentum")

    def issues(self, context: RunContext) -> list[Issue]:
        """Return also that the run ends within the warm-up, if so."""
        instead = "no label is filtered"
        return super().issues(context) + warmup_issues("feddiv", self.warmup_rounds, context, instead=instead)

    def extra_arrays(self, task: Task, model: nn.Module) -> list[ExtraArray]:
        """Return the filter; all zeros until the first clients have sent theirs."""
        return [ExtraArray(FILTER, (2, 3), "float64", remembered=True)]

    def fit(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> FitResult:
        """Train in place on what the filter lets through; see :class:`ClientMethod`."""
        received = usable(round_config.arrays[FILTER])
        places, labels = torch.arange(len(context.local)), context.local.labels
        if received is not None and round_config.server_round > self.warmup_rounds:
            predicted = context.trainer.probabilities(model, context.local)
            places, labels = self._select(predicted, labels, received, self._known(state, context, round_config))
        seed, *names = round_config.stream
        draws = rng(seed, "mixup", *names)
        batch_loss = MixupWithPrior(
            context.objective, received_parameters(model), self.mixup_alpha, draws, self.prior_weight
        )
        local = LocalData(context.local.features[places], labels[places])
        trained = context.trainer.run(model, local, batch_loss, round_config.learning_rate, round_config.stream)
        probabilities = context.trainer.probabilities(model, context.local).double()
        scaled = between_zero_and_one(losses_of(probabilities, context.local.labels))
        groups = fit_mixture(scaled, torch_seed(seed, FILTER, *names), received, least_variance=LEAST_VARIANCE)
        return FitResult({"train-loss": trained.loss}, self._next(state, probabilities, labels), {FILTER: groups})

    def corrected(self, state: State) -> npt.NDArray[np.float32] | None:
        """Return the labels of the client's last round, (n, K); None before its first one."""
        if "labels" not in state:
            return None
        return np.eye(len(state["prior"]), dtype=np.float32)[state["labels"].astype(np.int64)]

    def _select(
        self, predicted: Tensor, given: Tensor, groups: Doubles, unbiased: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the places of the examples to train on, and the labels (n,) of all."""
        scaled = between_zero_and_one(losses_of(predicted.double(), given))
        clean = torch.from_numpy(lower_posterior(scaled, groups) >= HALF).to(given.device)
        if (~clean).double().mean() <= self.clean_threshold:
            return torch.arange(len(given)), given
        surest = predicted.max(1)
        relabelled = ~clean & (surest.values >= self.confidence)
        labels = torch.where(relabelled, surest.indices, given)
        kept = clean | relabelled
        if unbiased is not None:
            kept &= surest.indices == unbiased
        for mask in (kept, clean):
            if bool(mask.any()):
                return torch.nonzero(mask)[:, 0], labels
        return torch.arange(len(given)), labels

    def _known(self, state: State, context: TrainContext, round_config: RoundConfig) -> Tensor | None:
        """Return what the client's own model predicted without its bias, (n,), None before its first round."""
        if "unbiased" not in state:
            return None
        if state["unbiased"].shape != (len(context.local),):
            where = round_config.stream[1], round_config.server_round
            logger.warning("Client %d keeps all clean examples in round %d: its state does not fit the data", *where)
            return None
        predicted = torch.from_numpy(state["unbiased"].astype(np.int64))
        return predicted.to(device=context.local.labels.device)

    def _next(self, state: State, probabilities: Tensor, labels: Tensor) -> State:
        """Return the state after a round: the labels used, unbiased predictions by the prior as it was, the prior."""
        classes = probabilities.shape[1]
        prior = torch.from_numpy(state["prior"].astype(np.float64)) if "prior" in state else torch.full((classes,), 1.0)
        prior = prior.to(probabilities) / prior.sum()
        prior = prior.clamp_min(torch.finfo(torch.float32).tiny)
        scores = probabilities.clamp_min(torch.finfo(torch.float32).tiny).log() - self.debias * prior.log()
        after = self.momentum * prior + (1 - self.momentum) * probabilities.mean(0)
        found = {"labels": labels, "unbiased": scores.argmax(1), "prior": after}
        return {name: values.cpu().numpy() for name, values in found.items()}


class MixupWithPrior(Mixup):
    """Mixup plus ``weight`` x KL(uniform, mean prediction): it keeps a client from predicting a few classes only."""

    def __init__(
        self,
        objective: Objective,
        received: GlobalParameters,
        alpha: float,
        draws: np.random.Generator,
        weight: float,
    ) -> None:
        super().__init__(objective, received, alpha, draws)
        self._weight = weight

    def loss(self, model: nn.Module, batch: Batch, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return both; see :class:`BatchLoss`."""
        mixed = super().loss(model, batch, inputs, logits)
        return mixed + self._weight * distance_from_uniform(logits) if self._weight else mixed


def distance_from_uniform(logits: Tensor) -> Tensor:
    """Return KL(u, mean p) = sum_k u_k log(u_k / mean p_k) of a batch of logits (B, K), u_k = 1 / K."""
    count, classes = logits.shape
    log_mean = torch.logsumexp(torch.log_softmax(logits, 1), 0) - math.log(count)
    return -log_mean.mean() - math.log(classes)


def losses_of(probabilities: Tensor, labels: Tensor) -> Doubles:
    """Return the cross-entropy (n,) of labels (n,) under probabilities (n, K); finite."""
    chosen = probabilities.gather(1, labels[:, None])[:, 0]
    return np.asarray(-chosen.double().clamp_min(torch.finfo(torch.float32).tiny).log().cpu().numpy())


def usable(groups: npt.NDArray[np.generic]) -> Doubles | None:
    """Return a received filter with weights that sum to 1 and positive variances; None if nobody has sent one yet."""
    found = np.array(groups, np.float64)
    if found[:, 2].sum() <= 0:
        return None
    found[:, 1] = np.maximum(found[:, 1], LEAST_VARIANCE)
    found[:, 2] = np.maximum(found[:, 2], 0.0) / np.maximum(found[:, 2], 0.0).sum()
    return np.asarray(found[np.argsort(found[:, 0], kind="stable")])
