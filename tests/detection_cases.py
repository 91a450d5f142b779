"""Loss profiles with known noise rates, for tests of detectors."""

import numpy as np

from strategies.detection.base import Counts
from strategies.gram import Doubles


def profiles(rates: Doubles, classes: int = 10, seed: int = 0, alpha: float = 1.0) -> tuple[Doubles, Counts]:
    """Losses and counts (N, K): about 0.3 nats for a right label and 3 for a wrong one, harder and easier classes.

    Every client has 200 examples, divided among the classes by a Dirichlet draw, so some classes are missing.
    """
    draw = np.random.default_rng(seed)
    counts = np.stack([draw.multinomial(200, draw.dirichlet(np.full(classes, alpha))) for _ in rates])
    hard = draw.uniform(0.0, 0.3, classes)
    means = 0.3 + hard + 2.7 * rates[:, None]
    chance = draw.normal(0.0, 0.8, counts.shape) / np.sqrt(np.maximum(counts, 1))
    return np.where(counts > 0, np.maximum(means + chance, 0.01), 0.0), counts.astype(np.int64)


GRID = np.linspace(0.0, 0.4, 20)
TWO_KINDS = np.repeat([0.0, 0.5], [14, 6])
