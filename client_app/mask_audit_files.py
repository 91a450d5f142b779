"""Mask audit files: the list of masks, its summary, the suggested masks and pictures, in the client's own folder."""

import io
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from client_app.label_audit_files import Columns, list_bytes, list_path, read_list, write_summary
from client_app.label_quality import CAUTION
from client_app.mask_audit import MaskAudit
from client_app.mask_pictures import picture
from client_app.mask_regions import EDGES, Region, find_regions, in_words, region_columns
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
REGIONS = "label-audit-regions"


def write_mask_audit(
    folder: Path, audit: MaskAudit, data: ClientData, task: Task, wanted: str, facts: dict[str, Any]
) -> Path:
    """Write a client's list, summary, suggested masks and pictures, for this user alone; return the list's path.

    The pictures are of the first masks to look at, up to ``MOST_PICTURES``: the image, and beside it the outline of the
    given mask in yellow, and hatched what seems missing from it in blue and what seems extra in red. Pictures of an
    earlier audit are removed. A second list has each doubted region: its direction, box and number of pixels.

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
    found = _read_masks(folder)
    return found["places"].astype(np.int64), found["suggested"].astype(np.int64)


def read_both_masks(folder: Path) -> tuple[Labels, Labels] | None:
    """Return the given masks and those that seem right, (n, H, W) each, as ranked; None where they are not kept.

    Audits of earlier versions do not have the given ones.

    Raises
    ------
    DataError
        If the file holds something else.
    """
    if not (folder / MASKS).is_file():
        return None
    found = _read_masks(folder)
    return (found["given"], found["suggested"]) if "given" in found else None


def _read_masks(folder: Path) -> dict[str, Labels]:
    path = folder / MASKS
    try:
        with np.load(path, allow_pickle=False) as content:
            found = {name: content[name] for name in content.files}
        if not found.keys() >= {"places", "suggested"}:
            raise ValueError("places and suggested are expected in it")
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise DataError(f"{path} does not hold the masks of an audit: {error}") from error
    return found


def _archive(audit: MaskAudit) -> bytes:
    file = io.BytesIO()
    given, suggested = audit.given.astype(np.int16), audit.suggested.astype(np.int16)
    np.savez_compressed(file, places=audit.places, suggested=suggested, given=given)
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
