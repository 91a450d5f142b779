"""Server steps: the combined update of a round to what is added to the global model."""

from strategies.server_steps.adaptive import FedAdagrad, FedAdam, FedYogi
from strategies.server_steps.base import SERVER_STEPS, ServerStep
from strategies.server_steps.extrapolation import FedExP
from strategies.server_steps.momentum import FedAvgM
from tasks.plugin import PluginError

NO_STEP = "none"


def build_server_step(name: str, args: str = "") -> ServerStep | None:
    """Build a server step; ``none`` is None: the result of the rule is added as it is.

    Raises
    ------
    PluginError
        If the name is unknown or an argument does not fit.
    """
    if name != NO_STEP:
        return SERVER_STEPS.build(name, args)
    if args:
        raise PluginError(f"strategy.server-step-args = {args!r}, but strategy.server-step = 'none' takes no arguments")
    return None


__all__ = [
    "NO_STEP",
    "SERVER_STEPS",
    "FedAdagrad",
    "FedAdam",
    "FedAvgM",
    "FedExP",
    "FedYogi",
    "ServerStep",
    "build_server_step",
]
