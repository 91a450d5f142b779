"""Label quality of one client: confident learning, the loss profile, the label audit."""

import csv
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import parquet
from scipy.stats import binomtest
from sklearn.metrics import log_loss
from torch import nn

from client_app.label_audit_files import COLUMNS, SUMMARY, format_problem, list_path, read_columns, write_audit
from client_app.label_quality import (
    Audit,
    Unseen,
    audit_client,
    class_losses,
    estimated_joint,
    make_audit,
    suspicion,
    trained_labels,
)
from client_app.methods import METHODS
from client_app.noise_rate import NoiseEstimate, estimate_noise
from server_app.validation.config import check
from tasks.base import ClientData, DataError, predict
from tasks.client_data import client_dataset, load_task
from tasks.config import DEFAULTS, ConfigError, parse, without_effect
from tasks.settings import AuditSettings, Settings

CLASSES = ("cat", "dog", "=cow")
BELIEFS = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.2, 0.3, 0.5], [0.05, 0.9, 0.05]])
GIVEN = np.array([0, 0, 1, 1])
HOSTILE = ["=1+1|cmd", "+x.png", "-x.png", "@x", "'quoted", "\tx", 'a,"b"\nc', "ü.png", "bad\udcff.png"]
CPU = torch.device("cpu")


def test_suspicion_runs_from_certainly_right_to_certainly_wrong_and_crosses_a_half_where_the_model_is_undecided():
    beliefs = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0], [0.4, 0.35, 0.25], [0.4, 0.45, 0.15]])
    assert suspicion(beliefs, np.zeros(5, int)) == pytest.approx([0.0, 1.0, 0.5, 0.475, 0.525])


@pytest.mark.parametrize("labels", [[0], [1]], ids=["right", "wrong"])
def test_one_example_is_enough(labels: list[int]):
    beliefs, given = np.array([[0.9, 0.1]]), np.array(labels)
    assert estimated_joint(beliefs, given).trace() == pytest.approx(1.0)  # it is its class's own threshold
    assert suspicion(beliefs, given) == pytest.approx([0.1 if labels == [0] else 0.9])


def test_the_profile_is_the_mean_cross_entropy_of_each_given_label():
    settings = parse(DEFAULTS)
    task, data = load_task(settings.task), client_dataset(settings, 3).data
    torch.manual_seed(0)
    model = task.build_model("mlp", "")
    losses, counts = class_losses(model, task, data, 7, CPU)
    probabilities = torch.softmax(predict(model, task, data.features, 512, CPU).double(), 1).numpy()
    assert counts.sum() == len(data)
    for label in range(10):
        here = data.labels == label
        assert counts[label] == here.sum()
        expected = log_loss(data.labels[here], probabilities[here], labels=range(10)) if here.any() else 0.0
        np.testing.assert_allclose(losses[label], expected, rtol=1e-6)


def test_the_model_is_neither_trained_nor_in_training_mode():
    settings = parse(DEFAULTS)
    task, whole = load_task(settings.task), client_dataset(settings, 0).data
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.9), nn.Linear(64, 10)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, _ = class_losses(model, task, whole, 512, CPU)
    second, _ = class_losses(model.train(), task, whole, 16, CPU)
    np.testing.assert_allclose(first, second, rtol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_client_with_one_class_has_one_loss():
    task = load_task(parse(DEFAULTS).task)
    features = task.train_examples().features[:5]
    data = ClientData(0, features, np.full(5, 4, np.int64), np.arange(5), 10)
    losses, counts = class_losses(task.build_model("mlp", ""), task, data, 2, CPU)
    assert np.flatnonzero(losses).tolist() == np.flatnonzero(counts).tolist() == [4]
    assert counts[4] == 5


def client(labels: np.ndarray, num_classes: int = 3) -> ClientData:
    return ClientData(7, torch.zeros(len(labels), 1), labels, np.arange(len(labels)), num_classes)


POSTERIOR = np.array([[0.85, 0.1, 0.05], [0.15, 0.8, 0.05], [0.2, 0.3, 0.5], [0.05, 0.925, 0.025]])
ESTIMATE = NoiseEstimate(0.5, 0.25, 0.75, 0.9, POSTERIOR)


def example_audit() -> Audit:
    trained = np.array([0, 1, 1, 1])
    with pytest.MonkeyPatch.context() as patch:  # four examples say little: the posterior of this test is a round one
        patch.setattr("client_app.label_quality.estimate_noise", lambda beliefs, labels: ESTIMATE)
        return make_audit(BELIEFS, trained, client(GIVEN), ["a.png", "b.png", "c.png", "d.png"])


def named(names: list[str]) -> Audit:
    labels = np.zeros(len(names), np.int64)
    return make_audit(np.tile([0.6, 0.4, 0.0], (len(names), 1)), labels, client(labels), names)


def test_the_order_is_that_of_the_noise_model_and_the_suggestion_the_likeliest_other_class():
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 3, 300)
    beliefs = np.full((300, 3), 0.1) + 0.7 * np.eye(3)[truth]
    given = np.where(np.arange(300) % 3 == 0, (truth + 1) % 3, truth)
    audit = make_audit(beliefs, given, client(given), [str(i) for i in range(300)])
    expected = estimate_noise(beliefs, given).wrong(given)
    order = np.array([int(name) for name in audit.names])
    assert audit.suspicion.tolist() == expected[order].tolist() == sorted(expected, reverse=True)
    assert audit.suggested.tolist() == truth[order].tolist()
    assert audit.suggestions == 100
    assert audit.suspicion[99] > 0.5 > audit.suspicion[100]
    assert audit.lines_to_find(0.8) == pytest.approx(0.8 * audit.expected.sum() / audit.expected[0], abs=1)


