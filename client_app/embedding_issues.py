"""Embedding issues of a client's data: near duplicates, those with different labels first, and outliers.

What the frozen encoder or the network's last layer makes of the examples is compared by scikit-learn; the rule for
near duplicates is that of cleanlab's Datalab. The list stays in the client's own folder, like the label audit.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from client_app.label_audit_files import list_bytes
from tasks.base import ClientData, Labels, Task
from tasks.features import FeatureError, recorded_features
from tasks.files import private_folder, replace_file

logger = logging.getLogger(__name__)
STEM = "label-audit-issues"
COLUMNS = ("issue", "id", "given", "other", "other_given", "score")
DUPLICATE, OUTLIER = "near duplicate", "outlier"
CLOSE = 0.13
"""Near duplicates are nearer than this part of the median distance to the nearest neighbour (cleanlab's Datalab)."""
NEIGHBOURS = 20
"""Of which the density is compared (Breunig, Kriegel, Ng, Sander, LOF, SIGMOD 2000: 10 to 20 at least)."""
FEWEST, MOST_EXAMPLES = 2 * NEIGHBOURS, 20_000
"""With fewer examples nothing is looked for; more would take minutes, for each is compared with each."""
Embeddings = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EmbeddingIssue:
    """A pair of near duplicates, or an outlier.

    Attributes
    ----------
    issue
        ``DUPLICATE`` or ``OUTLIER``.
    example, other
        Places in the client's data; an outlier has no other, None.
    score
        Of duplicates their distance as a part of the median one to the nearest neighbour, 0 for equal ones; of an
        outlier its local outlier factor, about 1 inside of a cluster and large far from all.
    """

    issue: str
    example: int
    other: int | None
    score: float


def embed(model: nn.Module, task: Task, data: ClientData, batch_size: int, device: torch.device) -> Embeddings:
    """Return the features of a client's examples, (n, F): the encoder's, else what the last layer is given.

    Raises
    ------
    FeatureError
        If the model has no layer that is known to be the last.
    """
    found = []
    model.to(device).eval()
    with torch.no_grad():
        for batch in torch.split(data.features, batch_size):
            inputs = task.prepare(batch.to(device))
            if not task.encoder_digest:
                with recorded_features(model) as record:
                    inputs = record.of(model(inputs))
            found.append(inputs.flatten(1).float().cpu())
    return torch.cat(found).numpy()


def find_issues(embeddings: Embeddings, labels: Labels) -> list[EmbeddingIssue]:
    """Return near duplicates, those with different ``labels`` (n,) first, then outliers, the clearest first.

    Distances are Euclidean between ``embeddings`` (n, F) of length one, so they go with the angle. Nothing is found
    among fewer than ``FEWEST`` examples or more than ``MOST_EXAMPLES``.
    """
    if not FEWEST <= len(labels) <= MOST_EXAMPLES:
        return []
    units = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return _duplicates(units, labels) + _outliers(units)


def _duplicates(units: Embeddings, labels: Labels) -> list[EmbeddingIssue]:
    from sklearn.neighbors import NearestNeighbors

    neighbours = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(units)
    nearest = neighbours.kneighbors()[0][:, 0]  # without the example itself
    usual = float(np.median(nearest))
    near, distances = neighbours.radius_neighbors(radius=CLOSE * usual, return_distance=True)[::-1]
    found = [
        EmbeddingIssue(DUPLICATE, example, int(other), float(distance / usual) if usual else 0.0)
        for example in range(len(labels))
        for other, distance in zip(near[example], distances[example], strict=True)
        if example < other
    ]
    return sorted(found, key=lambda pair: (labels[pair.example] == labels[pair.other], pair.score))


def _outliers(units: Embeddings) -> list[EmbeddingIssue]:
    from sklearn.neighbors import LocalOutlierFactor

    judge = LocalOutlierFactor(n_neighbors=NEIGHBOURS)
    alone = judge.fit_predict(units) < 0
    factors = -judge.negative_outlier_factor_
    found = [EmbeddingIssue(OUTLIER, int(at), None, float(factors[at])) for at in np.flatnonzero(alone)]
    return sorted(found, key=lambda issue: -issue.score)


def write_issues(
    folder: Path,
    found: Sequence[EmbeddingIssue],
    labels: Labels,
    names: Sequence[str],
    class_names: Sequence[str],
    wanted: str,
) -> Path:
    """Write the list of issues, for this user alone, in the format ``csv`` or ``parquet``, and return its path.

    Raises
    ------
    ValueError
        If the format needs a package that is not installed.
    WriteError
        If it cannot be written.
    """
    others = [issue.other for issue in found]
    columns: dict[str, list[Any]] = {
        "issue": [issue.issue for issue in found],
        "id": [names[issue.example] for issue in found],
        "given": [class_names[labels[issue.example]] for issue in found],
        "other": ["" if other is None else names[other] for other in others],
        "other_given": ["" if other is None else class_names[labels[other]] for other in others],
        "score": [round(issue.score, 4) for issue in found],
    }
    private_folder(folder)
    path = folder / f"{STEM}.{wanted}"
    replace_file(path, list_bytes(columns, wanted), private=True)
    return path


def audit_embeddings(
    model: nn.Module, task: Task, data: ClientData, batch_size: int, device: torch.device
) -> list[EmbeddingIssue]:
    """Return the issues among a client's examples; where the model's features are not known, none, and say so."""
    try:
        embeddings = embed(model, task, data, batch_size, device)
    except FeatureError as error:
        logger.warning("No near duplicates and outliers were looked for: %s", error)
        return []
    if not np.isfinite(embeddings).all():
        logger.warning("No near duplicates and outliers were looked for: the model's features are not finite")
        return []
    return find_issues(embeddings, data.labels)
