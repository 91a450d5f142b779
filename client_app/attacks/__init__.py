"""Hostile clients for robustness experiments, in a simulation only: which clients, and what they do."""

from client_app.attacks.backdoor import Backdoor
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
from client_app.attacks.collusion import Alie, InnerProduct, largest_hidden_shift
from client_app.attacks.hostile import NO_ATTACK, attack_issues, attackers, configured_attack, facts
from client_app.attacks.labels import LabelFlip, flipped
from client_app.attacks.play import play_client
from client_app.attacks.small_loss import SmallLoss
from client_app.attacks.updates import Gaussian, Scaling, SignFlip

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
    "play_client",
]
