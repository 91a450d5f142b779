"""Two groups of equal weight and equal spread on a line: the likeliest means, and whether one group does as well.

Equal weights and a known spread leave two numbers to fit, so four clients are enough and nothing can be singular.
"""

from dataclasses import dataclass

import numpy as np

from strategies.detection.base import Doubles

STARTS = 9
STEPS = 500


@dataclass(frozen=True)
class TwoGroups:
    """Means of the lower and the upper group, and the standard deviation within both."""

    lower: float
    upper: float
    spread: float

    def log_likelihood(self, values: Doubles) -> float:
        """Return log p(values) under the mixture."""
        scaled = [-((values - mean) ** 2) / (2 * self.spread**2) for mean in (self.lower, self.upper)]
        constant = np.log(2) + np.log(2 * np.pi * self.spread**2) / 2
        return float(np.sum(np.logaddexp(*scaled) - constant))

    def posterior(self, values: Doubles) -> Doubles:
        """Return each value's probability of belonging to the upper group; it rises with the value."""
        middle = (self.lower + self.upper) / 2
        odds = (self.upper - self.lower) * (values - middle) / self.spread**2
        probabilities: Doubles = (1 + np.tanh(odds / 2)) / 2
        return probabilities

    def widened(self, values: Doubles) -> "TwoGroups":
        """Return the groups with the spread that the values have around their means, if that is larger."""
        upper = self.posterior(values)
        within = np.mean((1 - upper) * (values - self.lower) ** 2 + upper * (values - self.upper) ** 2)
        return TwoGroups(self.lower, self.upper, max(self.spread, float(np.sqrt(within))))


def fit_two(values: Doubles, spread: float) -> TwoGroups:
    """Return the likeliest two groups of known ``spread`` > 0 among ``values`` (N,), N at least 2.

    Expectation-maximisation from nine splits of the sorted values; the order of the values does not matter.
    """
    ordered = np.sort(values)
    cuts = {min(max(round(len(ordered) * i / (STARTS + 1)), 1), len(ordered) - 1) for i in range(1, STARTS + 1)}
    fits = [_climb(ordered, cut, spread) for cut in sorted(cuts)]
    return max(fits, key=lambda fit: fit.log_likelihood(ordered))


def _climb(ordered: Doubles, cut: int, spread: float) -> TwoGroups:
    """Return where expectation-maximisation ends that starts from a split of the sorted values."""
    groups = TwoGroups(float(ordered[:cut].mean()), float(ordered[cut:].mean()), spread)
    for _ in range(STEPS):
        upper = np.clip(groups.posterior(ordered), 1e-12, 1 - 1e-12)
        lower_mean, upper_mean = np.average(ordered, weights=1 - upper), np.average(ordered, weights=upper)
        moved = max(abs(lower_mean - groups.lower), abs(upper_mean - groups.upper))
        groups = TwoGroups(float(lower_mean), float(upper_mean), spread)
        if moved < 1e-9 * spread:
            break
    return groups


def evidence_for_two(values: Doubles, groups: TwoGroups) -> float:
    """Return BIC(one group) - BIC(two groups): positive where two groups are preferred (Schwarz, 1978).

    One group has the same spread and one mean, so two groups have one number more.
    """
    mean = float(values.mean())
    one = TwoGroups(mean, mean, groups.spread).log_likelihood(values)
    return 2 * (groups.log_likelihood(values) - one) - float(np.log(len(values)))
