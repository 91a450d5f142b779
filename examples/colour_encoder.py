"""An encoder of your own: the mean colour of each part of an image, as features from which a linear head learns.

Examples are encoded once, and the features kept; what they depend on is what ``digest`` says.

    winnow run task.encoder=examples.colour_encoder:ColourGrid task.encoder-args='parts = 4'
"""

from torch import Tensor
from torch.nn import functional as F

from tasks.encoders import Encoder


class ColourGrid(Encoder):
    """Mean of each channel in each of ``parts`` x ``parts`` fields."""

    reads = "images"

    def __init__(self, parts: int = 4) -> None:
        if parts < 1:
            raise ValueError(f"parts = {parts}: at least 1 expected")
        self.parts, self.width = parts, 3 * parts * parts

    def encode(self, inputs: Tensor) -> Tensor:
        """Return the means (n, width) of images (n, 1 or 3, H, W) between 0 and 1."""
        return F.adaptive_avg_pool2d(inputs.expand(-1, 3, -1, -1), self.parts).flatten(1)

    def digest(self) -> str:
        """Return what the features depend on."""
        return f"colour grid, version 1, {self.parts} parts"