def test_lines_to_find_are_as_many_as_the_share_of_the_expected_wrong_labels_needs():
    audit = example_audit()  # 0.85, 0.7, 0.15, 0.075: together 1.775, and 2 are estimated: 0.896, 0.781, 0.212, 0.110
    odds = np.array([0.85 / 0.15, 0.7 / 0.3, 0.15 / 0.85, 0.075 / 0.925]) * 1.5279
    assert audit.expected == pytest.approx(odds / (1 + odds), abs=1e-3)
    assert audit.expected.sum() == pytest.approx(2.0)
    assert [audit.lines_to_find(share) for share in (0.4, 0.5, 0.83, 0.9, 1.0)] == [1, 2, 2, 3, 4]


def test_classes_are_counted_with_their_expected_wrong_labels():
    assert example_audit().by_class() == [
        (0, 2, pytest.approx(1.109, abs=2e-3), 1),
        (1, 2, pytest.approx(0.891, abs=2e-3), 1),
    ]


@pytest.mark.parametrize(("rate", "first"), [(0.0, 2), (0.5, 2), (0.74, 3), (1.0, 4)])
def test_as_many_lines_as_seem_wrong_are_to_look_at_and_all_suggestions(rate: float, first: int):
    audit = example_audit()
    audit = replace(audit, estimate=replace(ESTIMATE, rate=rate))
    assert (audit.suggestions, audit.doubted) == (2, first)
    assert audit.look.tolist() == [True] * first + [False] * (4 - first)
    assert sum(doubted for _, _, _, doubted in audit.by_class()) == first


def test_the_most_suspicious_label_comes_first():
    audit = example_audit()
    assert audit.names == ("b.png", "c.png", "a.png", "d.png")
    assert audit.given.tolist() == [0, 1, 0, 1]
    assert audit.suggested.tolist() == [1, 2, 0, 1]
    assert audit.confidence.tolist() == [0.8, 0.5, 0.85, 0.925]
    assert audit.suspicion == pytest.approx([0.85, 0.7, 0.15, 0.075])
    assert audit.estimate.posterior.tolist() == POSTERIOR[[1, 2, 0, 3]].tolist()
    assert audit.changed.tolist() == [True, False, False, False]
    assert (audit.doubted, audit.noise_rate) == (2, 0.5)
    assert audit.confusion() == [(0, 1, 1), (1, 2, 1), (0, 0, 1), (1, 1, 1)]


def test_equally_suspicious_labels_keep_the_order_of_the_data():
    assert named(["c", "a", "b"]).names == ("c", "a", "b")


