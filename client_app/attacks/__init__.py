"""Attacks for robustness experiments in a simulation: what hostile clients do (``ATTACKS``), and which they are."""

from client_app.attacks.attacks import (
    Alie,
    Backdoor,
    Gaussian,
    InnerProduct,
    LabelFlip,
    Scaling,
    SignFlip,
    SmallLoss,
    flipped,
    largest_hidden_shift,
)
from client_app.attacks.base import (
    ATTACKS,
    Attack,
    CollusionAttack,
    DataAttack,
    Facts,
    Outcome,
    Scene,
    UpdateAttack,
)
from client_app.attacks.simulate import NO_ATTACK, attack_issues, attackers, configured_attack, facts, run_client

__all__ = [
    "ATTACKS",
    "NO_ATTACK",
    "Alie",
    "Attack",
    "Backdoor",
    "CollusionAttack",
    "DataAttack",
    "Facts",
    "Gaussian",
    "InnerProduct",
    "LabelFlip",
    "Outcome",
    "Scaling",
    "Scene",
    "SignFlip",
    "SmallLoss",
    "UpdateAttack",
    "attack_issues",
    "attackers",
    "configured_attack",
    "facts",
    "flipped",
    "largest_hidden_shift",
    "run_client",
]
