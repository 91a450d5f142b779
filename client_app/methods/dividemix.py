"""DivideMix (Li, Socher, Hoi, ICLR 2020): two networks divide examples into labelled and unlabelled for each other.

What a network takes for wrongly labelled is not thrown away: its label is, and both networks guess another one. So the
rest of training is semi-supervised, by MixMatch (Berthelot et al., NeurIPS 2019).

https://arxiv.org/abs/2002.07394. In federated learning as FNBench compares it (Jiang, Sun, Wang, 2025,
https://arxiv.org/abs/2505.06684): both networks are the server's, each averaged for itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client_app.acceleration import laid_out_inputs
from client_app.batch_splits import has_batch_norm, single_example, split_batches
from client_app.losses import Objective
from client_app.methods.base import METHODS, ClientMethod, FitResult, RoundConfig, State, TrainContext
from client_app.methods.feddiv import distance_from_uniform, losses_of
from client_app.methods.side_by_side import NetworksLoss, answer, train_side_by_side
from client_app.methods.warmup import ramp_issues, warmup_issues
from client_app.optimizers import LocalOptimizer, make_optimizer
from client_app.trainer import Batch
from tasks.arguments import check_above_zero, check_at_least
from tasks.gaussian_mixture import Doubles, between_zero_and_one, fit_mixture, lower_posterior
from tasks.issues import Issue, RunContext
from tasks.seeds import rng, torch_seed

GMM_ITERATIONS, GMM_TOLERANCE, GMM_VARIANCE = 10, 1e-2, 5e-4
HISTORY = ("losses-1", "losses-2")
"""Names in the state of each network's last scaled losses, (up to ``average_losses``, n)."""


