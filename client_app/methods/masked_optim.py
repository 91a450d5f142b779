"""Masked optimization: labels are corrected while training, by MaskedOptim and FedELC.

Clients that the server takes for noisy learn a distribution over the classes for each of their examples, beside the
network, and keep it from round to round; all others train on their given labels. After PENCIL (Yi and Wu, CVPR 2019),
as FedELC (Jiang et al., CIKM 2024) and MaskedOptim (arXiv 2506.02079, 2025) use it.

Notation: p = softmax(logits) is what the model says, d = softmax(label logits) is the learned label, y the given one,
K the number of classes.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client_app.cohorts.batch_losses import JointBatch, JointLoss, joins
from client_app.cohorts.networks import StackedModel
from client_app.losses.joint import mean_of_each
from client_app.methods.base import METHODS, FitResult, Plan, PlannedMethod, RoundConfig, State, TrainContext
from client_app.methods.sgd import given_labels
from client_app.trainer import Batch, BatchLoss, Trained
from tasks.arguments import check_at_least, check_shares
from tasks.protocol import LEARNED
from tasks.weights import weights

logger = logging.getLogger(__name__)

Form = Literal["code", "paper"]
MaskRule = Literal["small-loss", "agreement"]
LABEL_LOGITS = "label_logits"


@METHODS.register("masked-optim", "arXiv 2506.02079, 2025", "https://arxiv.org/abs/2506.02079")
@dataclass(frozen=True)
class MaskedOptim(PlannedMethod):
    """Learn the labels of a noisy client beside the network (masked optimization).

    In a round a client of role noisy (1) trains network and label logits on :class:`ThreeTerms`, the labels once an
    epoch; (2) predicts its examples with the trained network, in evaluation mode and without augmentation, and sets the
    label logits to ``label_scale`` times the mean of prediction and learned label; (3) sends
    ``zeta`` x its own weights + (1 - zeta) x the received ones. BatchNorm statistics are merged like weights, counters
    are not. A client of any other role trains on the configured loss and given labels; its learned labels, if
    it has some because it was noisy before, stay as they are.

    Labels are (n, K) float32 under the name ``label_logits`` in the client's state. They start at ``label_scale`` for
    the given label and 0 for all others.

    Cost: one model each way and the usual epochs; at noisy clients also one pass of predictions.

    Example: ``winnow run masked-optim-digits``

    Parameters
    ----------
    objective
        ``code``: the loss of the authors' program; ``paper``: the loss as printed. See :class:`ThreeTerms`.
    alpha, beta
        Weights of the compatibility with the given label and of the entropy; with objective = code and beta = 1
        the two entropies cancel.
    mask, keep
        Which examples the mask keeps. ``small-loss``, as published: the ``keep`` share of each batch with the smallest
        cross-entropy; 1 is no mask. ``agreement``, as in an early version of the authors' program: those whose given
        label the model finds most likely, whatever ``keep`` is. A fixed share of 0.8 pins wrong labels where more than
        a fifth are wrong.
    label_rate
        Step size of the labels per example, whatever the batch size: the published 1000 at batch size 64 is 1000 / 64.
        With objective = code the pull towards the prediction is divided by K: FedELC takes five times the rate for 100
        classes. 0 leaves the labels to the fusion.
    label_scale
        How sure a label is at the start, and after fusion; K in the papers.
    fusion
        Weight of the prediction when it is merged with the learned label; 0 keeps the learned label.
    network_scale
        Factor of the gradient that noisy clients' networks get from the three terms; labels move as without it. 1 is
        as published. Their loss is divided by K with objective = code, so that at small learning rates they take steps
        a tenth as long as clean clients with ten classes; K undoes this.
    zeta
        Weight of the client's own weights in what it sends; 1 sends them as they are. So it is in the authors' program;
        a summary of the paper calls a higher zeta more global knowledge, which would be the other way round.
    """

    one_label_each: ClassVar[bool] = True
    corrects_labels: ClassVar[bool] = True
    reads_role: ClassVar[bool] = True
    objective: Form = "code"
    alpha: float = 0.5
    beta: float = 0.1
    mask: MaskRule = "small-loss"
    keep: float = 0.8
    label_rate: float = 15.625
    label_scale: float = 10.0
    fusion: float = 0.5
    zeta: float = 0.8
    network_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.objective not in get_args(Form):
            raise ValueError(f"objective = {self.objective!r}: must be 'code' or 'paper'")
        if self.mask not in get_args(MaskRule):
            raise ValueError(f"mask = {self.mask!r}: must be 'small-loss' or 'agreement'")
        check_at_least(self, 0, "alpha", "beta", "label_rate")
        check_shares(self, "keep", "fusion", "zeta")
        if self.label_scale <= 0:
            raise ValueError(f"label_scale = {self.label_scale}: must be above 0")
        if not 0 < self.network_scale < math.inf:
            raise ValueError(f"network_scale = {self.network_scale}: must be above 0 and finite")

    def plan(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> Plan:
        """Return the training; see :class:`PlannedMethod`."""
        if round_config.role != "noisy":
            return given_labels(model, context, context.objective, state)
        received = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        terms = ThreeTerms(self.objective, self.alpha, self.beta, self.keep, self.mask, self.network_scale)
        batch_loss = LabelLearning(self._label_logits(context, round_config, state), terms, self.label_rate)

        def finish(trained: Trained) -> FitResult:
            predicted = context.trainer.probabilities(model, context.local)
            merged = torch.lerp(torch.softmax(batch_loss.label_logits, 1), predicted, self.fusion)
            merge_weights(model, received, self.zeta)
            return FitResult({"train-loss": trained.loss}, {LABEL_LOGITS: (self.label_scale * merged).cpu().numpy()})

        return Plan(context.local, batch_loss, finish)

    def corrected(self, state: State) -> npt.NDArray[np.float32] | None:
        """Return the learned label distributions (n, K); None before the client first trained as noisy."""
        if LABEL_LOGITS not in state:
            return None
        return torch.softmax(torch.from_numpy(np.array(state[LABEL_LOGITS], np.float32)), 1).numpy()

    def _label_logits(self, context: TrainContext, round_config: RoundConfig, state: State) -> Tensor:
        """Return the label logits (n, K) that this round starts from, on the data's device."""
        given = context.local.labels
        shape = (len(given), context.num_classes)
        if LABEL_LOGITS in state and state[LABEL_LOGITS].shape == shape:
            return torch.tensor(state[LABEL_LOGITS], dtype=torch.float32, device=given.device)
        problem = ""
        if LABEL_LOGITS in state:
            problem = f"the learned labels are {state[LABEL_LOGITS].shape} and do not fit the data, {shape}"
        elif round_config.config.get(LEARNED, False):
            problem = "it has corrected labels before, but its state is lost"
        if problem:
            where = round_config.stream[1], round_config.server_round
            logger.warning("Client %d starts from its given labels in round %d: %s", *where, problem)
        return self.label_scale * F.one_hot(given, context.num_classes).float()


