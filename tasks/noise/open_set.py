"""Open-set noise: the label stays, but the example comes from outside and belongs to none of the classes.

Wang et al., "Iterative learning with open-set noisy labels", CVPR 2018.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from tasks.base import Labels
from tasks.noise.base import NOISES, Features, LabelNoise, NoiseError, check_share, exact_count
from tasks.noise.human import below
from tasks.plugins import did_you_mean


def replace_examples(
    features: Features, outside: Features, rate: float, rng: np.random.Generator
) -> tuple[Features, Labels]:
    """Replace a share of the examples (n, ...) by ones from ``outside`` (m, ...), no one twice while they last.

    Returns
    -------
    A new array (n, ...) and the sorted places that were replaced.

    Raises
    ------
    NoiseError
        If the outside examples have another shape or number format, or there are none.
    """
    check_share("the noise rate", rate)
    if outside.shape[1:] != features.shape[1:] or outside.dtype != features.dtype or not len(outside):
        raise NoiseError(
            f"examples from outside must be like the task's, {features.dtype} of shape {features.shape[1:]}, "
            f"but there are {len(outside)}, {outside.dtype} of shape {outside.shape[1:]}"
        )
    places = np.sort(rng.choice(len(features), exact_count(rate, len(features)), replace=False))
    replaced = features.copy()
    replaced[places] = outside[rng.choice(len(outside), len(places), replace=len(places) > len(outside))]
    return replaced, places


@NOISES.register("open-set", "Wang et al., CVPR 2018", "https://arxiv.org/abs/1804.00092")
@dataclass(frozen=True, kw_only=True)
class OpenSetNoise(LabelNoise):
    """Replace a share of the examples by ones from outside the task; their labels stay and mean nothing.

    Calling the noise keeps the labels; :meth:`replace_features` changes the examples.

    Parameters
    ----------
    path
        File .npz with the outside examples, below the data folder and relative to it.
    array
        Name of the array in it, stored like the task's own examples.
    """

    num_classes: int
    rate: float
    path: str
    array: str
    data_root: Path = Path()

    def __post_init__(self) -> None:
        check_share("the noise rate", self.rate)
        read_array(below(self.data_root, self.path), self.array)

    def __call__(
        self, labels: Labels, rng: np.random.Generator, *, features: Features | None = None, ids: Labels | None = None
    ) -> Labels:
        """Return a copy of the labels."""
        return np.array(labels, dtype=np.int64)

    def replace_features(self, features: Features, rng: np.random.Generator) -> tuple[Features, Labels]:
        """Return the examples (n, ...) with a share from outside, and which ones are from there."""
        return replace_examples(features, read_array(below(self.data_root, self.path), self.array), self.rate, rng)


@lru_cache(maxsize=2)
def read_array(path: Path, name: str) -> Features:
    """Read one array of an .npz file; it is shared and read-only.

    Raises
    ------
    NoiseError
        If the file or the array cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            if name not in archive:
                raise NoiseError(f"{path} has no array {name!r}{did_you_mean(name, archive)}")
            array: Features = archive[name]
    except (OSError, AttributeError, TypeError) as error:
        raise NoiseError(f"cannot read the examples in {path} (expected an .npz file): {error}") from error
    array.flags.writeable = False
    return array
