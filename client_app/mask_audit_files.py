"""Mask audit files: the list of masks, its summary, the suggested masks and pictures, in the client's own folder."""

import io
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from PIL import Image

from client_app.label_audit_files import Columns, list_bytes, list_path, read_list, write_summary
from client_app.label_quality import CAUTION
from client_app.mask_audit import MaskAudit
from client_app.mask_regions import EDGES, EXTRA, MISSING, OTHER, Region, find_regions, in_words, kinds, region_columns
from tasks.base import ClientData, DataError, Labels, Task
from tasks.files import private_folder, replace_file
from tasks.metrics import IGNORED

COLUMNS = ("id", "suspicion", "look", "doubted_pixels", *EDGES, "picture", "regions")
READ = COLUMNS[:-1]
"""Columns that a list of any version begins with."""
TEXTS, NUMBERS, FLAGS = ("id", "picture"), ("suspicion", "doubted_pixels"), ("look",)
MASKS = "label-audit-masks.npz"
PICTURES = "label-audit-pictures"
MOST_PICTURES = 100
SHOWN_SIZE = 256
"""Pixels of the shorter side that a picture has at least; small images are enlarged by a whole number."""
REGIONS = "label-audit-regions"
THICKNESS = 2
GIVEN_COLOUR = (255, 220, 0)
COLOURS = {MISSING: (0, 200, 255), EXTRA: (255, 0, 80), OTHER: (255, 255, 255)}
"""Of the outlines of what is doubted: blue and red differ in lightness too, for who does not tell colours apart."""
T = TypeVar("T", bound=np.generic)
Picture = npt.NDArray[np.uint8]


def write_mask_audit(
    folder: Path, audit: MaskAudit, data: ClientData, task: Task, wanted: str, facts: dict[str, Any]
) -> Path:
    """Write a client's list, summary, suggested masks and pictures, for this user alone; return the list's path.

    The pictures are of the first masks to look at, up to ``MOST_PICTURES``: the image, and beside it the outline of the
    given mask in yellow, of what seems missing from it in blue and of what seems extra in red. Pictures of an earlier
    audit are removed. A second list has each doubted region: its direction, box and number of pixels.

    Raises
    ------
    ValueError
        If the format of the list needs a package that is not installed.
    WriteError
        If a file cannot be written.
    """
    private_folder(folder)
    path = list_path(folder, wanted)
    pictures = _write_pictures(folder / PICTURES, audit, data, task)
    replace_file(folder / MASKS, _archive(audit), private=True)
    regions = [find_regions(*masks) for masks in zip(audit.given, audit.suggested, strict=True)]
    listed = list_bytes(region_columns(audit.names, regions, task.class_names), wanted)
    replace_file(folder / f"{REGIONS}.{wanted}", listed, private=True)
    replace_file(path, list_bytes(_columns(audit, pictures, regions), wanted), private=True)
    write_summary(folder, {**facts, **summarize(audit)})
    return path


def summarize(audit: MaskAudit) -> dict[str, Any]:
    """Return the summary of an audit as plain values."""
    labelled = int((audit.given != IGNORED).sum())
    return {
        "examples": len(audit),
        "estimated_noise_rate": round(audit.noise_rate, 4),
        "estimated_share_of_wrong_pixels": round(int(audit.regions.sum()) / max(labelled, 1), 4),
        "look_at_first": audit.doubted,
        "suggested_masks": MASKS,
        "caution": CAUTION,
    }


def read_mask_list(path: Path) -> Columns:
    """Return a list's columns by name.

    Raises
    ------
    DataError
        If the file is not such a list.
    """
    return read_list(path, READ, TEXTS, NUMBERS, FLAGS)


def read_suggested(folder: Path) -> tuple[Labels, Labels]:
    """Return the places (n,) of a client's images and the masks that seem right for them, (n, H, W), as ranked.

    Raises
    ------
    DataError
        If the file is not there, or holds something else.
    """
    path = folder / MASKS
    try:
        with np.load(path, allow_pickle=False) as content:
            return content["places"].astype(np.int64), content["suggested"].astype(np.int64)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise DataError(f"{path} does not hold the masks of an audit: {error}") from error


def _archive(audit: MaskAudit) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, places=audit.places, suggested=audit.suggested.astype(np.int16))
    return file.getvalue()


def _columns(audit: MaskAudit, pictures: list[str], regions: list[list[Region]]) -> Columns:
    edges = [["" if box is None else str(box[edge]) for box in audit.boxes()] for edge in range(4)]
    return {
        "id": list(audit.names),
        "suspicion": np.round(audit.suspicion, 4).tolist(),
        "look": [rank < audit.doubted for rank in range(len(audit))],
        "doubted_pixels": audit.regions.sum((1, 2)).tolist(),
        **dict(zip(EDGES, edges, strict=True)),
        "picture": pictures + [""] * (len(audit) - len(pictures)),
        "regions": [in_words(some) for some in regions],
    }


def _write_pictures(folder: Path, audit: MaskAudit, data: ClientData, task: Task) -> list[str]:
    """Write the pictures, and return their names in the list."""
    for old in folder.glob("*.png"):
        old.unlink()
    if task.encodes_as != "images":  # what the inputs of such a task show, nobody has said
        return []
    names = []
    for rank in range(min(audit.doubted, MOST_PICTURES)):
        private_folder(folder)
        image = task.encoder_inputs(data.features[int(audit.places[rank])][None])[0].cpu().numpy()
        file = io.BytesIO()
        shown = picture(image, audit.given[rank], audit.suggested[rank])
        Image.fromarray(shown).save(file, "PNG")
        replace_file(folder / f"{rank + 1:04}.png", file.getvalue(), private=True)
        names.append(f"{PICTURES}/{rank + 1:04}.png")
    return names


def picture(image: npt.NDArray[np.float32], given: Labels, suggested: Labels) -> Picture:
    """Return an image (C, H, W) from 0 to 1, and beside it the same with outlines over it, (H', W', 3).

    The outline of the given mask (H, W) is yellow; of what the one that seems right (H, W) has more it is blue, of what
    it has less red, and of where it has another class white.
    """
    from scipy.ndimage import binary_erosion  # takes a while to start

    scale = max(1, -(-SHOWN_SIZE // min(given.shape)))
    colours = np.repeat(image[:1], 3, axis=0) if len(image) < 3 else image[:3]
    plain = (255 * colours.clip(0, 1)).round().astype(np.uint8).transpose(1, 2, 0)
    plain = _enlarged(plain, scale)
    marked = plain.copy()
    marked[_outline(_enlarged(given, scale))] = GIVEN_COLOUR
    for direction, region in kinds(given, suggested).items():
        shape = _enlarged(region, scale)
        marked[shape & ~binary_erosion(shape, iterations=THICKNESS)] = COLOURS[direction]
    return np.concatenate([plain, marked], axis=1)


def _enlarged(pixels: npt.NDArray[T], scale: int) -> npt.NDArray[T]:
    return pixels.repeat(scale, 0).repeat(scale, 1)


def _outline(classes: Labels) -> npt.NDArray[np.bool_]:
    """Return the pixels (H, W) whose right or lower neighbour has another class."""
    edge = np.zeros(classes.shape, bool)
    edge[:, :-1] |= classes[:, :-1] != classes[:, 1:]
    edge[:-1] |= classes[:-1] != classes[1:]
    return edge
