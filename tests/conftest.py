"""Where tests find data and vectors, and the federation in one process that integration tests use."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# The same examples on every machine, and no time limit for one: machines are shared.
settings.register_profile("winnow", deadline=None, derandomize=True)
settings.load_profile("winnow")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the quick levels first, so that a broken formula shows before a federation starts."""
    order = ["unit", "property", "parity", "integration", "simulation", "deployment"]

    def level(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return order.index(folder) if folder in order else -1

    items.sort(key=level)
    for item in items:  # side by side, federations with containers and with processes; never two of a kind
        if level(item) >= order.index("simulation"):
            kind = "containers" if "container" in item.path.name else item.path.parent.name
            item.add_marker(pytest.mark.xdist_group(kind))


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
