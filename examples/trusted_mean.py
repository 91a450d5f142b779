"""An aggregator of your own in ten lines: a mean in which updates that point elsewhere count less.

A function ``(updates, client_weights, ...) -> update`` is an aggregator; further arguments come from
``strategy.aggregator-args``.

    winnow run strategy.aggregator=examples.trusted_mean:trusted_mean strategy.aggregator-args='power = 2.0'
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]


def trusted_mean(updates: Array, client_weights: Array, power: float = 1.0) -> Array:
    """Weigh each update (P,) by its cosine to the coordinate-wise median, negative ones by 0.

    The cosine score is that of FLTrust (Cao, Fang, Liu, Gong, NDSS 2021), whose reference is an update made from
    clean data at the server; here the median takes its place. ``updates`` are (N, P), ``client_weights`` (N,), with
    sum 1.
    """
    centre = np.median(updates, axis=0)
    norms = np.linalg.norm(updates, axis=1) * np.linalg.norm(centre)
    cosines = updates @ centre / np.maximum(norms, 1e-12)
    trust = client_weights * np.clip(cosines, 0, None) ** power
    return trust @ updates / trust.sum() if trust.any() else centre
