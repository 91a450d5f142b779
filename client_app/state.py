"""State of a client method between rounds: in Flower's context, or in a folder that survives restarts.

The folder holds one file a round, so that a run resumed from an older checkpoint finds the state of that round.
"""

import re
from pathlib import Path
from typing import Protocol

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from safetensors.numpy import load_file, save

from client_app.methods import State
from tasks.files import private_folder, replace_file

RECORD = "winnow.state"


class StateStore(Protocol):
    """Keeps one client's state."""

    def load(self, server_round: int) -> State | None:
        """Return the state that the client had before ``server_round``, or None before its first round."""

    def save(self, server_round: int, state: State) -> None:
        """Keep the state that the client has after ``server_round``."""


class ContextStore:
    """Keeps the state in Flower's context: as long as the run and the SuperNode live."""

    def __init__(self, context: Context) -> None:
        self._records = context.state

    def load(self, server_round: int) -> State | None:
        """See :class:`StateStore`."""
        record = self._records.get(RECORD)
        if not isinstance(record, ArrayRecord):
            return None
        return {name: array.numpy() for name, array in record.items()}

    def save(self, server_round: int, state: State) -> None:
        """See :class:`StateStore`."""
        if state:
            self._records[RECORD] = ArrayRecord({name: Array(np.asarray(a, order="C")) for name, a in state.items()})


class FolderStore:
    """Keeps the state as ``state-<round>.safetensors``, from ``checkpoint_round`` on; older files are removed.

    The run may go back as far as that. A crash or a full disk leaves the states that were there. Only this user may
    read them: they hold what the method thinks of each label.
    """

    def __init__(self, folder: Path, checkpoint_round: int) -> None:
        self._folder = folder
        self._checkpoint_round = checkpoint_round

    def _rounds(self) -> list[int]:
        matches = (re.fullmatch(r"state-(\d+)\.safetensors", path.name) for path in self._folder.glob("state-*"))
        return sorted(int(match[1]) for match in matches if match)

    def load(self, server_round: int) -> State | None:
        """See :class:`StateStore`."""
        earlier = [r for r in self._rounds() if r < server_round]
        return dict(load_file(self._path(earlier[-1]))) if earlier else None

    def save(self, server_round: int, state: State) -> None:
        """See :class:`StateStore`."""
        if not state:
            return
        private_folder(self._folder)
        content = save({name: np.asarray(array, order="C") for name, array in state.items()})
        replace_file(self._path(server_round), content, private=True)
        needed = max((r for r in self._rounds() if r <= self._checkpoint_round), default=0)
        for old in self._rounds():
            if old < needed:
                self._path(old).unlink()

    def _path(self, server_round: int) -> Path:
        return self._folder / f"state-{server_round}.safetensors"
