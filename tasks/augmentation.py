"""Augmentation of images: random crops and mirror images, and the strong changes of methods that compare two views.

Whole batches are changed at once, each image by draws of its own. Strong augmentation is that of FedLSR (Jiang, Sun,
Wang and Liu, CIKM 2022, https://arxiv.org/abs/2208.12807), which takes it from contrastive learning (Chen, Kornblith,
Norouzi and Hinton, ICML 2020).
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

BRIGHTNESS = CONTRAST = SATURATION = 0.8
HUE = 0.2
JITTERED, GREYED = 0.8, 0.2
"""Shares of the images whose colours change, and that lose their colours."""
ROTATION = 30.0
"""Degrees."""
GREY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in the brightness of a colour (ITU-R BT.601)."""


def crop_and_flip(images: Tensor, generator: torch.Generator, padding: int) -> Tensor:
    """Shift each image by up to ``padding`` pixels and mirror half of the images, at random.

    Each image is padded with zeros on all sides, cut back to its size at a uniformly drawn place, and mirrored left
    to right with probability 1/2. The whole batch is one gather.

    Parameters
    ----------
    images
        Any type, (N, C, H, W), on any device.
    generator
        Source of the draws. On the images' device nothing waits for the host; on another, 3 N numbers are copied.

    Returns
    -------
    Tensor
        New images of the same shape, type and device.
    """
    count, channels, height, width = images.shape
    source, device = generator.device, images.device
    shifts = torch.randint(2 * padding + 1, (2, count, 1), generator=generator, device=source).to(device)
    mirrored = torch.randint(2, (count, 1), generator=generator, device=source).to(device).bool()
    column = torch.arange(width, device=device)
    rows = shifts[0] + torch.arange(height, device=device)
    columns = shifts[1] + torch.where(mirrored, column.flip(0), column)
    padded = F.pad(images, (padding,) * 4).flatten(2)
    places = rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]
    return padded.gather(2, places.flatten(1)[:, None].expand(-1, channels, -1)).view(images.shape)


def strong_augment(images: Tensor, generator: torch.Generator, brightest: int = 255) -> Tensor:
    """Return much changed copies of images: of colours their hues, of any other their angle.

    With three channels: mirrored half of the time; with probability 0.8 brightness, contrast and saturation times
    factors from 0.2 to 1.8 and the hue turned by up to a fifth of the circle, in an order drawn for the batch; with
    probability 0.2 grey. With any other number of channels: turned by up to 30 degrees, as FedLSR does with MNIST.

    Parameters
    ----------
    images
        Raw values from 0 to ``brightest``, (N, C, H, W), on any device.
    generator
        Source of the draws.

    Returns
    -------
    Tensor
        New images of the same shape, type and device.
    """
    shown = images.float() / brightest
    changed = _recoloured(shown, generator) if images.shape[1] == 3 else _turned(shown, generator)
    return (changed * brightest).round().to(images.dtype)


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turn each image (N, C, H, W) counter-clockwise about its centre by its own angle (N,); black comes in.

    A pixel takes the value of the nearest one of the original.
    """
    height, width = images.shape[2:]
    angle = degrees.to(images) * math.pi / 180
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # Coordinates of the grid go from -1 to 1 on both axes, so a turn of an oblong image is stretched.
    rows = [
        torch.stack([cosine, -sine * height / width, zero], 1),
        torch.stack([sine * width / height, cosine, zero], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def brighten(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply images (N, 3, H, W) between 0 and 1 by factors that broadcast to them, such as (N, 1, 1, 1)."""
    return (images * factor).clamp(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Move all values away from the image's mean brightness by a factor; 0 is even grey, 1 the image."""
    return _blend(images, grey(images).mean((1, 2, 3), keepdim=True), factor)


def saturate(images: Tensor, factor: Tensor) -> Tensor:
    """Move colours away from grey by a factor; 0 is the grey image, 1 the image."""
    return _blend(images, grey(images), factor)


def grey(images: Tensor) -> Tensor:
    """Return the brightness of images (N, 3, H, W), (N, 1, H, W)."""
    weights = torch.tensor(GREY, dtype=images.dtype, device=images.device)
    return (images * weights[:, None, None]).sum(1, keepdim=True)


def turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of images (N, 3, H, W) between 0 and 1 by a share of the circle; value and saturation stay.

    From RGB to hue, saturation and value and back (Smith, SIGGRAPH 1978).
    """
    value, strongest = images.max(1)
    chroma = value - images.min(1).values
    red, green, blue = images.unbind(1)
    sixths = torch.stack([green - blue, blue - red, red - green]) / chroma.clamp_min(torch.finfo(images.dtype).tiny)
    hue = sixths.gather(0, strongest[None])[0] + 2 * strongest
    hue = torch.where(chroma > 0, hue, 0.0) + 6 * turn.view(-1, 1, 1)
    offsets = torch.tensor([5.0, 3.0, 1.0], dtype=images.dtype, device=images.device)
    place = (hue[:, None] + offsets[:, None, None]).remainder(6)
    return value[:, None] - chroma[:, None] * torch.minimum(place, 4 - place).clamp(0, 1)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (factor * images + (1 - factor) * other).clamp(0, 1)


def _recoloured(images: Tensor, generator: torch.Generator) -> Tensor:
    def uniform(low: float, high: float) -> Tensor:
        drawn = torch.rand(len(images), generator=generator, device=generator.device).to(images.device)
        return (low + (high - low) * drawn).view(-1, 1, 1, 1)

    mirrored = torch.where(uniform(0, 1) < 0.5, images.flip(3), images)
    changes = (
        (brighten, uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS)),
        (contrast, uniform(1 - CONTRAST, 1 + CONTRAST)),
        (saturate, uniform(1 - SATURATION, 1 + SATURATION)),
        (turn_hue, uniform(-HUE, HUE)),
    )
    jittered = mirrored
    for place in torch.randperm(len(changes), generator=generator, device=generator.device).tolist():
        change, factor = changes[place]
        jittered = change(jittered, factor)
    coloured = torch.where(uniform(0, 1) < JITTERED, jittered, mirrored)
    return torch.where(uniform(0, 1) < GREYED, grey(coloured).expand_as(coloured), coloured)


def _turned(images: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(len(images), generator=generator, device=generator.device).to(images.device)
    return rotate(images, ROTATION * (2 * drawn - 1))
