"""Instance-dependent noise: which wrong label an example gets depends on the example itself.

Xia et al., "Part-dependent label noise: towards instance-dependent label noise", NeurIPS 2020. Every class has a
random linear map from features to class scores; an example of class y is mislabelled with its own probability q,
into the classes that the map of y scores highest for its features.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.base import Labels
from tasks.noise.base import (
    NOISES,
    Features,
    LabelNoise,
    NoiseError,
    check_classes,
    check_labels,
    check_share,
    check_table_size,
    draw_from_rows,
)

Stream = np.random.Generator | np.random.RandomState
Floats = npt.NDArray[np.float64]
MAX_CLASSES = 1_000
"""With so many classes the maps of a CIFAR image are 3 billion random numbers, about half a minute for each client."""


def flip_probabilities(size: int, rate: float, std: float, low: float, high: float, stream: Stream) -> Floats:
    """Draw each example's probability q of a wrong label, (size,): normal (rate, std) truncated to [low, high]."""
    from scipy.stats import truncnorm  # over a second to import, and a real node never needs it

    if low == high:
        return np.full(size, rate)
    bounds = (low - rate) / std, (high - rate) / std
    q: Floats = truncnorm.rvs(*bounds, loc=rate, scale=std, size=size, random_state=stream)
    return q


def wrong_class_scores(labels: Labels, features: Features, num_classes: int, stream: Stream) -> Floats:
    """Return the probability of each class for an example that is mislabelled, (n, K), 0 for its true class.

    The map of class y is a standard normal (d, K) matrix, where d is the size of one example. As published its
    entries are rounded to float32; the products are float64, so that no label depends on the machine.
    """
    from scipy.special import softmax

    flat = features.reshape(len(features), -1)
    probabilities = np.zeros((len(labels), num_classes))
    for true in range(num_classes):
        weights = stream.standard_normal((flat.shape[1], num_classes)).astype(np.float32)
        members = np.flatnonzero(labels == true)
        scores = flat[members].astype(np.float64) @ weights
        scores[:, true] = -np.inf
        probabilities[members] = softmax(scores, axis=1)
    return probabilities


def mislabel(labels: Labels, flip: Floats, wrong: Floats, uniforms: Floats) -> Labels:
    """Draw the given labels (n,): the true one with probability 1 - ``flip`` (n,), else from ``wrong`` (n, K)."""
    probabilities = flip[:, None] * wrong
    probabilities[np.arange(len(labels)), labels] += 1 - flip
    return draw_from_rows(probabilities, uniforms)


def part_dependent_labels(
    labels: Labels, features: Features, num_classes: int, rate: float, seed: int, std: float = 0.1
) -> Labels:
    """Return the labels (n,) that the published code gives for a seed, from NumPy's legacy stream.

    Published data sets used raw pixels 0..255 as ``features`` (n, ...), mostly flattened channel by channel.
    ``std`` is the spread of the examples' probabilities q around ``rate``.

    Raises
    ------
    NoiseError
        If labels or features do not fit.
    """
    labels = _checked(labels, features, num_classes)
    stream = np.random.RandomState(seed)
    flip = flip_probabilities(len(labels), rate, std, 0.0, 1.0, stream)
    wrong = wrong_class_scores(labels, features, num_classes, stream)
    return mislabel(labels, flip, wrong, stream.random_sample(len(labels)))


@NOISES.register("instance", "Xia et al. (part-dependent), NeurIPS 2020", "https://arxiv.org/abs/2006.07836")
@dataclass(frozen=True, kw_only=True)
class InstanceNoise(LabelNoise):
    """Mislabel each example by chance, into a class that depends on its features.

    The probabilities q are normal (rate, std) truncated symmetrically around the rate, so that their mean is the
    rate (truncation to [0, 1] would mislabel 8 % at rate 0). Each client confuses classes in its own way unless
    ``shared_seed`` gives all clients the same maps. A map holds a number for each feature and class, and each class has
    one: time grows with K x K, and K is at most ``MAX_CLASSES``.

    Parameters
    ----------
    std
        Standard deviation of the examples' probabilities around the rate.
    shared_seed
        Seed of maps that all clients share; left out, each client confuses classes in its own way.
    """

    num_classes: int
    rate: float
    std: float = 0.1
    shared_seed: int | None = None

    def __post_init__(self) -> None:
        check_classes(self.num_classes)
        check_table_size(self.num_classes, MAX_CLASSES, "instance noise")
        check_share("the noise rate", self.rate)
        if isinstance(self.std, bool) or not isinstance(self.std, int | float) or not 0 < self.std < float("inf"):
            raise NoiseError(f"std, the spread of the noise rates, must be a number above 0, not {self.std!r}")
        if self.shared_seed is not None and (type(self.shared_seed) is not int or self.shared_seed < 0):
            raise NoiseError(f"shared_seed must be a whole number of at least 0, not {self.shared_seed!r}")

    def __call__(
        self, labels: Labels, rng: np.random.Generator, *, features: Features | None = None, ids: Labels | None = None
    ) -> Labels:
        """Return the given labels (n,); ``features`` (n, ...) are needed."""
        if features is None:
            raise NoiseError("instance noise depends on the examples; pass features")
        labels = _checked(labels, features, self.num_classes)
        room = min(self.rate, 1 - self.rate)
        flip = flip_probabilities(len(labels), self.rate, self.std, self.rate - room, self.rate + room, rng)
        maps = rng if self.shared_seed is None else np.random.default_rng(self.shared_seed)
        wrong = wrong_class_scores(labels, features, self.num_classes, maps)
        return mislabel(labels, flip, wrong, rng.random(len(labels)))


def _checked(labels: Labels, features: Features, num_classes: int) -> Labels:
    labels = check_labels(labels, num_classes)
    if len(features) != len(labels):
        raise NoiseError(f"{len(labels)} labels but {len(features)} examples in features")
    if features.dtype.kind not in "uifb":
        raise NoiseError(f"instance noise needs numbers as features, not {features.dtype}")
    return labels
