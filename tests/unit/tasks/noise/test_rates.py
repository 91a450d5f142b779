"""Noise-rate distributions: which client gets which rate."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.noise import RATE_DISTRIBUTIONS, NoiseError
from tasks.plugins import PluginError
from tasks.seeds import rng


def rates(name: str, args: str, num_clients: int = 5, seed: int = 1, **context: Any) -> Any:
    return RATE_DISTRIBUTIONS.build(name, args, **context)(num_clients, rng(seed, "noise-law"))


def test_linear_reaches_its_maximum_at_the_last_client() -> None:
    np.testing.assert_allclose(rates("linear", "max = 0.8"), [0, 0.2, 0.4, 0.6, 0.8], atol=1e-15)
    np.testing.assert_allclose(rates("linear", "min = 0.3, max = 0.5", 3), [0.3, 0.4, 0.5])
    assert rates("linear", "max = 0.8", 1) == [0.8]


def test_official_linear_is_the_grid_of_published_codes() -> None:
    grid = rates("linear", "max = 0.4, official = true", 100)
    np.testing.assert_allclose(grid, [0.4 * k / 100 for k in range(100)])
    assert rates("linear", "min = 0.1, max = 0.8, official = true", 1) == [0.1]


def test_constant() -> None:
    assert rates("constant", "rate = 0.3").tolist() == [0.3] * 5


def test_uniform_fills_its_range() -> None:
    drawn = rates("uniform", "min = 0.3, max = 0.5", 10_000)
    assert drawn.min() >= 0.3
    assert drawn.max() <= 0.5
    assert abs(drawn.mean() - 0.4) < 0.003
    assert (rates("uniform", "max = 0.5") != rates("uniform", "max = 0.5", seed=2)).all()


def test_bernoulli_makes_a_share_of_the_clients_noisy_above_tau() -> None:
    drawn = rates("bernoulli", "rho = 0.6, tau = 0.5", 10_000)
    noisy = drawn[drawn > 0]
    assert abs(len(noisy) / 10_000 - 0.6) < 0.02
    assert noisy.min() >= 0.5
    assert abs(noisy.mean() - 0.75) < 0.01
    assert not rates("bernoulli", "rho = 0.0, tau = 0.5").any()
    assert (rates("bernoulli", "rho = 1, tau = 1") == 1).all()


def test_groups_have_laws_of_their_own() -> None:
    args = 'groups = [{clients = 2, rate = 0.1}, {clients = 3, distribution = "linear", max = 0.4}]'
    np.testing.assert_allclose(rates("groups", args), [0.1, 0.1, 0, 0.2, 0.4])


def test_table_reads_the_rates_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "rates.csv").write_text("client,rate\n1,0.5\n0,0\n2, 1\n")
    assert rates("table", 'path = "rates.csv"', 3, data_root=tmp_path).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("client,rate\n0,0.5\n", r"no rate for the clients \[1\]"),
        ("client,rate\n0,0.5\n0,0.5\n", "line 3: expected each client 0..1 once, not 0"),
        ("client,rate\n0,0.5\n2,0.5\n", "line 3: expected each client 0..1 once, not 2"),
        ("client,rate\n0,1.5\n1,0\n", "line 2: the rate must be a number between 0 and 1, not 1.5"),
        ("client,rate\n0,nan\n1,0\n", "between 0 and 1, not nan"),
        ("client,rate\nzero,0\n1,0\n", "line 2: expected client,rate such as 3,0.4, not zero,0"),
        ("node,rate\n0,0.5\n1,0\n", "columns client,rate"),
        (None, "cannot read the noise rates"),
    ],
)
def test_a_wrong_table_is_explained(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "rates.csv").write_text(text)
    with pytest.raises(NoiseError, match=message):
        rates("table", 'path = "rates.csv"', 2, data_root=tmp_path)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("constant", "rate = -0.1", "rate must be a number between 0 and 1, not -0.1"),
        ("constant", "rate = true", "rate must be a number"),
        ("linear", "max = 1.1", "max must be a number between 0 and 1"),
        ("linear", "min = 0.5, max = 0.4", "must not be above"),
        ("uniform", 'max = "high"', "max must be a number"),
        ("bernoulli", "rho = 2, tau = 0.5", "rho must be"),
        ("bernoulli", "rho = 0.5, tau = -1", "tau must be"),
        ("groups", "groups = []", "expected a list of tables"),
        ("groups", "groups = [{rate = 0.1}]", "needs its number of clients"),
        ("groups", "groups = [{clients = 0, rate = 0.1}]", "needs its number of clients"),
        ("groups", "groups = [{clients = 2, rate = 7}]", "between 0 and 1, not 7"),
        ("groups", 'groups = [{clients = 2, distribution = "lineal", max = 0.1}]', "did you mean 'linear'"),
        ("quadratic", "", "unknown noise-rate distribution"),
    ],
)
def test_wrong_laws_are_explained_before_they_are_used(name: str, args: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        RATE_DISTRIBUTIONS.build(name, args)


def test_groups_must_add_up() -> None:
    with pytest.raises(NoiseError, match="hold 2 clients, but there are 5"):
        rates("groups", "groups = [{clients = 2, rate = 0.1}]")
