"""Reading of files to examples, where what cannot be used is noted and left out; and a cache of them on disk.

A real node starts a process for each run, and each would decode every file again. One file holds what was read
last. It counts as long as the declarations, the code that reads and, of every file in the data folder, path, size and
times of change are the same, and its content matches its digest; otherwise everything is read anew. Many examples are
decoded into mapped files instead, block by block, so that they are never in memory at once.
"""

import fcntl
import hashlib
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from functools import partial
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
from tasks.example_store import Block, ExampleStore, Rows, RowShape
from tasks.files import content_digest, private_folder, replace_file, write_problem
from tasks.own_data.files import Problem, UnusableError, lost_examples, nfc
from tasks.plugins import explain

CACHE_FILE = "examples.safetensors"
PARTIAL_FILE = f".{CACHE_FILE}.partial"
MAPPED_FILE = re.compile(r"\.?examples-[0-9a-f]{12}-[0-9a-f]{24}\.")
LARGE = 2**28
"""Bytes of examples from which on they are kept in mapped files and not in memory."""

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


Shape = RowShape


@dataclass(frozen=True)
class Place:
    """Where examples go of which there are more than ``limit`` bytes: mapped files of ``store``.

    ``key`` returns under which name, ``refuses`` says why nothing can be written there, and notes it for
    the owner of the data; then all stay in memory.
    """

    store: ExampleStore
    key: Callable[[], str]
    limit: int
    title: str = "Decoding the examples"
    refuses: Callable[[], str] = field(default=lambda: "")

    def takes(self, size: int) -> bool:
        """Tell whether examples of so many bytes belong here, and can be written."""
        return size > self.limit and not self.refuses()


