"""FedLSR: local self-regularization by two views of an image (Jiang, Sun, Wang and Liu, CIKM 2022).

"Towards Federated Learning against Noisy Labels via Local Self-Regularization", https://arxiv.org/abs/2208.12807. A
network that must answer alike to an image and to a much changed copy of it, and surely, finds it harder to learn wrong
labels by heart.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from client_app.losses import GlobalParameters, Objective
from client_app.methods.base import METHODS, FitResult, Plan, PlannedMethod, RoundConfig, State, TrainContext
from client_app.methods.sgd import given_labels
from client_app.methods.warmup import ramp_issues
from client_app.trainer import Batch, GivenLabels, Trained, Trainer
from tasks.arguments import check_above_zero, check_at_least
from tasks.issues import ERROR, Issue, RunContext
from tasks.seeds import rng, torch_seed


@METHODS.register("fedlsr", "Jiang et al., CIKM 2022", "https://arxiv.org/abs/2208.12807")
@dataclass(frozen=True)
class FedLSR(PlannedMethod):
    """Train on the sharpened mixture of predictions for two views of an image, which must agree; meant for the loss ce.

    z1 and z2 are the logits of a batch and of a strongly augmented copy (``Task.strong_augment``). A client minimises
    the configured loss of the distribution proportional to (s p1 + (1 - s) p2)^sharpness, where s is drawn from
    Beta(mix_alpha, mix_alpha) for each batch, plus

    - distil_weight x ramp x JS(softmax(z1 / temperature), softmax(z2 / temperature)), the Jensen-Shannon divergence in
      nats, mean over the batch; the ramp goes linearly from 0 to 1 in the first ``ramp_rounds`` rounds;
    - entropy_weight x the mean entropy of p1 and of p2.

    The authors' program takes the cross-entropy of probabilities as if they were logits, divides JS by the number of
    classes and counts the entropy of the first view twice. These are repaired here, so its weights act otherwise than
    there: JS by a factor of K.

    Cost: one model each way and the usual epochs with two forward and backward passes. A client reveals
    nothing beyond its update.

    Parameters
    ----------
    distil_weight
        gamma of the paper.
    entropy_weight
        gamma_e of the authors' program; 0 is FedLSR without the term that the paper adds in its discussion (FedLSR+).
        FNBench has 0.3.
    temperature
        T_d of the paper; below 1 sharpens.
    sharpness
        Exponent of the mixture; 1 leaves it.
    mix_alpha
        Of the Beta distribution; 0 is no mixture, the first view alone.
    ramp_rounds
        A fifth of the published 100 rounds; 0 starts with the full weight.
    """

    one_label_each: ClassVar[bool] = True
    distil_weight: float = 0.4
    entropy_weight: float = 0.6
    temperature: float = 1 / 3
    sharpness: float = 2.0
    mix_alpha: float = 1.0
    ramp_rounds: int = 20

    def __post_init__(self) -> None:
        check_at_least(self, 0, "distil_weight", "entropy_weight", "mix_alpha", "ramp_rounds")
        check_above_zero(self, "temperature", "sharpness")

    def issues(self, context: RunContext) -> list[Issue]:
        """Return also that the task has no strong augmentation, if so."""
        found = super().issues(context)
        if not context.has_strong_augmentation and not context.labels_pixels:
            name = context.settings.task.name
            text = f"method fedlsr compares two views of an image, and the examples of the task {name} are no images"
            if context.settings.task.encoder:
                text = "method fedlsr compares two views of an image, and an encoder has made features of the images"
            found.append(Issue(ERROR, "method", text, "choose another method"))
        if not self.distil_weight:
            return found
        reached = self.progress(context.settings.num_server_rounds)
        what = "the weight of the agreement of both views"
        return found + ramp_issues("fedlsr", "ramp_rounds", self.ramp_rounds, reached, context, what)

    def progress(self, server_round: int) -> float:
        """Return how far the ramp is in a round, 1-based, from 0 to 1."""
        return min(server_round / self.ramp_rounds, 1.0) if self.ramp_rounds else 1.0

    @property
    def is_plain(self) -> bool:
        """Whether nothing is left but the configured loss of the first view."""
        return not (self.distil_weight or self.entropy_weight or self.mix_alpha) and self.sharpness == 1

    def plan(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> Plan:
        """Return the training; see :class:`PlannedMethod`."""
        if self.is_plain:
            return given_labels(model, context, context.objective, state)
        received = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        progress = self.progress(round_config.server_round)
        batch_loss = TwoViews(self, context.trainer, context.objective, received, progress, round_config.stream)

        def finish(trained: Trained) -> FitResult:
            return FitResult({"train-loss": trained.loss}, state)

        return Plan(context.local, batch_loss, finish)


class TwoViews(GivenLabels):
    """FedLSR's loss of a batch; the second view is drawn anew each time."""

    def __init__(
        self,
        method: FedLSR,
        trainer: Trainer,
        objective: Objective,
        global_parameters: GlobalParameters,
        progress: float,
        stream: tuple[int, ...],
    ) -> None:
        super().__init__(objective, global_parameters)
        seed, *names = stream
        self._method, self._trainer = method, trainer
        self._distil_weight = progress * method.distil_weight
        self._shares: np.random.Generator = rng(seed, "fedlsr", *names)
        self._views = torch.Generator(trainer.device).manual_seed(torch_seed(seed, "fedlsr", *names))

    def loss(self, model: nn.Module, batch: Batch, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return the three parts; see :class:`BatchLoss`."""
        second = self._trainer.answers(model, self._trainer.view(batch.features, self._views, strong=True))
        alpha = self._method.mix_alpha
        share = float(self._shares.beta(alpha, alpha)) if alpha else 1.0
        mixed = mixed_log_probabilities(logits, second, share)
        value = super().loss(model, batch, inputs, self._method.sharpness * mixed)
        divergence = jensen_shannon(logits / self._method.temperature, second / self._method.temperature)
        surprise = (entropies(logits) + entropies(second)) / 2
        return value + self._distil_weight * divergence.mean() + self._method.entropy_weight * surprise.mean()


def mixed_log_probabilities(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Return log(share x softmax(first) + (1 - share) x softmax(second)) of logits (B, K), (B, K)."""
    log_p, log_q = torch.log_softmax(first, 1), torch.log_softmax(second, 1)
    if share in (0.0, 1.0):
        return log_p if share else log_q
    return torch.logaddexp(log_p + float(np.log(share)), log_q + float(np.log1p(-share)))


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of softmax(first) and softmax(second), in nats, (B,), from 0 to log 2."""
    log_p, log_q = torch.log_softmax(first, 1), torch.log_softmax(second, 1)
    log_m = torch.logaddexp(log_p, log_q) - float(np.log(2))
    return ((log_p.exp() * (log_p - log_m)).sum(1) + (log_q.exp() * (log_q - log_m)).sum(1)) / 2


def entropies(logits: Tensor) -> Tensor:
    """Return the entropy of softmax(logits) in nats, (B,)."""
    log_p = torch.log_softmax(logits, 1)
    return -(log_p.exp() * log_p).sum(1)
