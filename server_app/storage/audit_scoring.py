"""Scoring of label audits against the true labels of a simulation, by each client's list."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from client_app.label_audit_files import Columns, list_path, read_columns
from client_app.mask_audit_files import read_mask_list, read_suggested
from server_app.storage.audit_scores import Relabelling, Score, Scores
from tasks.base import Labels
from tasks.client_data import ClientDataset, client_dataset, load_task
from tasks.metrics import IGNORED
from tasks.settings import Settings


def score_run(run_dir: Path, settings: Settings, clients: Sequence[int]) -> tuple[Scores, dict[int, str]]:
    """Score the lists of these clients; return also why some could not be scored."""
    task = load_task(settings.task)
    found, problems = [], {}
    for client in clients:
        dataset = client_dataset(settings, client).whole
        folder, names = run_dir / "clients" / str(client), task.example_names(dataset.data.ids)
        path = list_path(folder, settings.audit.format)
        try:
            if task.labels_pixels:
                found.append(score_masks(read_mask_list(path), *read_suggested(folder), dataset, names))
            else:
                found.append(score_list(read_columns(path), dataset, names, task.class_names))
        except (OSError, ValueError) as error:
            problems[client] = str(error)
    return Scores(tuple(found)), problems


def score_list(columns: Columns, dataset: ClientDataset, names: Sequence[str], class_names: Sequence[str]) -> Score:
    """Score one client's list; ``names`` are those of its examples in the order of its data.

    Raises
    ------
    ValueError
        If the list does not name each of the client's examples once, or names a class that the task does not have.
    """
    order = _order(columns, names)
    numbers = {name: number for number, name in reversed([*enumerate(class_names)])}
    if unknown := sorted({*columns["suggested"], *filter(None, columns["changed_to"])} - numbers.keys()):
        raise ValueError(f"the list names the class {unknown[0]!r}, which the task does not have")
    suggested = np.array([numbers[name] for name in columns["suggested"]])
    given, wrong = dataset.data.labels[order], dataset.wrong()[order]
    # No label is right for an example that came from outside.
    truth = np.where(np.isin(order, dataset.replaced), -1, dataset.true_labels[order])
    changed = np.array(columns["changed"])
    trained = np.array([numbers[name] if name else -1 for name in columns["changed_to"]])
    return Score(
        client=dataset.data.client,
        examples=len(order),
        wrong=int(wrong.sum()),
        estimated_noise_rate=float(np.mean(columns["look"])),
        auc=_auc(wrong),
        precision_at_wrong=float(wrong[: wrong.sum()].mean()) if wrong.any() else None,
        precision_at_10=float(wrong[:10].mean()),
        precision_at_20=float(wrong[:20].mean()),
        suggested=relabelling(given, suggested, truth),
        corrected=relabelling(given, np.where(changed, trained, given), truth) if changed.any() else None,
    )


def score_masks(
    columns: Columns, places: Labels, suggested: Labels, dataset: ClientDataset, names: Sequence[str]
) -> Score:
    """Score one client's list of masks; ``suggested`` (n, H, W) are for the images at ``places`` (n,) of its data.

    Raises
    ------
    ValueError
        If the list does not name each of the client's images once, or the masks do not fit it.
    """
    order = _order(columns, names)
    given, truth, differs = dataset.data.labels[order], dataset.true_labels[order], dataset.wrong()[order]
    if not np.array_equal(places, order) or suggested.shape != given.shape:
        raise ValueError("the suggested masks are not those of the list; is the run directory another run's?")
    known = given != IGNORED
    wrong = (differs & known).any((1, 2))
    return Score(
        client=dataset.data.client,
        examples=len(order),
        wrong=int(wrong.sum()),
        estimated_noise_rate=float(np.mean(columns["look"])),
        auc=_auc(wrong),
        precision_at_wrong=float(wrong[: wrong.sum()].mean()) if wrong.any() else None,
        precision_at_10=float(wrong[:10].mean()),
        precision_at_20=float(wrong[:20].mean()),
        suggested=relabelling(given[known], suggested[known], truth[known]),
        corrected=None,
        pixels=int(known.sum()),
        wrong_pixels=int(differs[known].sum()),
    )


def _order(columns: Columns, names: Sequence[str]) -> Labels:
    """Return the place in the client's data of each line of its list."""
    if sorted(columns["id"]) != sorted(names) or len(set(names)) < len(names):
        raise ValueError("the list must name each of the client's examples once; is the run directory another run's?")
    place = {name: i for i, name in enumerate(names)}
    return np.array([place[name] for name in columns["id"]])


def relabelling(given: Labels, final: Labels, truth: Labels) -> Relabelling:
    """Compare ``final`` labels with the given and the true ones, each (n,)."""
    right, was_right, differing = final == truth, given == truth, final != given
    return Relabelling(
        right=int(right.sum()),
        fixed=int((right & ~was_right).sum()),
        damaged=int((was_right & ~right).sum()),
        differing=int(differing.sum()),
        differing_right=int((differing & right).sum()),
    )


def _auc(wrong: npt.NDArray[np.bool_]) -> float | None:
    """Return the area under the ROC curve of a list, first line to last."""
    if wrong.all() or not wrong.any():
        return None
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(wrong, -np.arange(len(wrong))))
