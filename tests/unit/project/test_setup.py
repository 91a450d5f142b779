"""The set-up files: pinned versions that fit the project, on every platform, and scripts that a shell accepts."""

import re
import subprocess
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = [
    Requirement(text)
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for text in group
]


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    parsed = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line) for line in lines]
    assert all(parsed), "every line is name==version: no URL, no hash, no local build such as +cpu"
    return {canonicalize_name(found[1]): found[2] for found in parsed if found}


@pytest.mark.parametrize("requirement", DECLARED, ids=str)
def test_every_declared_package_is_pinned_within_its_range(requirement: Requirement) -> None:
    assert pins()[canonicalize_name(requirement.name)] in requirement.specifier


def test_packages_that_depend_on_the_platform_are_not_pinned() -> None:
    assert [name for name in pins() if name.startswith(("nvidia-", "cuda-", "triton"))] == []


def test_the_makefile_accepts_the_declared_pythons() -> None:
    lowest, highest = re.findall(r"\((\d, \d+)\) <=|<= \((\d, \d+)\)", (ROOT / "Makefile").read_text())
    assert lowest[0].replace(", ", ".") in SpecifierSet(PROJECT["requires-python"])
    assert highest[1].replace(", ", ".") in SpecifierSet(PROJECT["requires-python"])
    major, minor = map(int, highest[1].split(", "))
    assert f"{major}.{minor + 1}" not in SpecifierSet(PROJECT["requires-python"])


def test_make_shows_its_targets() -> None:
    shown = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "lint", "clean"):
        assert f"make {target}" in shown


def test_the_ci_script_is_a_shell_script_that_can_be_run() -> None:
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    assert "set -euo pipefail" in script.read_text()
