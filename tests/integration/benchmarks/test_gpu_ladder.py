"""The ladder of training speed, as far as it goes without a GPU: it plays every part, and keeps to its time."""

import re

import pytest
import torch

from benchmarks import gpu_ladder
from benchmarks.gpu_ladder import Clock, epochs, recipes, whole_rounds

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_ladder, "NETWORKS", {"linear": ""})
    monkeypatch.setattr(gpu_ladder, "ENGINES", ("eager",))
    monkeypatch.setattr(gpu_ladder, "WAYS", (("eager", "float32"),))
    monkeypatch.setattr(gpu_ladder, "RECIPES", gpu_ladder.RECIPES[:1])


def numbers(row: str) -> list[float]:
    return [float(cell) for cell in re.findall(r"\d+\.\d+", row)]


def test_every_part_is_measured() -> None:
    clock = Clock(600)
    _heading, *rows = epochs(CPU, 20, 1, clock)
    assert [row.split(" | ")[2] for row in rows] == list(gpu_ladder.PRECISIONS)
    assert numbers(rows[0])[1] == 1
    (row,) = list(whole_rounds(CPU, 20, 1, clock))[1:]
    assert row.startswith("| linear | eager | float32 |")
    (row,) = list(recipes(CPU, 1, True, clock))[1:]
    seconds, minutes = numbers(row)
    assert minutes == pytest.approx(2 * seconds, abs=0.1)


def test_nothing_starts_when_the_time_is_over() -> None:
    clock = Clock(0)
    for rows in (epochs(CPU, 20, 1, clock), whole_rounds(CPU, 20, 1, clock), recipes(CPU, 1, True, clock)):
        assert all(" no time |" in row for row in list(rows)[1:])
