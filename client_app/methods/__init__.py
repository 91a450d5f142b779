"""Client methods: what a client does in a round, by name (``METHODS``), and what a method of your own works with."""

from client_app.methods.base import (
    METHODS,
    ClientMethod,
    FitResult,
    Plan,
    PlannedMethod,
    RoundConfig,
    State,
    TrainContext,
)
from client_app.methods.fedcorr import FedCorr
from client_app.methods.fedelr import FedELR
from client_app.methods.fedlsr import FedLSR
from client_app.methods.fednoro import FedNoRo
from client_app.methods.history import History
from client_app.methods.joint_optim import JointOptim
from client_app.methods.masked_optim import FedELC, MaskedOptim
from client_app.methods.rofl import RoFL
from client_app.methods.selfie import SELFIE
from client_app.methods.sgd import FedProx, LocalSGD, train
from client_app.trainer import LocalData, Trainer

__all__ = [
    "METHODS",
    "SELFIE",
    "ClientMethod",
    "FedCorr",
    "FedELC",
    "FedELR",
    "FedLSR",
    "FedNoRo",
    "FedProx",
    "FitResult",
    "History",
    "JointOptim",
    "LocalData",
    "LocalSGD",
    "MaskedOptim",
    "Plan",
    "PlannedMethod",
    "RoFL",
    "RoundConfig",
    "State",
    "TrainContext",
    "Trainer",
    "train",
]
