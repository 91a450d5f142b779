"""A label noise of your own: grades are mistaken for nearby grades more often than for distant ones.

``num_classes`` and ``rate`` (of this client, from the noise-rate distribution) come from the run:

    winnow run noise.name=examples.neighbour_noise:NeighbourNoise noise.args='reach = 1.5' noise.rates-args='max = 0.4'
"""

from dataclasses import dataclass

import numpy as np

from tasks.noise import ClassConditional, Matrix, NoiseError


@dataclass(frozen=True, kw_only=True)
class NeighbourNoise(ClassConditional):
    """Redraw a share ``rate`` of the labels as another class j with probability proportional to exp(-|i - j| / reach).

    For ordered classes, such as the severity of a disease. A large reach is symmetric noise without the true class.
    """

    reach: float = 1.0

    def __post_init__(self) -> None:
        if self.reach <= 0:
            raise NoiseError(f"reach must be above 0, not {self.reach}")
        super().__post_init__()

    def redraw_matrix(self) -> Matrix:
        """Return the distribution (K, K) of a redrawn label, one row for each true class."""
        classes = np.arange(self.num_classes)
        distance = np.abs(classes[:, None] - classes)
        likely = np.where(distance == 0, 0.0, np.exp(-(distance - 1) / self.reach))
        return np.asarray(likely / likely.sum(axis=1, keepdims=True), np.float64)
