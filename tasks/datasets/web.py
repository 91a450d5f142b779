"""Photographs with labels that are really wrong: Clothing1M, mini-WebVision and ANIMAL-10N, in their published layouts.

Xiao et al., "Learning from massive noisy labeled data for image classification", CVPR 2015; Li et al., "WebVision
database: visual learning and understanding from web data", arXiv 2017, its first 50 classes after Jiang et al.
(MentorNet), ICML 2018; Song, Kim and Lee, "SELFIE: refurbishing unclean samples for robust deep learning", ICML 2019.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from tasks.base import TASKS, DataError
from tasks.datasets.image_files import WebImages
from tasks.datasets.lists import Listing, check_labels, read_lines, read_pairs
from tasks.own_data.files import shows_data
from tasks.own_data.pixels import Pixels, as_pixels, open_image

CLOTHES = "T-Shirt, Shirt, Knitwear, Chiffon, Sweater, Hoodie, Windbreaker, Jacket, Downcoat, Suit, Shawl, Dress, Vest"
FIRST_50 = """
tench, goldfish, great white shark, tiger shark, hammerhead, electric ray, stingray, cock, hen, ostrich, brambling,
goldfinch, house finch, junco, indigo bunting, robin, bulbul, jay, magpie, chickadee, water ouzel, kite, bald eagle,
vulture, great grey owl, European fire salamander, common newt, eft, spotted salamander, axolotl, bullfrog, tree frog,
tailed frog, loggerhead, leatherback turtle, mud turtle, terrapin, box turtle, banded gecko, common iguana,
American chameleon, whiptail, agama, frilled lizard, alligator lizard, Gila monster, green lizard, African chameleon,
Komodo dragon, African crocodile
"""
NOISY, CLEAN = "noisy", "clean"


@TASKS.register(
    "clothing1m",
    "Xiao et al., CVPR 2015",
    "https://openaccess.thecvf.com/content_cvpr_2015/html/Xiao_Learning_From_Massive_2015_CVPR_paper.html",
)
class Clothing1M(WebImages):
    """1,000,000 photographs of clothes of 14 classes, about 38.5 % of their labels wrong; 10,526 checked ones to test.

    The labels come from the words around an image. 47,570 further training images and 14,313 for validation were
    labelled by people.

    Parameters
    ----------
    train
        Training set: ``noisy``, ``clean``, or ``both``, one after the other.
    evaluate_on
        ``test``, or ``validation`` while choices are still to be made.
    **given
        See :class:`tasks.datasets.image_files.ImageFiles`.

    Raises
    ------
    DataError
        If an argument is out of its range.
    """

    title = "Clothing1M"
    folders = ("clothing1m", "Clothing1M")
    layout = (
        "a folder clothing1m with the unpacked folder images/ and, in it or in annotations/, noisy_train_key_list.txt, "
        "clean_train_key_list.txt, clean_val_key_list.txt, clean_test_key_list.txt, noisy_label_kv.txt and "
        "clean_label_kv.txt"
    )
    source = "Its authors give the data away on request, for research: see github.com/Cysu/noisy_label"
    class_names = (*CLOTHES.split(", "), "Underwear")
    mean, std = (0.6959, 0.6537, 0.6371), (0.3113, 0.3192, 0.3214)

    def __init__(self, train: str = NOISY, evaluate_on: str = "test", **given: Any) -> None:
        super().__init__(**given)
        if train not in (NOISY, CLEAN, "both"):
            raise DataError(f"train = {train!r}: 'noisy', 'clean' or 'both' is expected")
        self._kinds = {"train": (NOISY, CLEAN) if train == "both" else (train,), "test": (CLEAN,)}
        self._evaluated = evaluated(evaluate_on)
        self.has_own_noise = train != CLEAN

    def marks(self, root: Path) -> tuple[str, ...]:
        """Return the folder of images and the lists that are needed."""
        lists = [*(f"{kind}_train_key_list.txt" for kind in self._kinds["train"]), f"clean_{self._end}_key_list.txt"]
        labels = [f"{kind}_label_kv.txt" for kind in sorted({*self._kinds["train"], CLEAN})]
        return "images", *(f"{self._lists(root)}{name}" for name in (*lists, *labels))

    def list_part(self, root: Path, part: str) -> Listing:
        """Return the images of the lists of keys, with the labels of the lists of labels."""
        names, labels, sources = list[str](), list[int](), list[Path]()
        for kind in self._kinds[part]:
            keys = root / f"{self._lists(root)}{kind}_{'train' if part == 'train' else self._end}_key_list.txt"
            table = root / f"{self._lists(root)}{kind}_label_kv.txt"
            known, numbers = read_pairs(table, self.title)
            check_labels(table, known, numbers, self.num_classes, self.title)
            found, label_of = read_lines(keys, self.title), dict(zip(known, numbers.tolist(), strict=True))
            for line, name in enumerate(found, 1):
                if name not in label_of:
                    raise DataError(f"{self.title}: {keys}, line {line}: {name} has no label in {table.name}")
            names, labels = [*names, *found], [*labels, *map(label_of.__getitem__, found)]
            sources += [keys, table]
        return Listing(root, names, np.array(labels, np.int64), tuple(sources))

    @property
    def _end(self) -> str:
        return "val" if self._evaluated == "validation" else "test"

    def _lists(self, root: Path) -> str:
        """Return where the lists are: beside the images as published, or in a folder of their own as many keep them."""
        return "annotations/" if (root / "annotations").is_dir() else ""


def evaluated(chosen: str) -> str:
    """Return the argument ``evaluate_on``, or raise ``DataError`` unless it is ``test`` or ``validation``."""
    if chosen not in ("test", "validation"):
        raise DataError(f"evaluate_on = {chosen!r}: 'test' or 'validation' is expected")
    return chosen


@TASKS.register(
    "webvision-mini",
    "Li et al., arXiv 2017; Jiang et al. (MentorNet), ICML 2018",
    "https://arxiv.org/abs/1708.02862",
    "https://arxiv.org/abs/1712.05055",
)
class WebVisionMini(WebImages):
    """The first 50 classes of WebVision 1.0 as Google found them, about 66,000 photographs; 2,500 checked ones to test.

    The classes are the first 50 of ILSVRC 2012, in its order. See :class:`tasks.datasets.image_files.ImageFiles` for
    the parameters.
    """

    title = "mini-WebVision"
    folders = ("webvision", "WebVision")
    layout = (
        "a folder webvision with info/train_filelist_google.txt and info/val_filelist.txt (lines 'path number'), the "
        "images of Google (google/q0001/...) and val_images_256/"
    )
    source = "Its authors give the data away for research: see data.vision.ee.ethz.ch/cvl/webvision"
    class_names = tuple(" ".join(FIRST_50.split()).split(", "))

    def marks(self, root: Path) -> tuple[str, ...]:
        """Return the two lists and the folder of the validation images."""
        return "info/train_filelist_google.txt", "info/val_filelist.txt", "val_images_256"

    def list_part(self, root: Path, part: str) -> Listing:
        """Return the images of one of the two lists that belong to the first 50 of the 1,000 classes."""
        path = root / self.marks(root)[part == "test"]
        names, labels = read_pairs(path, self.title)
        check_labels(path, names, labels, 1000, self.title)
        below = "val_images_256/" if part == "test" else ""
        chosen = np.flatnonzero(labels < self.num_classes)
        return Listing(root, [below + names[number] for number in chosen], labels[chosen], (path,))


@TASKS.register("animal-10n", "Song et al. (SELFIE), ICML 2019", "https://proceedings.mlr.press/v97/song19b.html")
class Animal10N(WebImages):
    """55,000 photographs of 5 pairs of animals that look alike, 3x64x64, about 8 % of the labels wrong; 5,000 to test.

    The first sign of a file's name is its label; examples are in the order of their names. See
    :class:`tasks.datasets.image_files.ImageFiles` for the parameters.
    """

    title = "ANIMAL-10N"
    default_model = "vgg19-bn"
    folders = ("animal-10n", "ANIMAL-10N", "Animal-10N")
    layout = (
        "a folder animal-10n with the folders training/ and testing/ of the image version, files 'label_number.jpg'"
    )
    source = "Its authors give the data away after a form is filled in: see dm.kaist.ac.kr/datasets/animal-10n"
    class_names = (
        "cat",
        "lynx",
        "wolf",
        "coyote",
        "cheetah",
        "jaguar",
        "chimpanzee",
        "orangutan",
        "hamster",
        "guinea pig",
    )

    def __init__(self, size: int = 64, **given: Any) -> None:
        super().__init__(size=size, **given)

    def marks(self, root: Path) -> tuple[str, ...]:
        """Return the two folders."""
        return "training", "testing"

    def list_part(self, root: Path, part: str) -> Listing:
        """Return the files of one of the two folders, with the labels in their names."""
        folder = root / self.marks(root)[part == "test"]
        names, labels = [], []
        for name in sorted(filter(shows_data, os.listdir(folder))):
            label, parted, _ = name.partition("_")
            if not (parted and label.isdecimal() and int(label) < self.num_classes):
                raise DataError(
                    f"{self.title}: {folder / name}: a name such as 3_1234.jpg is expected, which begins with the "
                    f"class number, 0 to {self.num_classes - 1}"
                )
            names.append(f"{folder.name}/{name}")
            labels.append(int(label))
        return Listing(root, names, np.array(labels, np.int64), ())

    def pixels(self, path: Path) -> Pixels:
        """Return an image as (3, size, size); it has 64 x 64 pixels already."""
        return as_pixels(open_image(path), 3, self.size)
