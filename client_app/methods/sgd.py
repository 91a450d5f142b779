"""Plain local training: the client side of FedAvg (McMahan, Moore, Ramage, Hampson, Agueera y Arcas, AISTATS 2017)."""

from torch import nn

from client_app.losses import Objective
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