@dataclass(frozen=True)
class Reading:
    """Examples, their names and groups in the same order, what was left out, and what is worth a warning.

    ``mapped`` says that the examples are in mapped files, and not in memory.
    """

    examples: Examples
    names: tuple[str, ...]
    groups: tuple[str, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()
    mapped: bool = False

    @property
    def total(self) -> int:
        """Number of examples that were found, usable or not."""
        return len(self.names) + lost_examples(self.problems)


def read_items(
    items: Sequence[Item], shape: Shape, known: Sequence[Problem] = (), place: Place | None = None
) -> Reading:
    """Read all items, once each, into one block of memory, or into mapped files if ``place`` takes so many.

    ``known`` are problems that were found before.

    Raises
    ------
    DataError
        If a mapped file cannot be written to its end.
    """
    read = partial(_block, items, shape)
    mapped = place is not None and place.takes(len(items) * shape.bytes)
    if place is not None and mapped:
        found = place.store.keep(place.key(), Rows(place.title, len(items), shape, read))
        examples, lost = Examples(found.features, found.labels), dict(found.lost)
    else:
        features, labels, missing = read(0, len(items))
        examples, lost = Examples(torch.from_numpy(features), labels), dict(missing)
    names, groups, problems = list[str](), list[str](), list(known)
    for number, item in enumerate(items):
        if number in lost:
            problems.append(Problem(item.place or item.name, lost[number], value=item.value))
        else:
            names.append(item.name)
            groups.append(nfc(item.group))
    return Reading(examples, tuple(names), tuple(groups), tuple(problems), mapped=mapped)


def _block(items: Sequence[Item], shape: Shape, start: int, stop: int) -> Block:
    """Read the items ``start`` to ``stop`` - 1; those that cannot be used are left out, and said."""
    features = np.empty((stop - start, *shape.features), shape.dtype)
    labels = np.empty((stop - start, *shape.label), np.int64)
    kept, lost = 0, []
    for number in range(start, stop):
        try:
            features[kept], labels[kept] = items[number].read()
            kept += 1
        except UnusableError as problem:
            lost.append((number, str(problem)))
    return features[:kept], labels[:kept], tuple(lost)


class Cache:
    """The examples of one data folder in a folder that only this user may enter.

    Few are one file, ``examples.safetensors``; more than ``LARGE`` bytes are mapped files ``examples-*``.

    Parameters
    ----------
    folder
        Where the files are; made if it is not there.
    name, args
        The task's name and arguments: other declarations make other examples of the same files.
    keeps_few
        Whether few examples are kept too, or decoded in each process.
    """

    def __init__(self, folder: Path, name: str, args: str, keeps_few: bool = True) -> None:
        self._folder, self._name, self._args = Path(os.path.realpath(folder)), name, args
        self._keeps_few = keeps_few
        self._keys: dict[tuple[Path, type[Task]], str] = {}
        self.problem = ""
        """Why the examples could not be kept; empty if they are."""

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self._folder

    def reading(self, root: Path, read: Callable[[Path], Reading], task: type[Task], few: bool = True) -> Reading:
        """Return what was kept if neither ``root`` nor the code of ``task`` has changed, else what ``read`` returns.

        Only with ``few`` are few examples kept: there is one place for them.
        """
        few = few and self._keeps_few
        kept = (self._load(self._key(root, task)) if few else None) or self._load_mapped(root, task)
        if kept is not None:
            return kept
        reading = read(root)
        try:
            if reading.mapped:
                self._keep_facts(root, task, reading)
            elif few:
                self._keep(self._key(root, task), reading)
        except (OSError, SafetensorError) as error:  # the run can do without; the next message is only slower
            self.problem = self.problem or f"decoded examples cannot be kept in {self._folder}: {explain(error)}"
        return reading

    def place(self, root: Path, task: type[Task]) -> Place:
        """Return where the examples of a data folder go that are too many for memory."""
        title = f"Decoding the examples in {root.name}"
        return Place(ExampleStore(self._folder), partial(self._mapped, root, task), LARGE, title, self._unwritable)

    def _unwritable(self) -> str:
        problem = write_problem(self._folder)
        if problem:
            self.problem = (
                f"{self._folder} cannot be written ({problem}), so all examples stay in memory; name another folder in "
                "task.cache-path, on a node in state-dir"
            )
        return problem

    def _key(self, root: Path, task: type[Task]) -> str:
        """Return a digest of all that the examples depend on, as it was when it was first asked for."""
        if (root, task) not in self._keys:
            self._keys[root, task] = self._state(root, task)
        return self._keys[root, task]

    def _state(self, root: Path, task: type[Task]) -> str:
        declared = [self._name, self._args, str(root), version("pillow")]
        digest = hashlib.sha256(json.dumps(declared).encode())
        for line in chain(_code_digests(task, self._name), _file_states(Path(os.path.realpath(root)), self._folder)):
            digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _declared(self, root: Path) -> str:
        return hashlib.sha256(json.dumps([self._name, self._args, str(root)]).encode()).hexdigest()[:12]

    def _mapped(self, root: Path, task: type[Task]) -> str:
        """Return the name of the mapped files: what was declared for which folder, and the state of both."""
        return f"{self._declared(root)}-{self._key(root, task)[:24]}"

    def _load_mapped(self, root: Path, task: type[Task]) -> Reading | None:
        if not any(self._folder.glob(f"examples-{self._declared(root)}-*.json")):  # the state of a folder takes time
            return None
        name = self._mapped(root, task)
        try:
            facts = json.loads((self._folder / f"examples-{name}.json").read_text())
            problems = tuple(Problem(*problem) for problem in facts["problems"])
            names, groups, notes = (tuple(facts[name]) for name in ("names", "groups", "notes"))
        except (OSError, KeyError, TypeError, ValueError):  # none, or a damaged one: written anew
            return None
        found = ExampleStore(self._folder).kept(name)
        if found is None or len(found.labels) != len(names):
            return None
        return Reading(Examples(found.features, found.labels), names, groups, problems, notes, mapped=True)

    def _keep_facts(self, root: Path, task: type[Task], reading: Reading) -> None:
        """Keep what is known of mapped examples; those of an earlier state of the same folder go."""
        facts = {name: getattr(reading, name) for name in ("names", "groups", "notes")}
        facts["problems"] = [astuple(problem) for problem in reading.problems]
        own = self._mapped(root, task)
        replace_file(self._folder / f"examples-{own}.json", json.dumps(facts).encode(), private=True)
        for path in self._folder.glob(f"examples-{self._declared(root)}-*"):
            if not path.name.startswith(f"examples-{own}"):
                path.unlink(missing_ok=True)

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
            kept = path.name in (CACHE_FILE, PARTIAL_FILE) or MAPPED_FILE.match(path.name)
            if not (kept and path.parent == own):
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
