"""Reading of files to examples in memory, where what cannot be used is noted and left out; and a cache of them on disk.

A real node starts a process for each message, and each would decode every file again. One file holds what was read
last. It counts as long as the declarations, the code that reads and, of every file in the data folder, path, size and
times of change are the same, and its content matches its digest; otherwise everything is read anew.
"""

import fcntl
import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tasks.base import Examples, Task
from tasks.files import content_digest, private_folder
from tasks.own_data.files import Problem, UnusableError, lost_examples, nfc
from tasks.plugins import explain

CACHE_FILE = "examples.safetensors"
PARTIAL_FILE = f".{CACHE_FILE}.partial"

Pair = tuple[npt.NDArray[Any], npt.NDArray[np.int64] | int]


@dataclass(frozen=True)
class Item:
    """One example before it is read.

    ``name`` is unique among the examples of a node; ``read`` returns features and label, or raises ``UnusableError``;
    ``group`` says where it comes from, if that is known; ``place`` is what a problem is noted for, if not the name;
    ``value`` is what stands for its class in the files, if that is known before; ``file`` is the one that it lies in.
    """

    name: str
    read: Callable[[], Pair]
    group: str = ""
    place: str = ""
    value: str = ""
    file: Path | None = None


@dataclass(frozen=True)
class Shape:
    """Shape and type of one example's features, and the shape of its label."""

    features: tuple[int, ...]
    dtype: npt.DTypeLike
    label: tuple[int, ...] = ()


@dataclass(frozen=True)
class Reading:
    """Examples in memory, their names and groups in the same order, what was left out, and what is worth a warning."""

    examples: Examples
    names: tuple[str, ...]
    groups: tuple[str, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Number of examples that were found, usable or not."""
        return len(self.names) + lost_examples(self.problems)


def read_items(items: Sequence[Item], shape: Shape, known: Sequence[Problem] = ()) -> Reading:
    """Read all items, once each, into one block of memory; ``known`` are problems that were found before."""
    features = np.empty((len(items), *shape.features), shape.dtype)
    labels = np.empty((len(items), *shape.label), np.int64)
    kept: list[Item] = []
    problems = list(known)
    for item in items:
        try:
            features[len(kept)], labels[len(kept)] = item.read()
            kept.append(item)
        except UnusableError as problem:
            problems.append(Problem(item.place or item.name, str(problem), value=item.value))
    examples = Examples(torch.from_numpy(features[: len(kept)]), labels[: len(kept)])
    groups = tuple(nfc(item.group) for item in kept)
    return Reading(examples, tuple(item.name for item in kept), groups, tuple(problems))


class Cache:
    """The examples of one data folder, as ``examples.safetensors`` in a folder that only this user may enter.

    Parameters
    ----------
    folder
        Where the file is; made if it is not there.
    name, args
        The task's name and arguments: other declarations make other examples of the same files.
    """

    def __init__(self, folder: Path, name: str, args: str) -> None:
        self._folder, self._name, self._args = Path(os.path.realpath(folder)), name, args
        self.problem = ""
        """Why the examples could not be kept; empty if they are."""

    def reading(self, root: Path, read: Callable[[Path], Reading], task: type[Task]) -> Reading:
        """Return what was kept if neither ``root`` nor the code of ``task`` has changed, else what ``read`` returns."""
        key = self._key(root, task)
        kept = self._load(key)
        if kept is not None:
            return kept
        reading = read(root)
        try:
            self._keep(key, reading)
        except (OSError, SafetensorError) as error:  # the run can do without; the next message is only slower
            self.problem = f"decoded examples cannot be kept in {self._folder}: {explain(error)}"
        return reading

    def _key(self, root: Path, task: type[Task]) -> str:
        declared = [self._name, self._args, str(root), version("pillow")]
        digest = hashlib.sha256(json.dumps(declared).encode())
        for line in chain(_code_digests(task, self._name), _file_states(Path(os.path.realpath(root)), self._folder)):
            digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _load(self, key: str) -> Reading | None:
        try:
            with safe_open(self._folder / CACHE_FILE, framework="pt") as file:
                facts = file.metadata() or {}
                if facts["key"] != key:
                    return None
                arrays = {name: file.get_tensor(name) for name in ("features", "labels")}
            if facts.pop("sha256") != _digest(facts, arrays):
                return None
            problems = tuple(Problem(*problem) for problem in json.loads(facts["problems"]))
            names, groups, notes = (tuple(json.loads(facts[key])) for key in ("names", "groups", "notes"))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):  # none, or a damaged one: written anew
            return None
        return Reading(Examples(arrays["features"], arrays["labels"].numpy()), names, groups, problems, notes)

    def _keep(self, key: str, reading: Reading) -> None:
        private_folder(self._folder)
        lock = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._write(key, reading)
        except BlockingIOError:  # another process is writing them just now
            return
        finally:
            os.close(lock)

    def _write(self, key: str, reading: Reading) -> None:
        partial, examples = self._folder / PARTIAL_FILE, reading.examples
        facts = {
            "key": key,
            "names": json.dumps(reading.names),
            "groups": json.dumps(reading.groups),
            "problems": json.dumps([astuple(problem) for problem in reading.problems]),
            "notes": json.dumps(reading.notes),
        }
        arrays = {"features": examples.features.contiguous(), "labels": torch.from_numpy(examples.labels).contiguous()}
        try:
            partial.unlink(missing_ok=True)  # one that a crash has left
            partial.touch(mode=0o600, exist_ok=False)
            save_file(arrays, partial, {**facts, "sha256": _digest(facts, arrays)})
            os.replace(partial, self._folder / CACHE_FILE)
        finally:
            partial.unlink(missing_ok=True)


def _digest(facts: dict[str, str], arrays: dict[str, torch.Tensor]) -> str:
    return content_digest(json.dumps(facts, sort_keys=True), {name: tensor.numpy() for name, tensor in arrays.items()})


def _code_digests(task: type[Task], name: str) -> Iterator[str]:
    """Yield name and content of the Python files beside that of the task's class, of its bases and of the plug-in.

    What a plug-in imports from other folders does not count.
    """
    modules = {base.__module__ for base in task.__mro__ if issubclass(base, Task)} | {name.partition(":")[0]}
    files = [getattr(sys.modules.get(module), "__file__", None) for module in modules]
    for folder in sorted({Path(file).parent for file in files if file}):
        for path in sorted(path for path in folder.glob("*.py") if path.is_file()):
            yield f"{path.name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def folder_state(root: Path, own: Path) -> str:
    """Return a SHA-256 of path, size and times of change of all below ``root``, without what lies in ``own``."""
    digest = hashlib.sha256()
    for line in _file_states(Path(os.path.realpath(root)), Path(os.path.realpath(own))):
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _file_states(root: Path, own: Path) -> Iterator[str]:
    """Yield path and state of all below ``root``, in a fixed order; what this module writes to ``own`` is left out."""
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if Path(folder, name) != own)
        for path in (Path(folder, name) for name in sorted([*names, *files])):
            if path not in (own / CACHE_FILE, own / PARTIAL_FILE):
                yield f"{path.relative_to(root)}\0{_file_state(path)}\n"


def _file_state(path: Path) -> str:
    """Return mode, size and times of change; a link counts with what it points to, if that can be reached."""
    try:
        found = path.lstat()
    except OSError:
        return "gone"
    if stat.S_ISDIR(found.st_mode):  # what it holds is listed by itself; its times change with the cache in it
        return str(found.st_mode)
    with suppress(OSError):
        found = path.stat()
    return str((found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns))
