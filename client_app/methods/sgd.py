"""Local SGD, the client side of FedAvg, and FedProx."""

from dataclasses import dataclass

from torch import nn

from client_app.losses import L2ToGlobal, Objective
from client_app.methods.base import METHODS, ClientMethod, FitResult, Kit, Plan, State


@METHODS.register("sgd", "McMahan et al., AISTATS 2017")
class LocalSGD(ClientMethod):
    """Minimise the configured loss for some epochs."""

    def fit(self, model: nn.Module, kit: Kit, plan: Plan, state: State) -> FitResult:
        """Train in place; see :class:`ClientMethod`."""
        return train(model, kit, plan, kit.objective)


def train(model: nn.Module, kit: Kit, plan: Plan, objective: Objective) -> FitResult:
    """Train on ``objective`` with the received weights as the anchor of its regularizers."""
    anchor = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trained = kit.trainer.fit(model, kit.local, objective, anchor, plan.learning_rate, plan.stream)
    return FitResult({"train-loss": trained.loss})


@METHODS.register("fedprox", "Li et al., MLSys 2020")
@dataclass(frozen=True)
class FedProx(ClientMethod):
    """Keep the local model near the global one: adds (mu / 2) ||w - w_global||^2, squared as in the paper.

    mu = 0 is plain local training. A strategy that sends ``proximal-mu``, as Flower's FedProx does, overrides it.
    """

    mu: float = 0.1

    def __post_init__(self) -> None:
        if self.mu < 0:
            raise ValueError(f"mu = {self.mu}: must be at least 0")

    def fit(self, model: nn.Module, kit: Kit, plan: Plan, state: State) -> FitResult:
        """Train in place; see :class:`ClientMethod`."""
        mu = float(str(plan.config.get("proximal-mu", self.mu)))
        return train(model, kit, plan, kit.objective.with_regularizer(mu, L2ToGlobal()))
