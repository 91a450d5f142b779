"""Image files as arrays: the rules by which any file becomes what the run declares, or is refused with a reason.

Images are turned as their EXIF orientation says, converted to the declared channels, and scaled to a square without
keeping their proportions. Grey images become three equal channels; colours become grey only where all pixels are grey
already. 16 bits are cut to 8, a palette becomes its colours, CMYK becomes RGB, what is transparent is shown on black.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from tasks.own_data.files import UnusableError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
MOST_PIXELS = 64_000_000
GREY, SIXTEEN_BITS = ("1", "L", "LA"), ("I;16", "I;16B", "I;16L", "I")
COLOURS = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")
Pixels = npt.NDArray[np.uint8]


def open_image(path: Path) -> Image.Image:
    """Return a decoded image, turned as its EXIF orientation says.

    Raises
    ------
    UnusableError
        If it is damaged, too large, of another format, or holds more than one picture.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_extent(image)
            image.load()
            return ImageOps.exif_transpose(image)
    except UnusableError:
        raise
    except Exception as error:  # a decoder raises anything on damaged bytes
        raise UnusableError(f"cannot be read as an image ({type(error).__name__})") from error


def _check_extent(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise UnusableError(f"has {width} x {height} pixels; at most {MOST_PIXELS:,} are read")
    pictures = getattr(image, "n_frames", 1)
    if pictures > 1:
        raise UnusableError(f"holds {pictures} pictures; one per file is expected")


def read_image(path: Path, channels: int, size: int) -> Pixels:
    """Return an image as (channels, size, size); ``channels`` is 1 or 3.

    Raises
    ------
    UnusableError
        If it cannot be read, or cannot be brought to so many channels without losing anything but depth.
    """
    return as_pixels(open_image(path), channels, size)


def as_pixels(image: Image.Image, channels: int, size: int) -> Pixels:
    """Convert and scale a decoded image; see :func:`read_image`."""
    shown = _eight_bits(image)
    if channels == 1 and shown.mode == "RGB":
        shown = _grey(shown)
    elif channels == 3:
        shown = shown.convert("RGB")
    scaled = np.asarray(shown.resize((size, size), Image.Resampling.BILINEAR), dtype=np.uint8)
    return scaled[None] if channels == 1 else np.ascontiguousarray(scaled.transpose(2, 0, 1))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return the image in mode L or RGB."""
    mode = image.mode
    if mode in SIXTEEN_BITS:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise UnusableError(f"has values from {values.min()} to {values.max()}; 8 or 16 bits are expected")
        return Image.fromarray((values >> 8).astype(np.uint8))
    if mode not in (*GREY, *COLOURS):
        raise UnusableError(f"has pixels of the kind {mode!r}; 8 or 16 bits of grey or colour are expected")
    grey = mode in GREY
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", layer.size, "black"), layer)
        return flat.convert("RGB").getchannel(0) if grey else flat.convert("RGB")
    return image.convert("L" if grey else "RGB")


def _grey(image: Image.Image) -> Image.Image:
    red, green, blue = (np.asarray(channel) for channel in image.split())
    if not (np.array_equal(red, green) and np.array_equal(green, blue)):
        raise UnusableError("has colours, but the run declares channels = 1; convert it to grey, or declare 3")
    return Image.fromarray(red)


def mask_image(path: Path) -> Image.Image:
    """Return a mask whose pixels are single numbers: grey values, or places in a palette.

    Raises
    ------
    UnusableError
        If it cannot be read, or its pixels are colours.
    """
    mask = open_image(path)
    if mask.mode not in ("1", "L", "P", *SIXTEEN_BITS):
        raise UnusableError(f"has pixels of the kind {mask.mode!r}; a mask has one number a pixel (grey or palette)")
    return mask


def mask_labels(mask: Image.Image, classes: Mapping[int, int], size: int) -> npt.NDArray[np.int64]:
    """Return the class of each pixel, (size, size), of a mask scaled without new values; ``classes`` by pixel value.

    Raises
    ------
    UnusableError
        If a value is not declared. All pixels are looked at, also those that scaling leaves out.
    """
    unknown = sorted(set(np.unique(_numbers(mask)).tolist()) - classes.keys())
    if unknown:
        listed = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise UnusableError(f"holds the values {listed}; declared are {', '.join(map(str, sorted(classes)))}")
    values = _numbers(mask.resize((size, size), Image.Resampling.NEAREST))
    known = np.array(sorted(classes))
    return np.array([classes[value] for value in known.tolist()], dtype=np.int64)[np.searchsorted(known, values)]


def _numbers(mask: Image.Image) -> npt.NDArray[Any]:
    return np.asarray(mask).astype(np.int64)
