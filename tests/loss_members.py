"""Every built-in loss with what theory says about it; the loss tests run over this table."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from client_app.losses import Objective, build

K = 4
COUNTS = [40, 30, 0, 5]
RCE = -math.log(1e-4)
HARMONIC_2 = 1 + 1 / 2
AGCE = (1.6**0.6 - 0.6**0.6) / 0.6
AUL = (5.5**3 - 4.5**3) / 3


@dataclass(frozen=True)
class Member:
    """One loss: its range [low, high], its sum over all labels if that is constant, and what it accepts."""

    name: str
    high: float = math.inf
    low: float = 0.0
    symmetric: float | None = None
    soft: bool = True
    detaches: bool = False
    classes: int = K

    def build(self, detach_modulator: bool = True) -> Objective:
        """Build the loss; losses without a focal modulator have no such argument."""
        args = {"detach_modulator": detach_modulator} if self.detaches else {}
        counts = COUNTS if self.name == "la-ce" else None
        return build(self.name, self.classes, args, class_counts=counts)

    @property
    def elementwise(self) -> bool:
        """Whether elements do not see each other: all but the T-Loss."""
        return self.name != "t-loss"


MEMBERS = [
    Member("ce"),
    Member("focal", detaches=True),
    Member("mae", high=1, symmetric=K - 1),
    Member("nmae", high=1 / (K - 1), symmetric=1),
    Member("gce", high=1 / 0.7, soft=False),
    Member("sce"),
    Member("rce", high=RCE + 1e-4, symmetric=RCE * (K - 1)),
    Member("nrce", high=1 / (K - 1), symmetric=1),
    Member("phce", soft=False, high=1 + math.log(2)),
    Member("tce", soft=False, high=HARMONIC_2),
    Member("nce", high=1, symmetric=1),
    Member("nfl", high=1, symmetric=1, detaches=True),
    Member("nce+mae", high=2, symmetric=1 + K - 1),
    Member("nce+rce", high=1 + RCE + 1e-4, symmetric=1 + RCE * (K - 1)),
    Member("nfl+mae", high=2, symmetric=1 + K - 1, detaches=True),
    Member("nfl+rce", high=1 + RCE + 1e-4, symmetric=1 + RCE * (K - 1), detaches=True),
    Member("agce", high=AGCE, soft=False),
    Member("aul", high=AUL, soft=False),
    Member("ael", low=math.exp(-1 / 2.5), high=1, soft=False),
    Member("nce+agce", high=1 + 4 * (7**1.5 - 6**1.5) / 1.5, soft=False),
    Member("nce+aul", high=1 + 4 * (6.3**1.5 - 5.3**1.5) / 1.5, soft=False),
    Member("nce+ael", low=4 * math.exp(-1 / 5), high=5, soft=False),
    Member("nnce", high=1, symmetric=K - 1),
    Member("nnfl", high=1, symmetric=K - 1, detaches=True),
    Member("anl-ce", high=10, symmetric=5 + 5 * (K - 1)),
    Member("anl-fl", high=10, symmetric=5 + 5 * (K - 1), detaches=True),
    Member("anl-ce*", high=10, symmetric=5 + 5 * (K - 1)),
    Member("anl-fl*", high=10, symmetric=5 + 5 * (K - 1), detaches=True),
    Member("la-ce"),
    Member("t-loss", low=-math.inf, classes=2),
    Member("fsanl"),
]

ELEMENTWISE = [member for member in MEMBERS if member.elementwise]


def name_of(member: Member) -> str:
    """Return the name under which pytest shows a member."""
    return member.name


def batch(shape: tuple[int, ...], classes: int, scale: float = 2.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return float64 logits (N, classes, *D) and int64 labels (N, *D) for ``shape`` = (N, *D).

    No label is a class that ``COUNTS`` says is absent.
    """
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(shape[0], classes, *shape[1:], generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, shape, generator=generator)
    return logits, labels.masked_fill(labels == COUNTS.index(0), 0)


def gradient(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Return d sum(function(x)) / dx at ``at``."""
    leaf = at.detach().clone().requires_grad_()
    (result,) = torch.autograd.grad(function(leaf).sum(), leaf)
    return result
