"""Mask audit of one client: which image's mask is doubted most, and where; the label audit where pixels have labels.

As in the audit of labels a global model judges, for what many clients have learned judges better than one
client's own masks, and the list is for the client's own eyes. Beside the list there is a picture for each image to look
at first, and a file with all the masks that seem right.

How suspicious a mask is was chosen among some twenty measures on ISIC-2017 with planted noise (docs/noisy-labels.md):
the share of its pixels that confident learning doubts (Northcutt, Jiang, Chuang, JAIR 2021). A Dice coefficient between
mask and prediction ranks as well where the model is good, and fails where it has learned to call nothing an object.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from client_app.label_quality import confident_classes, mean_confidence
from client_app.noise_rate import Beliefs
from tasks.base import ClientData, Labels, Task, predict
from tasks.client_data import load_task
from tasks.metrics import IGNORED
from tasks.settings import Settings

Box = tuple[int, int, int, int]
LOOK_AT = 0.03
"""A mask is one to look at if more than this share of its pixels seems wrong."""
PIXELS_AT_ONCE = 2**21


@dataclass(frozen=True)
class MaskAudit:
    """One client's masks, the most suspicious first.

    Attributes
    ----------
    names
        Name of each image in the client's own data.
    places
        Place of each image in the client's data, (n,).
    suspicion
        Share of each mask's labelled pixels for which another class seems right, (n,).
    given, suggested
        The mask that the client has, and the one that seems right, (n, H, W); pixels without a class keep that.
    """

    names: tuple[str, ...]
    places: Labels
    suspicion: npt.NDArray[np.float64]
    given: Labels
    suggested: Labels

    def __len__(self) -> int:
        return len(self.names)

    @property
    def doubted(self) -> int:
        """Number of masks to look at; they come first."""
        return int((self.suspicion > LOOK_AT).sum())

    @property
    def noise_rate(self) -> float:
        """Estimated share of wrong masks: those to look at."""
        return self.doubted / len(self)

    @property
    def regions(self) -> npt.NDArray[np.bool_]:
        """Where another class than the given one seems right, (n, H, W)."""
        return np.asarray(self.suggested != self.given)

    def boxes(self) -> list[Box | None]:
        """Return what encloses each region: first row, first column, last row, last column; None for no region."""
        return [_box(region) for region in self.regions]


def _box(region: npt.NDArray[np.bool_]) -> Box | None:
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    return (int(rows[0]), int(columns[0]), int(rows[-1]), int(columns[-1])) if len(rows) else None


def audit_masks(model: nn.Module, data: ClientData, settings: Settings, device: torch.device) -> MaskAudit:
    """Audit a client's masks with the received model.

    Confident learning, pixel by pixel: another class seems right where the model is as sure of it as it is on average
    where that class is given, and likelier of it than of any other such class. Images are predicted twice, first for
    these averages, so that little more than the masks is held.
    """
    task, suggested = load_task(settings.task), data.labels.copy()
    sums, counts = np.zeros(data.num_classes), np.zeros(data.num_classes, np.int64)
    for rows, beliefs in _beliefs(model, task, data, settings.evaluate.batch_size, device):
        given = data.labels[rows].ravel()
        known = given != IGNORED
        sums += np.bincount(given[known], beliefs[known, given[known]], data.num_classes)
        counts += np.bincount(given[known], minlength=data.num_classes)
    thresholds = mean_confidence(sums, counts)
    for rows, beliefs in _beliefs(model, task, data, settings.evaluate.batch_size, device):
        given, confident = data.labels[rows], confident_classes(beliefs, thresholds)
        other = confident.reshape(given.shape)
        suggested[rows] = np.where((given == IGNORED) | (other < 0), given, other)
    return rank_masks(suggested, data, task.example_names(data.ids))


def _beliefs(
    model: nn.Module, task: Task, data: ClientData, batch_size: int, device: torch.device
) -> Iterator[tuple[slice, Beliefs]]:
    """Yield some of the images and the class probabilities of all their pixels, float64 (m, K)."""
    height, width = data.labels.shape[1:]
    count = max(1, min(batch_size, PIXELS_AT_ONCE // (height * width)))
    for first in range(0, len(data), count):
        rows = slice(first, first + count)
        logits = predict(model, task, data.features[rows], count, device)
        yield rows, torch.softmax(logits.double(), 1).movedim(1, -1).flatten(0, -2).numpy()


def rank_masks(suggested: Labels, data: ClientData, names: Sequence[str]) -> MaskAudit:
    """Put a client's masks into the order of how many of their pixels seem wrong; all in the order of its data."""
    known = (data.labels != IGNORED).sum((1, 2))
    suspicion = (suggested != data.labels).sum((1, 2)) / np.maximum(known, 1)
    order = np.argsort(-suspicion, kind="stable")
    return MaskAudit(tuple(names[i] for i in order), order, suspicion[order], data.labels[order], suggested[order])
