"""FedRN (Kim, Shin, Jang, Song, Yun, CIKM 2022), the client's part: reliable neighbours help to find wrong labels.

https://arxiv.org/abs/2205.01310. A client's own model knows its data and has learned its wrong labels; models of other
clients have learned other ones.
"""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from client_app.methods.base import METHODS, ClientMethod, FitResult, RoundConfig, State, TrainContext
from client_app.methods.feddiv import losses_of
from client_app.methods.side_by_side import received_parameters
from client_app.trainer import GivenLabels, LocalData, Trainer
from tasks.base import Task
from tasks.extra_arrays import ExtraArray, further_networks
from tasks.gaussian_mixture import between_zero_and_one, fit_mixture, lower_posterior
from tasks.issues import WARNING, Issue, RunContext
from tasks.plugins import is_own
from tasks.protocol import EXPERTISE, PROBE_LOGITS, SCORES, Arrays
from tasks.seeds import torch_seed
from tasks.weights import load_arrays, model_arrays

GMM_ITERATIONS, GMM_TOLERANCE, GMM_VARIANCE = 100, 1e-2, 5e-4
OWN = "own/"
"""Begins the names under which the state keeps the client's model as it was after its last round."""

logger = logging.getLogger(__name__)


@METHODS.register("fedrn", "Kim et al., CIKM 2022", "https://arxiv.org/abs/2205.01310")
@dataclass(frozen=True)
class FedRN(ClientMethod):
    """Train on the examples that the client's last model and those of its neighbours take for rightly labelled.

    Meant for the strategy fedrn and the loss ce. Where it sends scores, the client (1) fits a mixture of two Gaussians
    to the cross-entropies of its labels under its own last model, scaled to 0..1; (2) trains the last layer of each
    neighbour's model, and nothing else of it, for one epoch on what the lower group holds, probability above
    ``threshold``; (3) fits such a mixture for each of these; and (4) trains the received model on the examples whose
    probabilities, averaged by the scores, are above ``threshold``, on all if there are none. Without scores, and in its
    first round, it trains plainly.

    It reports its expertise, the accuracy of the trained model on the given labels, and that model's logits of one
    random input, which is the same for all clients.

    Cost: one model up, 1 + neighbours down; the configured epochs on fewer examples, an epoch of the last layer of each
    neighbour, and 1 + 2 x neighbours passes over all examples.

    Example: ``winnow run method.name=fedrn strategy.name=fedrn loss.name=ce strategy.aggregator=mean``

    Parameters
    ----------
    threshold
        Probability above which an example counts as rightly labelled.
    """

    one_label_each: ClassVar[bool] = True
    mixes_inputs: ClassVar[bool] = True  # asks about an input of random numbers
    uses_neighbours: ClassVar[bool] = True
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ValueError(f"threshold = {self.threshold}: must be at least 0 and below 1")

    def extra_arrays(self, task: Task, model: nn.Module) -> list[ExtraArray]:
        """Return what the strategy fedrn reads of each client; nobody reads what is combined of it."""
        return [ExtraArray(EXPERTISE, (), "float64"), ExtraArray(PROBE_LOGITS, (task.num_classes,))]

    def issues(self, context: RunContext) -> list[Issue]:
        """Return also that no neighbours come, if so."""
        settings, found = context.settings, super().issues(context)
        if not context.strategy.gives_neighbours and not is_own(settings.strategy.name):
            text = f"method fedrn trains plainly: the strategy {settings.strategy.name} sends no neighbours"
            found.append(Issue(WARNING, "method", text, "set strategy.name = 'fedrn'"))
        return found

    def fit(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> FitResult:
        """Train in place on what is taken for rightly labelled; see :class:`ClientMethod`."""
        local, given = context.local, dict(round_config.given)
        own = {name.removeprefix(OWN): array for name, array in state.items() if name.startswith(OWN)}
        scores = given.pop(SCORES, None)
        if scores is not None and own:
            neighbours = [network_with(model, arrays) for arrays in further_networks(given).values()]
            right = self._right(network_with(model, own), neighbours, np.asarray(scores), context, round_config)
            places = torch.nonzero(right if bool(right.any()) else torch.ones_like(right))[:, 0]
            local = LocalData(local.features[places], local.labels[places])
        elif scores is not None:
            where = round_config.stream[1], round_config.server_round
            logger.warning("Client %d trains on all labels in round %d: its own last model is lost", *where)
        batch_loss = GivenLabels(context.objective, received_parameters(model))
        trained = context.trainer.run(model, local, batch_loss, round_config.learning_rate, round_config.stream)
        return FitResult({"train-loss": trained.loss}, self._kept(model), self._described(model, context, round_config))

    def _right(
        self,
        own: nn.Module,
        neighbours: Sequence[nn.Module],
        scores: np.ndarray,
        context: TrainContext,
        round_config: RoundConfig,
    ) -> Tensor:
        """Return which examples (n,) are taken for rightly labelled."""
        posteriors = [posterior(own, context, round_config)]
        chosen = torch.nonzero(torch.from_numpy(posteriors[0] > self.threshold))[:, 0]
        for neighbour in neighbours:
            train_last_layer(neighbour, chosen, context, round_config)
            posteriors.append(posterior(neighbour, context, round_config))
        shares = np.maximum(scores[: len(posteriors)], 0.0)
        shares = shares / shares.sum() if shares.sum() > 0 else np.full(len(posteriors), 1 / len(posteriors))
        mean = np.tensordot(shares, np.stack(posteriors), axes=1)
        return torch.from_numpy(mean > self.threshold).to(context.local.labels.device)

    def _kept(self, model: nn.Module) -> State:
        return {OWN + name: array.copy() for name, array in model_arrays(model).items()}

    def _described(self, model: nn.Module, context: TrainContext, round_config: RoundConfig) -> Arrays:
        predicted = context.trainer.probabilities(model, context.local).argmax(1)
        accuracy = (predicted == context.local.labels).double().mean().item()
        probe = probe_input(context.trainer.task.input_shape, round_config.stream[0]).to(context.trainer.device)
        with torch.no_grad():
            logits = model.eval()(probe)[0].float().cpu().numpy()
        return {EXPERTISE: np.array(accuracy), PROBE_LOGITS: logits}


def probe_input(shape: tuple[int, ...], seed: int) -> Tensor:
    """Return the input of Gaussian numbers (1, ...) that all clients of a run are compared on."""
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(torch_seed(seed, "fedrn-probe")))


