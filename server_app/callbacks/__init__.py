"""Callbacks: what happens around rounds, fixed ones and those that ``run.callbacks`` chooses (``CALLBACKS``)."""

from server_app.callbacks.base import CALLBACKS, Callback, CallbackError, chosen_callbacks
from server_app.callbacks.trackers import MLflow, TensorBoard, WeightsAndBiases
from server_app.callbacks.tracking import TrackedRun, Tracker

__all__ = [
    "CALLBACKS",
    "Callback",
    "CallbackError",
    "MLflow",
    "TensorBoard",
    "TrackedRun",
    "Tracker",
    "WeightsAndBiases",
    "chosen_callbacks",
]
