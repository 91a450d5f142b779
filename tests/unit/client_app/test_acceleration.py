import logging
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from client_app import acceleration
from client_app.acceleration import Compiled, candidates, decided, probe
from client_app.losses import build
from client_app.methods import METHODS, RoundConfig, TrainContext
from client_app.trainer import Trainer, to_device
from tasks.base import ClientData
from tasks.images import Digits
from tasks.protocol import Mode
from tasks.settings import TrainSettings

CPU = torch.device("cpu")
TASK = Digits()
AUTO = TrainSettings(precision="auto", engine="auto", batch_size=4)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))


def timed(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> TrainSettings:
    """Return what is decided where the candidates take these seconds."""
    taken = {name.replace("_", "-"): value for name, value in seconds.items()}
    monkeypatch.setattr(acceleration, "computes_in_bfloat16", lambda device: True)
    monkeypatch.setattr(acceleration, "probe", lambda *_: taken)
    return decided(AUTO, TASK, network(), CPU, Mode.SIMULATION)


class Rows(Digits):
    """Digits as rows of numbers, of which no layout is faster than another."""

    def prepare(self, features: torch.Tensor) -> torch.Tensor:
        return super().prepare(features).flatten(1)


@pytest.mark.parametrize(
    ("task", "bfloat16", "expected"),
    [
        (TASK, True, ["float32", "float32-channels-last", "bfloat16", "bfloat16-channels-last"]),
        (TASK, False, ["float32", "float32-channels-last"]),
        (Rows(), True, ["float32", "bfloat16"]),
    ],
)
def test_only_what_may_be_faster_is_tried(
    task: Digits, bfloat16: bool, expected: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(acceleration, "computes_in_bfloat16", lambda device: bfloat16)
    assert candidates(task, CPU) == expected


def test_auto_with_nothing_to_try_is_float32_and_measures_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(acceleration, "computes_in_bfloat16", lambda device: False)
    monkeypatch.setattr(acceleration, "probe", None)
    assert decided(AUTO, Rows(), network(), CPU, Mode.SIMULATION) == replace(AUTO, precision="float32", engine="eager")


def test_auto_takes_the_fastest_if_it_wins_clearly(monkeypatch: pytest.MonkeyPatch):
    assert timed(monkeypatch, float32=1.0, bfloat16=0.8, bfloat16_channels_last=0.7).precision.endswith("channels-last")
    assert timed(monkeypatch, float32=1.0, bfloat16=0.8, bfloat16_channels_last=0.9).precision == "bfloat16"
    assert timed(monkeypatch, float32=1.0, bfloat16=0.95, bfloat16_channels_last=1.2).precision == "float32"


def test_real_nodes_get_float32_whatever_the_server_has(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(acceleration, "computes_in_bfloat16", lambda device: True)
    monkeypatch.setattr(acceleration, "probe", None)
    assert decided(AUTO, TASK, network(), CPU, Mode.DEPLOYMENT).precision == "float32"


def test_the_probe_trains_in_every_candidate_and_leaves_explicit_settings_alone():
    names = ["float32", "float32-channels-last", "bfloat16", "bfloat16-channels-last"]
    found = probe(AUTO, TASK, network(), CPU, names)
    assert [*found] == names
    assert all(seconds > 0 for seconds in found.values())
    options = TrainSettings(precision="bfloat16")
    assert decided(options, TASK, network(), CPU, Mode.SIMULATION) == options


def trained(method: str = "sgd", loss: str = "fsanl", **changes: Any) -> tuple[torch.Tensor, float]:
    examples = TASK.train_examples()
    data = ClientData(0, examples.features[:37], examples.labels[:37], torch.arange(37).numpy(), 10)
    model, options = network(), replace(TrainSettings(epochs=2, batch_size=8), **changes)
    context = TrainContext(Trainer(TASK, options, CPU), build(loss, 10), to_device(data, CPU), 10)
    result = METHODS.build(method, "").fit(model, context, RoundConfig(1, 0.1, (1, 0, 1), "unknown"), {})
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    return nn.utils.parameters_to_vector(model.parameters()).detach(), result.metrics["train-loss"]


def test_channels_last_is_the_same_training_within_rounding():
    expected, loss = trained()
    found, same = trained(precision="float32-channels-last")
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert same == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize(("method", "loss"), [("sgd", "fsanl"), ("fedprox", "gce"), ("sgd", "anl-ce*")])
def test_compiled_training_is_the_same_within_rounding(
    method: str, loss: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The quick compiler of PyTorch stands in for inductor, which has a test of its own among those of whole runs."""
    acceleration.compiled.cache_clear()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    quick = partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", lambda function, mode, dynamic: quick(function, dynamic=dynamic))
    expected, value = trained(method, loss)
    before = torch._dynamo.utils.counters["stats"]["calls_captured"]
    found, same = trained(method, loss, engine="compile")
    assert torch._dynamo.utils.counters["stats"]["calls_captured"] > before
    assert not torch._dynamo.utils.counters["graph_break"], "network and loss are one graph"
    assert "not compiled" not in caplog.text
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert same == pytest.approx(value, rel=1e-4)


def test_a_method_that_is_not_compiled_says_so_and_trains_as_eager(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        found, _ = trained("fedcorr", "ce", engine="compile")
    assert "Mixup is not compiled" in caplog.text
    assert torch.equal(found, trained("fedcorr", "ce")[0])


def test_what_cannot_be_compiled_is_called_as_it_is(monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no compiler here\nand more")

    monkeypatch.setattr(torch, "compile", broken)
    double = Compiled(lambda x: 2 * x, "cpu")
    assert double(torch.tensor(2.0)) == 4
    assert double.failed == "RuntimeError: no compiler here"
    assert double(torch.tensor(3.0)) == 6
