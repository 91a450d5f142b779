"""Networks of one client trained side by side on the same batches: what methods with several networks share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from client_app.acceleration import CHANNELS_LAST, laid_out_inputs, lay_out
from client_app.batch_splits import has_batch_norm, single_example
from client_app.losses import GlobalParameters, Objective
from client_app.methods.base import RoundConfig, TrainContext
from client_app.optimizers import LocalOptimizer, make_optimizer
from client_app.trainer import Batch, GivenLabels, Trained, say_that_it_is_eager
from tasks.seeds import torch_seed


class NetworksLoss(ABC):
    """What several networks minimise on a batch that all of them have seen.

    Parameters
    ----------
    objective
        The configured one.
    networks
        With the received weights, which its regularizers may measure distances to.
    """

    def __init__(self, objective: Objective, networks: Sequence[nn.Module]) -> None:
        self.objective = objective
        self._received = [received_parameters(network) for network in networks]

    @abstractmethod
    def losses(
        self, networks: Sequence[nn.Module], batch: Batch, inputs: Tensor, logits: Sequence[Tensor]
    ) -> Sequence[Tensor] | None:
        """Return the scalar that each network minimises, or None to leave out the batch.

        Parameters
        ----------
        networks
            Those being trained.
        batch
            The examples.
        inputs
            What the networks were given, float32, (B, ...).
        logits
            What each of them answered, float32, (B, K). A loss must not depend on another network's but as a number.
        """

    def on_examples(
        self, place: int, networks: Sequence[nn.Module], batch: Batch, inputs: Tensor, logits: Tensor, chosen: Tensor
    ) -> Tensor:
        """Return the objective of one network as the mean over ``chosen`` examples, (B,) of bool."""
        weights = None if bool(chosen.all()) else chosen.to(logits.dtype)
        received = self._received[place]
        return self.objective(logits, batch.labels, networks[place], received, weights=weights, inputs=inputs)


def received_parameters(network: nn.Module) -> GlobalParameters:
    """Return copies of the parameters of a network that holds the received weights, by name."""
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def train_side_by_side(
    networks: Sequence[nn.Module], context: TrainContext, round_config: RoundConfig, loss: NetworksLoss
) -> Trained:
    """Train networks in place for the configured epochs, each with an optimizer of its own.

    All see the same batches, those of a client with one network, and answer before one of them moves. The number of
    steps and the mean loss are those of the first one, over the batches that were not left out.
    """
    trainer, options = context.trainer, context.trainer.options
    if options.engine == "compile":
        say_that_it_is_eager(type(loss).__name__)
    channels_last = options.precision.endswith(CHANNELS_LAST)
    optimizers = []
    for network in networks:
        network.to(trainer.device).train()
        if channels_last:
            lay_out(network, True)
        optimizers.append(make_optimizer(network, options, round_config.learning_rate))
    learned = GivenLabels(context.objective, {})  # moves what the loss learns itself
    total, seen, steps = torch.zeros((), device=trainer.device), 0, 0
    seed, *names = round_config.stream
    for batch in trainer.batches(networks[0], context.local, torch_seed(seed, "train", *names)):
        value = _step(networks, optimizers, context, batch, loss)
        if value is not None:
            learned.end_step()
            total += value * len(batch)
            seen, steps = seen + len(batch), steps + 1
    for network in networks if channels_last else ():
        lay_out(network, False)
    return Trained(total.item() / max(seen, 1), steps)


def _step(
    networks: Sequence[nn.Module],
    optimizers: Sequence[LocalOptimizer],
    context: TrainContext,
    batch: Batch,
    loss: NetworksLoss,
) -> Tensor | None:
    """Take one step of each network, and return the first one's loss before it; None if the batch is left out."""
    options, inputs = context.trainer.options, context.trainer.task.prepare(batch.features)
    inputs = laid_out_inputs(inputs, options.precision)
    if loss.objective.needs_inputs:
        inputs.requires_grad_()
    for optimizer in optimizers:
        optimizer.zero_grad()
    with ExitStack() as stack:
        for network in networks if len(batch) == 1 else ():
            stack.enter_context(single_example(network))
        logits = [answer(network, inputs, options.precision) for network in networks]
    values = loss.losses(networks, batch, inputs, logits)
    if values is None:
        return None
    for value, optimizer in zip(values, optimizers, strict=True):
        value.backward()  # type: ignore[no-untyped-call]
        if options.clip_norm:
            optimizer.clip(options.clip_norm)
        optimizer.step()
    return values[0].detach()


def answer(network: nn.Module, inputs: Tensor, precision: str) -> Tensor:
    """Return the logits (B, K) of a network in the number format of training, as float32."""
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=precision.startswith("bfloat16")):
        return torch.as_tensor(network(inputs)).float()


def steps_in_a_round(network: nn.Module, context: TrainContext) -> int:
    """Return how many batches a client's round has."""
    epoch = next(context.trainer.orders(len(context.local), 0, has_batch_norm(network)))
    return len(epoch) * context.trainer.options.epochs
