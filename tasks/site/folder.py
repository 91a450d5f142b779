"""Images in one folder per class."""

from functools import partial
from pathlib import Path
from typing import Any

from tasks.base import TASKS, DataError
from tasks.site.base import TEST_FOLDER, attempt
from tasks.site.files import entries, files_below, inside, readable_image
from tasks.site.images import SiteImages
from tasks.site.pictures import read_image
from tasks.site.problems import Problem, UnusableError
from tasks.site.reading import Item, Pair, Reading, read_items


@TASKS.register("image-folder")
class ImageFolder(SiteImages):
    """A folder of images for each class, named as the class.

    A folder that belongs to no class is a problem, and so is an empty one: a class that a site does not have has no
    folder there. Folders inside a class folder are read too; the first one is the group of its images.

    Raises
    ------
    DataError
        If a declaration does not fit, or a class would have the folder of the test data.
    """

    def __init__(self, **declared: Any) -> None:
        super().__init__(**declared)
        if TEST_FOLDER in self.values:
            raise DataError(f"the folder {TEST_FOLDER!r} is for test data: name the folders of the classes in values")

    def read(self, root: Path) -> Reading:
        """Read all images; see :class:`SiteTask`."""
        problems: list[Problem] = []
        items = [
            item
            for folder in entries(root)
            if folder not in (root / TEST_FOLDER, self.test_root)
            for item in attempt(folder.name, partial(self._items, root, folder), problems) or []
        ]
        return read_items(items, self.shape, problems)

    def expected(self) -> str:
        """Say how the data folder must be laid out."""
        return f"expected folders of images: {', '.join(self.values)}"

    def _items(self, root: Path, folder: Path) -> list[Item]:
        if not folder.is_dir():
            raise UnusableError(f"is not in the folder of a class: {', '.join(self.values)}")
        label = self.label(folder.name)
        paths = list(files_below(inside(root, folder.name)))
        if not paths:
            raise UnusableError("the folder is empty; remove it if this site has no such images")
        return [self._item(root, folder, path, label) for path in paths]

    def _item(self, root: Path, folder: Path, path: Path, label: int) -> Item:
        name, below = path.relative_to(root).as_posix(), path.relative_to(folder).parts
        return Item(name, partial(self._pair, root, path, label), below[0] if len(below) > 1 else "")

    def _pair(self, root: Path, path: Path, label: int) -> Pair:
        return read_image(readable_image(root, path), self.channels, self.size), label
