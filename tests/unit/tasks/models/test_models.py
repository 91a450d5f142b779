"""Models: shapes, sizes counted by hand, published starting weights, errors."""

import math
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tasks.models import MODELS
from tasks.models.resnet import BasicBlock
from tasks.plugins import PluginError

CIFAR = (3, 32, 32)


def build(name: str, shape: tuple[int, ...] = CIFAR, num_classes: int = 10, args: str = "") -> nn.Module:
    return MODELS.build(name, args, num_classes=num_classes, input_shape=shape)


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def convolutions_size(*channels: int) -> int:
    """Count 3x3 convolutions one after the other: weights, biases, and scale and shift of their normalisation."""
    return sum(9 * a * b + b + 2 * b for a, b in pairwise(channels))


def cnn8_size(num_classes: int, widths: tuple[int, int, int] = (64, 128, 196)) -> int:
    """Count layer by layer: the hidden layer is normalised too."""
    a, b, c = widths
    hidden = 4 * 4 * c * 256 + 256 + 2 * 256
    return convolutions_size(3, a, a, b, b, c, c) + hidden + 256 * num_classes + num_classes


def apl_report_size(num_classes: int) -> int:
    """Count layer by layer: the hidden layer is not normalised."""
    return convolutions_size(3, 64, 64, 128, 128, 256, 256) + 4097 * 1024 + 1025 * num_classes


def resnet_size(depths: list[int], num_classes: int, narrowest: int = 64) -> int:
    """Count layer by layer: convolutions without bias, each with the scale and shift of its normalisation."""
    total, inputs = 9 * 3 * narrowest + 2 * narrowest, narrowest
    for channels, depth in zip([narrowest * 2**stage for stage in range(len(depths))], depths, strict=True):
        for _ in range(depth):
            total += 9 * inputs * channels + 2 * channels + 9 * channels * channels + 2 * channels
            total += inputs * channels + 2 * channels if inputs != channels else 0
            inputs = channels
    return total + inputs * num_classes + num_classes


@pytest.mark.parametrize(
    ("name", "args", "num_classes", "counted", "published"),
    [
        ("cnn8", "", 10, cnn8_size(10), 1_639_794),
        ("resnet18", "", 10, resnet_size([2, 2, 2, 2], 10), 11_173_962),
        ("resnet18", 'norm = "group"', 10, resnet_size([2, 2, 2, 2], 10), 11_173_962),
        ("resnet34", "", 100, resnet_size([3, 4, 6, 3], 100), 21_328_292),
        ("resnet8", "", 10, resnet_size([1, 1, 1], 10, 16), 78_042),
        ("thin-cnn8", "", 10, cnn8_size(10, (16, 32, 49)), 256_905),
        ("apl-report-cnn", "", 10, apl_report_size(10), 5_352_778),
        ("lenet", "", 10, (76 * 6) + (151 * 16) + (401 * 120) + (121 * 84) + (85 * 10), 62_006),
    ],
)
def test_parameters_as_counted_and_as_published(
    name: str, args: str, num_classes: int, counted: int, published: int
) -> None:
    assert size(build(name, num_classes=num_classes, args=args)) == counted == published


def test_small_models_have_the_parameters_of_their_formula() -> None:
    assert size(build("mlp", (1, 8, 8))) == 64 * 64 + 64 + 64 * 10 + 10
    assert size(build("mlp", (5,), 3, "hidden = 7")) == 5 * 7 + 7 + 7 * 3 + 3
    assert size(build("digits-cnn", (1, 8, 8))) == (9 * 16 + 16) + (9 * 16 * 32 + 32) + (32 * 4 * 4 * 10 + 10)


def test_mnist_cnn_has_the_parameters_of_its_layers() -> None:
    counted = convolutions_size(1, 32, 64) + (7 * 7 * 64 * 128 + 128 + 2 * 128) + (128 * 10 + 10)
    assert size(build("mnist-cnn", (1, 28, 28))) == counted == 422_090


