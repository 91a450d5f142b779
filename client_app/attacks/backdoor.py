"""A backdoor (Gu, Dolan-Gavitt, Garg, BadNets, 2017; in federations Bagdasaryan et al., AISTATS 2020)."""

from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from client_app.attacks.base import ATTACKS, DataAttack, Facts
from client_app.losses.base import expect
from tasks.base import ClientData, Examples

CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right")


@ATTACKS.register("backdoor", "Gu et al., 2017; Bagdasaryan et al., AISTATS 2020")
@dataclass(frozen=True)
class Backdoor(DataAttack):
    """Teach the model to take every image with a small patch for class ``target``, and to be right otherwise.

    In every round a drawn ``share`` of the client's images get the patch and the label ``target``. The patch is a
    square of ``size`` pixels in a ``corner``, in all channels; ``value`` is its brightness, 1 = white. The update is
    multiplied by ``scale``: with scale = clients / hostile clients the plain mean becomes the attackers' model (model
    replacement, Bagdasaryan, Veit, Hua, Estrin, Shmatikov, AISTATS 2020). The patch is that of Gu, Dolan-Gavitt, Garg,
    BadNets, 2017.
    """

    target: int = 0
    size: int = 2
    value: float = 1.0
    corner: str = "bottom-right"
    share: float = 0.5
    scale: float = 1.0

    def __post_init__(self) -> None:
        expect(self.target >= 0, f"target = {self.target}: must be a class, 0 or more")
        expect(self.size >= 1, f"size = {self.size}: must be at least 1 pixel")
        expect(0 <= self.value <= 1, f"value = {self.value}: must be from 0 (black) to 1 (white)")
        expect(self.corner in CORNERS, f"corner = {self.corner!r}: must be one of {', '.join(CORNERS)}")
        expect(0 < self.share <= 1, f"share = {self.share}: must be above 0 and at most 1")
        expect(0 < self.scale < np.inf, f"scale = {self.scale}: must be above 0")

    def problem(self, facts: Facts) -> str:
        """Return what is wrong with the target class or the features, if anything."""
        if facts.brightest is None:
            return "a patch of pixels needs a task with images"
        if self.target >= facts.num_classes:
            return f"target = {self.target}: the task has the classes 0 to {facts.num_classes - 1}"
        return ""

    def poison(self, data: ClientData, facts: Facts, draws: np.random.Generator) -> ClientData:
        """Return the examples, a share of them with patch and target label."""
        chosen = draws.permutation(len(data))[: max(1, round(self.share * len(data)))]
        features, labels = data.features.clone(), data.labels.copy()
        features[chosen] = self.stamp(features[chosen], facts)
        labels[chosen] = self.target
        return replace(data, features=features, labels=labels)

    def probe(self, test: Examples, facts: Facts) -> Examples | None:
        """Return the test images of all other classes, with the patch and the target as their label."""
        others = test.take(np.flatnonzero(test.labels != self.target))
        return Examples(self.stamp(others.features, facts), np.full_like(others.labels, self.target))

    def stamp(self, images: Tensor, facts: Facts) -> Tensor:
        """Return a copy of stored images (N, C, H, W) with the patch."""
        vertical, horizontal = self.corner.split("-")
        rows = slice(None, self.size) if vertical == "top" else slice(-self.size, None)
        columns = slice(None, self.size) if horizontal == "left" else slice(-self.size, None)
        stamped = images.clone()
        stamped[:, :, rows, columns] = round(self.value * (facts.brightest or 0))
        return stamped
