import re

import numpy as np
import pytest
from flwr.app import MetricRecord

from strategies.updates import Guard
from tests.messages import MODEL, answer, failure, instruction, moved, record


@pytest.fixture
def guard() -> Guard:
    guard = Guard({0: 10, 1: 10, 2: 10})
    guard.expect(record(MODEL), [instruction(client) for client in (2, 0, 1)])
    return guard


WITHOUT_WEIGHT = {name: array for name, array in MODEL.items() if name != "weight"}
BAD = {
    "error": (failure(1), "error 2: boom"),
    "missing array": (answer(1, WITHOUT_WEIGHT), "arrays missing: weight; not expected: none"),
    "extra array": (answer(1, moved(0.0, more=np.zeros(1, np.float32))), "not expected: more"),
    "shape": (answer(1, moved(0.0, weight=np.zeros((2, 3), np.float32))), r"'weight': expected float32 \(2, 2\), got"),
    "dtype": (answer(1, moved(0.0, weight=np.zeros((2, 2), np.float64))), "got float64"),
    "nan": (answer(1, moved(np.nan)), "'weight' has values that are not finite"),
    "inf": (answer(1, moved(0.0, weight=np.full((2, 2), -np.inf, np.float32))), "not finite"),
    "count zero": (answer(1, num_examples=0), "positive whole number, got 0"),
    "count negative": (answer(1, num_examples=-3), "got -3"),
    "count fraction": (answer(1, num_examples=1.5), "got 1.5"),
    "count huge": (answer(1, num_examples=10**12), "positive whole number"),
    "count other": (answer(1, num_examples=11), "registered with 10"),
    "metric nan": (answer(1, train_loss=float("nan")), "metrics missing or not finite: train-loss"),
    "not asked": (answer(7), "was not asked"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_reply_is_set_aside_with_its_reason(guard: Guard, kind: str):
    bad, reason = BAD[kind]
    updates, report = guard.screen([answer(2), bad, answer(0)])
    culprit = bad.metadata.src_node_id
    assert [update.client for update in updates] == [0, 2]
    assert report.quarantined.keys() == {1, culprit}  # a client that was not asked leaves client 1 silent
    assert re.search(reason, report.quarantined[culprit])


def test_silence_and_a_second_reply_are_noticed(guard: Guard):
    updates, report = guard.screen([answer(0), answer(0, moved(5.0)), answer(2)])
    assert report.quarantined == {0: "replied twice in one round; the first reply counts", 1: "no reply in time"}
    assert [update.client for update in updates] == [0, 2]
    assert np.array_equal(updates[0].arrays["weight"], MODEL["weight"])


def test_extra_metrics_of_a_minority_are_dropped(guard: Guard):
    updates, report = guard.screen([answer(0, secret=1.0), answer(1), answer(2)])
    assert [update.metrics for update in updates] == [{"train-loss": 0.5}] * 3
    assert not report.quarantined


def test_updates_come_in_client_order_and_in_the_order_of_the_model(guard: Guard):
    reversed_model = dict(reversed(MODEL.items()))
    updates, _ = guard.screen([answer(2, reversed_model), answer(1), answer(0)])
    assert [update.client for update in updates] == [0, 1, 2]
    assert all(list(update.arrays) == list(MODEL) for update in updates)


def test_without_a_registered_count_any_sane_count_will_do():
    guard = Guard()
    guard.expect(record(MODEL), [instruction(0)])
    updates, _ = guard.screen([answer(0, num_examples=123)])
    assert updates[0].examples == 123


def test_a_reason_is_one_printable_line_whatever_the_client_sends(guard: Guard):
    name = "\x1b[2J\nround 20/20 accuracy 99 %" + "x" * 100_000
    _, report = guard.screen([answer(1, {name: MODEL["weight"]}), failure(0, "a\nb\x07")])
    assert all(reason.isprintable() and len(reason) < 310 for reason in report.quarantined.values())
    assert report.quarantined[0] == "error 2: a?b?"


def test_replies_to_an_evaluation_are_screened_too(guard: Guard):
    two_records = answer(1)
    two_records.content["more"] = MetricRecord({"num-examples": 10, "train-loss": 999.0})
    replies = [answer(2, extra=7.0), two_records, answer(0, num_examples=-30), answer(0), failure(1)]
    updates = guard.screen_metrics(replies)
    assert [(update.client, update.metrics) for update in updates] == [
        (0, {"train-loss": 0.5}),
        (2, {"train-loss": 0.5}),
    ]
