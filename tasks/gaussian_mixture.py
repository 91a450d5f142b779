"""Gaussian mixture of two groups on a line: which values belong to the upper one."""

import warnings

import numpy as np
import numpy.typing as npt


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
