"""Residual networks for small images (He, Zhang, Ren and Sun, CVPR 2016).

As usual for CIFAR, the first layer is a 3x3 convolution with stride 1 and there is no first pooling.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from tasks.models.small import MODELS, image_shape, init_published
from tasks.plugins import did_you_mean

Norm = Callable[[int], nn.Module]

NORMS = ("batch", "group")


class BasicBlock(nn.Module):
    """Two normalised 3x3 convolutions added to their input: (N, C, H, W) to (N, channels, H/stride, W/stride)."""

    def __init__(self, in_channels: int, channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_conv_norm(in_channels, channels, 3, stride, norm),
            nn.ReLU(inplace=True),
            *_conv_norm(channels, channels, 3, 1, norm),
        )
        same_shape = stride == 1 and in_channels == channels
        projection = [] if same_shape else _conv_norm(in_channels, channels, 1, stride, norm)
        self.shortcut = nn.Sequential(*projection)  # empty: the input itself

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        return nn.functional.relu(self.residual(x) + self.shortcut(x))


@MODELS.register("resnet18", "He et al., CVPR 2016", "https://arxiv.org/abs/1512.03385")
def resnet18(num_classes: int, input_shape: tuple[int, ...], norm: str = "batch") -> nn.Module:
    """ResNet-18 for small images; ``norm`` is "batch" or "group".

    11,173,962 parameters for 3x32x32 images and 10 classes. ``norm = "group"`` (32 groups; Wu and He, ECCV 2018)
    keeps no running statistics, so there are none to average over clients whose data differ.

    Parameters
    ----------
    norm
        "batch", or "group", which keeps no running statistics.

    Raises
    ------
    ValueError
        If the inputs are not images, or ``norm`` is unknown.
    """
    return _resnet((2, 2, 2, 2), num_classes, input_shape, norm)


@MODELS.register("resnet34", "He et al., CVPR 2016", "https://arxiv.org/abs/1512.03385")
def resnet34(num_classes: int, input_shape: tuple[int, ...], norm: str = "batch") -> nn.Module:
    """ResNet-34 for small images; ``norm`` is "batch" or "group".

    21,328,292 parameters for 3x32x32 images and 100 classes; the rest as for ``resnet18``.

    Parameters
    ----------
    norm
        "batch", or "group", which keeps no running statistics.

    Raises
    ------
    ValueError
        If the inputs are not images, or ``norm`` is unknown.
    """
    return _resnet((3, 4, 6, 3), num_classes, input_shape, norm)


@MODELS.register("resnet8", "He et al., CVPR 2016", "https://arxiv.org/abs/1512.03385")
def resnet8(num_classes: int, input_shape: tuple[int, ...], norm: str = "batch") -> nn.Module:
    """ResNet-8 for small images and CPUs; ``norm`` is "batch" or "group".

    The family of 6n + 2 layers that He et al. train on CIFAR-10, with n = 1: three stages of one block, with 16, 32 and
    64 channels. Where a stage widens, its shortcut is a 1x1 convolution, as in ``resnet18``; the paper pads with zeros.
    78,042 parameters for 3x32x32 images and 10 classes. ``norm = "group"`` has 8 groups.

    Parameters
    ----------
    norm
        "batch", or "group", which keeps no running statistics.

    Raises
    ------
    ValueError
        If the inputs are not images, or ``norm`` is unknown.
    """
    return _resnet((1, 1, 1), num_classes, input_shape, norm, narrowest=16)


def _resnet(
    depths: tuple[int, ...], num_classes: int, input_shape: tuple[int, ...], norm: str, narrowest: int = 64
) -> nn.Module:
    """Stack stages of ``depths`` blocks; each stage but the first doubles the channels and halves the image."""
    if norm not in NORMS:
        raise ValueError(f"unknown norm {norm!r}{did_you_mean(str(norm), NORMS)}")
    normed: Norm = nn.BatchNorm2d if norm == "batch" else partial(nn.GroupNorm, narrowest // 2)
    channels, _, _ = image_shape(input_shape, smallest=1)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = nn.Sequential(*_conv_norm(channels, narrowest, 3, 1, normed), nn.ReLU(inplace=True))
    width = narrowest
    for index, depth in enumerate(depths):
        out = narrowest * 2**index
        blocks = [BasicBlock(width, out, 1 if index == 0 else 2, normed)]
        blocks += [BasicBlock(out, out, 1, normed) for _ in range(depth - 1)]
        layers[f"stage{index + 1}"] = nn.Sequential(*blocks)
        width = out
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "classifier": nn.Linear(width, num_classes)}
    model = nn.Sequential(layers)
    init_published(model)
    return model


def _conv_norm(in_channels: int, channels: int, size: int, stride: int, norm: Norm) -> list[nn.Module]:
    """One square convolution without bias and its normalisation."""
    return [nn.Conv2d(in_channels, channels, size, stride, padding=size // 2, bias=False), norm(channels)]
