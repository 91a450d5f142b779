"""Models by name (``MODELS``): ``nn.Module`` made of ``num_classes`` and ``input_shape``, without the batch."""

from tasks.models.large import resnet50, vgg19_bn
from tasks.models.resnet import resnet8, resnet18, resnet34
from tasks.models.small import (
    MODELS,
    TextBag,
    apl_report_cnn,
    cnn8,
    digits_cnn,
    lenet,
    linear,
    mlp,
    mnist_cnn,
    thin_cnn8,
)
from tasks.models.transformer import TextTransformer
from tasks.models.unet import UNet

__all__ = [
    "MODELS",
    "TextBag",
    "TextTransformer",
    "UNet",
    "apl_report_cnn",
    "cnn8",
    "digits_cnn",
    "lenet",
    "linear",
    "mlp",
    "mnist_cnn",
    "resnet8",
    "resnet18",
    "resnet34",
    "resnet50",
    "thin_cnn8",
    "vgg19_bn",
]
