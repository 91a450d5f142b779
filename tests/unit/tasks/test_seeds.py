import random

import numpy as np
import pytest
import torch

from tasks.seeds import rng, seed_everything, torch_seed


def test_a_stream_depends_on_its_name_only():
    first = rng(1, "noise", 3).random(5)
    rng(1, "noise", 4).random(100)
    assert np.array_equal(first, rng(1, "noise", 3).random(5))


def test_seed_and_every_part_of_the_name_matter():
    streams = [(1, "noise", 3), (2, "noise", 3), (1, "noise", 4), (1, "sample", 3), (1, "noise", "3"), (1, "noise3")]
    draws = {tuple(rng(*stream).integers(2**60, size=3)) for stream in streams}
    assert len(draws) == len(streams)


def test_global_generators_repeat_and_torch_accepts_every_seed():
    def draw() -> tuple[float, float, float]:
        seed_everything(5, "round", 2)
        return random.random(), float(np.random.rand()), torch.rand(()).item()

    assert draw() == draw()
    for seed in range(200):
        torch.manual_seed(torch_seed(seed, "x"))
        assert 0 <= torch_seed(seed, "x") < 2**63


@pytest.mark.parametrize("device", [True, False])
def test_torch_draws_what_its_own_call_draws_with_and_without_a_device(
    device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: device)
    torch.manual_seed(torch_seed(5, "round", 2))
    expected = torch.rand(3)
    torch.manual_seed(0)
    seed_everything(5, "round", 2)
    assert torch.equal(torch.rand(3), expected)


def test_neighbouring_seeds_are_uncorrelated():
    table = np.array([rng(seed, "x").standard_normal(2000) for seed in range(20)])
    correlations = np.corrcoef(table)[np.triu_indices(20, 1)]
    assert np.abs(correlations).max() < 0.11  # five standard errors of 1 / sqrt(2000)
