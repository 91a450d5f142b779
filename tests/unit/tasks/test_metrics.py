"""Counts of classes and scores in cases small enough to work out by hand."""

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from tasks.base import Examples, Task, evaluate, evaluate_at_server
from tasks.metrics import (
    ClassCounts,
    MacroScores,
    accuracy,
    balanced_accuracy,
    calibration_error,
    class_counts,
    classification_metrics,
    macro_scores,
    mean_iou,
    segmentation_metrics,
    server_metrics,
)


def of_matrix(rows: list[list[int]]) -> ClassCounts:
    """The counts in a confusion matrix, rows = true classes."""
    confusion = torch.tensor(rows)
    return ClassCounts(confusion.diagonal(), confusion.sum(1), confusion.sum(0))


def test_each_class_is_counted_where_it_is_true_predicted_and_both() -> None:
    counts = class_counts(torch.tensor([2, 2, 1, 0]), torch.tensor([0, 0, 1, 2]), 3)
    assert [each.tolist() for each in counts] == [[0, 1, 0], [2, 1, 1], [1, 1, 2]]
    assert {each.dtype for each in counts} == {torch.int64}


def test_thousands_of_classes_need_no_table_of_classes_by_classes() -> None:
    classes = torch.arange(200_000)  # the table would take 320 GB
    assert accuracy(class_counts(classes, classes, len(classes))) == 1.0


def test_scores_by_hand() -> None:
    # class 0: 3 of 4 found, 3 of 5 predictions right; class 1: 4 of 6 found, 4 of 5 right
    counts = of_matrix([[3, 1], [2, 4]])
    precision, recall = (3 / 5 + 4 / 5) / 2, (3 / 4 + 4 / 6) / 2
    f1 = (2 * 3 / (4 + 5) + 2 * 4 / (6 + 5)) / 2
    assert macro_scores(counts) == pytest.approx(MacroScores(precision, recall, f1), rel=1e-15)
    assert accuracy(counts) == 7 / 10


@pytest.mark.parametrize("wrong", [False, True])
def test_limits(wrong: bool) -> None:
    labels = torch.arange(5)
    counts = class_counts((labels + int(wrong)) % 5, labels, 5)
    expected = 0.0 if wrong else 1.0
    assert accuracy(counts) == expected
    assert macro_scores(counts) == MacroScores(expected, expected, expected)


def test_unseen_class_does_not_count_but_a_missed_or_invented_one_does() -> None:
    only_first = class_counts(torch.tensor([0, 0]), torch.tensor([0, 0]), 4)
    assert macro_scores(only_first) == MacroScores(1.0, 1.0, 1.0)
    invented = class_counts(torch.tensor([0, 3]), torch.tensor([0, 0]), 4)
    assert macro_scores(invented) == pytest.approx(MacroScores(1 / 2, 1 / 4, 1 / 3))


def test_one_frequent_class_does_not_hide_the_rare_one() -> None:
    labels = torch.tensor([0] * 99 + [1])
    counts = class_counts(torch.zeros(100, dtype=torch.int64), labels, 2)
    assert accuracy(counts) == 0.99
    assert macro_scores(counts).recall == 0.5


def test_mean_iou_by_hand() -> None:
    # class 0: 3 pixels in common of 3 + 1 + 2; class 1: 4 of 4 + 1 + 2; class 2 neither occurs nor is predicted
    assert mean_iou(of_matrix([[3, 1, 0], [2, 4, 0], [0, 0, 0]])) == pytest.approx((3 / 6 + 4 / 7) / 2, rel=1e-15)


def test_pixels_without_a_class_do_not_count() -> None:
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 1, 0] = 1  # class 1 in the first row, class 0 in the second
    labels = torch.tensor([[[1, -100], [0, 1]]])
    assert segmentation_metrics(logits, labels) == pytest.approx(
        {"accuracy": 2 / 3, "macro-f1": 2 / 3, "mean-iou": 1 / 2}
    )
    with pytest.raises(ValueError, match="no examples to measure"):
        segmentation_metrics(logits, torch.full((1, 2, 2), -100))
    with pytest.raises(ValueError, match="same shape expected"):
        segmentation_metrics(logits, labels[:, :1])


def test_small_integer_types_do_not_overflow() -> None:
    masks = torch.full((2, 30, 30), 20, dtype=torch.uint8)
    counts = class_counts(masks, masks, 21)
    assert [each[20].item() for each in counts] == [1800] * 3
    assert [each.sum().item() for each in counts] == [1800] * 3


def test_pixels_and_examples_are_counted_alike() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(3, (2, 4, 5), generator=torch.Generator().manual_seed(1))
    flat = classification_metrics(logits.movedim(1, -1).reshape(-1, 3), labels.flatten())
    assert classification_metrics(logits, labels) == flat


