"""Run: configuration, registration, rounds, evaluation, report; and the names that a callback of your own needs.

They are imported when they are asked for, because the command ``winnow`` starts faster without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server_app.callbacks import CALLBACKS, Callback
    from server_app.state import RunState
else:
    _MODULES = {"callbacks": ("CALLBACKS", "Callback"), "state": ("RunState",)}

    def __getattr__(name: str) -> Any:
        """Import a name from its module (PEP 562)."""
        for module, names in _MODULES.items():
            if name in names:
                return getattr(import_module(f"{__name__}.{module}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["CALLBACKS", "Callback", "RunState"]
