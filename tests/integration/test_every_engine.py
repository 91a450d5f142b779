"""Every client method on every engine: eager and compiled, alone and in cohorts, in each number format, in workers.

The reference is the plain eager float32 path, one client after the other, in this process. What is computed by the same
operations must be the same bit for bit, all else within rounding; ``tests/simulation`` compares with Flower's engine.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, RecordDict
from safetensors.numpy import load_file

from client_app import acceleration, trainer
from client_app.cohorts import choice
from client_app.methods import side_by_side
from server_app.app import run_variants
from server_app.cli.local import client_variables
from server_app.engine.fork_server import ForkServer
from server_app.engine.grid import RUN_ID, SERVER, WorkerGrid
from server_app.engine.pool import WorkerPool
from server_app.engine.worker import Start
from server_app.validation.config import check
from tasks.config import DEFAULTS
from tasks.fresh_model import initial_model
from tasks.weights import weights
from tests.compare_runs import compare, lines, model
from tests.every_method import CLIENTS, METHOD_NAMES, SMALL, changes, variants
from tests.integration.conftest import Played, player

Run = Callable[..., Played]
ROUNDING = 1e-3
BFLOAT16 = 0.1
JUMPING = {"rofl"}
"""Whose choice of examples follows the order of their losses, so that a last digit changes which are taken."""
"""How far trained weights may be apart, as a share of the way from the first ones; bfloat16 has eight bits."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Play a method's run with other settings, each only once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("server_app.run.write_page", lambda *_: Path())  # which takes as long as all else
        play, known = player(tmp_path_factory.mktemp("runs"), patch), dict[str, Played]()

        def go(method: str, **given: Any) -> Played:
            key = str([method, given])
            if key not in known:
                known[key] = play(**SMALL | changes(method) | given)
            return known[key]

        yield go


def distance(found: Played, expected: Played, method: str) -> float:
    """How far the last models are apart, as a share of the way that the expected one has gone from the first."""
    start = {name: tensor.numpy() for name, tensor in weights(initial_model(check(flat(method)))).items()}
    mine, theirs = (model(played.path / "checkpoints/last.safetensors") for played in (found, expected))
    assert list(mine) == list(theirs)
    floats = [name for name in theirs if theirs[name].dtype == np.float32]
    apart = sum(float(np.square(mine[name] - theirs[name]).sum()) for name in floats)
    way = sum(float(np.square(theirs[name] - start[name]).sum()) for name in floats if name in start)
    assert way > 1e-3
    return float(np.sqrt(apart / way))


def flat(method: str) -> dict[str, Any]:
    return {**DEFAULTS, "run.output-dir": "", **SMALL, **changes(method)}


def assert_near(found: Played, expected: Played, method: str, near: float) -> None:
    """Compare models, measures of server and clients, and what clients keep."""
    assert distance(found, expected, method) < near
    for name in ("metrics.jsonl", "clients.jsonl"):
        mine, theirs = (lines(played.path / name) for played in (found, expected))
        assert [line.keys() for line in mine] == [line.keys() for line in theirs]
        for own, other in zip(mine, theirs, strict=True):
            numbers = [key for key, value in other.items() if isinstance(value, float)]
            assert {key: own[key] for key in numbers} == pytest.approx(
                {key: other[key] for key in numbers}, rel=10 * near, abs=near
            )
            assert {k: v for k, v in own.items() if k not in numbers} == {
                k: v for k, v in other.items() if k not in numbers
            }
    kept = sorted(path.relative_to(expected.path) for path in expected.path.glob("clients/*/state-*.safetensors"))
    assert kept == sorted(path.relative_to(found.path) for path in found.path.glob("clients/*/state-*.safetensors"))
    for place in kept:
        mine, theirs = load_file(found.path / place), load_file(expected.path / place)
        assert mine.keys() == theirs.keys()
        for name, array in theirs.items():
            np.testing.assert_allclose(mine[name], array, rtol=100 * near, atol=100 * near)


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Any]:
    """Note what a function returns, call by call."""
    inner, found = getattr(owner, name), list[Any]()

    def noted(*args: Any, **named: Any) -> Any:
        found.append(inner(*args, **named))
        return found[-1]

    monkeypatch.setattr(owner, name, noted)
    return found


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_both_kinds_of_clients_are_trained(method: str, run: Run) -> None:
    roles = [line["role"] for line in run(method).lines("clients.jsonl") if line["round"] == 2]
    assert sorted(set(roles)) == ["clean", "noisy"]


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The quick compiler of PyTorch in place of inductor, for all methods of this file as for all clients of a run."""
    quick = partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", lambda function, mode, dynamic: quick(function, dynamic=dynamic))
    torch._dynamo.utils.counters.clear()
    trainer.say_that_it_is_eager.cache_clear()
    with torch._dynamo.config.patch(recompile_limit=64, fail_on_recompile_limit_hit=True):
        yield


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_compiled(
    method: str, run: Run, compiler: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = counted(monkeypatch, acceleration.Compiled, "__call__")
    found = run(method, **{"train.engine": "compile"})
    assert calls or "is not compiled, only a loss on given labels is" in caplog.text
    assert "not compiled, trains as eager" not in caplog.text, "the compiler failed"
    assert not torch._dynamo.utils.counters["graph_break"], "loss and network are one piece"
    assert_near(found, run(method), method, ROUNDING)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_in_cohorts(method: str, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(choice, "_KNOWN", {})
    choice.say.cache_clear()
    together = counted(monkeypatch, choice, "side_by_side")
    found = run(method, **{"train.cohort": str(CLIENTS)})
    if "one after the other" in caplog.text:
        assert list(compare(run(method).path, found.path)) == []
    else:
        assert sum(map(len, together)) == 2 * CLIENTS
        assert_near(found, run(method), method, ROUNDING)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_in_bfloat16_and_channels_last(method: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    laid_out = [counted(monkeypatch, module, "lay_out") for module in (trainer, side_by_side)]  # one network, several
    found = run(method, **{"train.precision": "bfloat16-channels-last"})
    assert any(laid_out)
    assert distance(found, run(method), method) > ROUNDING, "it was computed in bfloat16"
    if method not in JUMPING:
        assert_near(found, run(method), method, BFLOAT16)


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The runs of all methods as variants of one, with two worker processes; by method."""
    folder, said = tmp_path_factory.mktemp("workers"), list[str]()
    whole = {**DEFAULTS, **SMALL, "run.output-dir": str(folder), "variants": variants()}
    server = ForkServer(client_variables(whole))
    pool = WorkerPool(server, Start(RUN_ID, whole), [{}, {}], said.append)
    try:
        run_variants(WorkerGrid(pool, CLIENTS), Context(RUN_ID, SERVER, {}, RecordDict(), whole))
    finally:
        pool.close()
        server.close()
    return {path.name.split("-", 2)[2]: path for path in folder.iterdir()}


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_in_worker_processes_bit_for_bit(method: str, run: Run, workers: dict[str, Path]) -> None:
    expected = run(method).path
    assert list(compare(expected, workers[method])) == []
    assert list((workers[method] / "checkpoints").glob("*.safetensors"))
