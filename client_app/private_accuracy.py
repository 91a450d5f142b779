"""Private accuracy: the share of a site's examples that a model is right about, with noise that hides each example.

A site says on how many of its m examples the model is right. One example more or less right changes that count by one
at most, so the two-sided geometric mechanism (Ghosh, Roughgarden, Sundararajan, Universally utility-maximizing privacy
mechanisms, STOC 2009) with exp(-epsilon) makes it epsilon-differentially private for each single example, m being
known. Whole numbers are drawn, so the rounding of floating-point noise (Mironov, CCS 2012) gives nothing away.

Rounds add up: after R of them an example has spent R epsilon. This protects single examples of a site, where
``privacy.mode`` protects a site with all its data. No other measure is bounded as well by one example, so none is sent.
"""

import math

import numpy as np

from tasks.issues import ERROR, WARNING, Issue, RunContext


def noisy_accuracy(right: int, examples: int, epsilon: float, rng: np.random.Generator) -> float:
    """Return a private share of right predictions, in [0, 1].

    Parameters
    ----------
    right, examples
        On how many examples the model is right, and of how many, at least 1.
    epsilon
        Privacy budget, above 0; the count is off by sqrt(2 a) / (1 - a) in the mean square, a = exp(-epsilon).
    rng
        The only source of randomness.
    """
    noisy = right + two_sided_geometric(epsilon, rng)
    return min(max(noisy, 0), examples) / examples


def two_sided_geometric(epsilon: float, rng: np.random.Generator) -> int:
    """Draw a whole number k with a probability proportional to exp(-epsilon |k|)."""
    stop = -math.expm1(-epsilon)  # 1 - exp(-epsilon), exact for small ones too
    return int(rng.geometric(stop)) - int(rng.geometric(stop))


def accuracy_issues(context: RunContext) -> list[Issue]:
    """Return what cannot be measured with noise, masks and other measures, and what goes without in a private run."""
    settings, found = context.settings, list[Issue]()
    epsilon, monitor = settings.evaluate.epsilon, settings.run.monitor
    if not epsilon and monitor == "sites" and settings.privacy.mode != "none":
        text = f"privacy.mode = {settings.privacy.mode!r}: the sites' accuracies and losses are sent without noise"
        found.append(Issue(WARNING, "evaluate.epsilon", text, "evaluate.epsilon makes accuracies private"))
    if not epsilon:
        return found
    key = f"evaluate.epsilon = {epsilon:g}"
    if context.labels_pixels:
        text = f"{key}: the noise is made for one label per example, and {context.pixels}"
        found.append(Issue(ERROR, "evaluate.epsilon", text, "set evaluate.epsilon to 0"))
    if context.validation == "sites" and monitor not in ("accuracy", "sites"):
        text = f"{key}: with noise the sites report their accuracy alone, and run.monitor is {monitor!r}"
        found.append(Issue(ERROR, "evaluate.epsilon", text, "set run.monitor to accuracy"))
    return found