@METHODS.register("dividemix", "Li et al., ICLR 2020", "https://arxiv.org/abs/2002.07394")
@dataclass(frozen=True)
class DivideMix(ClientMethod):
    """Train two networks semi-supervised; each takes for labelled what the other one takes for rightly labelled.

    For ``warmup_rounds`` rounds both minimise the configured loss. Then in every epoch each network fits a mixture of
    two Gaussians to the cross-entropies of all examples, in evaluation mode, scaled to 0..1; w is the probability of
    the lower group. The first network trains with the w of the second, and then the second with that of the first, an
    epoch over the labelled examples, w > ``threshold``, with as many unlabelled ones:

    - targets of labelled examples: w x label + (1 - w) x the network's mean prediction of two augmented views;
    - targets of unlabelled ones: the mean prediction of both networks and both views;
    - targets are sharpened, p^(1 / ``temperature``) normalised, and all views mixed up, l x one + (1 - l) x another
      with l = max(b, 1 - b), b from Beta(``mixup_alpha``, ``mixup_alpha``);
    - cross-entropy of the labelled ones + weight x mean square of probability - target of the unlabelled ones
      + KL(uniform, mean prediction). The weight rises to ``unlabelled_weight`` in ``ramp_rounds`` rounds.

    If no example is labelled all are, with their given labels; if all are, the second term is left out. The server
    evaluates the mean of both networks' logits, as published. With ``warmup_rounds`` as many as the run has both are
    trained plainly.

    Cost: two models each way. For each labelled example a step takes twenty forward and eight backward passes in place
    of one, and each epoch one pass of both over all examples. Meant for the loss ce, which is that of the warm-up;
    weight decay, learning rate and the rest are those of ``train``.

    Parameters
    ----------
    warmup_rounds
        FNBench takes 24 of 120 rounds, the paper 10 (CIFAR-10) or 30 (CIFAR-100) of 300 epochs.
    asymmetric
        Whether the warm-up also minimises the mean of sum p log p, as the paper does for asymmetric noise.
    threshold
        Probability above which an example is labelled.
    temperature
        Of sharpening; 1 leaves targets as they are.
    mixup_alpha
        Of the Beta distribution.
    unlabelled_weight
        The paper has 0, 25, 50 or 150, by data set and noise; FNBench 25.
    ramp_rounds
        Length of its ramp after the warm-up; 0 starts at the end.
    average_losses
        Over how many last epochs losses are averaged before the fit; the paper takes 5 where 90 % are wrong.
    """

    one_label_each: ClassVar[bool] = True
    mixes_inputs: ClassVar[bool] = True
    networks: ClassVar[int] = 2
    ensemble: ClassVar[bool] = True
    warmup_rounds: int = 24
    asymmetric: bool = False
    threshold: float = 0.5
    temperature: float = 0.5
    mixup_alpha: float = 4.0
    unlabelled_weight: float = 25.0
    ramp_rounds: int = 16
    average_losses: int = 1

    def __post_init__(self) -> None:
        check_at_least(self, 0, "warmup_rounds", "unlabelled_weight", "ramp_rounds")
        check_at_least(self, 1, "average_losses")
        check_above_zero(self, "temperature", "mixup_alpha")
        if not 0 <= self.threshold < 1:
            raise ValueError(f"threshold = {self.threshold}: must be at least 0 and below 1")

    def issues(self, context: RunContext) -> list[Issue]:
        """Return also that the run ends within the warm-up, or early in the ramp, if so."""
        total, name = context.settings.num_server_rounds, "dividemix"
        found = super().issues(context)
        if self.warmup_rounds >= total:
            instead = "no example is taken for unlabelled"
            return found + warmup_issues(name, self.warmup_rounds, context, instead=instead)
        reached = self.weight(total, 1.0) / self.unlabelled_weight if self.unlabelled_weight else 1.0
        what = "the weight of unlabelled examples"
        return found + ramp_issues(name, "ramp_rounds", self.ramp_rounds, reached, context, what)

    def fit(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> FitResult:
        """Train both networks in place; see :class:`ClientMethod`."""
        networks = [model, *round_config.networks]
        if round_config.server_round <= self.warmup_rounds:
            loss = WarmUp(context.objective, networks, self.asymmetric)
            return FitResult({"train-loss": train_side_by_side(networks, context, round_config, loss).loss}, state)
        options, rate = context.trainer.options, round_config.learning_rate
        optimizers = [make_optimizer(network.to(context.trainer.device), options, rate) for network in networks]
        history = [known_losses(state, name, len(context.local)) for name in HISTORY]
        values: list[float] = []
        for epoch in range(options.epochs):
            pairs = zip(networks, history, strict=True)
            sure = [self._posterior(network, context, round_config, old) for network, old in pairs]
            for place, optimizer in enumerate(optimizers):
                pair = networks[place], networks[1 - place]
                trained = SemiSupervised(self, pair, optimizer, context, round_config)
                value = trained.run_epoch(sure[1 - place], epoch, place)
                values += [value] if place == 0 else []
        kept: State = {name: np.stack(old) for name, old in zip(HISTORY, history, strict=True)}
        return FitResult({"train-loss": float(np.mean(values))}, kept if self.average_losses > 1 else {})

    def weight(self, server_round: int, progress: float) -> float:
        """Return the weight of the unlabelled examples in a round, of which ``progress`` (0 to 1) is over."""
        done = server_round - 1 - self.warmup_rounds + progress
        return self.unlabelled_weight * (min(done / self.ramp_rounds, 1.0) if self.ramp_rounds else 1.0)

    def _posterior(
        self, network: nn.Module, context: TrainContext, round_config: RoundConfig, history: list[Doubles]
    ) -> Tensor:
        """Return the probability (n,) that each example is rightly labelled; the history takes its losses."""
        losses = losses_of(context.trainer.probabilities(network, context.local), context.local.labels)
        history.append(between_zero_and_one(losses))
        del history[: -self.average_losses]
        averaged = np.mean(history, axis=0)
        seed = torch_seed(round_config.stream[0], "dividemix-fit", *round_config.stream[1:])
        groups = fit_mixture(averaged, seed, None, GMM_ITERATIONS, GMM_TOLERANCE, GMM_VARIANCE)
        return torch.from_numpy(lower_posterior(averaged, groups)).to(context.local.labels.device)


def known_losses(state: State, name: str, count: int) -> list[Doubles]:
    """Return the last losses (n,) of earlier rounds; none if there are none of so many examples."""
    found = state.get(name)
    return [] if found is None or found.shape[1:] != (count,) else list(found.astype(np.float64))


class WarmUp(NetworksLoss):
    """The objective on all given labels, with ``penalty`` plus the mean of sum p log p."""

    def __init__(self, objective: Objective, networks: Sequence[nn.Module], penalty: bool) -> None:
        super().__init__(objective, networks)
        self._penalty = penalty

    def losses(
        self, networks: Sequence[nn.Module], batch: Batch, inputs: Tensor, logits: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        """Return both; see :class:`NetworksLoss`."""
        everything = torch.ones(len(batch), dtype=torch.bool, device=batch.labels.device)
        found = []
        for place, own in enumerate(logits):
            value = self.on_examples(place, networks, batch, inputs, own, everything)
            log_p = torch.log_softmax(own, 1)
            found.append(value + (log_p.exp() * log_p).sum(1).mean() if self._penalty else value)
        return found


class SemiSupervised:
    """Trains one network of a pair; the other one, in evaluation mode, guesses with it.

    Parameters
    ----------
    method
        Whose numbers hold.
    pair
        The network to train, and the other one.
    optimizer
        Of the first.
    context, round_config
        As the method got them.
    """

    def __init__(
        self,
        method: DivideMix,
        pair: tuple[nn.Module, nn.Module],
        optimizer: LocalOptimizer,
        context: TrainContext,
        round_config: RoundConfig,
    ) -> None:
        self._method, self._optimizer, self._context, self._round = method, optimizer, context, round_config
        self._network, self._other = pair

    def run_epoch(self, sure: Tensor, epoch: int, place: int) -> float:
        """Train for an epoch over the examples that are labelled by ``sure`` (n,), and return the mean loss."""
        self._network.train()
        self._other.eval()
        seed, *names = self._round.stream
        draws = rng(seed, "dividemix", *names, epoch, place)
        changes = torch.Generator(sure.device).manual_seed(torch_seed(seed, "dividemix", *names, epoch, place))
        labelled = sure > self._method.threshold
        if not bool(labelled.any()):
            labelled, sure = torch.ones_like(labelled), torch.ones_like(sure)
        options = self._context.trainer.options
        order = shuffled(torch.nonzero(labelled)[:, 0], draws)
        parts = split_batches(order, options, has_batch_norm(self._network))
        others = endless(torch.nonzero(~labelled)[:, 0], options.batch_size, draws)
        values = []
        for number, part in enumerate(parts):
            weight = self._method.weight(self._round.server_round, (epoch + number / len(parts)) / options.epochs)
            values.append(self._step(part, next(others), sure[part].float(), weight, draws, changes))
        return float(np.mean(values))

    def _step(
        self,
        labelled: Tensor,
        unlabelled: Tensor,
        sure: Tensor,
        weight: float,
        draws: np.random.Generator,
        changes: torch.Generator,
    ) -> float:
        method, options = self._method, self._context.trainer.options
        views_x, views_u = (self._views(places, changes) for places in (labelled, unlabelled))
        with single_example(self._network):
            with torch.no_grad():
                targets_x = self._refined(views_x, labelled, sure)
                targets_u = self._guessed(views_u) if len(unlabelled) else targets_x[:0]
            inputs, targets = torch.cat([*views_x, *views_u]), torch.cat([targets_x] * 2 + [targets_u] * 2)
            drawn = draws.beta(method.mixup_alpha, method.mixup_alpha)
            share = max(drawn, 1 - drawn)
            partners = torch.from_numpy(draws.permutation(len(inputs))).to(inputs.device)
            mixed = share * inputs + (1 - share) * inputs[partners]
            goal = share * targets + (1 - share) * targets[partners]
            self._optimizer.zero_grad()
            logits = answer(self._network, mixed, options.precision)
        value = semi_supervised_loss(logits, goal, 2 * len(labelled), weight)
        value.backward()  # type: ignore[no-untyped-call]
        if options.clip_norm:
            self._optimizer.clip(options.clip_norm)
        self._optimizer.step()
        return value.item()

    def _views(self, places: Tensor, changes: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return two augmented views of some examples, as the model takes them; equal ones if nothing is augmented."""
        trainer, local = self._context.trainer, self._context.local
        raw = local.features[places]
        found = [trainer.task.augment(raw, changes) if trainer.options.augment and len(raw) else raw for _ in range(2)]
        first, second = (laid_out_inputs(trainer.task.prepare(view), trainer.options.precision) for view in found)
        return first, second

    def _refined(self, views: Sequence[Tensor], labelled: Tensor, sure: Tensor) -> Tensor:
        predicted = self._mean_prediction([self._network], views)
        given = F.one_hot(self._context.local.labels[labelled], predicted.shape[1]).to(predicted.dtype)
        return sharpened(sure[:, None] * given + (1 - sure[:, None]) * predicted, self._method.temperature)

    def _guessed(self, views: Sequence[Tensor]) -> Tensor:
        return sharpened(self._mean_prediction([self._network, self._other], views), self._method.temperature)

    def _mean_prediction(self, networks: Sequence[nn.Module], views: Sequence[Tensor]) -> Tensor:
        precision = self._context.trainer.options.precision
        answers = [torch.softmax(answer(network, view, precision), 1) for network in networks for view in views]
        return torch.stack(answers).mean(0)


def shuffled(places: Tensor, draws: np.random.Generator) -> Tensor:
    """Return places (m,) in another order."""
    return places[torch.from_numpy(draws.permutation(len(places))).to(places.device)]


def endless(places: Tensor, size: int, draws: np.random.Generator) -> Iterator[Tensor]:
    """Yield batches of places (m,) for ever, each time round in another order; empty ones if there are none."""
    while True:
        yield from torch.split(shuffled(places, draws), size)


def sharpened(p: Tensor, temperature: float) -> Tensor:
    """Return p^(1 / temperature) normalised, of distributions (B, K)."""
    powers = p ** (1 / temperature)
    return powers / powers.sum(1, keepdim=True)


def semi_supervised_loss(logits: Tensor, targets: Tensor, labelled: int, weight: float) -> Tensor:
    """Return the loss of mixed views (M, K), of which the first ``labelled`` belong to labelled examples."""
    supervised = -(torch.log_softmax(logits[:labelled], 1) * targets[:labelled]).sum(1).mean()
    total = supervised + distance_from_uniform(logits)
    if len(logits) == labelled:
        return total
    return total + weight * (torch.softmax(logits[labelled:], 1) - targets[labelled:]).square().mean()
