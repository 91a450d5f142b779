"""Checkpoints: one safetensors file holds the model, the strategy's own state and where the run stood.

The model's arrays carry their own names, so the file loads as an ordinary state dict; the strategy's arrays are
prefixed, and the rest is JSON in the file's metadata. No pickle. Written to a partial file, then renamed. A digest
of all content shows damage that leaves a file readable.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

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
