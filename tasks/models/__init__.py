"""Networks, each a plain ``nn.Module`` built from ``num_classes`` and ``input_shape`` (without the batch)."""

from torch import nn

from tasks.models.cnn import cnn8, digits_cnn
from tasks.models.mlp import mlp
from tasks.models.resnet import resnet18, resnet34
from tasks.models.text_bag import TextBag
from tasks.models.unet import UNet
from tasks.plugin import Registry

MODELS = Registry("model", nn.Module)

MODELS.register("mlp")(mlp)
MODELS.register("digits-cnn")(digits_cnn)
MODELS.register("cnn8", "Ma et al., ICML 2020; Ye et al., NeurIPS 2023")(cnn8)
MODELS.register("resnet18", "He et al., CVPR 2016")(resnet18)
MODELS.register("resnet34", "He et al., CVPR 2016")(resnet34)
MODELS.register("text-bag", "Joulin et al. (fastText), EACL 2017")(TextBag)
MODELS.register("unet", "Ronneberger et al., MICCAI 2015")(UNet)

__all__ = ["MODELS", "TextBag", "UNet", "cnn8", "digits_cnn", "mlp", "resnet18", "resnet34"]
