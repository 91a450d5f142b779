"""Random starting weights, drawn from torch's global generator (seed it first, see ``tasks.seeds``)."""

from torch import nn


def init_published(model: nn.Module) -> None:
    """Draw the weights as the codes of the active-passive and active negative losses do.

    Convolutions: uniform, scaled by fan-in for ReLU (He et al., ICCV 2015); linear layers: uniform, scaled by both
    fans (Glorot and Bengio, AISTATS 2010). Biases and normalisation layers keep torch's default.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
