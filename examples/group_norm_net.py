"""A model of your own: a small convolutional network that normalises each image on its own.

Any ``nn.Module`` or function that returns one; it receives ``num_classes`` and ``input_shape`` if it asks for them.

    winnow run model.name=examples.group_norm_net:group_norm_net model.args='width = 16'
"""

from torch import nn


def group_norm_net(num_classes: int, input_shape: tuple[int, ...], width: int = 32, groups: int = 4) -> nn.Module:
    """Two convolutions with group normalisation, then the mean over the image and one linear layer.

    BatchNorm's statistics differ between clients whose classes differ, and group normalisation keeps none (Wu and He,
    ECCV 2018; Hsieh, Phanishayee, Mutlu, Gibbons, ICML 2020). ``width`` channels in ``groups`` groups.
    """
    if len(input_shape) != 3:
        raise ValueError(f"images of shape (channels, height, width) expected, the task's inputs are {input_shape}")
    if width < 1 or groups < 1 or width % groups:
        raise ValueError(f"width = {width}: must be a multiple of groups = {groups}")

    def block(channels: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, width, 3, padding=1), nn.GroupNorm(groups, width), nn.ReLU()]

    return nn.Sequential(
        *block(input_shape[0]),
        *block(width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, num_classes),
    )
