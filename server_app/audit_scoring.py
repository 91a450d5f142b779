"""Compare the label audits of a simulation with the true labels. Never part of any message, and never on real nodes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from client_app.audit_files import Columns, list_path, read_columns
from server_app.audit_scores import Relabelling, Score, Scores
from tasks.base import Labels
from tasks.settings import Settings
from tasks.shares import Share, client_share, load_task


def score_run(run_dir: Path, settings: Settings, clients: Sequence[int]) -> tuple[Scores, dict[int, str]]:
    """Score the lists of these clients; return also why some could not be scored."""
    task = load_task(settings.task)
    found, problems = [], {}
    for client in clients:
        share = client_share(settings, client)
        try:
            columns = read_columns(list_path(run_dir / "clients" / str(client), settings.audit.format))
            found.append(score_list(columns, share, task.example_names(share.data.ids), task.class_names))
        except (OSError, ValueError) as error:
            problems[client] = str(error)
    return Scores(tuple(found)), problems


def score_list(columns: Columns, share: Share, names: Sequence[str], class_names: Sequence[str]) -> Score:
    """Score one client's list; ``names`` are those of its examples in the order of its data.

    Raises
    ------
    ValueError
        If the list does not name each of the client's examples once.
    """
    if sorted(columns["id"]) != sorted(names) or len(set(names)) < len(names):
        raise ValueError("the list must name each of the client's examples once; is the run directory another run's?")
    place = {name: i for i, name in enumerate(names)}
    order = np.array([place[name] for name in columns["id"]])
    suggested = np.array([class_names.index(name) for name in columns["suggested"]])
    given, wrong = share.data.labels[order], share.wrong()[order]
    truth = np.where(np.isin(order, share.replaced), -1, share.true_labels[order])  # no label is right for a stranger
    changed = np.array(columns["changed"])
    trained = np.array([class_names.index(name) if name else -1 for name in columns["changed_to"]])
    return Score(
        client=share.data.client,
        examples=len(order),
        wrong=int(wrong.sum()),
        estimated_noise_rate=float((suggested != given).mean()),
        auc=_auc(wrong),
        precision_at_wrong=float(wrong[: wrong.sum()].mean()) if wrong.any() else None,
        precision_at_10=float(wrong[:10].mean()),
        precision_at_20=float(wrong[:20].mean()),
        suggested=relabelling(given, suggested, truth),
        corrected=relabelling(given, np.where(changed, trained, given), truth) if changed.any() else None,
    )


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
