"""Embedding issues: planted near duplicates and outliers are found, and nothing among plain examples."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from client_app.embedding_issues import (
    COLUMNS,
    DUPLICATE,
    FEWEST,
    OUTLIER,
    audit_embeddings,
    embed,
    find_issues,
    write_issues,
)
from tasks.base import ClientData
from tasks.client_data import load_task
from tasks.config import DEFAULTS, parse

CPU = torch.device("cpu")


def clusters(size: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Return points around two directions of 16 dimensions, and the direction of each as its label."""
    draw = np.random.default_rng(0)
    labels = np.arange(size) % 2
    points = np.where(labels[:, None] == 0, np.eye(16)[0], np.eye(16)[1]) + 0.1 * draw.normal(size=(size, 16))
    return points.astype(np.float32), labels


def test_plain_examples_have_no_issues():
    assert find_issues(*clusters()) == []


def test_duplicates_with_different_labels_come_first_then_the_nearest_then_outliers():
    points, labels = clusters()
    points[10] = 3 * points[20] + 1e-4  # nearly the same direction, the same label
    points[30] = points[40]
    points[50], labels[50] = points[60] + 1e-3, 1 - labels[60]
    points[70] = -np.eye(16)[7]
    found = find_issues(points, labels)
    assert [(one.issue, one.example, one.other) for one in found] == [
        (DUPLICATE, 50, 60),
        (DUPLICATE, 30, 40),
        (DUPLICATE, 10, 20),
        (OUTLIER, 70, None),
    ]
    assert found[1].score == pytest.approx(0.0, abs=1e-3)
    assert found[3].score > 1.5


@pytest.mark.parametrize("size", [FEWEST - 1, FEWEST])
def test_among_few_examples_nothing_is_looked_for(size: int):
    points, labels = np.ones((size, 3), np.float32), np.zeros(size, np.int64)
    assert bool(find_issues(points, labels)) == (size == FEWEST)  # all are duplicates of each other


def test_a_networks_features_are_what_its_last_layer_is_given():
    task = load_task(parse(DEFAULTS).task)
    data = ClientData(0, task.train_examples().features[:50], np.zeros(50, np.int64), np.arange(50), 10)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 7), nn.ReLU(), nn.Linear(7, 10))
    expected = model[:3](task.prepare(data.features)).detach().numpy()
    np.testing.assert_allclose(embed(model, task, data, 8, CPU), expected, rtol=1e-5, atol=1e-6)


def test_without_known_features_nothing_is_found_and_that_is_said(caplog: pytest.LogCaptureFixture):
    task = load_task(parse(DEFAULTS).task)
    data = ClientData(0, task.train_examples().features[:50], np.zeros(50, np.int64), np.arange(50), 10)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.LogSoftmax(1))
    assert audit_embeddings(model, task, data, 8, CPU) == []
    assert "No near duplicates and outliers were looked for" in caplog.text


def test_the_list_names_both_examples_and_their_labels(tmp_path: Path):
    points, labels = clusters()
    points[50], labels[50] = points[60], 1 - labels[60]
    points[70] = -np.eye(16)[7]
    names = [f"={i}.png" for i in range(120)]
    path = write_issues(tmp_path, find_issues(points, labels), labels, names, ("cat", "dog"), "csv")
    rows = list(csv.DictReader(path.open(newline="")))
    assert tuple(rows[0]) == COLUMNS
    assert list(rows[0].values())[:5] == ["near duplicate", "'=50.png", "dog", "'=60.png", "cat"]
    assert list(rows[1].values())[:5] == ["outlier", "'=70.png", "cat", "", ""]
    assert path.stat().st_mode & 0o077 == 0
