"""Images that lie in folders: files as items, and those that are refused for where they lie, not for what they hold."""

import os
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from tasks.own_data.files import IMAGE_ENDINGS, Problem, UnusableError, readable_image, real
from tasks.own_data.reading import Item


def group_of(folder: Path, path: Path) -> str:
    """Return the group of a file below ``folder``: the first folder on the way to it, or "" if there is none.

    >>> group_of(Path("dark"), Path("dark/clinic/7/a.png")), group_of(Path("dark"), Path("dark/a.png"))
    ('clinic', '')
    """
    below = path.relative_to(folder).parts
    return below[0] if len(below) > 1 else ""


def sift(
    root: Path, items: Sequence[Item], left_out: AbstractSet[Path], grouped: bool
) -> tuple[list[Item], list[Problem]]:
    """Return the items that may be read, and a problem for each other one.

    Refused are an image beside the folders of groups (where ``grouped``: where groups matter), one that another item
    reads too, over a link or not, and a link into a folder that is ``left_out``.
    """
    reasons = (
        dict(_repeated(root, items)) | dict(_linked(items, left_out)) | dict(_beside_groups(items) if grouped else ())
    )
    kept = [item for item in items if item.name not in reasons]
    return kept, [Problem(item.name, reasons[item.name], value=item.value) for item in items if item.name in reasons]


def _beside_groups(items: Sequence[Item]) -> Iterator[tuple[str, str]]:
    """Yield name and reason of each item without a group if images of this data folder have one."""
    grouped = next((item for item in items if item.group and _is_image(item)), None)
    for item in items:
        if grouped and not item.group and _is_image(item):
            yield (
                item.name,
                f"belongs to no group, though other images do, such as {grouped.name}; "
                "move it into the folder of its group, or all images out of such folders",
            )


def _is_image(item: Item) -> bool:
    return item.file is not None and item.file.suffix.lower() in IMAGE_ENDINGS


def _linked(items: Sequence[Item], left_out: AbstractSet[Path]) -> Iterator[tuple[str, str]]:
    """Yield name and reason of each item that is a link into a folder that is left out."""
    for item in items:
        if left_out and item.file is not None and item.file.is_symlink() and left_out & set(real(item.file).parents):
            yield item.name, "is a link to test data, which is never trained on"


def _repeated(root: Path, items: Sequence[Item]) -> Iterator[tuple[str, str]]:
    """Yield name and reason of each item whose file another one reads: which label is meant, nobody knows.

    Where all have the same class, the first one is kept.
    """
    same: dict[tuple[int, int], list[Item]] = {}
    for item in items:
        try:
            found = os.stat(readable_image(root, item.file or root / item.name))
        except (UnusableError, OSError):  # said when it is read
            continue
        same.setdefault((found.st_dev, found.st_ino), []).append(item)
    for places in same.values():
        agreed = places[0].value and len({item.value for item in places}) == 1
        for item in places[1:] if agreed else places if len(places) > 1 else []:
            other = places[0] if item is not places[0] else places[1]
            yield item.name, f"is the same file as {other.name}" + ("" if agreed else ", which has another label")
