"""Client methods by name."""

from client_app.methods.base import METHODS, ClientMethod, FitResult, RoundConfig, State, TrainContext
from client_app.methods.fedcorr import FedCorr
from client_app.methods.fednoro import FedNoRo
from client_app.methods.masked_optim import FedELC, MaskedOptim
from client_app.methods.sgd import FedProx, LocalSGD

__all__ = [
    "METHODS",
    "ClientMethod",
    "FedCorr",
    "FedELC",
    "FedNoRo",
    "FedProx",
    "FitResult",
    "LocalSGD",
    "MaskedOptim",
    "RoundConfig",
    "State",
    "TrainContext",
]
