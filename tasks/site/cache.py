"""Decoded examples kept on disk: a real node starts a process for each message, and each would decode every file again.

One file holds what was read last. It counts as long as the declarations and, of every file in the data folder, path,
size and times of change are the same; otherwise everything is read anew.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tasks.base import Examples
from tasks.plugin.errors import explain
from tasks.site.problems import Problem
from tasks.site.reading import Reading

FILE = "examples.safetensors"
FORM = "1"
"""To be counted up when the same files come to be read as other examples."""


class Cache:
    """The examples of one data folder, as ``examples.safetensors`` in a folder that only this user may enter.

    Parameters
    ----------
    folder
        Where the file is; made if it is not there.
    declared
        The task's name and arguments: other declarations make other examples of the same files.
    """

    def __init__(self, folder: Path, declared: str) -> None:
        self._folder, self._declared = folder, declared
        self.problem = ""
        """Why the examples could not be kept; empty if they are."""

    def reading(self, root: Path, read: Callable[[Path], Reading]) -> Reading:
        """Return what was kept if nothing has changed below ``root``, else what ``read`` returns."""
        key = self._key(root)
        kept = self._load(key)
        if kept is not None:
            return kept
        reading = read(root)
        try:
            self._keep(key, reading)
        except (OSError, SafetensorError) as error:  # the run can do without; the next message is only slower
            self.problem = f"decoded examples cannot be kept in {self._folder}: {explain(error)}"
        return reading

    def _key(self, root: Path) -> str:
        digest = hashlib.sha256(json.dumps([FORM, self._declared, str(root)]).encode())
        for line in _states(root, self._folder):
            digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _load(self, key: str) -> Reading | None:
        try:
            with safe_open(self._folder / FILE, framework="pt") as file:
                facts = file.metadata() or {}
                if facts.get("key") != key:
                    return None
                examples = Examples(file.get_tensor("features"), file.get_tensor("labels").numpy())
        except (OSError, SafetensorError):  # none, or one that is damaged: read anew, and written anew
            return None
        problems = tuple(Problem(where, reason) for where, reason in json.loads(facts["problems"]))
        return Reading(examples, tuple(json.loads(facts["names"])), tuple(json.loads(facts["groups"])), problems)

    def _keep(self, key: str, reading: Reading) -> None:
        import torch

        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = self._folder / f".{FILE}.{os.getpid()}"
        examples = reading.examples
        facts = {
            "key": key,
            "names": json.dumps(reading.names),
            "groups": json.dumps(reading.groups),
            "problems": json.dumps([(problem.where, problem.reason) for problem in reading.problems]),
        }
        arrays = {"features": examples.features.contiguous(), "labels": torch.from_numpy(examples.labels).contiguous()}
        try:
            partial.touch(mode=0o600)
            save_file(arrays, partial, facts)
            os.replace(partial, self._folder / FILE)
        finally:
            partial.unlink(missing_ok=True)


def _states(root: Path, without: Path) -> Iterator[str]:
    """Yield path, size and times of change of all below ``root``, in a fixed order; the cache itself is left out.

    A link counts with what it points to; one to a folder is not followed, as in reading.
    """
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if Path(folder, name) != without)
        for name in sorted([*names, *files]):
            path = Path(folder, name)
            state = path.stat() if path.exists() else path.lstat()
            what = (state.st_mode, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
            yield f"{path.relative_to(root)}\0{what}\n"
