"""Print what the image installs besides torch: the app's dependencies and those of the extras named as arguments."""

import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

OWN_STEP = ("torch", "torchvision")  # the Dockerfile chooses their build


def requirements(pyproject: str, extras: Iterable[str]) -> list[str]:
    """Return the requirements of the app and its extras, sorted, without torch and torchvision."""
    project = tomllib.loads(pyproject)["project"]
    found = list(project["dependencies"])
    for extra in extras:
        found += project["optional-dependencies"][extra]
    return sorted(line for line in found if line.partition(">")[0].partition("=")[0].strip() not in OWN_STEP)


if __name__ == "__main__":
    print("\n".join(requirements(Path("pyproject.toml").read_text(encoding="utf-8"), sys.argv[1:])))
