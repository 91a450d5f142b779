"""Attacks on the client's own update after honest training."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from client_app.attacks.base import ATTACKS, Facts, UpdateAttack
from client_app.losses.base import expect

MODES = ("replace", "add")


@ATTACKS.register("sign-flip", "Li et al., AAAI 2019")
@dataclass(frozen=True)
class SignFlip(UpdateAttack):
    """Send the honest update backwards: -scale x update.

    Li, Xu, Chen, Giannakis, Ling, AAAI 2019.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        expect(0 < self.scale < np.inf, f"scale = {self.scale}: must be above 0")

    def forge(self, update: Tensor, facts: Facts, draws: np.random.Generator) -> Tensor:
        """Return the reversed update."""
        return -self.scale * update


@ATTACKS.register("gaussian", "Blanchard et al., NeurIPS 2017")
@dataclass(frozen=True)
class Gaussian(UpdateAttack):
    """Send Gaussian noise of standard deviation ``std`` per parameter.

    ``mode`` says whether it takes the place of the update (``replace``; Blanchard, El Mhamdi, Guerraoui, Stainer,
    NeurIPS 2017) or is added to it (``add``).
    """

    std: float = 1.0
    mode: str = "replace"

    def __post_init__(self) -> None:
        expect(0 < self.std < np.inf, f"std = {self.std}: must be above 0")
        expect(self.mode in MODES, f"mode = {self.mode!r}: must be one of {', '.join(MODES)}")

    def forge(self, update: Tensor, facts: Facts, draws: np.random.Generator) -> Tensor:
        """Return noise, or the update plus noise."""
        drawn = torch.from_numpy(draws.standard_normal(len(update), np.float32)).to(update)
        return self.std * drawn if self.mode == "replace" else update + self.std * drawn


@ATTACKS.register("scaling", "Bagdasaryan et al., AISTATS 2020")
@dataclass(frozen=True)
class Scaling(UpdateAttack):
    """Send a multiple of the honest update, so that it decides the mean.

    ``factor`` = 0 stands for clients / hostile clients, with which the plain mean of equal weights becomes the mean of
    the attackers' models where honest updates cancel: model replacement, Bagdasaryan, Veit, Hua, Estrin, Shmatikov,
    AISTATS 2020. The attack ``backdoor`` takes this factor as its ``scale``.
    """

    factor: float = 0.0

    def __post_init__(self) -> None:
        expect(
            0 <= self.factor < np.inf, f"factor = {self.factor}: must be above 0, or 0 for clients / hostile clients"
        )

    def forge(self, update: Tensor, facts: Facts, draws: np.random.Generator) -> Tensor:
        """Return the larger update."""
        return (self.factor or facts.num_clients / facts.num_hostile) * update
