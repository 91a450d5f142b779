"""Large networks for photographs, as torchvision builds them; nothing is downloaded: they start from random weights."""

from torch import nn

from tasks.models.small import MODELS, image_shape


@MODELS.register("resnet50", "He et al., CVPR 2016", "https://arxiv.org/abs/1512.03385")
def resnet50(num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """ResNet-50 of torchvision, for photographs of usually 224 x 224 pixels.

    23,536,718 parameters for the 14 classes of Clothing1M, whatever the size of the images. The first layers quarter
    height and width, so images of 32 pixels end as one point: for these ``resnet18`` and ``resnet34`` are meant.

    Raises
    ------
    ValueError
        If the inputs are not images of three channels and at least 32 x 32 pixels.
    """
    from torchvision import models  # takes a second to import

    _check_photographs(input_shape)
    model: nn.Module = models.resnet50(weights=None, num_classes=num_classes)
    return model


@MODELS.register("vgg19-bn", "Simonyan and Zisserman, ICLR 2015", "https://arxiv.org/abs/1409.1556")
def vgg19_bn(num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """VGG-19 of torchvision with batch normalisation, for photographs of usually 224 x 224 pixels.

    139,622,218 parameters for 10 classes, whatever the size of the images, 560 MB: nearly all are in the two hidden
    layers of 4,096 units. Smaller images are enlarged before these, so that they work but cost as much.

    Raises
    ------
    ValueError
        If the inputs are not images of three channels and at least 32 x 32 pixels.
    """
    from torchvision import models

    _check_photographs(input_shape)
    model: nn.Module = models.vgg19_bn(weights=None, num_classes=num_classes)
    return model


def _check_photographs(input_shape: tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless the inputs are such images as torchvision's networks take."""
    channels, _, _ = image_shape(input_shape, smallest=32)
    if channels != 3:
        raise ValueError(f"images of three channels expected, the task's have {channels}: choose resnet18, or cnn8")
