"""Mask audit of one client: which image's mask is doubted most, and where; the label audit where pixels have labels.

As in the audit of labels the final global model judges, for what many clients have learned judges better than one
client's own masks, and the list is for the client's own eyes. Beside the list there is a picture for each image to look
at first, and a file with all the masks that seem right.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.base import ClientData, Labels, Task, predict
from tasks.client_data import load_task
from tasks.metrics import IGNORED
from tasks.settings import Settings

Box = tuple[int, int, int, int]
DOUBTED = 0.5


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
        How much speaks against each mask, 0 to 1, (n,); see :func:`mask_suspicion`.
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
        return int((self.suspicion > DOUBTED).sum())

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


def mask_suspicion(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return how much speaks against each mask, (n,), from 0 (nothing) to 1: one minus the soft Dice coefficient.

    2 sum p_y / sum (p_k + [y = k]) for each class k over the pixels that have a class, and the mean over the classes
    of the mask or of the prediction. A pixel at an outline of which the model is not sure costs little, one far within
    what it takes for another class costs much, and an object counts as much as the background, whatever its size.

    Parameters
    ----------
    probabilities
        Of the K classes, (n, K, H, W).
    labels
        The given classes, int64 (n, H, W); -100 is none.
    """
    known = (labels != IGNORED).unsqueeze(1)
    given = F.one_hot(labels.clamp(min=0), probabilities.shape[1]).movedim(-1, 1) * known
    shown = probabilities.double() * known
    overlap, size = (shown * given).flatten(2).sum(2), (shown + given).flatten(2).sum(2)
    return 1 - (2 * overlap / size.clamp(min=1e-9)).mean(1)


def audit_masks(model: nn.Module, data: ClientData, settings: Settings, device: torch.device) -> MaskAudit:
    """Audit a client's masks with the received model; batch by batch, so that little more than the masks is held."""
    task, labels = load_task(settings.task), torch.from_numpy(data.labels)
    suspicion, suggested = [], np.empty_like(data.labels)
    first = 0
    for logits in _batches(model, task, data.features, settings.evaluate.batch_size, device):
        own = slice(first, first := first + len(logits))
        suspicion.append(mask_suspicion(torch.softmax(logits, 1), labels[own]))
        suggested[own] = torch.where(labels[own] == IGNORED, IGNORED, logits.argmax(1)).numpy()
    return rank_masks(torch.cat(suspicion).numpy(), suggested, data, task.example_names(data.ids))


def _batches(model: nn.Module, task: Task, features: Tensor, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    for batch in torch.split(features, batch_size):
        yield predict(model, task, batch, batch_size, device)


def rank_masks(
    suspicion: npt.NDArray[np.float64], suggested: Labels, data: ClientData, names: Sequence[str]
) -> MaskAudit:
    """Put a client's masks into the order of what speaks against them; the arguments are in the order of its data."""
    order = np.argsort(-suspicion, kind="stable")
    return MaskAudit(tuple(names[i] for i in order), order, suspicion[order], data.labels[order], suggested[order])