@pytest.mark.parametrize("wanted", ["csv", "parquet"])
def test_a_list_is_read_as_it_was_written(tmp_path: Path, wanted: str):
    path = write_audit(tmp_path / "own", example_audit(), CLASSES, wanted, {})
    assert path == list_path(tmp_path / "own", wanted)
    assert read_columns(path) == {
        "id": ["b.png", "c.png", "a.png", "d.png"],
        "given": ["cat", "dog", "cat", "dog"],
        "suggested": ["dog", "=cow", "cat", "dog"],
        "confidence": [0.8, 0.5, 0.85, 0.925],
        "suspicion": [0.85, 0.7, 0.15, 0.075],
        "changed": [True, False, False, False],
        "changed_to": ["dog", "", "", ""],
        "look": [True, True, False, False],
    }


def test_a_csv_list_is_what_a_spreadsheet_expects(tmp_path: Path):
    lines = write_audit(tmp_path, example_audit(), CLASSES, "csv", {}).read_text().splitlines()
    assert lines[:3] == [
        ",".join(COLUMNS),
        "b.png,cat,dog,0.8000,0.8500,true,dog,1,true",
        "c.png,dog,'=cow,0.5000,0.7000,false,,2,true",
    ]


def test_no_name_becomes_a_formula_and_all_names_come_back(tmp_path: Path):
    path = write_audit(tmp_path, named(HOSTILE), CLASSES, "csv", {})
    with path.open(newline="") as file:
        cells = [row["id"] for row in csv.DictReader(file)]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for cell in cells)
    assert read_columns(path)["id"] == [*HOSTILE[:-1], r"bad\udcff.png"]


def test_the_summary_says_what_there_is_to_do(tmp_path: Path):
    write_audit(tmp_path, example_audit(), CLASSES, "csv", {"client": 7})
    summary = json.loads((tmp_path / SUMMARY).read_text())
    assert summary.pop("caution")
    assert len(summary.pop("warnings")) == 2
    assert summary == {
        "client": 7,
        "examples": 4,
        "estimated_noise_rate": 0.5,
        "noise_rate_interval_90": [0.25, 0.75],
        "model_seems_right_on": 0.9,
        "lines_with_80_percent_of_the_wrong_labels": 2,
        "classes": {
            "cat": {"examples": 2, "expected_wrong": 1.1, "look_at_first": 1},
            "dog": {"examples": 2, "expected_wrong": 0.9, "look_at_first": 1},
        },
        "estimated_by_confident_joint": 0.25,
        "look_at_first": 2,
        "suggestions": 2,
        "changed_by_the_method": 1,
        "given_to_suggested": {"cat -> dog": 1, "dog -> =cow": 1, "cat -> cat": 1, "dog -> dog": 1},
        "confidence_thresholds": {"cat": 0.45, "dog": 0.6},
    }


def test_a_crash_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_audit(tmp_path, named(["old"]), CLASSES, "csv", {})
    before = path.read_bytes()

    def crash(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="no space"):
        write_audit(tmp_path, named(["new"]), CLASSES, "csv", {})
    assert path.read_bytes() == before


@pytest.mark.parametrize("wanted", ["csv", "parquet"])
def test_a_list_of_an_earlier_version_can_be_read(tmp_path: Path, wanted: str):
    path = write_audit(tmp_path, example_audit(), CLASSES, wanted, {})
    now = read_columns(path)
    if wanted == "csv":
        path.write_text("".join(",".join(line.split(",")[:-2]) + "\n" for line in path.read_text().splitlines()))
        assert "rank" not in path.read_text()
    else:
        parquet.write_table(parquet.read_table(path).drop_columns(["rank", "look"]), path)
    before = read_columns(path)
    assert before["look"] == [True, True, False, False]  # those with a suggestion
    assert before == now


def test_a_file_that_is_no_list_is_refused(tmp_path: Path):
    (tmp_path / "label-audit.csv").write_text("id,label\n1,2\n")
    with pytest.raises(DataError, match="expected the columns id, given"):
        read_columns(tmp_path / "label-audit.csv")


def settings(**changes: object) -> Settings:
    return check({**DEFAULTS, "train.device": "cpu", **changes})


def test_a_method_that_does_not_correct_changes_nothing():
    data = client(GIVEN)
    for state in (None, {}):
        assert trained_labels(METHODS.build("sgd", ""), state, data) is data.labels


def test_learned_labels_are_listed_as_changed():
    logits = np.array([[9, 0, 0], [0, 9, 0], [0, 0, 9], [0, 9, 0]], np.float32)
    method = METHODS.build("masked-optim", "")
    assert trained_labels(method, {"label_logits": logits}, client(GIVEN)).tolist() == [0, 1, 2, 1]