@pytest.mark.parametrize(
    ("name", "published", "hidden"), [("resnet50", 25_557_032, 2048), ("vgg19-bn", 143_678_248, 4096)]
)
def test_torchvision_models_have_the_published_parameters_but_for_the_classes(
    name: str, published: int, hidden: int
) -> None:
    with torch.device("meta"):  # sizes without the numbers
        model = build(name, (3, 224, 224), num_classes=14)
    assert size(model) == published - (hidden + 1) * (1000 - 14)
    if name == "vgg19-bn":
        model.to_empty(device="cpu")
        with torch.inference_mode():
            assert model.eval()(torch.zeros(1, *CIFAR)).shape == (1, 14)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("cnn8", CIFAR),
        ("thin-cnn8", CIFAR),
        ("apl-report-cnn", CIFAR),
        ("mnist-cnn", (1, 28, 28)),
        ("lenet", (1, 16, 29)),
        ("resnet8", CIFAR),
        ("resnet50", CIFAR),
    ],
)
def test_one_step_lowers_the_loss_and_the_last_linear_layer_gives_the_logits(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model, heads = build(name, shape, num_classes=3), []
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    last.register_forward_hook(lambda module, inputs, output: heads.append(output))
    images, labels = torch.randn(4, *shape), torch.tensor([0, 1, 2, 1])
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    before = nn.functional.cross_entropy(model(images), labels)
    torch.autograd.backward(before)
    optimizer.step()
    logits = model(images)
    assert logits.shape == (4, 3)
    assert logits is heads[-1]
    assert nn.functional.cross_entropy(logits, labels) < before


def test_the_report_s_network_drops_half_of_the_hidden_units() -> None:
    model = build("apl-report-cnn")
    seen: list[Tensor] = []
    list(model.children())[-1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.eval()(torch.randn(8, *CIFAR))
    model.train()(torch.randn(8, *CIFAR))
    kept = [(hidden != 0).float().mean().item() for hidden in seen]
    assert kept[1] == pytest.approx(kept[0] / 2, rel=0.15)


def test_cnn8_multiplies_as_often_as_published() -> None:
    assert multiplications(build("cnn8")) == pytest.approx(133.5e6, rel=1e-3)


def test_resnet18_multiplies_as_often_as_counted() -> None:
    first_stage = 32 * 32 * 9 * 64 * 64 * 4
    other_stages = [
        side * side * (9 * (half * 2 * half + 3 * 4 * half * half) + half * 2 * half)
        for side, half in [(16, 64), (8, 128), (4, 256)]
    ]
    counted = 32 * 32 * 9 * 3 * 64 + first_stage + sum(other_stages) + 512 * 10
    assert multiplications(build("resnet18")) == counted


def multiplications(model: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.eval()(torch.zeros(1, *CIFAR))
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mlp", (1, 8, 8)),
        ("mlp", (20,)),
        ("digits-cnn", (1, 8, 8)),
        ("digits-cnn", (2, 3, 5)),
        ("cnn8", (1, 8, 8)),
        ("cnn8", (3, 30, 17)),
        ("resnet18", (1, 8, 8)),
        ("resnet34", (4, 9, 5)),
        ("resnet8", (2, 7, 5)),
        ("mnist-cnn", (2, 5, 9)),
        ("apl-report-cnn", (1, 8, 9)),
    ],
)
def test_one_logit_per_class_for_many_shapes(name: str, shape: tuple[int, ...]) -> None:
    model = build(name, shape, num_classes=3)
    logits: Tensor = model(torch.randn(2, *shape))
    assert logits.shape == (2, 3)
    torch.autograd.backward(logits.square().sum())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(("name", "num_classes", "norm"), [("cnn8", 10, 47.7e3), ("resnet34", 100, 4.98e5)])
def test_starting_weights_have_the_published_l1_norm(name: str, num_classes: int, norm: float) -> None:
    torch.manual_seed(0)
    model = build(name, num_classes=num_classes)
    assert sum(p.abs().sum().item() for p in model.parameters()) == pytest.approx(norm, rel=2e-3)


def weighted(model: nn.Module) -> Iterator[tuple[nn.Conv2d | nn.Linear, float]]:
    """Yield every layer with weights and the bound that its uniform distribution should have."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            yield module, math.sqrt(6 / module.weight[0].numel())
        elif isinstance(module, nn.Linear):
            yield module, math.sqrt(6 / (module.in_features + module.out_features))


@pytest.mark.parametrize(("name", "count"), [("cnn8", 8), ("resnet18", 21), ("mnist-cnn", 4)])
def test_starting_weights_are_uniform_within_their_bound(name: str, count: int) -> None:
    torch.manual_seed(1)
    layers = list(weighted(build(name, (1, 28, 28) if name == "mnist-cnn" else CIFAR)))
    assert len(layers) == count
    for layer, bound in layers:
        assert 0.99 * bound < layer.weight.abs().max().item() <= bound * (1 + 1e-6)
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        if layer.bias is not None:
            assert layer.bias.abs().max().item() <= 1 / math.sqrt(layer.weight[0].numel())


def test_starting_weights_follow_the_global_seed() -> None:
    torch.manual_seed(5)
    first = build("cnn8", (1, 8, 8)).state_dict()
    second = build("cnn8", (1, 8, 8)).state_dict()
    torch.manual_seed(5)
    again = build("cnn8", (1, 8, 8)).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["0.weight"], second["0.weight"])


@pytest.mark.parametrize(("name", "groups"), [("resnet18", 32), ("resnet8", 8)])
def test_group_normalisation_treats_every_example_alone(name: str, groups: int) -> None:
    model = build(name, (3, 8, 8), args='norm = "group"').train()
    assert {module.num_groups for module in model.modules() if isinstance(module, nn.GroupNorm)} == {groups}
    assert not list(model.buffers())
    images = torch.randn(3, 3, 8, 8)
    alone = torch.cat([model(image[None]) for image in images])
    assert torch.allclose(model(images), alone, atol=1e-4)


def test_batch_normalisation_keeps_running_statistics() -> None:
    buffers = [name for name, _ in build("resnet18", (3, 8, 8)).named_buffers()]
    assert len(buffers) == 3 * 20


@pytest.mark.parametrize("name", ["cnn8", "resnet18"])
def test_batch_normalisation_refuses_to_train_on_one_example(name: str) -> None:
    model = build(name, (1, 8, 8)).train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(torch.randn(1, 1, 8, 8))


def test_block_without_residual_passes_its_input() -> None:
    block = BasicBlock(4, 4, 1, nn.BatchNorm2d)
    last = block.residual[4]
    assert isinstance(last, nn.BatchNorm2d)
    nn.init.zeros_(last.weight)
    images = torch.randn(2, 4, 6, 6)
    assert torch.equal(block(images), images.relu())


@pytest.mark.parametrize("channels", [4, 8])
def test_block_with_stride_halves_the_image(channels: int) -> None:
    assert BasicBlock(4, channels, 2, nn.BatchNorm2d)(torch.randn(2, 4, 6, 6)).shape == (2, channels, 3, 3)


@pytest.mark.parametrize(
    ("name", "shape", "args", "message"),
    [
        ("cnn8", (3, 7, 32), "", "at least 8 x 8 pixels expected, the task's are 7 x 32"),
        ("digits-cnn", (1, 1, 9), "", "at least 2 x 2 pixels"),
        ("cnn8", (300,), "", r"the task's inputs are \(300,\)"),
        ("resnet18", (5, 5), "", "shape .channels, height, width. expected"),
        ("resnet34", CIFAR, 'norm = "grup"', "did you mean 'group'"),
        ("mlp", (1, 8, 8), "hidden = 0", "positive number of units"),
        ("mlp", (1, 8, 8), "hidden = 2.5", "hidden must be a whole number, not 2.5"),
        ("mlp", (1, 8, 8), "width = 3", "its arguments: hidden"),
        ("cnn9", CIFAR, "", "did you mean 'cnn8'"),
        ("mnist-cnn", (1, 3, 28), "", "at least 4 x 4 pixels"),
        ("resnet50", (1, 64, 64), "", "images of three channels expected, the task's have 1: choose resnet18"),
        ("vgg19-bn", (3, 31, 64), "", "at least 32 x 32 pixels"),
    ],
)
def test_errors_say_what_would_fit(name: str, shape: tuple[int, ...], args: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        build(name, shape, args=args)


def test_every_model_is_listed_with_a_summary() -> None:
    entries = {entry.name: entry for entry in MODELS.entries()}
    assert all(entry.summary for entry in entries.values())
    assert entries.keys() >= {"apl-report-cnn", "mnist-cnn", "resnet50", "resnet8", "thin-cnn8", "vgg19-bn"}
    assert entries.keys() >= {"text-bag", "text-transformer", "unet"}


def unet_size(width: int, depth: int, channels: int, num_classes: int) -> int:
    """Count layer by layer: convolutions without bias, group normalisation, and the way up with bias."""

    def block(inputs: int, outputs: int) -> int:
        return 9 * inputs * outputs + 9 * outputs * outputs + 4 * outputs

    widths = [width * 2**level for level in range(depth + 1)]
    down = sum(block(a, b) for a, b in pairwise([channels, *widths]))
    up = sum(4 * 2 * b * b + b + block(2 * b, b) for b in widths[:-1])
    return down + up + width * num_classes + num_classes


@pytest.mark.parametrize(("width", "depth", "shape"), [(16, 3, (3, 64, 64)), (8, 1, (1, 6, 10)), (24, 2, (3, 4, 4))])
def test_unet_answers_for_each_pixel_and_has_the_counted_size(width: int, depth: int, shape: tuple[int, ...]) -> None:
    model = build("unet", shape, 4, f"width = {width}, depth = {depth}")
    assert size(model) == unet_size(width, depth, shape[0], 4)
    assert model(torch.zeros(2, *shape)).shape == (2, 4, *shape[1:])


def test_unet_sees_far_only_through_its_depth() -> None:
    """A pixel is reached by 4 convolutions at full size, and by 2 of twice that reach for the one halving below."""
    torch.manual_seed(0)
    model = build("unet", (1, 32, 32), 2, "width = 8, depth = 1").double()
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.forward = lambda x: x  # type: ignore[method-assign]
    image = torch.randn(1, 1, 32, 32, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(image)[0, 0, 16, 16], image)
    rows = torch.nonzero(gradient[0, 0].abs().sum(1)).flatten()
    reach = 2 + 2 * 2 + 2 + 1  # up path, lower level in steps of two pixels, down path, pooling
    assert 4 < 16 - rows.min().item() <= reach


def test_text_bag_is_a_linear_classifier_of_the_mean_word() -> None:
    model = build("text-bag", (5,), 3, "vocabulary = 11, width = 4")
    assert size(model) == 11 * 4 + 4 * 3 + 3
    parameters = dict(model.named_parameters())
    words = torch.tensor([[3, 7, 0, 0, 0], [0, 0, 0, 0, 0]])
    mean = (parameters["words.weight"][3] + parameters["words.weight"][7]) / 2
    expected = parameters["classifier.weight"] @ mean + parameters["classifier.bias"]
    assert torch.allclose(model(words)[0], expected)
    assert torch.allclose(model(words)[1], parameters["classifier.bias"])


@pytest.mark.parametrize(
    ("name", "shape", "args", "message"),
    [
        ("unet", (3, 12, 12), "", "12 x 12 pixels cannot be halved 3 times: choose a size that is a multiple of 8"),
        ("unet", (3, 4, 4), "", "at least 8 x 8 pixels"),
        ("unet", (3, 8, 8), "width = 12", "a multiple of 8"),
        ("unet", (9,), "", "images of shape"),
        ("text-bag", (3, 8, 8), "vocabulary = 5", "texts of shape"),
        ("text-bag", (8,), "vocabulary = 1", "vocabulary = 1"),
        ("text-bag", (8,), "", "missing argument vocabulary"),
    ],
)
def test_models_of_texts_and_masks_say_what_they_take(
    name: str, shape: tuple[int, ...], args: str, message: str
) -> None:
    with pytest.raises(PluginError, match=message):
        build(name, shape, args=args)
