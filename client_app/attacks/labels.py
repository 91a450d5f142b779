"""Wrong labels on purpose (Biggio, Nelson, Laskov, ICML 2012; in federations Tolpeygin et al., ESORICS 2020)."""

from dataclasses import dataclass, replace

import numpy as np

from client_app.attacks.base import ATTACKS, DataAttack, Facts
from client_app.losses.base import expect
from tasks.base import ClientData, Labels

MODES = ("reverse", "random", "pair")


@ATTACKS.register("label-flip", "Biggio, Nelson, Laskov, ICML 2012; Tolpeygin et al., ESORICS 2020")
@dataclass(frozen=True)
class LabelFlip(DataAttack):
    """Train on examples whose labels are all wrong.

    ``mode`` says how class y becomes wrong: ``reverse`` takes K - 1 - y (with an odd number of classes K the middle one
    stays right), ``random`` any other class, each with the same probability and drawn anew in every round, ``pair`` the
    next one, (y + 1) mod K. The update is multiplied by ``scale``. Biggio, Nelson, Laskov, ICML 2012; for federations
    Tolpeygin, Truex, Gursoy, Liu, ESORICS 2020.
    """

    mode: str = "reverse"
    scale: float = 1.0

    def __post_init__(self) -> None:
        expect(self.mode in MODES, f"mode = {self.mode!r}: must be one of {', '.join(MODES)}")
        expect(0 < self.scale < np.inf, f"scale = {self.scale}: must be above 0")

    def poison(self, data: ClientData, facts: Facts, draws: np.random.Generator) -> ClientData:
        """Return the same examples with wrong labels."""
        return replace(data, labels=flipped(data.labels, data.num_classes, self.mode, draws))


def flipped(labels: Labels, num_classes: int, mode: str, draws: np.random.Generator) -> Labels:
    """Return wrong labels, shaped like ``labels``; negative labels, which mean "no label here", stay."""
    if mode == "reverse":
        wrong = num_classes - 1 - labels
    elif mode == "pair":
        wrong = (labels + 1) % num_classes
    else:
        wrong = (labels + draws.integers(1, num_classes, labels.shape)) % num_classes
    return np.where(labels < 0, labels, wrong)
