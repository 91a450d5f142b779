"""Local SGD, the client side of FedAvg (McMahan, Moore, Ramage, Hampson, Agueera y Arcas, AISTATS 2017), and FedProx
(Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, MLSys 2020).
"""

from dataclasses import dataclass

from torch import nn

from client_app.losses import L2ToGlobal, Objective
from client_app.methods.base import METHODS, FitResult, Plan, PlannedMethod, RoundConfig, State, TrainContext
from client_app.trainer import GivenLabels, Trained


@METHODS.register("sgd", "McMahan et al., AISTATS 2017", "https://arxiv.org/abs/1602.05629")
class LocalSGD(PlannedMethod):
    """Minimise the configured loss for some epochs.

    Cost: one model each way and the configured epochs.
    """

    def plan(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> Plan:
        """Return the training; see :class:`PlannedMethod`."""
        return given_labels(model, context, context.objective)


@METHODS.register("fedprox", "Li et al., MLSys 2020", "https://arxiv.org/abs/1812.06127")
@dataclass(frozen=True)
class FedProx(PlannedMethod):
    """Keep the local model near the global one: adds (mu / 2) ||w - w_global||^2, squared as in the paper.

    mu = 0 is plain local training. A strategy that sends ``proximal-mu``, as Flower's FedProx does, overrides it.

    Cost: one model each way and the configured epochs.

    Parameters
    ----------
    mu
        Weight of the proximal term; 0 is plain local training.
    """

    mu: float = 0.1

    def __post_init__(self) -> None:
        if self.mu < 0:
            raise ValueError(f"mu = {self.mu}: must be at least 0")

    def plan(self, model: nn.Module, context: TrainContext, round_config: RoundConfig, state: State) -> Plan:
        """Return the training; see :class:`PlannedMethod`."""
        mu = float(str(round_config.config.get("proximal-mu", self.mu)))
        return given_labels(model, context, context.objective.with_regularizer(mu, L2ToGlobal()))


def train(model: nn.Module, context: TrainContext, round_config: RoundConfig, objective: Objective) -> FitResult:
    """Train on ``objective``; the received weights are the global parameters of its regularizers."""
    return given_labels(model, context, objective).carry_out(model, context, round_config)


def given_labels(model: nn.Module, context: TrainContext, objective: Objective, state: State | None = None) -> Plan:
    """Return the training that :func:`train` does; the client's state afterwards is ``state``."""
    global_parameters = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    def finish(trained: Trained) -> FitResult:
        return FitResult({"train-loss": trained.loss}, state or {})

    return Plan(context.local, GivenLabels(objective, global_parameters), finish)
