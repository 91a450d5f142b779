"""The T-Loss: one Student-t likelihood per image, for masks with wrong borders."""

from dataclasses import dataclass

import torch
from torch import Tensor

from client_app.losses import formulas
from client_app.losses.base import IGNORE_INDEX, Loss, check_shapes, expect, log_probabilities

FORMS = {"official": formulas.student_t_official, "paper": formulas.student_t}


@dataclass(frozen=True, eq=False)
class TLoss(Loss):
    """T-Loss for binary masks (Gonzalez-Jimenez et al., MICCAI 2023): the negative log-likelihood of the error image.

    The error image is the foreground probability minus the mask; class 1 is the foreground. Every pixel carries its
    image's loss, so that a mean over pixels is the mean over images (weighted by their labelled pixels, if some are
    ignored: those are left out of the image). The loss grows with the number of pixels: compare it only between
    images of one size.

    ``log_nu`` is the logarithm of the degrees of freedom. To learn it as the authors do (start 1, Adam, learning rate
    1e-3), pass an ``nn.Parameter`` of one element and give it to the optimizer too. ``form`` is "official" (the
    authors' code, whose precisions are e) or "paper" (unit scale matrix).
    """

    log_nu: float | Tensor = 1.0
    form: str = "official"

    def __post_init__(self) -> None:
        expect(self.form in FORMS, f"form must be one of {', '.join(FORMS)}, got {self.form!r}")

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of its image at every pixel, (N, *D); see ``Loss``."""
        check_shapes(logits, target)
        expect(logits.shape[1] == 2, f"the T-Loss is for 2 classes (background, foreground), got {logits.shape[1]}")
        foreground = log_probabilities(logits)[:, 1].exp()
        if target.is_floating_point():
            ignored, mask = torch.zeros_like(foreground, dtype=torch.bool), target[:, 1]
        else:
            ignored, mask = target == IGNORE_INDEX, target
        error = (foreground - mask.to(foreground.dtype)).masked_fill(ignored, 0.0)
        image = self._per_image(per_example(error.square()), per_example((~ignored).to(error.dtype)))
        return image.reshape(-1, *[1] * (error.dim() - 1)).expand_as(error).masked_fill(ignored, 0.0)

    def _per_image(self, residual: Tensor, size: Tensor) -> Tensor:
        log_nu = self.log_nu if isinstance(self.log_nu, Tensor) else residual.new_full((), self.log_nu)
        return FORMS[self.form](residual, size, log_nu)


def per_example(values: Tensor) -> Tensor:
    """Return the sums (N,) of ``values`` (N, *D) over everything but the examples."""
    return values.unsqueeze(-1).flatten(1).sum(1)
