"""Run directory: the files of one run.

A crash leaves the old or the new content; in a .jsonl file, at worst a torn last line. A full disk leaves what was
saved: nothing is overwritten in place, and a little room is held back for the last words.
"""

import fcntl
import json
import math
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from logging import WARNING
from pathlib import Path
from typing import Any

import tomli_w

from tasks.config import nest, to_flat
from tasks.files import append_text, replace_file
from tasks.settings import Settings

METRICS, CLIENTS, CONFIG, STATUS, VERSIONS = (
    "metrics.jsonl",
    "clients.jsonl",
    "config.toml",
    "status.json",
    "versions.json",
)
RESERVE, RESERVE_BYTES = ".reserve", 2**16
PACKAGES = ("winnow", "flwr", "ray", "torch", "torchvision", "numpy", "scikit-learn", "scipy")


class OccupiedError(RuntimeError):
    """A run directory in which another ServerApp is at work."""


class RunDirectory:
    """One run's folder: config.toml, versions.json, status.json, metrics.jsonl, clients.jsonl, checkpoints/."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._claim: int | None = None

    def claim(self) -> None:
        """Keep other ServerApps out of this folder until :meth:`finish`, or until this process ends in any way.

        Raises
        ------
        OccupiedError
            If another one is still at work here.
        """
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(folder)
            raise OccupiedError(
                f"another ServerApp still works on {self.path}; one that was stopped notices that within a minute, so "
                "try again then"
            ) from error
        except OSError as error:  # some network file systems have no such lock
            from flwr.common.logger import log  # slow to import; who only reads run directories needs none of it

            log(WARNING, "%s cannot be claimed (%s): resume no run that is still running", self.path, error)
        self._claim = folder

    @classmethod
    def create(cls, parent: Path, label: str, settings: Settings) -> "RunDirectory":
        """Make a new folder under ``parent``, named by time and label, and record the settings in it."""
        stem = datetime.now().strftime("%Y%m%d-%H%M%S") + (f"-{label}" if label else "")
        parent.mkdir(parents=True, exist_ok=True)
        for suffix in ("", *(f"-{n}" for n in range(2, 100))):
            path = parent / (stem + suffix)
            try:
                path.mkdir()
            except FileExistsError:
                continue
            directory = cls(path)
            directory.write_config(settings)
            return directory
        raise FileExistsError(f"{parent} already holds 99 runs called {stem}")

    def write_config(self, settings: Settings) -> None:
        """Record the settings; the directory itself is not among them."""
        flat = {**to_flat(settings), "run.resume": ""}
        replace_file(self.path / CONFIG, tomli_w.dumps(nest(flat)).encode())

    def write_versions(self, device: str, encoder: str = "", model: Mapping[str, str] | None = None) -> None:
        """Record what runs: versions of Python and packages, platform, device, encoder, git commit of the checkout.

        ``model`` says what the model starts from.
        """
        found = {name: _version(name) for name in PACKAGES}
        facts = {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "device": device,
            **({"encoder": encoder} if encoder else {}),
            **(model or {}),
            "git": _commit(),
        }
        self._write_json(VERSIONS, {**found, **facts})

    def add_version(self, name: str, value: str) -> None:
        """Record one more fact in versions.json, such as by what a run made its inputs."""
        path = self.path / VERSIONS
        found = dict(json.loads(path.read_text())) if path.exists() else {}
        self._write_json(VERSIONS, {**found, name: value})

    def status(self) -> dict[str, Any]:
        """Return the recorded status."""
        path = self.path / STATUS
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def update_status(self, **changes: Any) -> None:
        """Change some fields of status.json."""
        self._write_json(STATUS, {**self.status(), **changes})

    def hold_reserve(self) -> None:
        """Hold back the room on the disk that :meth:`finish` needs; the bytes are such that no file system shrinks."""
        replace_file(self.path / RESERVE, os.urandom(RESERVE_BYTES))

    def finish(self, status: str, reason: str) -> None:
        """Record how the run ended: completed, stopped or failed, and why."""
        (self.path / RESERVE).unlink(missing_ok=True)
        try:
            self.update_status(status=status, reason=reason, finished=timestamp())
        finally:
            self._release()

    def _release(self) -> None:
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None

    def append(self, name: str, lines: Iterable[Mapping[str, Any]]) -> None:
        """Append lines to a .jsonl file; a full disk leaves it as it was."""
        append_text(self.path / name, "".join(json.dumps(_finite(dict(line))) + "\n" for line in lines))

    def forget_after(self, server_round: int) -> None:
        """Drop the lines of later rounds: a resumed run writes them again."""
        for name in (METRICS, CLIENTS):
            path = self.path / name
            kept = [line for line in _complete_lines(path) if json.loads(line)["round"] <= server_round]
            replace_file(path, "".join(f"{line}\n" for line in kept).encode())

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        replace_file(self.path / name, (json.dumps(_finite(dict(content)), indent=2) + "\n").encode())


def tags_of(text: str) -> list[str]:
    """Return the tags that a text holds, each once.

    >>> tags_of("pilot, lung CT,, pilot")
    ['pilot', 'lung CT']
    """
    return list(dict.fromkeys(tag for tag in map(str.strip, text.split(",")) if tag))


def timestamp() -> str:
    """Return the present time, ISO 8601 with its offset."""
    return datetime.now(UTC).astimezone().isoformat(timespec="seconds")


def _complete_lines(path: Path) -> list[str]:
    """Return the lines of a .jsonl file without a last one that a crash cut off."""
    text = path.read_text() if path.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: what is not finite becomes null."""
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
