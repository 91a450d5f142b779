"""Moving average of the global models of the last rounds: an exponential one, EMA.

Where few clients train in a round, or many labels are wrong, each round moves the model a little to and fro; the
average stands still in between. It is what a run measures, saves, audits labels with and gives away. Clients go on
training the newest model, so the rounds themselves are what they would be without it.

Polyak and Juditsky (SIAM Journal on Control and Optimization, 1992, https://doi.org/10.1137/0330046); of networks,
Tarvainen and Valpola ("Mean teachers", NeurIPS 2017, https://arxiv.org/abs/1703.01780).
"""

import numpy as np
import numpy.typing as npt

from tasks.protocol import Arrays


def moved_average(average: Arrays, newest: Arrays, share: float, rounds: int) -> Arrays:
    """Return the arrays of ``average`` moved towards ``newest``: share x average + (1 - share) x newest.

    At first the share is smaller, (rounds - 1) / (rounds + 3), where ``rounds`` count the newest: a model that still
    learns fast is averaged over the last quarter of its rounds, and the weights before the first round are no
    part of it. With share 0, and of what is not floating point, it is the newest, bit for bit.
    """
    kept = min(share, (rounds - 1) / (rounds + 3))
    return {name: _moved(average[name], array, kept) for name, array in newest.items()}


def _moved(average: npt.NDArray[np.generic], newest: npt.NDArray[np.generic], kept: float) -> npt.NDArray[np.generic]:
    if not np.issubdtype(newest.dtype, np.floating) or not kept:
        return newest
    wide = np.promote_types(newest.dtype, np.float32)
    return np.asarray(kept * average.astype(wide) + (1 - kept) * newest.astype(wide), newest.dtype)