@pytest.mark.parametrize("kept", [np.zeros((3, 3)), np.zeros((4, 2)), np.full((4, 3), np.nan)])
def test_learned_labels_of_other_data_are_refused(kept: np.ndarray):
    with pytest.raises(ValueError, match="the data has changed since the run began"):
        trained_labels(METHODS.build("masked-optim", ""), {"label_logits": kept}, client(GIVEN))


def every_label(label: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda labels: np.full_like(labels, label)


@pytest.mark.parametrize(
    ("size", "relabel"),
    [(1, every_label(3)), (40, every_label(3)), (40, lambda labels: (labels + 1) % 10), (40, lambda labels: labels)],
    ids=["one example", "one class", "all labels wrong", "as they are"],
)
def test_an_odd_client_gets_its_list(size: int, relabel: Callable[[np.ndarray], np.ndarray]):
    config, device = settings(), torch.device("cpu")
    whole = client_dataset(config, 0).data
    labels = relabel(whole.labels[:size])
    data = ClientData(0, whole.features[:size], labels, whole.ids[:size], 10)
    audit = audit_client(load_task(config.task).build_model("mlp", ""), data, config, None, device)
    assert sorted(audit.names) == sorted(str(number) for number in data.ids)
    assert sorted(audit.given.tolist()) == sorted(labels.tolist())
    assert np.isfinite(audit.suspicion).all()
    assert np.all(np.diff(audit.suspicion) <= 0)
    assert 0 <= audit.noise_rate <= 1
    assert 0 <= audit.joint_noise_rate <= 1


def test_labels_that_nobody_trained_on_are_listed_too_and_say_what_was_learned_by_heart(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(
        "client_app.label_quality.predict", lambda model, task, features, *_: 9 * torch.eye(3)[features]
    )
    model = nn.Identity()
    data = replace(client(np.array([0, 1, 2, 1, 0, 2])), features=torch.tensor([0, 1, 2, 1, 2, 1]))
    data = replace(data, ids=np.arange(10, 16))
    own = data.take(np.array([0, 1, 3, 5]))
    config = settings(**{"method.name": "masked-optim", "task.name": "digits"})
    kept = {"label_logits": np.eye(3, dtype=np.float32)[[2, 1, 0, 2]]}
    audit = audit_client(model, data, config, kept, torch.device("cpu"), own)
    assert sorted(audit.names) == ["10", "11", "12", "13", "14", "15"]
    trained = {name: int(label) for name, label in zip(audit.names, audit.trained, strict=True)}
    assert trained == {"10": 2, "11": 1, "12": 2, "13": 0, "14": 0, "15": 2}
    assert audit.unseen == Unseen(examples=2, contradicted=1)
    assert audit_client(model, own, config, kept, torch.device("cpu")).unseen is None


@pytest.mark.parametrize(("examples", "contradicted"), [(1, 0), (1, 1), (30, 9), (200, 200), (400, 3)])
def test_the_share_that_is_contradicted_at_least(examples: int, contradicted: int):
    interval = binomtest(contradicted, examples).proportion_ci(0.9, method="exact")
    assert Unseen(examples, contradicted).at_least() == pytest.approx(interval.low, abs=1e-12)


def test_labels_of_pixels_are_refused_with_the_remedy():
    data = ClientData(0, torch.zeros(2, 1, 8, 8), np.zeros((2, 8, 8), np.int64), np.arange(2), 10)
    with pytest.raises(ValueError, match=r"set audit\.enabled = false"):
        audit_client(torch.nn.Identity(), data, Settings(), None, torch.device("cpu"))


def test_parquet_without_its_package_is_an_error_before_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("client_app.label_audit_files.find_spec", lambda name: None)
    assert format_problem("csv") == ""
    with pytest.raises(ConfigError, match=r"audit\.format = 'parquet'.*pip install -e '\.\[parquet\]'"):
        settings(**{"audit.format": "parquet"})
    with pytest.raises(ValueError, match="pyarrow is not installed"):
        write_audit(tmp_path, example_audit(), CLASSES, "parquet", {})


def test_a_format_without_an_audit_is_remarked():
    issues = without_effect(Settings(audit=AuditSettings(enabled=False, format="parquet")))
    lines = [issue.line for issue in issues]
    assert lines == ["audit.format has no effect: there is no audit"]
