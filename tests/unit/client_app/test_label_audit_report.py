"""Report of a label audit: warnings stand first and say when the model is too weak."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client_app.label_audit_files import write_audit
from client_app.label_audit_report import REPORT, audit_report, audit_warnings
from client_app.label_quality import Audit, Unseen
from client_app.noise_rate import NoiseEstimate

CLASSES = ("cat", "do|g", "cow")


def audit(accuracy: float = 0.95, interval: tuple[float, float] = (0.05, 0.15), doubts: float = 0.1) -> Audit:
    """Return an audit of 60 cats and 60 dogs, of which the dogs have these doubts and the cats doubts of 0.05."""
    given = np.repeat([1, 0], 60)
    suspicion = np.where(given == 1, doubts, 0.05)
    posterior = np.zeros((120, 3))
    return Audit(
        names=tuple(map(str, range(120))),
        given=given,
        suggested=np.where(suspicion > 0.5, 2, given),
        confidence=1 - suspicion,
        suspicion=suspicion,
        trained=given,
        estimate=NoiseEstimate(0.1, *interval, accuracy, posterior),
        joint_noise_rate=0.1,
        thresholds=np.array([0.9, 0.9, np.inf]),
    )


def test_a_good_model_needs_no_warning():
    assert audit_warnings(audit(), CLASSES) == []


def test_a_weak_model_is_said_in_words_with_its_number():
    (text,) = audit_warnings(audit(accuracy=0.41), CLASSES)
    assert text.startswith(
        "The model is too weak to judge these labels: it seems to be right on 41 % of the 120 examples."
    )


def test_an_estimate_that_says_nothing_is_said():
    (text,) = audit_warnings(audit(interval=(0.1, 0.5)), CLASSES)
    assert text == "How many labels are wrong can hardly be said: between 10 % and 50 % of them."


@pytest.mark.parametrize(("contradicted", "warned"), [(0, False), (9, False), (10, True), (30, True)])
def test_a_model_that_contradicts_more_held_out_labels_than_may_be_wrong_has_learned_by_heart(
    contradicted: int, warned: bool
):
    found = replace(audit(interval=(0.05, 0.18)), unseen=Unseen(30, contradicted))  # of 10 of 30: 19.5 % at least
    texts = audit_warnings(found, CLASSES)
    assert [text.startswith("The model has learned labels by heart") for text in texts] == [True] * warned
    assert all(f"of 30 labels that were held out it contradicts {contradicted / 0.3:.0f} %." in text for text in texts)


@pytest.mark.parametrize(("doubts", "warned"), [(0.1, False), (0.09, False), (0.4, True), (0.9, True)])
def test_a_class_that_is_much_worse_is_named(doubts: float, warned: bool):
    texts = audit_warnings(audit(doubts=doubts), CLASSES)
    assert [text.startswith("The class 'do|g' is much worse") for text in texts] == [True] * warned


def test_warnings_stand_first_and_the_rest_says_what_to_do():
    text = audit_report(audit(accuracy=0.41, doubts=0.9), CLASSES, "label-audit.csv")
    lines = text.splitlines()
    assert lines[0] == "# Label audit"
    assert lines[2].startswith("**Warning.** The model is too weak")
    assert "About 10 % of the 120 labels are wrong; with 90 % confidence between 5 % and 15 %." in text
    assert "Look at the first 60 labels first, about as many as are wrong; for 60 of them, which" in text
    assert "The first 51 lines hold 80 %" in text  # 45.6 / 0.9
    assert "err alike on the same kind of examples" in text
    assert "| do\\|g | 60 | 54.0 (90 %) | 60 |" in text
    assert "| do\\|g | cow | 60 |" in text


def test_the_report_lies_beside_the_list(tmp_path: Path):
    write_audit(tmp_path, audit(), CLASSES, "csv", {})
    assert (tmp_path / REPORT).read_text() == audit_report(audit(), CLASSES, "label-audit.csv")
    assert (tmp_path / REPORT).stat().st_mode & 0o077 == 0
