"""Feature store: the encoded examples of one data set in a file, float16, mapped and not read into memory.

Examples are encoded once, block by block, by the first process that needs them, while others wait for it. What an
interrupted process has finished stays; the next one goes on from there. A file's name is a digest of all that its
content depends on, so that nothing old is ever taken for something new.
"""

import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tasks.base import Labels
from tasks.encoders.base import EncoderError
from tasks.files import private_folder, replace_file

Features = npt.NDArray[np.float16]
BLOCK = 256
SECONDS_BETWEEN_MARKS = 2.0
LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Plan:
    """What is to be encoded: ``count`` examples to ``width`` features each; ``title`` is for the progress bar.

    ``encode`` returns the features (m, width) of the examples ``start`` to ``stop`` - 1.
    """

    title: str
    count: int
    width: int
    encode: Callable[[int, int], Tensor]


class FeatureStore:
    """Files of features in a folder that only this user may enter.

    Parameters
    ----------
    folder
        Where the files are; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.realpath(folder))

    def find(self, key: str) -> tuple[Tensor, Labels] | None:
        """Return the features (n, width) and labels that were kept under a key, or None."""
        features, labels = self._features(key), self._labels(key)
        try:
            # Copy on write: torch wants memory that it might write to, and nothing is written back.
            kept = np.load(features, mmap_mode="c", allow_pickle=False)
            return torch.from_numpy(kept), np.load(labels, allow_pickle=False)
        except (OSError, ValueError, EOFError):  # not there, or cut short by a full disk or a crash: encoded anew
            return None

    def make(self, key: str, labels: Labels, plan: Plan) -> tuple[Tensor, Labels]:
        """Encode what is not encoded yet, keep it, and return features and labels.

        Raises
        ------
        EncoderError
            If the encoder returns anything but finite features, or the file cannot be written.
        """
        try:
            private_folder(self.folder)
            with self._locked(key):
                found = self.find(key)  # another process may have made it meanwhile
                if found is not None:
                    return found
                self._encode(key, plan)
                with open(self._labels(key), "wb") as file:
                    np.save(file, labels)
                os.replace(self._partial(key), self._features(key))
                self._mark(key).unlink(missing_ok=True)
        except OSError as error:
            raise EncoderError(
                f"cannot keep encoded examples in {self.folder}: {error.strerror or error}; they need "
                f"{plan.count * plan.width * 2 / 1e6:.0f} MB: name another folder in task.cache-path"
            ) from error
        found = self.find(key)
        assert found is not None
        return found

    def _encode(self, key: str, plan: Plan) -> None:
        """Fill the partial file, from the block at which the last process was interrupted."""
        shape = (plan.count, plan.width)
        done = self._done(key, shape)
        if not done:
            np.lib.format.open_memmap(self._partial(key), mode="w+", dtype=np.float16, shape=shape)
        marked = time.monotonic()
        # Written and not mapped: pages that are mapped count as this process's memory.
        with self._partial(key).open("r+b") as file, _progress(plan.title, plan.count) as show:
            file.seek(-2 * plan.width * (plan.count - done), os.SEEK_END)
            for start in range(done, plan.count, BLOCK):
                stop = min(start + BLOCK, plan.count)
                file.write(checked_features(plan.encode(start, stop), (stop - start, plan.width)).tobytes())
                show(stop)
                if time.monotonic() > marked + SECONDS_BETWEEN_MARKS:
                    _to_disk(file)
                    replace_file(self._mark(key), json.dumps(stop).encode(), private=True)
                    marked = time.monotonic()
            _to_disk(file)

    def _done(self, key: str, shape: tuple[int, int]) -> int:
        """Return how many examples an interrupted process has encoded."""
        try:
            done = json.loads(self._mark(key).read_text())
            kept = np.load(self._partial(key), mmap_mode="r", allow_pickle=False)
            return int(done) if kept.shape == shape and kept.dtype == np.float16 else 0
        except (OSError, ValueError, EOFError):
            return 0

    def _features(self, key: str) -> Path:
        return self.folder / f"features-{key}.npy"

    def _labels(self, key: str) -> Path:
        return self.folder / f"features-{key}.labels.npy"

    def _partial(self, key: str) -> Path:
        return self.folder / f"features-{key}.partial.npy"

    def _mark(self, key: str) -> Path:
        return self.folder / f"features-{key}.done"

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Wait until no other process encodes the same; a process that dies gives the lock back."""
        lock = os.open(self.folder / f"features-{key}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _to_disk(file: IO[bytes]) -> None:
    """Let what was written survive a crash of the machine."""
    file.flush()
    os.fsync(file.fileno())


def checked_features(features: Tensor, shape: tuple[int, int]) -> Features:
    """Return features as float16.

    Raises
    ------
    EncoderError
        If they have another shape, or are not finite in float16.
    """
    if tuple(features.shape) != shape:
        raise EncoderError(f"the encoder must return features of shape {shape}, got {tuple(features.shape)}")
    if not bool(features.isfinite().all()):
        raise EncoderError("the encoder returned features that are no numbers (NaN or infinite)")
    largest = float(features.abs().max())
    if largest > LARGEST:
        raise EncoderError(f"the encoder returned a feature of {largest:.3g}; float16 ends at {LARGEST:g}")
    return features.to(torch.float16).numpy()


@contextmanager
def _progress(title: str, count: int) -> Iterator[Callable[[int], None]]:
    """Show how many of ``count`` examples are done: a bar on a terminal, else a line for each tenth."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(title, total=count)
            yield lambda done: bar.update(task, completed=done)
        return
    shown = 0

    def show(done: int) -> None:
        nonlocal shown
        tenth = 10 * done // count
        if tenth > shown and count > 10 * BLOCK:
            shown = tenth
            getLogger("flwr").info("%s: %d of %d", title, done, count)

    yield show
