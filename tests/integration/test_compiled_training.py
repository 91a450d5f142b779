"""Training with steps compiled by inductor, which needs g++ and half a minute: equal to eager within rounding."""

import shutil

import pytest
import torch

from client_app import acceleration
from tests.unit.client_app.test_acceleration import trained


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs g++")
@pytest.mark.parametrize(("method", "loss"), [("sgd", "fsanl"), ("fedprox", "anl-ce*")])
def test_inductor_trains_as_eager_does(method: str, loss: str, caplog: pytest.LogCaptureFixture) -> None:
    acceleration.compiled.cache_clear()
    torch._dynamo.reset()
    expected, value = trained(method, loss)
    found, same = trained(method, loss, engine="compile")
    assert "not compiled" not in caplog.text
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert same == pytest.approx(value, rel=1e-4)
