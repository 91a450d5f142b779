"""ISIC-2017 lesion masks: photographs of skin with the outline of the lesion, class 1 inside of it.

Codella et al., "Skin lesion analysis toward melanoma detection: a challenge at the 2017 International Symposium on
Biomedical Imaging", ISBI 2018: 2,000 images for training, 150 for validation and 600 to test.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.base import TASKS
from tasks.datasets.image_files import ImageFiles
from tasks.datasets.lists import Listing
from tasks.datasets.web import evaluated
from tasks.example_store import RowShape
from tasks.issues import WARNING, Issue
from tasks.own_data.files import UnusableError, entries, inside, readable_image
from tasks.own_data.masks import MaskTask
from tasks.own_data.pixels import as_pixels, mask_image, mask_labels, open_image
from tasks.own_data.reading import Pair
from tasks.seeds import rng

PARTS = {"train": "Training", "validation": "Validation", "test": "Test_v2"}
SMALL = ("train/image", "train/mask256")
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1
CLASSES = {0: 0, 255: 1}


def published(part: str) -> tuple[str, str]:
    """Return the folders of images and of masks of a part, as the challenge names them."""
    return f"ISIC-2017_{PARTS[part]}_Data", f"ISIC-2017_{PARTS[part]}_Part1_GroundTruth"


@TASKS.register("isic-2017", "Codella et al., ISBI 2018", "https://arxiv.org/abs/1710.05006")
class Isic2017(MaskTask, ImageFiles):
    """Lesions of the skin, a class for each pixel (skin, lesion); 2,000 photographs to learn from.

    Where the official validation and test masks are not there, a fifth of the training images, chosen once and for
    all, is the test data, a tenth the validation data, and the rest is learned from. There is no augmentation.

    Parameters
    ----------
    size
        Pixels of a side; the default model ``unet`` halves it ``depth`` times. Images are scaled to a square.
    evaluate_on
        ``test``, or ``validation`` while choices are still to be made.
    **given
        See :class:`tasks.datasets.image_files.ImageFiles`.

    Raises
    ------
    DataError
        If an argument is out of its range.
    """

    title = "ISIC-2017"
    folders = ("isic2017", "isic-2017", "ISIC-2017")
    layout = (
        "a folder isic2017 with ISIC-2017_Training_Data/ISIC_*.jpg and "
        "ISIC-2017_Training_Part1_GroundTruth/ISIC_*_segmentation.png, the same for Validation and Test_v2 if there, "
        "or with train/image and train/mask256"
    )
    source = "It is at challenge.isic-archive.com/data/#2017"
    class_names = ("skin", "lesion")
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet

    def __init__(self, size: int = 128, evaluate_on: str = "test", **given: Any) -> None:
        super().__init__(size=size, **given)
        self._evaluated = evaluated(evaluate_on)

    @property
    def row(self) -> RowShape:
        """Shape of one example: an image, and a class for each of its pixels."""
        return RowShape(self.input_shape, np.uint8, self.input_shape[1:])

    def marks(self, root: Path) -> tuple[str, ...]:
        """Return the folders of the training images and masks."""
        return SMALL if (root / SMALL[0]).is_dir() else published("train")

    def list_part(self, root: Path, part: str) -> Listing:
        """Return the images of a part, by name, each with its mask."""
        wanted = self._evaluated if part == "test" else "train"
        if self._is_official(root):
            return _listing(root, *published(wanted))
        found = _listing(root, *self.marks(root))
        return found.take(held_out(len(found.names))[wanted])

    def data_issues(self) -> list[Issue]:
        """Return which training examples were left out, and that the split is not the official one."""
        if self._is_official(self.root()):
            return super().data_issues()
        text = (
            f"there are no official validation and test masks in {self.root()}: {TEST_SHARE:.0%} of the training "
            f"images are the test data, {VALIDATION_SHARE:.0%} the validation data, the same ones in every run"
        )
        return [Issue(WARNING, "task", text), *super().data_issues()]

    def pair(self, listing: Listing, number: int) -> Pair:
        """Return the image and the class of each of its pixels (size, size); see :class:`ImageFiles`."""
        root = listing.root
        image = open_image(readable_image(root, inside(root, listing.names[number])))
        try:
            mask = mask_image(readable_image(root, inside(root, listing.masks[number])))
            if mask.size != image.size:
                raise UnusableError(f"has {mask.size} pixels, the image {image.size}")
            labels = mask_labels(mask, CLASSES, self.size)
        except UnusableError as problem:
            raise UnusableError(f"its mask {listing.masks[number]} {problem}") from problem
        return as_pixels(image, 3, self.size), labels

    def _is_official(self, root: Path) -> bool:
        folders = [*published("validation"), *published("test")]
        return self.marks(root) != SMALL and all((root / name).is_dir() for name in folders)


def _listing(root: Path, images: str, masks: str) -> Listing:
    """Return the photographs in a folder by name; beside them the challenge has pictures of their superpixels."""
    is_photograph: Callable[[Path], bool] = lambda path: path.suffix == ".jpg" and path.stem.startswith("ISIC_")
    stems = [path.stem for path in entries(root / images) if is_photograph(path)]
    names, outlines = ([f"{folder}/{stem}{end}" for stem in stems] for folder, end in _endings(images, masks))
    return Listing(root, names, np.zeros(len(stems), np.int64), (), outlines)


def _endings(images: str, masks: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return (images, ".jpg"), (masks, "_segmentation.png")


def held_out(count: int) -> dict[str, npt.NDArray[np.int64]]:
    """Return which of ``count`` training images are to learn from, to choose by, and to test with, each ascending."""
    order = rng(0, "ISIC-2017", "held out").permutation(count)
    test, validation = round(TEST_SHARE * count), round(VALIDATION_SHARE * count)
    parts = np.split(order, [test, test + validation])
    return dict(zip(("test", "validation", "train"), map(np.sort, parts), strict=True))
