"""Tasks: what is learned from what. The names that a task of your own needs; others are in the packages below.

They are imported when they are asked for, because most commands and a node's process start faster without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.base import TASKS, ClientData, DataError, Examples, Labels, Task, evaluate, predict
    from tasks.extra_arrays import ExtraArray
    from tasks.images import ImageTask
    from tasks.inference import Unlabelled
    from tasks.issues import ERROR, INFO, WARNING, Component, Issue, RunContext
    from tasks.metrics import classification_metrics
    from tasks.plugins import PluginError
    from tasks.settings import Settings
else:
    _MODULES = {
        "base": ("TASKS", "ClientData", "DataError", "Examples", "Labels", "Task", "evaluate", "predict"),
        "extra_arrays": ("ExtraArray",),
        "images": ("ImageTask",),
        "inference": ("Unlabelled",),
        "issues": ("ERROR", "INFO", "WARNING", "Component", "Issue", "RunContext"),
        "metrics": ("classification_metrics",),
        "plugins": ("PluginError",),
        "settings": ("Settings",),
    }

    def __getattr__(name: str) -> Any:
        """Import a name from its module (PEP 562)."""
        for module, names in _MODULES.items():
            if name in names:
                return getattr(import_module(f"{__name__}.{module}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "ERROR",
    "INFO",
    "TASKS",
    "WARNING",
    "ClientData",
    "Component",
    "DataError",
    "Examples",
    "ExtraArray",
    "ImageTask",
    "Issue",
    "Labels",
    "PluginError",
    "RunContext",
    "Settings",
    "Task",
    "Unlabelled",
    "classification_metrics",
    "evaluate",
    "predict",
]
