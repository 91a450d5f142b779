"""Label noise: what makes labels wrong (``NOISES``), and which client gets how much (``RATE_DISTRIBUTIONS``)."""

from tasks.base import Labels
from tasks.noise.asymmetric import Asymmetric
from tasks.noise.base import (
    NOISES,
    Confusions,
    LabelNoise,
    Matrix,
    NoiseError,
    NoiseWarning,
    dominant,
    realised_rate,
)
from tasks.noise.class_conditional import (
    ClassConditional,
    MatrixNoise,
    NoNoise,
    PairFlip,
    Replacement,
    Symmetric,
    SymmetricAll,
)
from tasks.noise.clients import FederatedNoise, GivenData, chosen_noise, rate_issues, unasked_issues, uses_rates
from tasks.noise.human import HumanNoise, human_labels
from tasks.noise.instance import InstanceNoise, part_dependent_labels
from tasks.noise.masks import MaskNoise
from tasks.noise.open_set import OpenSetNoise, replace_examples
from tasks.noise.rates import RATE_DISTRIBUTIONS, RateDistribution, Rates, mixed

__all__ = [
    "NOISES",
    "RATE_DISTRIBUTIONS",
    "Asymmetric",
    "ClassConditional",
    "Confusions",
    "FederatedNoise",
    "GivenData",
    "HumanNoise",
    "InstanceNoise",
    "LabelNoise",
    "Labels",
    "MaskNoise",
    "Matrix",
    "MatrixNoise",
    "NoNoise",
    "NoiseError",
    "NoiseWarning",
    "OpenSetNoise",
    "PairFlip",
    "RateDistribution",
    "Rates",
    "Replacement",
    "Symmetric",
    "SymmetricAll",
    "chosen_noise",
    "dominant",
    "human_labels",
    "mixed",
    "part_dependent_labels",
    "rate_issues",
    "realised_rate",
    "replace_examples",
    "unasked_issues",
    "uses_rates",
]
