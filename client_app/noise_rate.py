"""Noise rate of one client's labels: an estimate with a 90 % interval, and how surely each label is wrong.

A network's confidence cannot be taken at its word: robust losses make it too modest, learning by heart too sure. So the
probabilities that the global model gives are raised to a power, and that power is estimated from the labels together
with the noise: where labels agree with the model the more, the surer it is, the labels say how sure it may be. This
needs no clean labels. The model of a label g, given the model's probabilities b of an example's K classes:

    q(t) = b(t)^power / sum_k b(k)^power          the true class t
    P(g | t) = 1 - rate if g = t, else rate S(t, g)

as in class-conditional label noise (Natarajan, Dhillon, Ravikumar, Tewari, NeurIPS 2013). The rows of S have a
Dirichlet prior of one of several concentrations; an infinite one is symmetric noise. Rate, power and concentration have
flat priors on a grid; S is integrated out by variational Bayes (Bishop, Pattern Recognition and Machine Learning, 2006,
chapter 10), as a network's confusions and a pair flip look alike and a point estimate would take all errors of the
network for noise.

A model that cross-entropy has taught wrong labels is rightly unsure: its probabilities are those of the given labels,
which then need no noise to be explained. So the rate may not fall far below the share of given labels that are
contradicted among the half of the examples whose prediction is surest, where a good model errs least.

Where the model has learned wrong labels by heart, or hard examples have more of them, as people make them, this still
finds too few: the surer the model, the more often it agrees, for another reason. Then the share of labels that differ
from what the model prefers is nearer to the truth; it is too large where the model is weak. So the estimate lies half
way between the two, and the interval reaches from below the former to above the latter. How far was chosen on other
runs than the coverage is reported for (docs/noisy-labels.md). Wrong labels that the model has reason to give as well,
such as people's systematic mistakes, cannot be seen: the interval has some room for them, not for all.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.base import Labels

Beliefs = npt.NDArray[np.float64]
RATES = np.linspace(0.0, 0.95, 96)
POWERS = 2.0 ** np.array([-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
CONCENTRATIONS = (np.inf, 20.0, 4.0, 1.0)
"""Sums of a row's Dirichlet parameters. They go down: each begins with the confusions found by the one before."""
STEPS = 8
TINY, TINIEST, SMALLEST = 1e-9, 1e-12, 1e-300
HALVINGS = 50
NEGLIGIBLE = 1e-3
"""Grid points with a smaller part of the largest one's posterior probability are left out."""
MOST_ENTRIES = 1_000_000
"""Of examples times classes that the noise is learned from, and that are judged at a time."""
NINETY = 1.6448536269514722
"""Standard deviations to each side of the mean that hold 90 % of a normal distribution."""
SUREST, SLACK = 0.5, 0.02
"""Part of the examples whose contradicted labels bound the rate from below, and the standard deviation of that bound
beyond that of their number."""
LEAN = 1 / 2
"""Part of the way from the posterior's mean to the share of labels that differ from the model's, if that is larger."""
WEAKNESS, FLOOR = 0.2, 0.025
"""Deviation of the posterior's mean that no power mends: a part of the share on which the model is wrong, and more."""
SHARED = 0.06
"""Deviation of the share of differing labels by mistakes that the model has learned from people who make them alike."""


@dataclass(frozen=True)
class NoiseEstimate:
    """What is known of the wrong labels among some examples.

    Attributes
    ----------
    rate, low, high
        Estimated share of wrong labels, and its 90 % interval.
    accuracy
        Estimated share of the examples on which the model is right, by the true labels.
    posterior
        Probability of each class to be the true one, by the model and the given label, (n, K).
    """

    rate: float
    low: float
    high: float
    accuracy: float
    posterior: Beliefs

    def wrong(self, labels: Labels) -> Beliefs:
        """Return the probability that each of the given ``labels`` (n,) is wrong, (n,)."""
        return np.asarray(1 - self.posterior[np.arange(len(labels)), labels]).clip(0, 1)


@dataclass(frozen=True)
class _Fit:
    """The noise under one power and concentration; ``evidence`` is the log probability of each rate, (R,)."""

    power: float
    confusions: Beliefs
    evidence: Beliefs


