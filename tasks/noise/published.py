"""The exact noisy data sets of published experiments, made for the whole data set at once from NumPy's legacy stream.

Experiments of Winnow draw the noise client by client instead; these serve to repeat a centralised table.
"""

import numpy as np

from tasks.noise.base import Labels, Matrix, NoiseError, check_labels


def class_quota_labels(labels: Labels, transition: Matrix, seed: int) -> Labels:
    """Return the labels (n,) that the code of Ye et al. (ANL), NeurIPS 2023, gives for a seed.

    Of the n_i examples of class i, exactly ``int(n_i * transition[i, j])`` become j; the truncation makes the
    realised rate slightly lower than the asked one. ``transition`` is (K, K).

    Raises
    ------
    NoiseError
        If the matrix is not square, or labels lie outside it.
    """
    size = len(transition)
    if transition.shape != (size, size):
        raise NoiseError(f"the transition matrix must be square, not {transition.shape}")
    labels = check_labels(labels, size)
    stream = np.random.RandomState(seed)
    noisy = labels.copy()
    for true in range(size):
        left = np.flatnonzero(labels == true)
        quotas = (len(left) * transition[true]).astype(np.int64)
        for given in np.flatnonzero(quotas):
            if given != true:
                chosen = stream.choice(left, quotas[given], replace=False)
                noisy[chosen] = given
                left = np.setdiff1d(left, chosen)
    return noisy
