"""A noise-rate distribution of your own: rates follow a beta distribution, most of them small and a few large.

Named by its import path, as every plug-in. Run from the repository root:

    winnow run noise.rates=examples.beta_rates:BetaRates noise.rates-args='mean = 0.2, spread = 0.5'
"""

from dataclasses import dataclass

import numpy as np

from tasks.noise import NoiseError, RateDistribution, Rates


@dataclass(frozen=True)
class BetaRates(RateDistribution):
    """Draw each client's rate from the beta distribution with this mean; ``spread`` near 1 makes rates 0 or 1."""

    mean: float = 0.2
    spread: float = 0.5

    def __post_init__(self) -> None:
        for name, value in (("mean", self.mean), ("spread", self.spread)):
            if not 0 < value < 1:
                raise NoiseError(f"{name} must lie between 0 and 1, not {value}")

    def __call__(self, num_clients: int, rng: np.random.Generator) -> Rates:
        """Return the rates (num_clients,); their variance is spread x mean x (1 - mean)."""
        total = 1 / self.spread - 1
        return rng.beta(self.mean * total, (1 - self.mean) * total, num_clients)