def network_with(model: nn.Module, arrays: Arrays) -> nn.Module:
    """Return a copy of a model with other weights."""
    network = copy.deepcopy(model)
    load_arrays(network, arrays)
    return network


def posterior(network: nn.Module, context: TrainContext, round_config: RoundConfig) -> np.ndarray:
    """Return the probability (n,) that each example is of the group of small losses under a network."""
    losses = losses_of(context.trainer.probabilities(network, context.local), context.local.labels)
    values = between_zero_and_one(losses)
    seed = torch_seed(round_config.stream[0], "fedrn-fit", *round_config.stream[1:])
    return lower_posterior(values, fit_mixture(values, seed, None, GMM_ITERATIONS, GMM_TOLERANCE, GMM_VARIANCE))


def train_last_layer(network: nn.Module, chosen: Tensor, context: TrainContext, round_config: RoundConfig) -> None:
    """Train the last layer of a network in place for one epoch on ``chosen`` examples; the rest of it stays.

    BatchNorm statistics follow the examples, as in the authors' program.
    """
    if not len(chosen):
        return
    layer = last_layer(network)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    for parameter in layer.parameters(recurse=False):
        parameter.requires_grad_(True)
    local = LocalData(context.local.features[chosen], context.local.labels[chosen])
    trainer = Trainer(context.trainer.task, replace(context.trainer.options, epochs=1), context.trainer.device)
    seed, *names = round_config.stream
    batch_loss = GivenLabels(replace(context.objective, regularizers=()), {})
    trainer.run(network, local, batch_loss, round_config.learning_rate, (seed, *names))


def last_layer(network: nn.Module) -> nn.Module:
    """Return the layer that a network names as its last, ``feature_layer``, or the last one with parameters of its own.

    Raises
    ------
    ValueError
        If it has no parameters.
    """
    layers: dict[str, nn.Module] = {
        name: layer
        for name, layer in network.named_modules()
        if next(layer.parameters(recurse=False), None) is not None
    }
    if not layers:
        raise ValueError("fedrn trains the last layer of a network, and this one has no parameters")
    return layers.get(str(getattr(network, "feature_layer", "")), [*layers.values()][-1])
