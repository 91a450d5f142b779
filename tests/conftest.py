"""Where tests find data and reference numbers, and the federation in one process that integration tests use."""

import atexit
import gc
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# The same examples on every machine, and no time limit for one: machines are shared.
settings.register_profile("winnow", deadline=None, derandomize=True)
settings.load_profile("winnow")


# Modules and collected tests stay to the end: each collection of garbage, and Flower asks for many, would visit all of
# them again, which takes half a second.
gc.disable()


def pytest_collection_finish() -> None:
    """Let garbage be collected from now on, among what tests make only."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def _earlier_tests_stay() -> None:
    """Leave what other files have imported and kept out of the collections of garbage of this one."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let Python find all that is left at its end: a library tells of what nobody has collected.

    A process that shared the tests has told all it found, and ends at once: that search takes five seconds.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        gc.unfreeze()


def _end_at_once(process: int) -> None:
    """End without looking for garbage, after everything else that is done at the end; forks are left alone."""
    if os.getpid() == process:
        os._exit(0)


if "PYTEST_XDIST_WORKER" in os.environ:
    atexit.register(_end_at_once, os.getpid())


LEVELS = ["unit", "property", "parity", "integration", "simulation", "deployment"]
SLOW = ("simulation", "deployment")  # tests that start processes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the quick levels first, so that a broken formula shows before a federation starts.

    Where two processes share the tests, one begins with the deployments, which mostly wait and take longest; the other
    ends with the simulations.
    """
    shared = "PYTEST_XDIST_WORKER" in os.environ

    def level(item: pytest.Item) -> int:
        folder = item.nodeid.split("/")[1]
        found = LEVELS.index(folder) if item.nodeid.startswith("tests/") else -1
        return -2 if shared and folder == "deployment" else found

    items.sort(key=level)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Divide the tests among several processes by file; all that share federations or engines stay together."""
    from xdist.scheduler import LoadScopeScheduling

    class Kinds(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return kind_of(nodeid)

    config.option.loadscopereorder = False  # the order is that of pytest_collection_modifyitems
    return Kinds(config, log)


def kind_of(test: str) -> str:
    """Return what one process runs as a whole: a file, all deployments, or all simulations.

    Two engines, or two deployments, would want the same cores; a deployment beside an engine waits most of the time.
    """
    folder = test.split("/")[1] if test.startswith("tests/") else ""
    return folder if folder in SLOW else test.partition("::")[0]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let encoded examples lie in a folder of these tests, and not among the user's."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


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
    """The folder with reference numbers that were made apart from this code, in float64 from the formulas."""
    return ROOT / "tests" / "vectors"
