"""Winnow's own packages before any other of their names: imported first by the command, and imports none of them.

``tasks`` is a usual name. A ``tasks.py`` on PYTHONPATH, or in the working directory of ``python -m server_app.cli``,
would be taken for ours; an installation that can be edited even comes after everything else. Flower's own processes
put the app's folder first. And a shell that makes errors of warnings does so for its user's own programs: Flower, Ray
and torch warn at every start.
"""

import sys
import warnings
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

PACKAGES = ("tasks", "client_app", "strategies")
BESIDE = Path(__file__).resolve().parents[2]


class OwnPackages(MetaPathFinder):
    """Finds Winnow's packages beside ``server_app``; a plug-in's module of another name is found as before."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where the package is, None for all other names."""
        return PathFinder.find_spec(fullname, [str(BESIDE)]) if fullname in PACKAGES else None


sys.meta_path.insert(0, OwnPackages())
if any(action == "error" for action, *_ in warnings.filters):  # PYTHONWARNINGS=error; their processes do not get it
    warnings.simplefilter("default")
