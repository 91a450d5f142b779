"""Models by name (``MODELS``): ``nn.Module`` made of ``num_classes`` and ``input_shape``, without the batch."""

from tasks.models.resnet import resnet18, resnet34
from tasks.models.small import MODELS, TextBag, cnn8, digits_cnn, linear, mlp
from tasks.models.transformer import TextTransformer
from tasks.models.unet import UNet

__all__ = [
    "MODELS",
    "TextBag",
    "TextTransformer",
    "UNet",
    "cnn8",
    "digits_cnn",
    "linear",
    "mlp",
    "resnet18",
    "resnet34",
]
