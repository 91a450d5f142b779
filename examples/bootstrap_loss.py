"""A loss of your own: soft bootstrapping, in which the model's own opinion has a say in what the label is.

Write the formula per label; masks, weights and the mean are the trainer's. Run from the repository root:

    winnow run loss.name=examples.bootstrap_loss:Bootstrap loss.args='beta = 0.8'
"""

from dataclasses import dataclass

from torch import Tensor

from client_app.losses import ElementwiseLoss


@dataclass(frozen=True)
class Bootstrap(ElementwiseLoss):
    """Cross-entropy with ``beta`` x label + (1 - beta) x prediction (Reed et al., ICLR workshop 2015).

    beta = 1 is cross-entropy; a smaller one trusts the labels less. The published value is 0.95.
    """

    beta: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.beta <= 1:
            raise ValueError(f"beta = {self.beta}: must be above 0 and at most 1")

    def formula(self, log_probs: Tensor, target: Tensor) -> Tensor:
        """Return the loss (N, *D) of class indices (N, *D) or label distributions (N, K, *D)."""
        own = -(log_probs.exp() * log_probs).sum(1)
        if target.is_floating_point():
            given = -(target * log_probs).sum(1)
        else:
            given = -log_probs.gather(1, target.unsqueeze(1)).squeeze(1)
        return self.beta * given + (1 - self.beta) * own
