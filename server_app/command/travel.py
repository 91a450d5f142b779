"""Which plug-ins would not reach the other processes of a run, because Flower leaves their files out of the bundle."""

import re
import sys
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from server_app.command.configuration import read_toml
from tasks.config import to_flat
from tasks.issues import ERROR, Issue
from tasks.settings import Settings

OWN = re.compile(r"\b\w+(?:\.\w+)*:\w+")  # an import path, as a whole value or within inline TOML
NEVER_SENT = ("test_*.py", "*_test.py")  # by name, in any folder; a rule of Flower's


def left_behind(app: Path, runs: Iterable[Settings]) -> list[Issue]:
    """Return an error for each chosen plug-in that lies in the app's folder and is not sent with it.

    What lies elsewhere is installed, and every node needs it installed.
    """
    excluded = read_toml(app / "pyproject.toml")["tool"]["flwr"]["app"].get("fab-exclude", [])
    values = {str(value) for settings in runs for value in to_flat(settings).values()}
    names = {name for value in values for name in OWN.findall(value)}
    errors = []
    for name in sorted(names):
        file = getattr(sys.modules.get(name.partition(":")[0]), "__file__", None)
        if file is None or not Path(file).is_relative_to(app):
            continue
        path = Path(file).relative_to(app)
        patterns = [p for p in excluded if fnmatch(path.as_posix(), p)] + [
            p for p in NEVER_SENT if fnmatch(path.name, p)
        ]
        if patterns:
            text = f"{name}: {path} is not sent with the app (excluded by {patterns[0]!r})"
            errors.append(Issue(ERROR, name, text, "move or rename it"))
    return errors