@METHODS.register("fedelc", "Jiang et al., CIKM 2024", "https://arxiv.org/abs/2408.04301")
@dataclass(frozen=True)
class FedELC(MaskedOptim):
    """Correct labels without mask and without merging with the received weights.

    MaskedOptim with other defaults; meant for the aggregator distance-aware. For 100 classes the paper takes
    five times the label rate.

    Cost: as MaskedOptim.

    Example: ``winnow run fedelc-digits``
    """

    beta: float = 0.2
    keep: float = 1.0
    zeta: float = 1.0


@dataclass(frozen=True)
class ThreeTerms:
    """How far p, d and y are apart, example by example.

    - ``code``, the authors' program: KL(p || d) / K + alpha m (-log d_y) + beta H(p) / K. The mask m is in the middle
      term only, which does not depend on the network: it frees the learned label of an example with a large loss from
      the given one. The entropy H(p) has a negative coefficient in all, (beta - 1) / K, for KL(p || d) contains -H(p).
    - ``paper``, the formulas as printed: m (CE(d, p) + alpha (-log d_y) + beta H(p)) with CE(d, p) = -sum_k d_k log p_k
      and no 1 / K: examples with a large loss are left out, and entropy is minimised.

    The mask m is 1 or 0. By the rule ``small-loss`` it is 1 for the ``keep`` share of a batch with the smallest
    cross-entropy -log p_y; keep = 1 is no mask. By the rule ``agreement`` it is 1 where y is the most likely class:
    as many as the model believes, however many labels are wrong.

    ``network_scale`` multiplies the gradient by the logits alone, not the value nor the gradient by the label logits.
    """

    form: Form
    alpha: float
    beta: float
    keep: float
    rule: MaskRule = "small-loss"
    network_scale: float = 1.0

    def __call__(self, logits: Tensor, label_logits: Tensor, given: Tensor, share: Tensor | None = None) -> Tensor:
        """Return the loss (B,) of each example, from logits and label logits (B, K) and given labels (B,).

        With ``share`` (C, b), 1 for an example and 0 for none, the B examples are those of C batches of b.
        """
        if self.network_scale != 1 and logits.requires_grad:
            logits = logits.view_as(logits)  # the caller's tensor has no hook of ours
            logits.register_hook(lambda slope: self.network_scale * slope)  # type: ignore[no-untyped-call]
        log_p, log_d = torch.log_softmax(logits, 1), torch.log_softmax(label_logits, 1)
        mask = self._mask(log_p.detach(), given, share)
        p, classes = log_p.exp(), logits.shape[1]
        entropy = -(p * log_p).sum(1)
        compatibility = self.alpha * F.nll_loss(log_d, given, reduction="none")
        if self.form == "code":
            divergence = (p * (log_p - log_d)).sum(1)
            return (divergence + self.beta * entropy) / classes + mask * compatibility
        classification = -(log_d.exp() * log_p).sum(1)
        return mask * (classification + compatibility + self.beta * entropy)

    def _mask(self, log_p: Tensor, given: Tensor, share: Tensor | None) -> Tensor:
        if self.rule == "agreement":
            return (log_p.argmax(1) == given).to(log_p.dtype)
        losses = F.nll_loss(log_p, given, reduction="none")
        return small_loss(losses, self.keep) if share is None else small_losses(losses, self.keep, share)


