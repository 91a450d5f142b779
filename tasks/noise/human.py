"""Labels that people really gave: CIFAR-10N, CIFAR-100N, AG News, or a file of your own.

Wei et al., "Learning with noisy labels revisited: a study using real-world human annotations", ICLR 2022.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.noise.base import NOISES, Features, LabelNoise, Labels, NoiseError, check_labels
from tasks.noise.label_file import MISSING, below, read_column


def human_labels(path: str | Path, column: str, clean_labels: Labels, clean_column: str = "clean_label") -> Labels:
    """Return one column of a label file, (n,), for a whole data set whose true labels are ``clean_labels`` (n,).

    ``path`` ends in .npz, .pt or .csv. An empty cell of a CSV file becomes -1.

    Raises
    ------
    NoiseError
        If the file cannot be read, lacks a column, or its own true labels show that it is in another order.
    """
    clean, given = read_column(Path(path), clean_column), read_column(Path(path), column)
    _check_order(clean, np.asarray(clean_labels), path)
    return given.copy()


@NOISES.register("human", "Wei et al. (CIFAR-N), ICLR 2022")
@dataclass(frozen=True, kw_only=True)
class HumanNoise(LabelNoise):
    """Give each example the label that a person gave it, from a file.

    The noise rate is the people's: a noise law has no effect. ``path`` is below the data folder, and relative to it;
    ``column`` is for example "worse_label" (CIFAR-10N) or, with ``clean_column = "gt"``, "human_noisy_med"
    (AG News). ``missing`` says what an example without a human label gets: "error", or "clean" for its true label.
    """

    num_classes: int
    path: str
    column: str
    clean_column: str = "clean_label"
    missing: str = "error"
    data_root: Path = Path()

    def __post_init__(self) -> None:
        if self.missing not in ("error", "clean"):
            raise NoiseError(f'missing must be "error" or "clean", not {self.missing!r}')
        given = self._column(self.column)
        if given.size and not MISSING <= given.min() <= given.max() < self.num_classes:
            raise NoiseError(f"column {self.column!r} of {self.path} has classes outside 0..{self.num_classes - 1}")

    def __call__(
        self, labels: Labels, rng: np.random.Generator, *, features: Features | None = None, ids: Labels | None = None
    ) -> Labels:
        """Return the people's labels (n,) of the examples ``ids`` (n,)."""
        labels = check_labels(labels, self.num_classes)
        clean, given = self._column(self.clean_column), self._column(self.column)
        if ids is None or len(ids) != len(labels):
            raise NoiseError("human labels are looked up by each example's place in the data set; pass one id a label")
        unknown = ids[(ids < 0) | (ids >= len(given))]
        if len(unknown):
            raise NoiseError(f"{self.path} has labels for {len(given)} examples, but id {unknown[0]} was asked for")
        _check_order(clean[ids], labels, self.path)
        noisy = given[ids]
        absent = noisy == MISSING
        if absent.any() and self.missing == "error":
            raise NoiseError(
                f"{absent.sum()} of {len(ids)} examples have no label in column {self.column!r} of {self.path}; "
                'leave them out, or keep their true labels with missing = "clean"'
            )
        return np.where(absent, labels, noisy)

    def _column(self, name: str) -> Labels:
        return read_column(below(self.data_root, self.path), name)


def _check_order(clean: Labels, labels: Labels, path: str | Path) -> None:
    if clean.shape != labels.shape:
        raise NoiseError(f"{path} has labels for {len(clean)} examples, but the data set has {len(labels)}")
    same = float(np.mean(clean == labels)) if labels.size else 1.0
    if same < 1:
        raise NoiseError(
            f"only {same:.1%} of the true labels in {path} are those of the data set: it belongs to other data or is "
            "in another order (CIFAR-N exists in torchvision's and in TensorFlow Datasets' order; use torchvision's)"
        )
