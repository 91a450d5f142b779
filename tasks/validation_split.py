"""Validation split: training examples held out to choose the best model by, so that test data decides nothing.

A model that is chosen by its accuracy on test data looks better than it is (Cawley and Talbot, On over-fitting in
model selection and subsequent selection bias in performance evaluation, JMLR 2010). So a share of the training examples
is set aside: at the server, before the rest is divided among the clients, with the labels of the data set; or at each
site, out of its own examples and with the labels that it was given.
"""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from tasks.settings import AUTO, Settings

if TYPE_CHECKING:
    from tasks.base import Labels

Place = Literal["server", "sites", "none"]
SERVER: Place = "server"
SITES: Place = "sites"
NOWHERE: Place = "none"
VALIDATION = "validation_"
"""Begins the names of what is measured on validation data."""
Groups = npt.NDArray[np.str_] | npt.NDArray[np.int64] | None


def evaluating_share(settings: Settings) -> float:
    """Return the share of the clients that evaluate in a round; all if sites choose the best model and none is set."""
    return settings.federation.fraction_evaluate or float(settings.run.monitor == SITES)


def monitored(monitor: str) -> str:
    """Return the measure by which the best model is chosen, from ``run.monitor``.

    >>> monitored("sites"), monitored("macro-f1")
    ('accuracy', 'macro-f1')
    """
    return "accuracy" if monitor == SITES else monitor


def validation_place(settings: Settings, sites_own_data: bool) -> Place:
    """Return who holds out validation examples in a run: the server, the sites, or nobody.

    ``sites_own_data`` tells whether the training examples are at real nodes alone. Sites only hold some out if they are
    asked to evaluate: what nobody measures on had better be trained on.
    """
    chosen = settings.evaluate
    if not chosen.validation:
        return NOWHERE
    at = SITES if settings.run.monitor == SITES else chosen.validation_at
    at_sites = sites_own_data if at == AUTO else at == SITES
    if not at_sites:
        return SERVER
    return SITES if evaluating_share(settings) else NOWHERE


def hold_out(labels: npt.NDArray[Any], groups: Groups, share: float, rng: np.random.Generator) -> "Labels":
    """Draw which examples are held out, alike from all groups and classes.

    It is a systematic sample (Madow and Madow, Annals of Mathematical Statistics 1944) of the examples in the order of
    their groups, within a group of their classes, and by chance within these: as many of each as its size says, give or
    take one. One example of each group and of each class is never drawn, so none of them is lost to training.

    Parameters
    ----------
    labels
        Classes (n,), or masks (n, H, W), which are drawn without regard to what they show.
    groups
        Where each example comes from, (n,), or None.
    share
        Of the examples, in (0, 1): ``round(share * n)`` are drawn, but at least one, and no more than may be.
    rng
        The only source of randomness.

    Returns
    -------
    Labels
        Sorted places of the examples that are held out, (m,).

    Raises
    ------
    DataError
        If no example can be spared.
    """
    count = len(labels)
    classes = np.unique(labels, return_inverse=True)[1] if labels.ndim == 1 else np.zeros(count, dtype=np.int64)
    origins = classes * 0 if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    shuffled = rng.permutation(count)
    kept = [np.unique(kinds[shuffled], return_index=True)[1] for kinds in (classes, origins)]
    spare = np.delete(shuffled, np.union1d(*kept)) if count else shuffled
    if not len(spare):
        from tasks.base import DataError  # slow to import; who only reads results needs none of it

        raise DataError(
            f"none of {count} training examples can be held out, as each class and each group keeps one: take more "
            "examples, or set evaluate.validation to 0"
        )
    wanted = min(max(1, round(share * count)), len(spare))
    ordered = spare[np.lexsort((classes[spare], origins[spare]))]  # stable: by chance within a class
    step = len(ordered) / wanted
    places = np.floor((np.arange(wanted) + rng.random()) * step).astype(np.int64)
    return np.sort(ordered[np.minimum(places, len(ordered) - 1)]).astype(np.int64)
