"""Image files as arrays: the rules by which any file becomes what the run declares, or is refused with a reason.

Images are turned as their EXIF orientation says, converted to the declared channels, and scaled to a square without
keeping their proportions. Grey images become three equal channels; colours become grey only where all pixels are grey
already. Of more than 8 bits the upper 8 of those that are used are kept (``depth.py``), a palette becomes its colours,
CMYK becomes RGB, what is transparent is shown on black.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from tasks.own_data.depth import (
    DEEP_GREY,
    SIXTEEN,
    Facts,
    colour_values,
    decoded,
    facts_of,
    grey_values,
    keyed,
    opened,
    shown,
)
from tasks.own_data.files import UnusableError

GREY, COLOURS = ("1", "L", "LA"), ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")
SIDEWAYS = 5  # EXIF orientations from here on swap width and height
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """A decoded image, turned as its EXIF orientation says, and that orientation: 1 to 8, None if the file has none."""

    image: Image.Image
    orientation: int | None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as it is shown."""
        return self.image.size

    @property
    def turned(self) -> bool:
        """Whether it is shown otherwise than it is stored."""
        return self.orientation in range(2, 9)

    def stored_size(self) -> tuple[int, int]:
        """Return width and height as it is stored."""
        width, height = self.size
        return (height, width) if self.turned and (self.orientation or 0) >= SIDEWAYS else (width, height)

    def turned_by(self, orientation: int) -> "Picture":
        """Return the picture as if its file had this EXIF orientation, and it had none so far."""
        image = self.image.copy()
        image.getexif()[ExifTags.Base.Orientation] = orientation
        return Picture(ImageOps.exif_transpose(image), orientation)


def sixteen() -> int:
    """Return 16: all bits of a 16-bit image are used."""
    return SIXTEEN


def open_image(path: Path, bits: Callable[[], int] = sixteen) -> Picture:
    """Return a decoded image of at most 8 bits a value; ``bits`` is asked how many a 16-bit image uses.

    Raises
    ------
    UnusableError
        If it is damaged, too large, of another format, or holds more than one picture.
    """
    picture, facts = _decode(path)
    key = picture.image.info.get("transparency")
    if facts.bits != 8:
        return Picture(_cut(path, picture.image, facts, facts.bits or bits()), picture.orientation)
    if facts.levels and isinstance(key, int):  # the decoder widens the pixels, not the key
        picture.image.info["transparency"] = key * 255 // facts.levels
    return picture


def _decode(path: Path) -> tuple[Picture, Facts]:
    with opened(path) as image:
        facts = facts_of(image)
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        return Picture(decoded(image), orientation), facts


def _cut(path: Path, image: Image.Image, facts: Facts, bits: int) -> Image.Image:
    """Return a 16-bit image in mode L, LA, RGB or RGBA, its values cut to the upper 8 of so many bits."""
    key = image.info.get("transparency")
    if image.mode in DEEP_GREY:
        values = grey_values(image)
        clear = keyed(values, key)
        grey = Image.fromarray(shown(np.where(clear, 0, values), bits, facts.inverted))
        return _with_alpha(grey, clear) if clear.any() else grey
    if bits == SIXTEEN and key is None:
        return image
    values = colour_values(path, facts.raw, image)
    clear = keyed(values, key)
    colours = Image.fromarray(shown(np.where(clear[..., None], 0, values), bits))
    if image.mode == "RGBA":
        colours.putalpha(image.getchannel("A"))
    return _with_alpha(colours, clear) if clear.any() else colours


def _with_alpha(image: Image.Image, clear: npt.NDArray[np.bool_]) -> Image.Image:
    image.putalpha(Image.fromarray(np.where(clear, 0, 255).astype(np.uint8)))
    return image


def read_image(path: Path, channels: int, size: int, bits: Callable[[], int] = sixteen) -> Pixels:
    """Return an image as (channels, size, size); ``channels`` is 1 or 3, ``bits`` as in :func:`open_image`.

    Raises
    ------
    UnusableError
        If it cannot be read, or cannot be brought to so many channels without losing anything but depth.
    """
    return as_pixels(open_image(path, bits), channels, size)


def as_centre(picture: Picture, size: int, short: int) -> Pixels:
    """Return the centre (3, size, size) of a decoded image whose shorter side is scaled to ``short`` pixels.

    Proportions are kept, and of both sides as much is cut: bilinear with antialiasing, as Pillow does it.
    """
    image = _eight_bits(picture.image).convert("RGB")
    width, height = image.size
    scale = short / min(width, height)
    wide, high = (short if side == min(width, height) else int(side * scale) for side in (width, height))
    left, top = round((wide - size) / 2), round((high - size) / 2)
    cut = image.resize((wide, high), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    return np.ascontiguousarray(np.asarray(cut, dtype=np.uint8).transpose(2, 0, 1))


def as_shown(picture: Picture, side: int) -> Image.Image:
    """Return a decoded image as people look at it, in mode L or RGB, with at most ``side`` pixels a side.

    Proportions are kept, and a small image stays as it is.

    Raises
    ------
    UnusableError
        If its pixels are neither grey nor colours.
    """
    image = _eight_bits(picture.image)
    image.thumbnail((side, side))
    return image


def as_pixels(picture: Picture, channels: int, size: int) -> Pixels:
    """Convert and scale a decoded image; see :func:`read_image`."""
    shown = _eight_bits(picture.image)
    if channels == 1 and shown.mode == "RGB":
        shown = _grey(shown)
    elif channels == 3:
        shown = shown.convert("RGB")
    scaled = np.asarray(shown.resize((size, size), Image.Resampling.BILINEAR), dtype=np.uint8)
    return scaled[None] if channels == 1 else np.ascontiguousarray(scaled.transpose(2, 0, 1))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return the image in mode L or RGB."""
    mode = image.mode
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


def mask_image(path: Path) -> Picture:
    """Return a mask whose pixels are single numbers, as they are stored: grey values, or places in a palette.

    Raises
    ------
    UnusableError
        If it cannot be read, or its pixels are colours.
    """
    picture, facts = _decode(path)
    mask = picture.image
    if mask.mode not in ("1", "L", "P", *DEEP_GREY):
        raise UnusableError(f"has pixels of the kind {mask.mode!r}; a mask has one number a pixel (grey or palette)")
    if not facts.levels:
        return picture
    widest = 65535 if mask.mode in DEEP_GREY else 255  # the decoder has widened few values to the full range
    numbers = np.rint(_numbers(mask) * (facts.levels / widest)).astype(np.int32)
    return Picture(Image.fromarray(numbers), picture.orientation)


def mask_labels(mask: Picture, classes: Mapping[int, int], size: int) -> npt.NDArray[np.int64]:
    """Return the class of each pixel, (size, size), of a mask scaled without new values; ``classes`` by pixel value.

    Raises
    ------
    UnusableError
        If a value is not declared. All pixels are looked at, also those that scaling leaves out.
    """
    unknown = sorted(set(np.unique(_numbers(mask.image)).tolist()) - classes.keys())
    if unknown:
        listed = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise UnusableError(f"holds the values {listed}; declared are {', '.join(map(str, sorted(classes)))}")
    values = _numbers(mask.image.resize((size, size), Image.Resampling.NEAREST))
    known = np.array(sorted(classes))
    return np.array([classes[value] for value in known.tolist()], dtype=np.int64)[np.searchsorted(known, values)]


def _numbers(mask: Image.Image) -> npt.NDArray[np.int64]:
    return np.asarray(mask).astype(np.int64)
