"""Client methods by name."""

from client_app.methods.base import ClientMethod, FitResult, Kit, Plan, State
from client_app.methods.fedcorr import FedCorr
from client_app.methods.fednoro import FedNoRo
from client_app.methods.fedprox import FedProx
from client_app.methods.masked_optim import FedELC, MaskedOptim
from client_app.methods.sgd import LocalSGD
from tasks.plugin import Registry

METHODS = Registry("client method", ClientMethod)
METHODS.register("sgd", "McMahan et al., AISTATS 2017")(LocalSGD)
METHODS.register("fedprox", "Li et al., MLSys 2020")(FedProx)
METHODS.register("masked-optim", "arXiv 2506.02079, 2025")(MaskedOptim)
METHODS.register("fedelc", "Jiang et al., CIKM 2024")(FedELC)
METHODS.register("fednoro", "Wu et al., IJCAI 2023")(FedNoRo)
METHODS.register("fedcorr", "Xu et al., CVPR 2022")(FedCorr)

__all__ = ["METHODS", "ClientMethod", "FitResult", "Kit", "Plan", "State"]
