"""Gaussian mixture of two groups on a line: where they lie, and which values belong to which."""

import warnings

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
LEAST_WEIGHT = 1e-3
"""Of a group that a fit starts from: one without weight would stay without."""


def upper_group(values: npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.bool_]:
    """Return which of ``values`` (N,) a mixture of two Gaussians counts to its group of higher mean, (N,).

    Both groups have a mean, a variance and a weight of their own, and there are always two: this does not ask whether
    one would do. Nobody is in the upper group if there are fewer than two values or all are equal.

    Parameters
    ----------
    values
        Finite numbers.
    seed
        Where the fit starts follows from it.
    """
    from sklearn.exceptions import ConvergenceWarning  # a second to import, and most processes never need it
    from sklearn.mixture import GaussianMixture

    if len(values) < 2 or np.ptp(values) == 0:
        return np.zeros(len(values), bool)
    mixture = GaussianMixture(n_components=2, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # two values differ by so little that they form one cluster
        groups = mixture.fit_predict(values[:, None])
    upper: npt.NDArray[np.bool_] = groups == np.argmax(mixture.means_)
    return upper


def fit_mixture(
    values: Doubles,
    seed: int,
    start: Doubles | None = None,
    max_iter: int = 100,
    tolerance: float = 1e-3,
    least_variance: float = 1e-6,
) -> Doubles:
    """Return mean, variance and weight of the two Gaussians of highest likelihood, (2, 3), the lower mean first.

    By expectation maximisation (Dempster, Laird, Rubin, JRSS B 1977). Of fewer than two values, or equal ones, the
    first group has all of the weight.

    Parameters
    ----------
    values
        Finite numbers (n,).
    seed
        Where the fit starts follows from it, unless ``start`` says so, (2, 3), with positive variances.
    max_iter, tolerance, least_variance
        Most iterations, change of the mean log-likelihood that ends them, and what is added to each variance.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    if len(values) < 2 or np.ptp(values) == 0:
        place = float(values[0]) if len(values) else 0.0
        return np.array([[place, least_variance, 1.0], [place, least_variance, 0.0]])
    known = {}
    if start is not None:
        weights = np.maximum(start[:, 2], LEAST_WEIGHT)
        known = {
            "weights_init": weights / weights.sum(),
            "means_init": start[:, :1],
            "precisions_init": 1 / start[:, 1].reshape(2, 1, 1),
        }
    mixture = GaussianMixture(
        2, max_iter=max_iter, tol=tolerance, reg_covar=least_variance, random_state=seed % 2**32, **known
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the most iterations are the caller's choice
        mixture.fit(values[:, None])
    groups = np.stack([mixture.means_[:, 0], mixture.covariances_[:, 0, 0], mixture.weights_], axis=1)
    return np.asarray(groups[np.argsort(groups[:, 0], kind="stable")])


def lower_posterior(values: Doubles, groups: Doubles) -> Doubles:
    """Return the probability (n,) that each of ``values`` (n,) is of the first of two groups (2, 3), by Bayes' rule."""
    mean, variance, weight = groups.T[:, :, None]
    with np.errstate(divide="ignore"):  # a group without weight
        logs = np.log(weight) - 0.5 * (np.log(2 * np.pi * variance) + (values - mean) ** 2 / variance)
    largest = logs.max(axis=0)
    shares = np.exp(logs - largest)
    return np.asarray(shares[0] / shares.sum(axis=0))


def between_zero_and_one(values: Doubles) -> Doubles:
    """Return finite values (n,) moved and scaled so that they lie from 0 to 1; all 0 if they are equal."""
    spread = np.ptp(values) if len(values) else 0.0
    return np.asarray((values - values.min()) / spread if spread else np.zeros(len(values)))
