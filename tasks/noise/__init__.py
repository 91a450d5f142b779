"""Label noise: what makes a client's labels wrong (``NOISES``), and which client gets how much (``LAWS``)."""

from tasks.noise.base import (
    NOISES,
    LabelNoise,
    NoiseError,
    NoiseWarning,
    dominant,
    realised_rate,
)
from tasks.noise.class_conditional import (
    Asymmetric,
    ClassConditional,
    MatrixNoise,
    NoNoise,
    PairFlip,
    Symmetric,
    SymmetricAll,
)
from tasks.noise.clients import FederatedNoise, GivenData, law_issues, obeys_law
from tasks.noise.human import HumanNoise, human_labels
from tasks.noise.instance import InstanceNoise, part_dependent_labels
from tasks.noise.masks import MaskNoise
from tasks.noise.open_set import OpenSetNoise, replace_examples
from tasks.noise.rates import LAWS, NoiseLaw, mixed

__all__ = [
    "LAWS",
    "NOISES",
    "Asymmetric",
    "ClassConditional",
    "FederatedNoise",
    "GivenData",
    "HumanNoise",
    "InstanceNoise",
    "LabelNoise",
    "MaskNoise",
    "MatrixNoise",
    "NoNoise",
    "NoiseError",
    "NoiseLaw",
    "NoiseWarning",
    "OpenSetNoise",
    "PairFlip",
    "Symmetric",
    "SymmetricAll",
    "dominant",
    "human_labels",
    "law_issues",
    "mixed",
    "obeys_law",
    "part_dependent_labels",
    "realised_rate",
    "replace_examples",
]
