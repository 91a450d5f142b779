"""The smallest useful network."""

from math import prod

from torch import nn

from tasks.models.base import MODELS


@MODELS.register("mlp")
def mlp(num_classes: int, input_shape: tuple[int, ...], hidden: int = 64) -> nn.Module:
    """One hidden layer of ReLU units, for inputs of any shape.

    Parameters
    ----------
    hidden
        Number of hidden units, at least 1.

    Raises
    ------
    ValueError
        If ``hidden`` is not a positive integer.
    """
    if not isinstance(hidden, int) or hidden < 1:
        raise ValueError(f"hidden = {hidden!r}: a positive number of units expected")
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(prod(input_shape), hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )
