"""Masks of a node's own images: the class of every pixel."""

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tasks.base import TASKS, DataError
from tasks.images import ImageTask
from tasks.metrics import IGNORED, segmentation_metrics
from tasks.own_data.base import distinct
from tasks.own_data.files import Problem, UnusableError, existing_folder, files_below, nfc, readable_image
from tasks.own_data.folders import group_of, sift
from tasks.own_data.images import OwnImages
from tasks.own_data.pixels import Picture, as_pixels, mask_image, mask_labels, open_image
from tasks.own_data.reading import Item, Pair, Reading, Shape, read_items


class MaskTask(ImageTask):
    """Images with a class for each pixel; how they are read is what a subclass adds."""

    default_model = "unet"
    labels_pixels = True

    def augment(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """Return the images as they are: their masks would not move with them."""
        return features

    def build_model(self, name: str, args: str) -> nn.Module:
        """Build the named model; see :class:`ImageTask`.

        Raises
        ------
        DataError
            If it does not answer for each pixel.
        """
        return per_pixel(super().build_model(name, args), self.num_classes, self.input_shape)

    def metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Return accuracy, macro F1 and mean intersection over union of the pixels that have a class."""
        return segmentation_metrics(logits, labels)


@TASKS.register("image-masks")
class ImageMasks(MaskTask, OwnImages):
    """A folder of images and a folder of masks with the same names, whatever their endings.

    ``values`` are the pixel values of the classes, 0, 1, ... if left out. Masks are scaled without mixing values and
    held as int64 (n, size, size): 8 x n x size^2 bytes. A folder inside the folder of images is the group of its
    images. There is no augmentation. A mask is turned as its own EXIF orientation says; if it has none, and its image
    is shown turned sideways, a mask in the stored size of the image is turned with it.

    Parameters
    ----------
    images, masks
        Names of the two folders.
    mask_suffix
        What the name of a mask has more than that of its image, such as ``_segmentation``.
    ignored
        Pixel values that belong to no class: neither loss nor measures count them.
    **declared
        See :class:`OwnImages`.

    Raises
    ------
    DataError
        If a declaration is out of its range.
    """

    def __init__(
        self,
        images: str = "images",
        masks: str = "masks",
        mask_suffix: str = "",
        ignored: Sequence[int] = (),
        **declared: Any,
    ) -> None:
        values = distinct("values", declared.get("values", ()), int) or tuple(range(len(declared["classes"])))
        super().__init__(**{**declared, "values": values})
        if self._padding:
            raise DataError("crop_padding: masks would not be cropped with their images; leave it out")
        labels = {value: label for label, value in enumerate(values)}
        without = dict.fromkeys(distinct("ignored", ignored, int), IGNORED)
        if labels.keys() & without.keys():
            raise DataError(f"values and ignored both hold {sorted(labels.keys() & without.keys())}")
        self._labels = labels | without
        self._images, self._masks, self._suffix = images, masks, nfc(mask_suffix)

    @property
    def images_folder(self) -> str:
        """Name of the folder of images."""
        return self._images

    @property
    def masks_folder(self) -> str:
        """Name of the folder of masks."""
        return self._masks

    @property
    def mask_suffix(self) -> str:
        """What the name of a mask has more than that of its image."""
        return self._suffix

    def read(self, root: Path) -> Reading:
        """Read all images that have a mask; see :class:`OwnDataTask`."""
        folders = existing_folder(root, self._images), existing_folder(root, self._masks)
        left_out, turned = self.left_out(root), list[str]()
        paths, masks = (by_stem(folder, left_out) for folder in folders)
        problems = [
            Problem(mask.relative_to(root).as_posix(), "there is no image for this mask")
            for stem, found in masks.items()
            if stem.removesuffix(self._suffix) not in paths or not stem.endswith(self._suffix)
            for mask in found
        ]
        items = [
            self._item(root, path, partial(self._pair, root, path, found, masks.get(stem + self._suffix, []), turned))
            for stem, found in paths.items()
            for path in found
        ]
        kept, refused = sift(root, items, left_out, grouped=root != self.test_root)
        shape = Shape(self.input_shape, self.shape.dtype, self.input_shape[1:])
        reading = read_items(kept, shape, [*problems, *refused], self.place(root))
        return replace(reading, notes=(*reading.notes, *_turned_note(root, turned)))

    def expected(self) -> str:
        """Say how the data folder must be laid out."""
        return f"expected images in {self._images}/ and their masks in {self._masks}/"

    def _files(self, root: Path) -> Iterator[Path]:
        return files_below(existing_folder(root, self._images), self.left_out(root))

    def _item(self, root: Path, path: Path, read: Callable[[], Pair]) -> Item:
        group = group_of(existing_folder(root, self._images), path)
        return Item(path.relative_to(root).as_posix(), read, group, file=path)

    def _pair(self, root: Path, path: Path, same: list[Path], masks: list[Path], turned: list[str]) -> Pair:
        image_path = readable_image(root, path)
        if len(same) > 1:
            raise UnusableError(f"{len(same)} images have this name but for their endings")
        if len(masks) != 1:
            raise UnusableError(f"has {len(masks)} masks in {self._masks}/; one of the same name is expected")
        image, mask = open_image(image_path, partial(self.bits_of, root)), self._mask(root, masks[0])
        if image.turned and mask.orientation is None:
            mask = turned_alike(mask, image)
            turned += [path.name] if mask.orientation else []
        if image.size != mask.size:
            raise UnusableError(f"has {image.size} pixels, its mask {mask.size}")
        try:
            labels = mask_labels(mask, self._labels, self.size)
        except UnusableError as problem:
            raise UnusableError(f"its mask {problem}") from problem
        return as_pixels(image, self.channels, self.size), labels

    def _mask(self, root: Path, path: Path) -> Picture:
        try:
            return mask_image(readable_image(root, path))
        except UnusableError as problem:
            raise UnusableError(f"its mask {problem}") from problem


def per_pixel(model: nn.Module, classes: int, shape: tuple[int, ...]) -> nn.Module:
    """Return a model of images (C, H, W), or raise ``DataError`` if it does not answer for each pixel."""
    with torch.no_grad():
        got = tuple(model.eval()(torch.zeros(1, *shape)).shape)
    if got != (wanted := (1, classes, *shape[1:])):
        raise DataError(f"the model must answer for each pixel of an image, {wanted}, got {got}; choose 'unet'")
    return model.train()


def turned_alike(mask: Picture, image: Picture) -> Picture:
    """Return a mask without EXIF orientation as its image is shown, which is turned by one.

    Raises
    ------
    UnusableError
        If its size fits the image both as shown and as stored: nobody can tell which of the two was labelled.
    """
    if image.size == image.stored_size() == mask.size:
        raise UnusableError(
            f"is shown turned by its EXIF orientation {image.orientation}, and its mask does not say whether it is "
            "turned too; save both as they are shown, without EXIF orientation"
        )
    return mask.turned_by(image.orientation or 1) if mask.size == image.stored_size() else mask


def _turned_note(root: Path, turned: list[str]) -> tuple[str, ...]:
    if not turned:
        return ()
    return (
        f"{len(turned)} masks in {root} have no EXIF orientation and the stored size of their images, which have one: "
        f"they are turned like these, such as that of {turned[0]}",
    )


def by_stem(folder: Path, left_out: Container[Path] = ()) -> dict[str, list[Path]]:
    """Return the files of a folder by their path in it without the ending, in NFC."""
    found: dict[str, list[Path]] = {}
    for path in files_below(folder, left_out):
        found.setdefault(nfc(path.relative_to(folder).with_suffix("").as_posix()), []).append(path)
    return found
