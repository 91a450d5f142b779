"""Doubted labels to look at: of a simulation with published images, pictures of the labels that its audits doubt most.

A real federation shows nobody's examples to anybody, and neither does a rehearsal with somebody's own data: its report
may be passed on. There the owner of the data looks at them in the review of labels.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from client_app.label_audit_files import list_path, read_columns
from server_app.storage.doubted_labels import Doubt
from tasks.base import Task
from tasks.client_data import ClientDataset, client_dataset, load_task
from tasks.settings import Settings

MOST_DOUBTS, MOST_OF_A_CLIENT = 12, 2
SIDE = 56
"""Pixels of the longer side of a picture at most; a smaller one stays as it is."""


@dataclass(frozen=True)
class Line:
    """A line of a client's list whose label is doubted."""

    client: int
    name: str
    suggested: str
    suspicion: float


def shows_doubts(task: Task) -> bool:
    """Tell whether examples of a task may be shown, and can be: published images as the model gets them.

    Where labels are wrong from the start nobody knows the true ones, so there is nothing to compare with.
    """
    return task.encodes_as == "images" and not task.keeps_labels


def doubted_labels(run_dir: Path, settings: Settings, clients: Sequence[int]) -> list[Doubt]:
    """Return the most suspicious of the labels that the lists of these clients doubt, at most two of each.

    None where examples may not be shown, see :func:`shows_doubts`.

    Raises
    ------
    OSError, ValueError
        If a list cannot be read or is another run's.
    """
    task = load_task(settings.task)
    if not shows_doubts(task):
        return []
    lines = [line for client in clients for line in _doubted(run_dir, settings, client)]
    chosen = sorted(lines, key=lambda line: (-line.suspicion, line.client, line.name))[:MOST_DOUBTS]
    return [_doubt(line, client_dataset(settings, line.client).whole, task) for line in chosen]


def _doubted(run_dir: Path, settings: Settings, client: int) -> Iterator[Line]:
    """Yield the first lines of a client's list whose label is doubted."""
    columns = read_columns(list_path(run_dir / "clients" / str(client), settings.audit.format))
    found = 0
    for name, given, suggested, suspicion in zip(
        *(columns[key] for key in ("id", "given", "suggested", "suspicion")), strict=True
    ):
        if given != suggested and found < MOST_OF_A_CLIENT:
            found += 1
            yield Line(client, name, suggested, float(suspicion))


def _doubt(line: Line, dataset: ClientDataset, task: Task) -> Doubt:
    names = list(task.example_names(dataset.data.ids))
    if line.name not in names:
        raise ValueError(f"client {line.client} has no example {line.name!r}; is the run directory another run's?")
    place = names.index(line.name)
    outside = bool(np.isin(place, dataset.replaced))
    return Doubt(
        client=line.client,
        name=line.name,
        given=task.class_names[int(dataset.data.labels[place])],
        suggested=line.suggested,
        true="" if outside else task.class_names[int(dataset.true_labels[place])],
        suspicion=line.suspicion,
        png=base64.b64encode(picture(task.encoder_inputs(dataset.data.features[place][None])[0])).decode(),
    )


def picture(image: Tensor) -> bytes:
    """Return an image (C, H, W) with values in [0, 1] as a small PNG file; of one with two channels the first."""
    from PIL import Image  # with torchvision, which only tasks of image files need

    pixels = (255 * image.float().clamp(0, 1)).round().byte().cpu().numpy()
    shown = pixels[:3].transpose(1, 2, 0) if len(pixels) >= 3 else pixels[0]
    small = Image.fromarray(np.ascontiguousarray(shown))
    small.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    small.save(file, "PNG", optimize=True)
    return file.getvalue()
