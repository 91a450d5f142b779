"""Updates in a file: the same results, nothing left behind, little memory, clear errors."""

import errno
import gc
import os
import re
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord

from strategies.aggregators import AGGREGATORS, aggregate, build_aggregator
from strategies.gram import Vector, sum_over_blocks
from strategies.robust import RobustStrategy
from strategies.spool import FileStore, MemoryStore, Spool, half_of_memory
from strategies.validation import ReplyValidator
from tasks.files import WriteError
from tasks.records import view_record
from tests.messages import MODEL, answer, moved

CLIENTS, LENGTH = 11, 3001
FLOAT32 = np.dtype(np.float32)


def filed(folder: Path, updates: list[Vector]) -> list[Vector]:
    store = FileStore(folder, len(updates), len(updates[0]), updates[0].dtype)
    return [store.keep(update) for update in updates]


@pytest.fixture(scope="module")
def updates() -> list[Vector]:
    return [*np.random.default_rng(0).standard_normal((CLIENTS, LENGTH)).astype(np.float32)]


@pytest.mark.parametrize("before", ["", "nnm = {}"])
@pytest.mark.parametrize("name", [entry.name for entry in AGGREGATORS.entries()])
def test_every_aggregator_gives_the_same_bits_from_a_file(
    name: str, before: str, updates: list[Vector], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("strategies.gram.BLOCK", 64 * CLIENTS)
    if name in ("distance-aware", "monna") and before:
        return  # which needs every client on its own
    rule = build_aggregator(name, "", before)
    given = {"sizes": [2000, 1001], "roles": ["clean", "noisy", *["unknown"] * (CLIENTS - 2)], "seed": 1}
    memory, file = (aggregate(rule, vectors, range(1, 12), **given) for vectors in (updates, filed(tmp_path, updates)))  # type: ignore[arg-type]
    np.testing.assert_array_equal(file.value, memory.value)
    np.testing.assert_array_equal(file.distances, memory.distances)


def test_a_file_has_no_name_and_goes_with_its_updates(updates: list[Vector], tmp_path: Path):
    before = len(os.listdir("/proc/self/fd"))
    rows = filed(tmp_path, [*updates, updates[0].astype(np.float32)])
    assert not [*tmp_path.iterdir()]
    assert len(os.listdir("/proc/self/fd")) > before
    assert all(np.array_equal(row, update) for row, update in zip(rows, updates, strict=False))
    del rows
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def mapped_bytes() -> int:
    """Bytes in memory of the files without a name that this process has mapped."""
    found = re.findall(r"\(deleted\)\n(?:Size|KernelPageSize|MMUPageSize).*?\nRss: +(\d+) kB", smaps(), re.S)
    return 1024 * sum(map(int, found))


def smaps() -> str:
    return Path("/proc/self/smaps").read_text()


def test_blocks_that_were_read_take_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("strategies.gram.BLOCK", 2**16)
    rows = filed(tmp_path, [np.ones(2**20, np.float32)] * 3)
    before = mapped_bytes()
    assert [row.sum() for row in rows] == [2**20] * 3
    assert mapped_bytes() >= before + 3 * 4 * 2**20, "the test sees what is in memory"
    np.testing.assert_array_equal(sum_over_blocks(rows, lambda _, block: block.sum(axis=1)), [2**20] * 3)
    assert mapped_bytes() <= before


def test_only_what_does_not_fit_lies_in_a_file(tmp_path: Path):
    assert isinstance(Spool(4 * 30, tmp_path).store(3, 10, FLOAT32), MemoryStore)
    assert isinstance(Spool(4 * 30 - 1, tmp_path).store(3, 10, FLOAT32), FileStore)
    assert isinstance(Spool().store(3, 10, FLOAT32), MemoryStore)
    assert 0 < half_of_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def test_a_container_may_have_less_than_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("strategies.spool.CGROUP", tmp_path / "memory.max")
    (tmp_path / "memory.max").write_text("1000\n")
    assert half_of_memory() == 500
    (tmp_path / "memory.max").write_text("max\n")
    assert half_of_memory() > 500


def test_a_full_disk_is_named_before_the_round_and_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(WriteError, match=r"cannot write .* GB of updates into .*: No space left .*; make room there"):
        FileStore(tmp_path, 10**6, 10**9, FLOAT32)
    store = FileStore(tmp_path, 1, 5, FLOAT32)

    class Full:
        def seek(self, place: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "_file", Full())
    with pytest.raises(WriteError, match="No space left"):
        store.keep(np.ones(5, np.float32))


def test_a_strategy_combines_the_same_from_memory_and_from_a_file(tmp_path: Path):
    def play(spool: Spool) -> tuple[dict[str, np.ndarray], list[int]]:
        strategy = RobustStrategy(build_aggregator("median"), buffers=["running_var"], spool=spool)
        grid = type("Clients", (), {"get_node_ids": lambda _: [0, 1, 2]})()
        messages = list(strategy.configure_train(1, view_record(MODEL), ConfigRecord(), grid))
        replies = [answer(client, moved(0.1 * client)) for client in (2, 0, 1)]
        updates, report = ReplyValidator(MODEL, messages).screen(replies, strategy.keep)
        in_file = [update.kept.step.base is not None for update in updates]
        arrays, _ = strategy.aggregate_updates(1, updates, report)
        assert arrays is not None
        return arrays, in_file

    (memory, apart), (file, mapped) = play(Spool()), play(Spool(1, tmp_path))
    assert apart == [False] * 3
    assert mapped == [True] * 3
    assert all(np.array_equal(file[name], memory[name]) for name in MODEL)
