"""Co-teaching (Han, Yao, Yu, Niu, Xu, Hu, Tsang, Sugiyama, NeurIPS 2018) and Co-teaching+ (Yu, Han, Yao, Niu, Tsang,
Sugiyama, ICML 2019): two networks, each of which chooses what the other learns from.

A network learns what most labels agree on before it memorises the rest, so wrong labels have large losses at first. A
network that chose for itself would be confirmed in its mistakes; two that were drawn apart make different ones.

https://arxiv.org/abs/1804.06872 and https://arxiv.org/abs/1901.04215. In federated learning as FNBench compares them
(Jiang, Sun, Wang, 2025, https://arxiv.org/abs/2505.06684): both networks are the server's, each averaged for itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from client_app.losses import Objective
from client_app.methods.base import METHODS, ClientMethod, FitResult, RoundConfig, State, TrainContext
from client_app.methods.masked_optim import small_loss
from client_app.methods.side_by_side import NetworksLoss, steps_in_a_round, train_side_by_side
from client_app.methods.warmup import ramp_issues, warmup_issues
from client_app.trainer import Batch
from tasks.arguments import check_at_least
from tasks.issues import Issue, RunContext


@METHODS.register("co-teaching", "Han et al., NeurIPS 2018", "https://arxiv.org/abs/1804.06872")
@dataclass(frozen=True)
class CoTeaching(ClientMethod):
    """Train two networks, each on the examples of a batch on which the other one has the smallest losses.

    Of a batch of B examples the floor((1 - R) B) with the smallest loss count, at least one; the other network
    minimises the mean of the configured loss over them. R rises linearly from 0 in the first round to ``forget_rate``.
    With ``forget_rate`` = 0 either network is trained plainly.

    Cost: two models each way; two epochs of training for each configured one. Meant for the loss ce.

    Parameters
    ----------
    forget_rate
        Share that is left out in the end. The paper takes the rate of wrong labels, FNBench 0.2.
    ramp_rounds
        After how many rounds; 0 from the first one. FNBench takes 24 of 120 rounds, the paper 10 of 200 epochs.
    """

    one_label_each: ClassVar[bool] = True
    networks: ClassVar[int] = 2
    forget_rate: float = 0.2
    ramp_rounds: int = 24

    def __post_init__(self) -> None:
        if not 0 <= self.forget_rate < 1:
            raise ValueError(f"forget_rate = {self.forget_rate}: must be at least 0 and below 1")
        if self.ramp_rounds < 0:
            raise ValueError(f"ramp_rounds = {self.ramp_rounds}: must be at least 0")

    def rate(self, server_round: int) -> float:
        """Return R in a round, 1-based."""
        return (
            self.forget_rate * min((server_round - 1) / self.ramp_rounds, 1.0) if self.ramp_rounds else self.forget_rate
        )

    def issues(self, context: RunContext) -> list[Issue]:
        """Return also that it leaves out few examples even in the end, if so."""
        name, reached = context.settings.method.name, 1.0
        if self.forget_rate:
            reached = self.rate(context.settings.num_server_rounds) / self.forget_rate
        what = "the share of examples that are left out"
        return super().issues(context) + ramp_issues(name, "ramp_rounds", self.ramp_rounds, reached, context, what)

    def fit(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> FitResult:
        """Train both networks in place; see :class:`ClientMethod`."""
        networks = [model, *round_config.networks]
        loss = self._loss(networks, context, round_config)
        trained = train_side_by_side(networks, context, round_config, loss)
        return FitResult({"train-loss": trained.loss}, state)

    def _loss(
        self, networks: Sequence[nn.Module], context: TrainContext, round_config: RoundConfig
    ) -> "SmallLossExchange":
        return SmallLossExchange(context.objective, networks, self.rate(round_config.server_round))


@METHODS.register("co-teaching-plus", "Yu et al., ICML 2019", "https://arxiv.org/abs/1901.04215")
@dataclass(frozen=True)
class CoTeachingPlus(CoTeaching):
    """Train two networks on each other's small losses among the examples on which they disagree.

    For ``agreement_rounds`` rounds it is Co-teaching. Then only the set D of examples of a batch for which the two
    predict different classes is looked at: the floor((1 - R) |D|) with the smallest loss count, or all of D if that is
    none. Where they agree on the whole batch both learn from all of it, as long as a client has not taken
    ``fallback_steps`` steps; after these such a batch is left out. So the two stay apart.

    The authors' program gives softmax outputs to a cross-entropy that expects logits, and so do copies of it; here the
    configured loss gets logits.

    Cost: as Co-teaching.

    Parameters
    ----------
    agreement_rounds
        Rounds of Co-teaching first. FNBench takes 10 rounds, the paper 0 to 100 epochs, 20 for CIFAR-10.
    fallback_steps
        Steps in which a batch without a disagreement is learned whole, counted as if the client trained in every round.
    """

    agreement_rounds: int = 10
    fallback_steps: int = 5000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "agreement_rounds", "fallback_steps")

    def issues(self, context: RunContext) -> list[Issue]:
        """Return also that the run ends before it looks at disagreement, if so."""
        return super().issues(context) + warmup_issues(
            context.settings.method.name,
            self.agreement_rounds,
            context,
            argument="agreement_rounds",
            begins="does without disagreement",
            instead="it does what co-teaching does",
        )

    def _loss(
        self, networks: Sequence[nn.Module], context: TrainContext, round_config: RoundConfig
    ) -> "SmallLossExchange":
        if round_config.server_round <= self.agreement_rounds:
            return super()._loss(networks, context, round_config)
        done = (round_config.server_round - 1) * steps_in_a_round(networks[0], context)
        rate = self.rate(round_config.server_round)
        return DisagreementExchange(context.objective, networks, rate, max(self.fallback_steps - done, 0))


class SmallLossExchange(NetworksLoss):
    """Each network's objective on the examples that the other one has chosen; ``forget`` is R."""

    def __init__(self, objective: Objective, networks: Sequence[nn.Module], forget: float) -> None:
        super().__init__(objective, networks)
        self._forget = forget

    def losses(
        self, networks: Sequence[nn.Module], batch: Batch, inputs: Tensor, logits: Sequence[Tensor]
    ) -> Sequence[Tensor] | None:
        """Return both; see :class:`NetworksLoss`."""
        chosen = self.chosen(batch, logits)
        if chosen is None:
            return None
        exchanged = zip((0, 1), logits, reversed(chosen), strict=True)
        return [self.on_examples(place, networks, batch, inputs, own, mask) for place, own, mask in exchanged]

    def chosen(self, batch: Batch, logits: Sequence[Tensor]) -> Sequence[Tensor] | None:
        """Return which examples each network chooses, (B,) of bool; None to leave out the batch."""
        return [smallest(losses, self._forget, 1) for losses in self._losses_of_each(batch, logits)]

    def _losses_of_each(self, batch: Batch, logits: Sequence[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return [self.objective.loss(own, batch.labels) for own in logits]


class DisagreementExchange(SmallLossExchange):
    """The same among the examples whose predicted classes differ.

    Of the first ``fallback`` batches those without any are learned whole, of later ones they are left out.
    """

    def __init__(self, objective: Objective, networks: Sequence[nn.Module], forget: float, fallback: int) -> None:
        super().__init__(objective, networks, forget)
        self._fallback = fallback

    def chosen(self, batch: Batch, logits: Sequence[Tensor]) -> Sequence[Tensor] | None:
        """Return which examples each network chooses; see :class:`SmallLossExchange`."""
        self._fallback -= 1
        first, second = (own.argmax(1) for own in logits)
        differ = first != second
        if not bool(differ.any()):
            everything = torch.ones_like(differ)
            return [everything, everything] if self._fallback >= 0 else None
        found = []
        for losses in self._losses_of_each(batch, logits):
            mask = torch.zeros_like(differ)
            mask[differ] = smallest(losses[differ], self._forget, int(differ.sum()))
            found.append(mask)
        return found


def smallest(losses: Tensor, forget: float, otherwise: int) -> Tensor:
    """Return which floor((1 - forget) B) of ``losses`` (B,) are smallest; ``otherwise`` many if that is none."""
    chosen = small_loss(losses, 1 - forget).bool()
    return chosen if bool(chosen.any()) else small_loss(losses, otherwise / len(losses)).bool()
