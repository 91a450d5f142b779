"""Benchmark of local training against its peers: every way trains all examples, and learns."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from benchmarks import peers
from benchmarks.peer_ways import Case, in_process, ours, side_by_side
from benchmarks.peers import PFL, WORKLOADS, Row, arguments, layers, pfl_research, summary, timed, workloads
from tasks.client_data import load_task

SMALL = ["--clients", "2", "--examples", "20"]


@pytest.fixture
def seen() -> Iterator[list[int]]:
    """Yield the sizes of all batches that a network is trained on."""
    sizes: list[int] = []

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if isinstance(module, nn.Sequential) and torch.is_grad_enabled():
            sizes.append(len(given[0]))

    hook = register_module_forward_pre_hook(note)
    yield sizes
    hook.remove()


@pytest.mark.parametrize("name", ["digits-cnn", "pfl"])
def test_every_way_trains_all_examples_once_and_learns(name: str, seen: list[int]) -> None:
    args = arguments(["--workloads", name, *SMALL])
    case = Case(workloads(args)[name])
    count, before = sum(map(len, case.clients)), case.loss(case.weights)
    ways = in_process(case, bfloat16=name == "digits-cnn")
    assert len(ways) >= (11 if name == "digits-cnn" else 9)
    for way, turn in ways.items():
        seen.clear()
        found = timed(turn)()
        assert found.trained.examples == count, way
        if "side by side" not in way:  # there, one network stands for all, and a trial is made
            assert (sum(seen), max(seen)) == (count, case.workload.batch_size), way
        assert case.loss(found.trained.weights) < before, way
        assert found.cpu_seconds > 0 < found.seconds, way
    load_task.cache_clear()


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_worker_can_build_every_network_from_its_description(name: str) -> None:
    model = Case(workloads(arguments(SMALL))[name]).model().eval()
    rebuilt = nn.Sequential(*(getattr(nn, kind)(**options) for kind, options in layers(model))).eval()
    rebuilt.load_state_dict(model.state_dict())
    images = torch.rand(2, *((1, 8, 8) if name == "digits-cnn" else (3, 32, 32)))
    assert str(rebuilt) == str(model)
    assert torch.equal(rebuilt(images), model(images))


def test_a_peer_that_ends_is_an_error() -> None:
    case = Case(workloads(arguments(SMALL))["digits-cnn"])
    with pfl_research(case, "false", 1) as play, pytest.raises(RuntimeError, match="pfl-research: false ended"):
        play()


def test_ratios_are_those_of_the_same_turn() -> None:
    def row(way: str, turn: int, seconds: float) -> Row:
        return Row("w", way, turn, 100, seconds, 2 * seconds, 2.0, 1.0)

    slow_machine = 4.0
    rows = [row("usual app", 1, 1.0), row("plain loop, float32", 1, 0.5), row("winnow ce, float32", 1, 0.5)]
    rows += [
        row(way, 2, seconds * slow_machine)
        for way, seconds in (("usual app", 1.0), ("plain loop, float32", 0.25), ("winnow ce, float32", 0.5))
    ]
    assert summary(rows)[2] == ("w", "winnow ce, float32", "125", "62", "2.00 (2.00-2.00)", "0.75 (0.50-1.00)")


def test_the_table_and_all_turns_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "peers.csv"
    words = ["--workloads", "digits-cnn", *SMALL, "--repetitions", "2", "--ways", "usual*", "winnow ce, float32"]
    monkeypatch.setattr(sys, "argv", ["peers", *words, "--no-bfloat16", "--output", str(output)])
    monkeypatch.setattr(peers, "has_pfl", lambda python: False)
    peers.main()
    with output.open(newline="") as file:
        assert sorted((row["way"], row["turn"]) for row in csv.DictReader(file)) == [
            (way, turn) for way in ("usual app", "winnow ce, float32") for turn in ("1", "2")
        ]
    printed = capsys.readouterr().out
    assert f"{PFL} is not measured" in printed
    assert "| digits-cnn | usual app |" in output.with_suffix(".md").read_text()


def test_the_federation_in_one_process_trains_what_the_trainer_does() -> None:
    case = Case(workloads(arguments(SMALL))["digits-cnn"])
    alone, together = (way(case, {"loss.name": "ce"})() for way in (ours, side_by_side))
    assert alone.examples == together.examples
    assert all(np.array_equal(alone.weights[name], together.weights[name]) for name in case.weights)
