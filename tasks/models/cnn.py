"""Plain convolutional networks: one for 8x8 digits, one from the literature on label noise."""

from torch import nn

from tasks.models.base import MODELS
from tasks.models.initialization import init_published
from tasks.models.inputs import image_shape


@MODELS.register("digits-cnn")
def digits_cnn(num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """Small network for digits: two 3x3 convolutions (16, 32 channels), one pooling, one linear layer.

    It has no normalisation layer, so it also trains on clients with a few dozen images and on batches of one.

    Raises
    ------
    ValueError
        If the inputs are not images of at least 2 x 2 pixels.
    """
    channels, height, width = image_shape(input_shape, smallest=2)
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * (height // 2) * (width // 2), num_classes),
    )


@MODELS.register("cnn8", "Ma et al., ICML 2020; Ye et al., NeurIPS 2023")
def cnn8(num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """Eight-layer network of the active-passive and active negative losses, with batch normalisation.

    Pairs of 3x3 convolutions with 64, 128 and 196 channels, each pair followed by a 2x2 maximum; then 256 hidden
    units. 1,639,794 parameters for 3x32x32 images and 10 classes. Source: Ma et al., ICML 2020, and Ye et al.,
    NeurIPS 2023, with their initial weights.

    Batch normalisation cannot train on a batch of one example: torch raises ``ValueError``, so a trainer has to
    leave such a last batch out.

    Raises
    ------
    ValueError
        If the inputs are not images of at least 8 x 8 pixels.
    """
    channels, height, width = image_shape(input_shape, smallest=8)
    model = nn.Sequential(
        *_conv_pair(channels, 64),
        *_conv_pair(64, 128),
        *_conv_pair(128, 196),
        nn.Flatten(),
        nn.Linear(196 * (height // 8) * (width // 8), 256),
        nn.BatchNorm1d(256),
        nn.ReLU(),
        nn.Linear(256, num_classes),
    )
    init_published(model)
    return model


def _conv_pair(in_channels: int, channels: int) -> list[nn.Module]:
    """Two normalised 3x3 convolutions at full size, then half the height and width."""
    layers: list[nn.Module] = []
    for inputs in (in_channels, channels):
        layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
    return [*layers, nn.MaxPool2d(2)]
