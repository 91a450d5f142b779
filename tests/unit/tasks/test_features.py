"""Features: the input of the last layer of every built-in model and of odd ones, or what to do about it."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.features import FeatureError, features_of, recorded_features
from tasks.images import Digits
from tasks.models import MODELS

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
WORDS = torch.randint(1, 50, (3, 7), generator=torch.Generator().manual_seed(0))

WIDTHS = {
    "resnet8": 64,
    "resnet18": 512,
    "cnn8": 256,
    "thin-cnn8": 256,
    "mnist-cnn": 128,
    "digits-cnn": 32 * 16 * 16,
    "lenet": 84,
    "mlp": 8,
    "linear": 3 * 32 * 32,
    "text-bag": 5,
    "text-transformer": 64,
}
ARGS = {
    "mlp": "hidden = 8",
    "text-bag": "vocabulary = 50, width = 6, hidden = 5",
    "text-transformer": "vocabulary = 50",
}


@pytest.mark.parametrize("name", WIDTHS)
def test_features_of_built_in_models_are_what_the_classifier_multiplies(name: str) -> None:
    inputs = WORDS if name.startswith("text") else IMAGES
    model = MODELS.build(name, ARGS.get(name, ""), num_classes=10, input_shape=tuple(inputs.shape[1:])).eval()
    features = features_of(model, inputs)
    assert features.shape == (3, WIDTHS[name])
    last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    torch.testing.assert_close(F.linear(features, last.weight, last.bias), model(inputs))


class Wrapped(nn.Module):
    """Layers in another order than they are used in, an inner network, and an Identity at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.body = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
        self.last = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.head(self.body(x)))


class Scaled(Wrapped):
    """Changes the scores afterwards."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


class Declared(Scaled):
    """The same, and says which layer is its last."""

    feature_layer = "head"


def test_the_layer_that_made_the_scores_is_found_whatever_it_is_called() -> None:
    model, inputs = Wrapped(), torch.randn(5, 3)
    assert torch.equal(features_of(model, inputs), model.body(inputs))
    assert torch.equal(features_of(nn.Sequential(model), inputs), model.body(inputs))


def test_a_model_that_changes_its_scores_must_say_which_layer() -> None:
    inputs = torch.randn(5, 3)
    with pytest.raises(FeatureError, match=r"scores of Scaled cannot be told.*feature_layer = 'classifier'"):
        features_of(Scaled(), inputs)
    model = Declared()
    assert torch.equal(features_of(model, inputs), model.body(inputs))
    with pytest.raises(FeatureError, match="scores of Sequential"):
        features_of(nn.Sequential(nn.Linear(3, 2), nn.LogSoftmax(1)), inputs)


def test_a_name_that_does_not_exist_or_is_not_used_is_an_error() -> None:
    model, unused = Declared(), Declared()
    model.feature_layer = "haed"
    with pytest.raises(FeatureError, match=r"feature_layer = 'haed': Declared has no such layer.*head, body"):
        features_of(model, torch.randn(5, 3))
    unused.spare, unused.feature_layer = nn.Linear(1, 1), "spare"
    with pytest.raises(FeatureError, match="names 'spare' as its last layer, and does not use it"):
        features_of(unused, torch.randn(5, 3))


def test_features_of_pixels_are_refused() -> None:
    model = MODELS.build("unet", "", num_classes=2, input_shape=(3, 16, 16))
    with pytest.raises(FeatureError, match=r"one vector of each of the 2 examples, got \(2, 16, 16, 16\)"):
        features_of(model, torch.randn(2, 3, 16, 16))


def test_gradients_flow_and_hooks_go() -> None:
    model = Wrapped()
    features_of(model, torch.randn(5, 3)).sum().backward()
    assert model.body[0].weight.grad is not None
    assert model.head.weight.grad is None
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())
    with pytest.raises(RuntimeError):
        features_of(model, torch.randn(5, 7))
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())


def test_the_last_forward_pass_counts() -> None:
    model = Wrapped()
    with recorded_features(model) as record:
        model(torch.randn(9, 3))
        inputs = torch.randn(5, 3)
        logits = model(inputs)
    assert torch.equal(record.of(logits), model.body(inputs))


def test_a_task_knows_them_too() -> None:
    task = Digits()
    model = task.build_model("mlp", "hidden = 6").eval()
    inputs = task.prepare(task.first_examples(4).features)
    assert torch.equal(task.features(model, inputs), features_of(model, inputs))
