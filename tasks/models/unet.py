"""U-Net, small: the class of every pixel from what is near it and what is far."""

import torch
from torch import Tensor, nn

from tasks.models.small import MODELS, image_shape

GROUP = 8


@MODELS.register("unet", "Ronneberger et al., MICCAI 2015", "https://arxiv.org/abs/1505.04597")
class UNet(nn.Module):
    """Encoder and decoder with a connection at each size; logits (N, K, H, W) for images (N, C, H, W).

    Ronneberger, Fischer and Brox, MICCAI 2015, smaller and with padding, so that outputs are as large as inputs, and
    with group normalisation (Wu and He, ECCV 2018), which keeps no statistics that clients could disagree about.

    Parameters
    ----------
    width
        Channels at full size, a multiple of 8; they double at each of ``depth`` halvings.
    depth
        How often height and width are halved.

    Raises
    ------
    ValueError
        If a size does not fit, or the images cannot be halved so often.
    """

    def __init__(self, num_classes: int, input_shape: tuple[int, ...], width: int = 16, depth: int = 3) -> None:
        super().__init__()
        if width < 1 or width % GROUP or depth < 1:
            raise ValueError(f"width = {width}, depth = {depth}: a multiple of {GROUP} and at least 1 expected")
        channels, height, side = image_shape(input_shape, smallest=2**depth)
        if height % 2**depth or side % 2**depth:
            raise ValueError(
                f"images of {height} x {side} pixels cannot be halved {depth} times: choose a size that is a multiple "
                f"of {2**depth}, or a smaller depth"
            )
        widths = [width * 2**level for level in range(depth + 1)]
        inputs = [channels, *widths[:-1]]
        self.down = nn.ModuleList(_block(a, b) for a, b in zip(inputs, widths, strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * b, b, 2, stride=2) for b in widths[:-1])
        self.merge = nn.ModuleList(_block(2 * b, b) for b in widths[:-1])
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K, H, W)."""
        x = self.down[0](images)
        passed: list[Tensor] = []
        for block in self.down[1:]:
            passed.append(x)
            x = block(nn.functional.max_pool2d(x, 2))
        for up, merge, same_size in reversed(list(zip(self.up, self.merge, passed, strict=True))):
            x = merge(torch.cat([same_size, up(x)], dim=1))
        logits: Tensor = self.classifier(x)
        return logits


def _block(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions, each normalised in groups of 8 channels."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        convolution = nn.Conv2d(channels, outputs, 3, padding=1, bias=False)
        layers += [convolution, nn.GroupNorm(outputs // GROUP, outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
