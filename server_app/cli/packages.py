"""Packages that a run needs: Python, what is installed, Flower's programs, for ``winnow doctor``; and the bundle check.

The bundle check finds plug-ins that would not reach the other processes of a run, because Flower leaves their files out
of the bundle that it sends.
"""

import os
import platform
import re
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from importlib import import_module, metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from server_app.cli.config import manifest, read_toml
from tasks.config import to_flat
from tasks.issues import ERROR, INFO, WARNING, Issue
from tasks.settings import Settings

DISTRIBUTION = "winnow"
OPTIONAL = {"simulation": "winnow run", "report": "charts in report.html"}
PROGRAMS = ("flwr", "flower-superlink", "flower-superexec", "flower-supernode", "flwr-simulation")
INSTALL = "pip install -e '.[simulation,report]'"
MISMATCH = re.compile("torchvision::nms does not exist|no attribute 'nms'|undefined symbol")
OWN = re.compile(r"\b\w+(?:\.\w+)*:\w+")  # an import path, as a whole value or within inline TOML
NEVER_SENT = ("test_*.py", "*_test.py")  # by name, in any folder; a rule of Flower's


def python() -> Iterator[Issue]:
    """Compare the running Python with the versions that the project supports."""
    wanted, found = metadata.metadata(DISTRIBUTION)["Requires-Python"], platform.python_version()
    if SpecifierSet(wanted).contains(found, prereleases=True):
        yield Issue(INFO, "python", found)
    else:
        yield Issue(ERROR, "python", f"{found}, expected {wanted}", "make .venv again with such a Python")


def requirements() -> Iterator[Issue]:
    """Compare the installed packages with the ranges that the project declares."""
    for text in metadata.requires(DISTRIBUTION) or []:
        requirement = Requirement(text)
        extra = next((name for name in OPTIONAL if _applies(requirement, name)), "")
        if _applies(requirement, "") or extra:
            yield requirement_issue(requirement, "" if _applies(requirement, "") else extra)


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def requirement_issue(requirement: Requirement, extra: str) -> Issue:
    """Compare one installed package with its range; ``extra`` is the optional feature that needs it, if one does."""
    name, wanted = requirement.name, str(requirement.specifier) or "any version"
    subject = name + (f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else "")
    level, purpose = (WARNING, f" for {OPTIONAL[extra]}") if extra else (ERROR, "")
    try:
        found = metadata.version(name)
        missing = [part for part in requirement.extras for part in _missing(name, part)]
    except metadata.PackageNotFoundError:
        return Issue(level, subject, f"missing, needed{purpose}", INSTALL)
    if missing:
        return Issue(level, subject, f"{', '.join(missing)} missing, needed{purpose}", INSTALL)
    if not requirement.specifier.contains(found, prereleases=True):
        return Issue(level, subject, f"{found}, expected {wanted}{purpose}", INSTALL)
    return Issue(INFO, subject, found)


def _missing(name: str, extra: str) -> list[str]:
    """Return the packages that an extra of an installed package lacks."""
    needed = [Requirement(text) for text in metadata.requires(name) or []]
    return [
        each.name for each in needed if _applies(each, extra) and not _applies(each, "") and not _installed(each.name)
    ]


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def torch_works() -> Iterator[Issue]:
    """Import torch, load torchvision's library and let both compute: they are built separately.

    The library alone: the Python part of torchvision takes as long to import as torch, and is not what breaks.
    """
    try:
        torch = import_module("torch")
        total = float((torch.ones(2, 2) @ torch.ones(2, 2)).sum())
        assert total == 8.0, f"torch computes 8 as {total}"
        for library in Path(str(metadata.distribution("torchvision").locate_file("torchvision"))).glob("_C*.so"):
            torch.ops.load_library(library)
        boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        assert torch.ops.torchvision.nms(boxes, torch.ones(1), 0.5).tolist() == [0]
        yield Issue(INFO, "torch and torchvision", "import and compute")
    except Exception as error:  # whatever a broken binary raises belongs in the report
        yield Issue(ERROR, "torch and torchvision", f"{type(error).__name__}: {error}", torch_remedy(str(error)))


def torch_remedy(message: str) -> str:
    """Return what to do about an error of torch or torchvision."""
    if MISMATCH.search(message):
        return "they are of different builds (such as CPU and CUDA): uv pip install --reinstall torch torchvision"
    return "uv pip install --reinstall torch torchvision"


def flower_programs() -> Iterator[Issue]:
    """Look for Flower's programs beside this Python and on PATH, where Flower itself looks for them."""
    scripts = Path(sysconfig.get_path("scripts"))
    missing = [name for name in PROGRAMS if not (scripts / name).exists()]
    elsewhere = [name for name in PROGRAMS if not _same(shutil.which(name), scripts / name)]
    if missing:
        yield Issue(ERROR, "flower programs", f"{', '.join(missing)} not in {scripts}", INSTALL)
    elif elsewhere:
        text = f"{', '.join(elsewhere)} on PATH missing or of another Python (winnow run does not mind, flwr run does)"
        yield Issue(WARNING, "flower programs", text, f"source {shlex.quote(str(scripts / 'activate'))}")
    else:
        yield Issue(INFO, "flower programs", f"on PATH, in {scripts}")


def _same(found: str | None, expected: Path) -> bool:
    return found is not None and os.path.realpath(found) == os.path.realpath(expected)


def bundle_issues(app: Path, runs: Iterable[Settings]) -> list[Issue]:
    """Return an error for each chosen plug-in that lies in the app's folder and is not sent with it.

    What lies elsewhere is installed, and every node needs it installed.
    """
    excluded = read_toml(manifest(app))["tool"]["flwr"]["app"].get("fab-exclude", [])
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
