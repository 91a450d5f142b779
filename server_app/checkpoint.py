"""Checkpoints: one safetensors file holds the model, the strategy's own state and where the run stood.

The model's arrays carry their own names, so the file loads as an ordinary state dict; the strategy's arrays are
prefixed, and the rest is JSON in the file's metadata. No pickle. Written to a partial file, then renamed.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import Strategy
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from server_app.run_directory import replace_file
from strategies.server_steps.base import ServerStep
from tasks.wire import Arrays

PREFIX = "strategy:"
LAST, BEST = "last.safetensors", "best.safetensors"


class CheckpointError(ValueError):
    """A checkpoint that is missing, unreadable or of another run."""


@dataclass(frozen=True)
class Checkpoint:
    """A run between two rounds: model, strategy state, and ``progress`` (round, best value, ...)."""

    model: Arrays
    strategy: Arrays = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the checkpoint; a crash leaves the previous one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {**self.model, **{PREFIX + name: array for name, array in self.strategy.items()}}
        contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        replace_file(path, save(contiguous, {"winnow": json.dumps(self.progress)}))

    @classmethod
    def read(cls, path: Path) -> "Checkpoint":
        """Read a checkpoint.

        Raises
        ------
        CheckpointError
            If there is none at ``path`` or it cannot be read.
        """
        if not path.is_file():
            raise CheckpointError(
                f"no checkpoint at {path}: the run ended before its first one, or this is no run directory"
            )
        try:
            with safe_open(path, framework="numpy") as file:
                progress = json.loads((file.metadata() or {})["winnow"])
                arrays: Arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        own = {name.removeprefix(PREFIX): array for name, array in arrays.items() if name.startswith(PREFIX)}
        return cls({name: array for name, array in arrays.items() if not name.startswith(PREFIX)}, own, progress)

    def check_model(self, expected: Arrays) -> None:
        """Raise ``CheckpointError`` unless the arrays have the expected names, shapes and dtypes."""
        mine = {name: (array.shape, array.dtype) for name, array in self.model.items()}
        if mine != {name: (array.shape, array.dtype) for name, array in expected.items()}:
            raise CheckpointError("the checkpoint holds another model than the configuration asks for")


def strategy_state(strategy: Strategy | ServerStep) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays and plain values that a strategy keeps between rounds, such as FedAdam's moments.

    Arrays are found in the strategy's attributes as arrays, lists or dictionaries of arrays, or ArrayRecords; and in
    those of its server step.
    """
    arrays: Arrays = {}
    shapes: dict[str, Any] = {}
    for name, value in vars(strategy).items():
        if isinstance(value, ArrayRecord):
            shapes[name] = {"kind": "record", "keys": list(value)}
            arrays.update({f"{name}/{key}": array.numpy() for key, array in value.items()})
        elif isinstance(value, dict) and value and all(isinstance(item, np.ndarray) for item in value.values()):
            shapes[name] = {"kind": "dict", "keys": list(value)}
            arrays.update({f"{name}/{key}": array for key, array in value.items()})
        elif isinstance(value, list) and value and all(isinstance(item, np.ndarray) for item in value):
            shapes[name] = {"kind": "list", "keys": [str(i) for i in range(len(value))]}
            arrays.update({f"{name}/{i}": array for i, array in enumerate(value)})
        elif isinstance(value, np.ndarray):
            shapes[name] = {"kind": "array", "keys": [""]}
            arrays[f"{name}/"] = value
        elif isinstance(value, ServerStep):
            inner, inner_shapes = strategy_state(value)
            shapes[name] = {"kind": "step", "shapes": inner_shapes}
            arrays.update({f"{name}/{key}": array for key, array in inner.items()})
        elif isinstance(value, int | float | str):
            shapes[name] = {"kind": "plain", "value": value}
    return arrays, shapes


def restore_strategy(strategy: Strategy | ServerStep, arrays: Arrays, shapes: dict[str, Any]) -> None:
    """Put back what :func:`strategy_state` returned."""
    for name, shape in shapes.items():
        if shape["kind"] == "plain":
            setattr(strategy, name, shape["value"])
            continue
        if shape["kind"] == "step":
            prefix = f"{name}/"
            own = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
            restore_strategy(getattr(strategy, name), own, shape["shapes"])
            continue
        values = {key: arrays[f"{name}/{key}"] for key in shape["keys"]}
        kinds: dict[str, Callable[[Arrays], Any]] = {
            "record": lambda found: ArrayRecord({key: Array(array) for key, array in found.items()}),
            "dict": dict,
            "list": lambda found: list(found.values()),
            "array": lambda found: found[""],
        }
        setattr(strategy, name, kinds[shape["kind"]](values))
