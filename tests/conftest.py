"""Where tests find data and vectors, and the federation in one process that integration tests use."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# The same examples on every machine, and no time limit for one: machines are shared.
settings.register_profile("winnow", deadline=None, derandomize=True)
settings.load_profile("winnow")


LEVELS = ["unit", "property", "parity", "integration", "simulation", "deployment"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the quick levels first, so that a broken formula shows before a federation starts."""

    def level(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return LEVELS.index(folder) if folder in LEVELS else -1

    items.sort(key=level)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Divide the tests among several processes: simulations, federations of processes, and containers stay together."""
    from xdist.scheduler import LoadScopeScheduling

    class Kinds(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return kind_of(nodeid)

    return Kinds(config, log)


def kind_of(test: str) -> str:
    """Return what a test must not run beside of: two of a kind would want the same ports, images or all cores."""
    for folder in LEVELS[4:]:
        if test.startswith(f"tests/{folder}/"):
            return "containers" if "/test_container" in test else folder
    return test


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the real data sets; tests that need it are skipped where there is none."""
    folder = os.environ.get("WINNOW_DATA")
    if not folder:
        pytest.skip("WINNOW_DATA is not set: no data folder")
    assert Path(folder).is_dir(), f"WINNOW_DATA={folder} is not a folder"
    return Path(folder)


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder with reference numbers made outside this project."""
    folder = Path(os.environ.get("WINNOW_VECTORS", ROOT.parent / "shared" / "vectors"))
    if not folder.is_dir():
        pytest.skip(f"no reference vectors at {folder}; set WINNOW_VECTORS")
    return folder