def small_loss(losses: Tensor, keep: float) -> Tensor:
    """Return 1 for the floor(keep x B) smallest of ``losses`` (B,), 0 for the others, as floats."""
    count = math.floor(keep * len(losses) + 1e-9)  # 0.29 * 100 is a little less than 29
    return torch.zeros_like(losses).index_fill_(0, torch.argsort(losses, stable=True)[:count], 1.0)


def small_losses(losses: Tensor, keep: float, share: Tensor) -> Tensor:
    """Return :func:`small_loss` of each of C batches, (C b,), whose examples are where ``share`` (C, b) is 1."""
    counts = (keep * share.double().sum(1, keepdim=True) + 1e-9).floor()
    ranks = torch.argsort(losses.view_as(share).masked_fill(share == 0, torch.inf), dim=1, stable=True).argsort(1)
    return (ranks < counts).to(losses.dtype).flatten()


class LabelLearning(BatchLoss):
    """Trains the network by batches and the labels by epochs, both on the three terms.

    At the end of an epoch each example's label logits take one step of ``rate`` against the gradient of its own loss;
    a short last batch moves its labels as far as any other, and an example that was not seen keeps its label.
    The mean over a batch of B divides gradients by B, so a published rate eta at batch size B is ``rate`` = eta / B.
    """

    def __init__(self, label_logits: Tensor, terms: ThreeTerms, rate: float) -> None:
        self.label_logits = label_logits
        self.terms = terms
        self._rate = rate
        self._slopes = torch.zeros_like(label_logits)

    def loss(self, model: nn.Module, batch: Batch, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return the mean of the three terms; see :class:`BatchLoss`."""
        label_logits = self.label_logits[batch.indices].requires_grad_()
        label_logits.register_hook(partial(self.note, batch.indices))  # type: ignore[no-untyped-call]
        return self.terms(logits, label_logits, batch.labels).mean()

    def note(self, indices: Tensor, gradient: Tensor) -> None:
        """Keep the gradients (B, K) of the mean loss of a batch by the label logits of its examples."""
        self._slopes[indices] = gradient * len(indices)

    def end_epoch(self) -> None:
        """Move all labels seen in this epoch."""
        self.label_logits -= self._rate * self._slopes
        self._slopes.zero_()


@joins(LabelLearning)
class JointLabelLearning(JointLoss):
    """The three terms of several clients, each with label logits of its own."""

    def __init__(self, batch_losses: Sequence[LabelLearning]) -> None:
        self._batch_losses = batch_losses

    def __call__(self, model: StackedModel, batch: JointBatch, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return the means of the three terms; see :class:`JointLoss`."""
        label_logits = torch.zeros_like(logits)
        for place, (own, indices) in enumerate(zip(self._batch_losses, batch.indices, strict=True)):
            label_logits[place, : len(indices)] = own.label_logits[indices]
        label_logits.requires_grad_().register_hook(partial(self._note, batch.indices))  # type: ignore[no-untyped-call]
        flat = logits.flatten(0, 1), label_logits.flatten(0, 1), batch.labels.flatten(0, 1)
        values = self._batch_losses[0].terms(*flat, batch.share)
        return mean_of_each(values.view_as(batch.share), batch.share)

    def _note(self, indices: Sequence[Tensor], gradient: Tensor) -> None:
        for own, seen, slopes in zip(self._batch_losses, indices, gradient, strict=True):
            own.note(seen, slopes[: len(seen)])


@torch.no_grad()
def merge_weights(model: nn.Module, received: dict[str, Tensor], share: float) -> None:
    """Set every floating tensor of ``model`` to ``share`` x itself + (1 - share) x the received one, in place.

    A tensor with several names is merged once.
    """
    for name, tensor in weights(model).items():
        if tensor.is_floating_point():
            tensor.copy_(torch.lerp(received[name], tensor, share))