def estimate_noise(beliefs: Beliefs, labels: Labels) -> NoiseEstimate:
    """Estimate how many of the given ``labels`` (n,) are wrong, from a model's probabilities ``beliefs`` (n, K).

    Raises
    ------
    ValueError
        If there is no example, or less than two classes.
    """
    count, classes = beliefs.shape
    if not count or classes < 2:
        raise ValueError(f"a noise rate needs an example and two classes, got {count} examples and {classes} classes")
    logs = np.log(np.maximum(beliefs, TINY))
    some = np.unique(np.linspace(0, count - 1, max(1, min(count, MOST_ENTRIES // classes))).astype(np.int64))
    fits = [fit for power in POWERS for fit in _fits(logs[some], labels[some], float(power))]
    evidence = np.stack([fit.evidence for fit in fits]) + _bound(logs, labels)
    chances = np.exp(evidence - evidence.max())
    return _summary(logs, labels, fits, chances / chances.sum())


def with_mean(chances: Beliefs, mean: float) -> Beliefs:
    """Return the probabilities ``chances`` (n,), n at least 1, with all odds multiplied so that their mean is ``mean``.

    Zeros and ones stay what they are, as nearly as 1e-12, so that not every mean can be reached.
    """
    bounded = np.clip(chances, TINIEST, 1 - TINIEST)
    odds, low, high = bounded / (1 - bounded), -60.0, 60.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        raised = 1 / (1 + np.exp(-middle) / odds)
        low, high = (middle, high) if raised.mean() < mean else (low, middle)
    return np.asarray(raised)


def contradicted(logs: Beliefs, labels: Labels) -> tuple[float, int, float]:
    """Return which share of the surest predictions contradict their ``labels`` (n,), of how many, and their sureness.

    A prediction is made from log probabilities or logits ``logs`` (n, K) plus the log of each class's share of
    ``labels``, as the federation's classes are not the client's. The sureness is its mean probability, 0 for guesses
    and 1 at most.
    """
    count, classes = logs.shape
    with np.errstate(divide="ignore"):
        beliefs = _softmax(logs + np.log(np.bincount(labels, minlength=classes) / count))
    surest = np.argsort(-beliefs.max(1), kind="stable")[: max(1, round(SUREST * count))]
    share = float((beliefs[surest].argmax(1) != labels[surest]).mean())
    return share, len(surest), float(beliefs[surest].max(1).mean() - 1 / classes) / (1 - 1 / classes)


def _bound(logs: Beliefs, labels: Labels) -> Beliefs:
    """Return the log probability of each rate, (R,), up to a constant: half a normal, flat above the bound.

    A model that is hardly surer than a guess bounds nothing: it is wrong on its surest examples too.
    """
    share, count, sureness = contradicted(logs, labels)
    variance = share * (1 - share) / count + SLACK**2
    return np.asarray(-np.clip(3 * sureness - 1, 0, 1) * np.maximum(0.0, share - RATES) ** 2 / (2 * variance))


def _fits(logs: Beliefs, labels: Labels, power: float) -> Iterator[_Fit]:
    """Yield the noise under one power and each concentration, by variational Bayes."""
    from scipy.special import digamma  # scipy takes a while to start, and only an audit needs it

    classes = logs.shape[1]
    truth, given = _softmax(power * logs), np.eye(classes)[labels]
    others = 1 - np.eye(classes)
    confusions, rate = others / (classes - 1), 0.2
    for concentration in CONCENTRATIONS:
        penalty = 0.0
        if np.isfinite(concentration):
            prior = concentration / (classes - 1)
            for _ in range(STEPS):
                counts, rate = _expected_counts(truth, labels, given, confusions, rate)
                sums = counts.sum(1, keepdims=True) + concentration
                confusions = np.exp(digamma(counts + prior) - digamma(sums)) * others
            penalty = _divergence(counts, concentration)
        right, wrong = _likelihoods(truth, labels, confusions)
        mixed = np.outer(right, 1 - RATES) + np.outer(wrong.sum(1), RATES)
        yield _Fit(power, confusions, np.log(np.maximum(mixed, SMALLEST)).sum(0) - penalty)


def _expected_counts(
    truth: Beliefs, labels: Labels, given: Beliefs, confusions: Beliefs, rate: float
) -> tuple[Beliefs, float]:
    """Return how many examples of each true class (row) seem to have each wrong label, (K, K), and the rate."""
    right, wrong = _likelihoods(truth, labels, confusions)
    shares = rate * wrong / ((1 - rate) * right + rate * wrong.sum(1) + SMALLEST)[:, None]
    return shares.T @ given, float(np.clip(shares.sum() / len(labels), RATES[1] / 2, RATES[-1]))


def _likelihoods(truth: Beliefs, labels: Labels, confusions: Beliefs) -> tuple[Beliefs, Beliefs]:
    """Return the probability of each given label if it is right, (n,), and if it is wrong by true class, (n, K)."""
    return truth[np.arange(len(labels)), labels], truth * confusions.T[labels]


def _divergence(counts: Beliefs, concentration: float) -> float:
    """Return the Kullback-Leibler divergence of the rows' Dirichlet posteriors from their priors, in nats."""
    from scipy.special import digamma, gammaln

    classes = len(counts)
    off = counts[~np.eye(classes, dtype=bool)].reshape(classes, classes - 1)
    prior = concentration / (classes - 1)
    after, sums = off + prior, off.sum(1) + concentration
    gained = off * (digamma(after) - digamma(sums)[:, None])
    constants = gammaln(sums) - gammaln(concentration) + (gammaln(prior) - gammaln(after)).sum(1)
    return float((gained.sum(1) + constants).sum())


def _summary(logs: Beliefs, labels: Labels, fits: list[_Fit], chances: Beliefs) -> NoiseEstimate:
    """Return the means over the grid's posterior, ``chances`` (fits, R), and the interval."""
    count, classes = logs.shape
    likely = chances > NEGLIGIBLE * chances.max()
    kept = [
        (fit, chance[some], RATES[some]) for fit, chance, some in zip(fits, chances, likely, strict=True) if some.any()
    ]
    weights = np.concatenate([chance for _, chance, _ in kept]) / chances[likely].sum()
    posterior, sums = np.empty_like(logs), np.zeros((2, len(weights)))
    step = max(1, MOST_ENTRIES // classes)
    for first in range(0, count, step):
        rows = slice(first, first + step)
        posterior[rows], found = _judged(logs[rows], labels[rows], kept)
        sums += found
    means = sums[0] / count
    mean, own = float(weights @ means), float(weights @ sums[1]) / count**2
    variance = max(0.0, float(weights @ means**2) - mean**2) + own
    predicted = logs.argmax(1)
    accuracy, differing = float(posterior[np.arange(count), predicted].mean()), float((predicted != labels).mean())
    return NoiseEstimate(*_between(mean, variance, differing, accuracy, count), accuracy, posterior)


def _judged(
    logs: Beliefs, labels: Labels, kept: list[tuple[_Fit, Beliefs, Beliefs]]
) -> tuple[Beliefs, npt.NDArray[np.float64]]:
    """Return each class's probability of being true, (n, K), and sums over examples for each rate of each fit, (2, R').

    The sums are of the probability d that the label is wrong, and of its variance d (1 - d).
    """
    posterior, rows, sums = np.zeros_like(logs), np.arange(len(labels)), []
    for fit, chance, rates in kept:
        right, wrong = _likelihoods(_softmax(fit.power * logs), labels, fit.confusions)
        doubts = np.outer(wrong.sum(1), rates)
        mixed = np.maximum(np.outer(right, 1 - rates) + doubts, SMALLEST)
        posterior += wrong * (chance * rates / mixed).sum(1)[:, None]
        posterior[rows, labels] += right * (chance * (1 - rates) / mixed).sum(1)
        doubts /= mixed
        sums.append(np.stack([doubts.sum(0), (doubts * (1 - doubts)).sum(0)]))
    return posterior / np.maximum(posterior.sum(1, keepdims=True), SMALLEST), np.concatenate(sums, axis=1)


def _between(mean: float, variance: float, differing: float, accuracy: float, count: int) -> tuple[float, float, float]:
    """Return the rate and its interval from the posterior's mean and variance and the share of ``differing`` labels."""
    top = max(mean, differing)
    down = np.sqrt(variance + WEAKNESS**2 * (1 - accuracy) ** 2 + FLOOR**2)
    up = np.sqrt(variance + top * (1 - top) / count + SHARED**2)
    low, high = max(0.0, mean - NINETY * float(down)), min(1.0, top + NINETY * float(up))
    return mean + LEAN * (top - mean), low, high


def _softmax(logs: Beliefs) -> Beliefs:
    powers = np.exp(logs - logs.max(1, keepdims=True))
    found: Beliefs = powers / powers.sum(1, keepdims=True)
    return found
