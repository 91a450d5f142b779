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
    AttackContext,
    CollusionAttack,
    DataAttack,
    FederationFacts,
    LocalUpdate,
    UpdateAttack,
)
from client_app.attacks.simulate import (
    NO_ATTACK,
    attack_issues,
    attackers,
    configured_attack,
    federation_facts,
    run_client,
)

__all__ = [
    "ATTACKS",
    "NO_ATTACK",
    "Alie",
    "Attack",
    "AttackContext",
    "Backdoor",
    "CollusionAttack",
    "DataAttack",
    "FederationFacts",
    "Gaussian",
    "InnerProduct",
    "LabelFlip",
    "LocalUpdate",
    "Scaling",
    "SignFlip",
    "SmallLoss",
    "UpdateAttack",
    "attack_issues",
    "attackers",
    "configured_attack",
    "federation_facts",
    "flipped",
    "largest_hidden_shift",
    "run_client",
]
