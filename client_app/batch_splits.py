"""Batch splits: which examples are in which batch, and what BatchNorm does with a batch of one example."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from tasks.settings import TrainSettings

logger = logging.getLogger(__name__)


def has_batch_norm(model: nn.Module) -> bool:
    """Tell whether the model normalises over the batch."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def split_batches(shuffled: Tensor, options: TrainSettings, batch_norm: bool) -> list[Tensor]:
    """Split indices (n,) into batches; ``batch_norm`` tells whether a last one of a single example is left out."""
    parts = list(torch.split(shuffled, options.batch_size))
    short = len(parts) > 1 and len(parts[-1]) < options.batch_size
    if short and (options.drop_last or (batch_norm and len(parts[-1]) == 1)):
        parts.pop()  # BatchNorm learns nothing from a single example
    return parts


def smallest_batch(examples: int, options: TrainSettings, batch_norm: bool) -> int:
    """Return how many examples the smallest batch of a client with so many examples has."""
    return min(len(part) for part in split_batches(torch.arange(examples), options, batch_norm))


@contextmanager
def single_example(model: nn.Module) -> Iterator[list[nn.Module]]:
    """Let BatchNorm layers that see one value per channel use their running statistics, as in evaluation mode.

    Such a value is its own mean, and torch refuses to normalise by it. Yields the layers to which this happened. One
    example with several values per channel, such as an image, is normalised as ever.

    Raises
    ------
    ValueError
        If such a layer keeps no running statistics.
    """
    switched: list[nn.Module] = []

    def before(layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        values = args[0] if args else named["input"]
        if not layer.training or values.numel() != values.shape[1]:
            return
        if layer.running_mean is None:
            raise ValueError(f"{layer} keeps no running statistics, and cannot normalise one value per channel")
        _say_that_statistics_are_used()
        switched.append(layer.eval())

    layers = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    hooks = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in layers]
    try:
        yield switched
    finally:
        for hook in hooks:
            hook.remove()
        for layer in switched:
            layer.train()


@cache
def _say_that_statistics_are_used() -> None:
    """Log it, once in a process."""
    logger.warning("A batch of one example: BatchNorm layers with one value per channel use their running statistics")
