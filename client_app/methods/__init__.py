"""Client methods by name."""

from client_app.methods.base import ClientMethod, FitResult, Kit, Plan, State
from client_app.methods.fedprox import FedProx
from client_app.methods.sgd import LocalSGD
from tasks.plugin import Registry

METHODS = Registry("client method", ClientMethod)
METHODS.register("sgd", "McMahan et al., AISTATS 2017")(LocalSGD)
METHODS.register("fedprox", "Li et al., MLSys 2020")(FedProx)

__all__ = ["METHODS", "ClientMethod", "FitResult", "Kit", "Plan", "State"]
