"""Content keys of runs: digests of all that decides a run's numbers, so that none is computed twice.

A key is made of the settings, of the data, and of the code: ours and that of the plug-ins that the settings name.
Settings that only say where something lies or what a run is called are left out.
"""

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

import server_app
from tasks.base import Examples
from tasks.client_data import load_task, weights_folder
from tasks.config import PATHS, Flat, defaults_of, parse, to_flat
from tasks.initial_weights import file_digest
from tasks.settings import Settings, TaskSettings

PACKAGES = ("tasks", "client_app", "strategies", "server_app")
NAMES = (*PATHS, "variants", "run.name", "run.tags", "run.note")
"""Settings that no number depends on; what lies in the folders is in the digest of the data."""
PLUGIN = r"[A-Za-z_]\w*(?:\.\w+)*:[A-Za-z_]\w*"
CODE = "winnow code"
"""Among the versions of a run: the digest of the code that played it."""


@dataclass(frozen=True)
class RunKey:
    """Digests of a run: ``content`` of settings and data, ``code``, and ``whole`` of both."""

    content: str
    code: str

    @property
    def whole(self) -> str:
        """The run's key."""
        return _digest([self.content, self.code])


def run_key(flat: Flat) -> RunKey:
    """Return the key of a run with these settings, which are checked.

    Raises
    ------
    DataError
        If the data is not there.
    """
    settings = parse(flat)
    changed = {key: value for key, value in changed_settings(settings).items() if key not in NAMES}
    return RunKey(_digest([changed, data_digest(settings.task), _weights(settings)]), code_digest(plugin_modules(flat)))


def changed_settings(settings: Settings) -> Flat:
    """Return the settings that differ from the defaults, from which :func:`tasks.config.parse` makes the same again."""
    flat = to_flat(settings)
    defaults = defaults_of(flat)
    return {key: value for key, value in flat.items() if value != defaults[key]}


@cache
def data_digest(task: TaskSettings) -> str:
    """Return a digest of all examples of a task, training and test, with their labels, and of the encoder."""
    loaded = load_task(task)
    raw, found = loaded.raw, hashlib.sha256(loaded.encoder_digest.encode())
    for examples in (raw.train_examples(), *([raw.test_examples()] if raw.has_test_examples() else [])):
        _add(found, examples)
    return found.hexdigest()


def _add(found: "hashlib._Hash", examples: Examples) -> None:
    for array in (examples.features.cpu().numpy(), examples.labels):
        found.update(f"{array.dtype.str} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _weights(settings: Settings) -> str:
    return file_digest(settings.model, weights_folder(settings.task)) if settings.model.init else ""


def plugin_modules(flat: Flat) -> tuple[str, ...]:
    """Return the modules that settings name, as ``package.module:Name`` alone or in arguments, in alphabetical order.

    >>> plugin_modules({"loss.name": "my.losses:Focal", "run.callbacks": "'my.calls:Log' = {}, tensorboard = {}"})
    ('my.calls', 'my.losses')
    """
    found = {name for value in flat.values() if isinstance(value, str) for name in re.findall(PLUGIN, value)}
    return tuple(sorted({name.partition(":")[0] for name in found}))


@cache
def code_digest(modules: Iterable[str] = ()) -> str:
    """Return a digest of the source of our packages, and of the plug-ins' modules with all beside them."""
    root = Path(server_app.__path__[0]).resolve().parent
    files = [file for package in PACKAGES for file in sorted((root / package).rglob("*.py"))]
    named = [(str(file.relative_to(root)), file) for file in files]
    for module in modules:
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
            named += [(f"{module} {file.name}", file) for file in sorted(Path(spec.origin).parent.glob("*.py"))]
    return _digest([[name, hashlib.sha256(file.read_bytes()).hexdigest()] for name, file in named])


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
