"""Networks, each a plain ``nn.Module`` built from ``num_classes`` and ``input_shape`` (without the batch)."""

from tasks.models.base import MODELS
from tasks.models.cnn import cnn8, digits_cnn
from tasks.models.mlp import mlp
from tasks.models.resnet import resnet18, resnet34
from tasks.models.text_bag import TextBag
from tasks.models.unet import UNet

__all__ = ["MODELS", "TextBag", "UNet", "cnn8", "digits_cnn", "mlp", "resnet18", "resnet34"]
