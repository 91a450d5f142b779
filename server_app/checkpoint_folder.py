"""A run's checkpoints: the last one, the one before it, which is used when the last is damaged, and the best model."""

import os
from itertools import count
from pathlib import Path

from server_app.checkpoint import Checkpoint, CheckpointError

LAST, PREVIOUS, BEST = "last.safetensors", "previous.safetensors", "best.safetensors"
CUT_OFF = "the run may have ended while it was written"


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
