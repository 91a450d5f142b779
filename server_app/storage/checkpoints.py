"""Checkpoints: one safetensors file holds the model, the strategy's own state and where the run stood.

The model's arrays carry their own names, so the file loads as an ordinary state dict (``safetensors.torch.load_model``
if weights are tied: they are kept once). The strategy's arrays are prefixed, as are those that clients train next, of
which the model is an average. The rest is JSON in the file's metadata. No pickle. Written to a partial file, then
renamed. A digest of all content shows damage that leaves a file readable.

A run keeps the last checkpoint, the one before it, which is used when the last is damaged, and the best model.
"""

import json
import os
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tasks.files import content_digest, replace_file
from tasks.issues import listed
from tasks.protocol import OF_STRATEGY, Arrays

TRAINED = OF_STRATEGY + "trained:"
LAST, PREVIOUS, BEST = "last.safetensors", "previous.safetensors", "best.safetensors"
CUT_OFF = "the run may have ended while it was written"


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or of another run."""


@dataclass(frozen=True)
class Checkpoint:
    """A run between two rounds: model, strategy state, and ``progress`` (round, best value, ...).

    The model's arrays may have further networks and named arrays among them; see :mod:`tasks.extra_arrays`. ``trained``
    is what clients train next, where that is not the model; see :mod:`strategies.model_average`.
    """

    model: Arrays
    strategy: Arrays = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    trained: Arrays = field(default_factory=dict)

    def write(self, path: Path, keep: Path | None = None) -> None:
        """Write the checkpoint, and keep what was at ``path`` at ``keep``; a crash or a full disk loses neither.

        Raises
        ------
        WriteError
            If it cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {**self.model, **_prefixed(OF_STRATEGY, self.strategy), **_prefixed(TRAINED, self.trained)}
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
        model = {name: array for name, array in arrays.items() if not name.startswith(OF_STRATEGY)}
        rest = {name: array for name, array in arrays.items() if not name.startswith(TRAINED)}
        return cls(model, _with_prefix(OF_STRATEGY, rest), progress, _with_prefix(TRAINED, arrays))

    def check_model(self, expected: Arrays) -> None:
        """Raise ``CheckpointError`` unless the arrays have the expected names, shapes and dtypes."""
        mine = {name: (array.shape, array.dtype) for name, array in self.model.items()}
        if mine != {name: (array.shape, array.dtype) for name, array in expected.items()}:
            raise CheckpointError("the checkpoint holds another model than the configuration asks for")

    def check_frozen(self, expected: Arrays) -> None:
        """Raise ``CheckpointError`` unless the arrays have the expected values: clients make them themselves."""
        other = sorted(name for name, array in expected.items() if self.model[name].tobytes() != array.tobytes())
        if other:
            raise CheckpointError(
                f"what is frozen has changed since the run began ({listed(other)}): put the file of model.init back as "
                "it was, or use the version of torch that versions.json names"
            )


def _prefixed(prefix: str, arrays: Arrays) -> Arrays:
    return {prefix + name: array for name, array in arrays.items()}


def _with_prefix(prefix: str, arrays: Arrays) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


class CheckpointFolder:
    """The folder ``checkpoints`` of a run directory. Whatever fails, one of the last two checkpoints is there."""

    def __init__(self, run_directory: Path) -> None:
        self.path = run_directory / "checkpoints"

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the last checkpoint; the one before it becomes the previous one.

        Raises
        ------
        WriteError
            If it cannot be written.
        """
        checkpoint.write(self.path / LAST, keep=self.path / PREVIOUS)

    def save_best(self, checkpoint: Checkpoint) -> None:
        """Write the best model; raises as :meth:`save`."""
        checkpoint.write(self.path / BEST)

    def best(self) -> Checkpoint:
        """Read the best model; raises as :meth:`Checkpoint.read`."""
        return Checkpoint.read(self.path / BEST)

    def holds_any(self) -> bool:
        """Tell whether there is a file to resume from, sound or not."""
        return any((self.path / name).is_file() for name in (LAST, PREVIOUS))

    def newest(self) -> tuple[Checkpoint, str]:
        """Read the last checkpoint, or the previous one if the last is missing or damaged.

        Returns
        -------
        tuple[Checkpoint, str]
            The checkpoint, and what is wrong with the last one: empty if it is the last one.

        Raises
        ------
        CheckpointError
            If neither can be used. Nothing is changed.
        """
        try:
            return Checkpoint.read(self.path / LAST), ""
        except CheckpointError as error:
            if not (self.path / PREVIOUS).exists():
                raise
            problem = str(error) if (self.path / LAST).exists() else f"{self.path / LAST} is missing: {CUT_OFF}"
        try:
            return Checkpoint.read(self.path / PREVIOUS), problem
        except CheckpointError as error:
            message = f"{problem}; {error}; put one of them back from a backup, or start a new run"
            raise CheckpointError(message) from error

    def earliest_round(self) -> int:
        """Return the round of the earlier of the two, as far as they are sound; raises as :meth:`newest`."""
        try:
            earliest = Checkpoint.read(self.path / PREVIOUS)
        except CheckpointError:
            earliest = self.newest()[0]
        return int(earliest.progress["server_round"])

    def step_back(self) -> Path | None:
        """Make the previous checkpoint the last one; return where the damaged one is kept, None if it was missing."""
        names = (self.path / f"damaged-{number}.safetensors" for number in count(1))
        aside = next(path for path in names if not path.exists())
        damaged = (self.path / LAST).exists()
        if damaged:
            os.rename(self.path / LAST, aside)
        os.rename(self.path / PREVIOUS, self.path / LAST)
        return aside if damaged else None
