"""Checkpoints: one safetensors file holds the model, the strategy's own state and where the run stood.

The model's arrays carry their own names, so the file loads as an ordinary state dict; the strategy's arrays are
prefixed, and the rest is JSON in the file's metadata. No pickle. Written to a partial file, then renamed. A digest
of all content shows damage that leaves a file readable.
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

from strategies.server_steps.base import ServerStep
from tasks.digest import content_digest
from tasks.wire import Arrays
from tasks.writing import replace_file

PREFIX = "strategy:"


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or of another run."""


@dataclass(frozen=True)
class Checkpoint:
    """A run between two rounds: model, strategy state, and ``progress`` (round, best value, ...)."""

    model: Arrays
    strategy: Arrays = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)

    def write(self, path: Path, keep: Path | None = None) -> None:
        """Write the checkpoint, and keep what was at ``path`` at ``keep``; a crash or a full disk loses neither.

        Raises
        ------
        WriteError
            If it cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {**self.model, **{PREFIX + name: array for name, array in self.strategy.items()}}
        contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        facts = {"sha256": content_digest(json.dumps(self.progress), contiguous), "progress": self.progress}
        replace_file(path, save(contiguous, {"winnow": json.dumps(facts)}), keep)

    @classmethod
    def read(cls, path: Path) -> "Checkpoint":
        """Read a checkpoint.

        Raises
        ------
        CheckpointError
            If there is none at ``path``, it cannot be read, or it is not what was written.
        """
        if not path.is_file():
            raise CheckpointError(
                f"no checkpoint at {path}: the run ended before its first one, or this is no run directory"
            )
        try:
            with safe_open(path, framework="numpy") as file:
                facts = json.loads((file.metadata() or {})["winnow"])
                digest, progress = facts.get("sha256"), facts["progress"]
                arrays: Arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, TypeError, AttributeError, ValueError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        if digest is None:
            raise CheckpointError(f"{path} has no digest: written by an older version; only that one can go on from it")
        if digest != content_digest(json.dumps(progress), arrays):
            raise CheckpointError(f"{path} is damaged: its content does not match its digest")
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