def test_balanced_accuracy_leaves_out_what_never_occurs_and_macro_recall_does_not() -> None:
    invented = class_counts(torch.tensor([0, 3]), torch.tensor([0, 0]), 4)
    assert balanced_accuracy(invented) == 1 / 2
    assert macro_scores(invented).recall == 1 / 4


def test_calibration_error_in_its_limits() -> None:
    sure, labels = 1000 * torch.eye(2), torch.tensor([0, 1])
    assert calibration_error(sure, labels) == 0  # sure and right
    assert calibration_error(sure, 1 - labels) == 1  # sure and wrong
    assert calibration_error(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1])) == 0  # says 1/2, half are right
    assert calibration_error(torch.zeros(3, 1), torch.zeros(3).long()) == 0  # one class
    assert calibration_error(torch.tensor([[0.0, -torch.inf]]), torch.tensor([0])) == 0  # a class that is ruled out
    # 4 of 5 right at probability 0.9
    logits = torch.tensor([[0.9, 0.1]]).log().repeat(5, 1)
    assert calibration_error(logits, torch.tensor([0, 0, 0, 0, 1])) == pytest.approx(0.1, abs=1e-6)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_model_that_has_diverged_is_not_calibrated(value: float) -> None:
    logits = torch.tensor([[1.0, 0.0], [value, 0.0]])
    with pytest.raises(ValueError, match=r"logits are not finite, .* the model has diverged"):
        calibration_error(logits, torch.tensor([0, 0]))
    measures, _ = server_metrics(logits, torch.tensor([0, 0]))  # a run goes on: its loss is no number either
    assert str(measures.pop("calibration-error")) == "nan"
    assert set(measures.values()) == {1.0}


def test_beyond_a_bound_there_is_no_confusion_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = torch.eye(5), torch.tensor([0, 1, 2, 3, 3])
    measures, report = server_metrics(logits, labels)
    monkeypatch.setattr("tasks.metrics.MOST_CONFUSED", 4)
    fewer, without = server_metrics(logits, labels)
    assert fewer == measures
    assert without.confusion is None
    assert [each.tolist() for each in without.counts] == [each.tolist() for each in report.counts]


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        (torch.tensor([0, 1]), torch.tensor([0]), r"\(2,\) predictions but \(1,\) labels"),
        (torch.tensor([], dtype=torch.int64), torch.tensor([], dtype=torch.int64), "no examples to measure"),
        (torch.tensor([0]), torch.tensor([3]), "labels from 3 to 3: classes from 0 to 2 expected"),
        (torch.tensor([0]), torch.tensor([-100]), "labels from -100"),
        (torch.tensor([5]), torch.tensor([0]), "predictions from 5"),
        (torch.tensor([0.5]), torch.tensor([0]), "predictions are torch.float32: class numbers"),
    ],
)
def test_refuses_what_it_cannot_count(predictions: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_counts(predictions, labels, 3)


class TwoPoints(Task):
    """A task that keeps the default measures."""

    class_names: tuple[str, ...] = ("a", "b")
    default_model: str = "mlp"
    input_shape: tuple[int, ...] = (1,)
    points: ClassVar[Examples] = Examples(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1]).numpy())

    def train_examples(self) -> Examples:
        return self.points

    def test_examples(self) -> Examples:
        return self.points

    def prepare(self, features: Tensor) -> Tensor:
        return features

    def build_model(self, name: str, args: str) -> nn.Module:
        return nn.Identity()


def test_a_task_reports_accuracy_and_macro_f1() -> None:
    logits = torch.tensor([[2.0, 1.0], [3.0, 0.0], [0.0, 1.0], [5.0, 1.0]])
    measures = TwoPoints().metrics(logits, torch.tensor([0, 0, 1, 1]))
    assert measures == pytest.approx({"accuracy": 3 / 4, "macro-f1": (4 / 5 + 2 / 3) / 2})


class Own(TwoPoints):
    """A task with measures of its own."""

    def metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        return {"hinge": 0.5, "macro-recall": 2.0}


def test_the_server_adds_its_measures_to_those_of_a_task_and_clients_do_not() -> None:
    cpu = torch.device("cpu")
    usual = evaluate(nn.Linear(1, 2), TwoPoints(), TwoPoints.points, 2, cpu)
    assert list(usual) == ["loss", "accuracy", "macro-f1"]
    measures, report = evaluate_at_server(nn.Linear(1, 2), Own(), Own.points, 2, cpu)
    assert list(measures) == [
        "loss",
        "hinge",
        "macro-recall",
        "balanced-accuracy",
        "macro-precision",
        "calibration-error",
    ]
    assert measures["macro-recall"] == 2.0
    assert report.counts.actual.tolist() == [1, 1]
