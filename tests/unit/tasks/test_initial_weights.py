"""Initial weights: what a file holds is what training starts from, and another network's weights are named."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from server_app.validation.config import validate
from tasks.base import DataError
from tasks.config import DEFAULTS, ConfigError
from tasks.encoders import EncoderError
from tasks.initial_weights import file_digest, load_initial_weights
from tasks.settings import ModelSettings
from tests.odd_models import Tied


def network(classes: int = 3) -> nn.Module:
    """A small network with BatchNorm."""
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, classes))


def load(model: nn.Module, folder: Path, state: dict[str, Tensor], ignore: str = "", name: str = "w.pt") -> nn.Module:
    """Save a state dict and load it into a model."""
    save_file(state, folder / name) if name.endswith("safetensors") else torch.save(state, folder / name)
    return load_initial_weights(model, ModelSettings(init=name, init_ignore=ignore), folder)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_model_gets_every_tensor_and_stays_trainable(tmp_path: Path, name: str) -> None:
    source = network()
    source(torch.randn(8, 4))
    model = load(network(), tmp_path, source.state_dict(), name=name)
    assert all(torch.equal(tensor, source.state_dict()[key]) for key, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    half = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in source.state_dict().items()}
    assert load(network(), tmp_path, half, name=name)[0].weight.dtype == torch.float32
    old = {key: tensor for key, tensor in source.state_dict().items() if "tracked" not in key}
    assert torch.equal(load(network(), tmp_path, old, name=name)[1].running_mean, source[1].running_mean)


def test_a_classifier_of_other_classes_is_named_with_the_way_out(tmp_path: Path) -> None:
    source, model = network(classes=7), network()
    with pytest.raises(DataError) as caught:
        load(model, tmp_path, source.state_dict())
    assert "2.weight is (7, 5) float32 in the file and (3, 5) float32 in the model" in str(caught.value)
    assert "model.init-ignore = '2.*'" in str(caught.value)
    fresh = model[2].weight.clone()
    load(model, tmp_path, source.state_dict(), ignore="2.*")
    assert torch.equal(model[2].weight, fresh)
    assert torch.equal(model[0].weight, source[0].weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.bias": None}, r"the file lacks 0\.bias\. Choose .* model\.init-ignore = '0\.\*'"),
        ({"extra.a.weight": torch.zeros(1)}, r"the model has no extra\.a\.weight\. .* = 'extra\.a\.\*'"),
        ({"0.bias": torch.full((5,), torch.nan)}, r"0\.bias: values that are no numbers"),
        ({"0.bias": torch.zeros(5, dtype=torch.uint8)}, r"0\.bias is \(5,\) uint8 in the file and \(5,\) float32"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_changed(
    tmp_path: Path, change: dict[str, Tensor | None], message: str
) -> None:
    state = {name: tensor for name, tensor in (network().state_dict() | change).items() if tensor is not None}
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(DataError, match=message):
        load(model, tmp_path, state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_pattern_that_matches_nothing_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"model\.init-ignore: 'fc\.\*' matches none of all tensors"):
        load(network(), tmp_path, network().state_dict(), ignore="fc.*")


def test_tied_weights_are_read_under_any_of_their_names(tmp_path: Path) -> None:
    source = Tied()
    for left in ("back.weight", "embed.weight"):
        state = {name: tensor.clone() for name, tensor in source.state_dict().items() if name != left}
        assert torch.equal(load(Tied(), tmp_path, state).get_parameter("embed.weight"), source.embed.weight)


def test_a_file_elsewhere_or_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"no weights")
    for name, message in (("w.pt", "no plain state dict|no weights"), ("../w.pt", r"model\.init = .*lies outside")):
        with pytest.raises(EncoderError, match=message):
            load_initial_weights(network(), ModelSettings(init=name), tmp_path)
    with pytest.raises(EncoderError, match=r"model\.init = 'no\.pt': there is no such file"):
        file_digest(ModelSettings(init="no.pt"), tmp_path)


def test_all_errors_come_before_any_client_starts(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "w.pt")
    flat = {**DEFAULTS, "model.name": "mlp", "task.weights-path": str(tmp_path)}
    with pytest.raises(ConfigError) as caught:
        validate({**flat, "model.init": "w.pt", "loss.name": "cee"})
    assert [issue.key for issue in caught.value.issues] == ["model", "loss"]
    assert "the file lacks" in str(caught.value)
    with pytest.raises(ConfigError, match=r"model\.freeze: 'layer1\.\*' matches none of the model's parameters"):
        validate({**flat, "model.freeze": "layer1.*"})
    [warning] = validate({**flat, "model.init-ignore": "1.*"}).warnings
    assert warning.line == "model.init-ignore has no effect: there is no model.init"
