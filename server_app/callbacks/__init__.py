"""Callbacks: what happens around rounds, fixed ones and those that ``run.callbacks`` chooses (``CALLBACKS``)."""

from server_app.callbacks.base import CALLBACKS, Callback, CallbackError, chosen_callbacks
from server_app.callbacks.records import TensorBoard

__all__ = ["CALLBACKS", "Callback", "CallbackError", "TensorBoard", "chosen_callbacks"]
