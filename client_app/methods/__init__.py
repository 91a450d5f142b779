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
from client_app.methods.co_teaching import CoTeaching, CoTeachingPlus
from client_app.methods.dividemix import DivideMix
from client_app.methods.fedcorr import FedCorr
from client_app.methods.feddiv import FedDiv
from client_app.methods.fednoro import FedNoRo
from client_app.methods.fedrn import FedRN
from client_app.methods.masked_optim import FedELC, MaskedOptim
from client_app.methods.sgd import FedProx, LocalSGD, train
from client_app.trainer import LocalData, Trainer

__all__ = [
    "METHODS",
    "ClientMethod",
    "CoTeaching",
    "CoTeachingPlus",
    "DivideMix",
    "FedCorr",
    "FedDiv",
    "FedELC",
    "FedNoRo",
    "FedProx",
    "FedRN",
    "FitResult",
    "LocalData",
    "LocalSGD",
    "MaskedOptim",
    "Plan",
    "PlannedMethod",
    "RoundConfig",
    "State",
    "TrainContext",
    "Trainer",
    "train",
]
