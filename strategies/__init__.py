"""Strategies: updates of clients to one model. The names that a strategy or server optimizer of your own needs.

They are imported when they are asked for: ``strategies.aggregators`` and ``strategies.detection`` work without Flower.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from strategies.base import STRATEGIES, UpdateStrategy
    from strategies.fedcorr import FedCorr
    from strategies.fedrn import FedRN
    from strategies.gram import Doubles, Vector
    from strategies.noise_partition import NoisePartition
    from strategies.robust import RobustStrategy
    from strategies.server_optimizers import SERVER_OPTIMIZERS, ServerOptimizer
    from strategies.validation import ReplyError, RoundReport, Update
else:
    _MODULES = {
        "base": ("STRATEGIES", "UpdateStrategy"),
        "fedcorr": ("FedCorr",),
        "fedrn": ("FedRN",),
        "gram": ("Doubles", "Vector"),
        "noise_partition": ("NoisePartition",),
        "robust": ("RobustStrategy",),
        "server_optimizers": ("SERVER_OPTIMIZERS", "ServerOptimizer"),
        "validation": ("ReplyError", "RoundReport", "Update"),
    }

    def __getattr__(name: str) -> Any:
        """Import a name from its module (PEP 562)."""
        for module, names in _MODULES.items():
            if name in names:
                return getattr(import_module(f"{__name__}.{module}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "SERVER_OPTIMIZERS",
    "STRATEGIES",
    "Doubles",
    "FedCorr",
    "FedRN",
    "NoisePartition",
    "ReplyError",
    "RobustStrategy",
    "RoundReport",
    "ServerOptimizer",
    "Update",
    "UpdateStrategy",
    "Vector",
]
