"""Masks of a node's own images: the class of every pixel."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tasks.base import TASKS, DataError
from tasks.metrics import IGNORED, segmentation_metrics
from tasks.own_data.base import distinct
from tasks.own_data.files import Problem, UnusableError, existing_folder, files_below, readable_image
from tasks.own_data.images import OwnImages
from tasks.own_data.pixels import as_pixels, mask_image, mask_labels, open_image
from tasks.own_data.reading import Item, Pair, Reading, Shape, read_items


@TASKS.register("image-masks")
class ImageMasks(OwnImages):
    """A folder of images and a folder of masks with the same names, whatever their endings.

    ``values`` are the pixel values of the classes, 0, 1, ... if left out. Masks are scaled without mixing values and
    held as int64 (n, size, size): 8 x n x size^2 bytes. A folder inside the folder of images is the group of its
    images. There is no augmentation.

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

    default_model = "unet"
    labels_pixels = True

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
        self._images, self._masks, self._suffix = images, masks, mask_suffix

    def read(self, root: Path) -> Reading:
        """Read all images that have a mask; see :class:`OwnDataTask`."""
        folders = existing_folder(root, self._images), existing_folder(root, self._masks)
        paths, masks = (by_stem(folder) for folder in folders)
        problems = [
            Problem(mask.relative_to(root).as_posix(), "there is no image for this mask")
            for stem, found in masks.items()
            if stem.removesuffix(self._suffix) not in paths or not stem.endswith(self._suffix)
            for mask in found
        ]
        items = [
            self._item(root, path, found, masks.get(stem + self._suffix, []))
            for stem, found in paths.items()
            for path in found
        ]
        return read_items(items, Shape(self.input_shape, self.shape.dtype, self.input_shape[1:]), problems)

    def expected(self) -> str:
        """Say how the data folder must be laid out."""
        return f"expected images in {self._images}/ and their masks in {self._masks}/"

    def build_model(self, name: str, args: str) -> nn.Module:
        """Build the named model; see :class:`ImageTask`.

        Raises
        ------
        DataError
            If it does not answer for each pixel.
        """
        model = super().build_model(name, args).eval()
        with torch.no_grad():
            got = tuple(model(torch.zeros(1, *self.input_shape)).shape)
        if got != (wanted := (1, self.num_classes, *self.input_shape[1:])):
            raise DataError(f"the model must answer for each pixel of an image, {wanted}, got {got}; choose 'unet'")
        return model.train()

    def metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Return accuracy, macro F1 and mean intersection over union of the pixels that have a class."""
        return segmentation_metrics(logits, labels)

    def _item(self, root: Path, path: Path, same: list[Path], masks: list[Path]) -> Item:
        name, below = path.relative_to(root).as_posix(), path.relative_to(root / self._images).parts
        return Item(name, partial(self._pair, root, path, same, masks), below[0] if len(below) > 1 else "")

    def _pair(self, root: Path, path: Path, same: list[Path], masks: list[Path]) -> Pair:
        image_path = readable_image(root, path)
        if len(same) > 1:
            raise UnusableError(f"{len(same)} images have this name but for their endings")
        if len(masks) != 1:
            raise UnusableError(f"has {len(masks)} masks in {self._masks}/; one of the same name is expected")
        image, mask = open_image(image_path), self._mask(root, masks[0])
        if image.size != mask.size:
            raise UnusableError(f"has {image.size} pixels, its mask {mask.size}")
        try:
            labels = mask_labels(mask, self._labels, self.size)
        except UnusableError as problem:
            raise UnusableError(f"its mask {problem}") from problem
        return as_pixels(image, self.channels, self.size), labels

    def _mask(self, root: Path, path: Path) -> Any:
        try:
            return mask_image(readable_image(root, path))
        except UnusableError as problem:
            raise UnusableError(f"its mask {problem}") from problem


def by_stem(folder: Path) -> dict[str, list[Path]]:
    """Return the files of a folder by their path in it without the ending."""
    found: dict[str, list[Path]] = {}
    for path in files_below(folder):
        found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    return found
