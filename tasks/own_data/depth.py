"""Values of more than 8 bits: what an image file says of their range, and what is found where it says nothing.

A file has 8 or 16 bits a value, what made it often 10, 12 or 14: read as 16 bits such images are nearly black. PNM and
12-bit TIFF files say their range; for all others it is found over the whole data folder, since one of each image's own
would make dark images as bright as others. A PNG's sBIT does not tell: by the PNG specification, values are widened to
the full range whatever it says.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from tasks.own_data.files import UnusableError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
DEEP_GREY = ("I;16", "I;16B", "I;16L", "I")
DEEP_COLOURS = ("RGB;16", "RGBX;16", "RGBA;16", "LA;16")  # Pillow keeps their upper 8 bits only
MOST_PIXELS = 64_000_000
EIGHT, SIXTEEN = 8, 16
SUBFILE, BITS_PER_SAMPLE, PHOTOMETRIC, MAX_SAMPLE = 254, 258, 262, 281  # tags of TIFF
WHITE_IS_ZERO, REDUCED = 0, 1
Values = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Facts:
    """What a file says of itself, before its pixels are decoded.

    Attributes
    ----------
    raw
        Pillow's name of how the pixels are stored.
    bits
        Bits of a value as decoded; 0: 16, of which perhaps not all are used.
    levels
        The largest number that a pixel of a file with fewer values than its decoded form can have, else 0.
    largest
        The largest value by the file's own word, else 0.
    inverted
        Whether 0 is white and the decoder leaves that so.
    """

    raw: str
    bits: int
    levels: int
    largest: int
    inverted: bool


def facts_of(image: Image.Image) -> Facts:
    """Return what an image says that was opened, and not yet decoded."""
    args = image.tile[0].args if image.tile else ""  # type: ignore[attr-defined]
    raw = str(args[0] if isinstance(args, tuple) else args)
    tags = getattr(image, "tag_v2", {})
    deep_grey, bits = image.mode in DEEP_GREY, EIGHT
    levels = {"L;2": 3, "L;4": 15}.get(raw[:3], 0)
    if image.format == "PPM":
        levels = args[-1] if isinstance(args, tuple) and isinstance(args[-1], int) and args[-1] > 0 else 0
        levels = 0 if levels in (255, 65535) else levels
    if deep_grey and levels:
        bits = SIXTEEN  # the decoder has widened them
    elif deep_grey and tags.get(BITS_PER_SAMPLE, (0,))[0] == 12:
        bits = 12
    elif deep_grey or raw.startswith(DEEP_COLOURS):
        bits = 0
    largest = int(tags.get(MAX_SAMPLE, (0,))[0])
    inverted = deep_grey and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO
    return Facts(raw, bits, levels, largest if largest < 65535 else 0, inverted)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file whose pixels are decoded in this context.

    Raises
    ------
    UnusableError
        If it is damaged, too large, of another format, or holds more than one picture.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_extent(image)
            yield image
    except UnusableError:
        raise
    except Exception as error:  # a decoder raises anything on damaged bytes
        raise UnusableError(f"cannot be read as an image ({type(error).__name__})") from error


def _check_extent(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise UnusableError(f"has {width} x {height} pixels; at most {MOST_PIXELS:,} are read")
    pictures = getattr(image, "n_frames", 1)
    if pictures > 1 and image.format != "MPO" and not _others_are_smaller(image, pictures):
        raise UnusableError(f"holds {pictures} pictures; one per file is expected")


def _others_are_smaller(image: Image.Image, pictures: int) -> bool:
    """Tell whether all pictures of a TIFF file but the first are marked as smaller versions of it."""
    if image.format != "TIFF":
        return False
    marks = []
    for number in range(1, pictures):
        image.seek(number)
        marks.append(image.tag_v2.get(SUBFILE, 0) & REDUCED)  # type: ignore[attr-defined]
    image.seek(0)
    return all(marks)


def decoded(image: Image.Image, raw: str = "") -> Image.Image:
    """Return an opened image with its pixels, turned as its orientation says; ``raw``: read as if stored like that."""
    if raw:
        image.tile = [  # type: ignore[attr-defined]
            tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw)
            for tile in image.tile  # type: ignore[attr-defined]
        ]
    image.load()
    return ImageOps.exif_transpose(image)


def grey_values(image: Image.Image) -> Values:
    """Return the values of a decoded image in deep grey, (height, width).

    Raises
    ------
    UnusableError
        If a value does not fit into 16 bits.
    """
    values = np.asarray(image).astype(np.int32)
    if values.min() < 0 or values.max() > 65535:
        raise UnusableError(f"has values from {values.min()} to {values.max()}; 8 or 16 bits are expected")
    return values


def colour_values(path: Path, raw: str, upper: Image.Image) -> Values:
    """Return all 16 bits of the colours in a file, (height, width, 3); ``upper`` is how Pillow has decoded it."""
    if raw == "LA;16B":  # read as four bytes a pixel: grey and alpha, two each
        with opened(path) as image:
            pair = np.asarray(decoded(image, "RGBA")).astype(np.int32)
        return np.repeat(pair[..., :1] << 8 | pair[..., 1:2], 3, axis=2)
    little = raw.endswith("L") or (raw.endswith("N") and sys.byteorder == "little")
    with opened(path) as image:
        lower = np.asarray(decoded(image, raw[:-1] + ("B" if little else "L")))[..., :3].astype(np.int32)
    return np.asarray(upper)[..., :3].astype(np.int32) << 8 | lower


def shown(values: Values, bits: int, inverted: bool = False) -> npt.NDArray[np.uint8]:
    """Return values of so many bits cut to their upper 8.

    Raises
    ------
    UnusableError
        If one has more bits.
    """
    if values.max(initial=0) >> bits:
        raise UnusableError(f"has values up to {values.max()}; bits = {bits} declares at most {(1 << bits) - 1}")
    return (((1 << bits) - 1 - values if inverted else values) >> (bits - EIGHT)).astype(np.uint8)


def found_bits(paths: Iterable[Path]) -> int:
    """Return how many bits the values of all 16-bit images among the files have that do not say their range.

    It is the number of bits of the largest value, made even, at least 8: cameras and scanners have 8, 10, 12, 14 or
    16. Files that cannot be read do not count.
    """
    largest = 0
    for path in paths:
        largest = max(largest, _largest(path))
        if largest >> 14:
            return SIXTEEN
    return max(EIGHT, largest.bit_length() + largest.bit_length() % 2)


def _largest(path: Path) -> int:
    """Return the largest value of a 16-bit image that does not say its range; 0 if the file is none such."""
    with suppress(UnusableError), opened(path) as image:
        facts = facts_of(image)
        if facts.bits:
            return 0
        upper = decoded(image)
        values = grey_values(upper) if upper.mode in DEEP_GREY else colour_values(path, facts.raw, upper)
        seen = values[~keyed(values, upper.info.get("transparency"))]
        return max(int(seen.max(initial=0)), facts.largest)
    return 0


def keyed(values: Values, key: object) -> npt.NDArray[np.bool_]:
    """Return which pixels have the value that stands for transparent, (height, width); none without a ``key``."""
    if key is None:
        return np.zeros(values.shape[:2], bool)
    same: npt.NDArray[np.bool_] = np.equal(values, np.asarray(key))
    return same if same.ndim == 2 else np.all(same, axis=2)
