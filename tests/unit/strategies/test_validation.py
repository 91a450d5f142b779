import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, Message, MetricRecord
from flwr.serverapp.strategy import FedAvg

from strategies.base import FlowerStrategyAdapter
from strategies.validation import ReplyError, ReplyValidator, Update
from tasks.protocol import Arrays
from tests.messages import MODEL, answer, failure, instruction, moved


@pytest.fixture
def validator() -> ReplyValidator:
    return ReplyValidator(MODEL, [instruction(client) for client in (2, 0, 1)], {0: 10, 1: 10, 2: 10})


def arrays(update: Update[Arrays]) -> Arrays:
    """Keep all of a reply."""
    return update.kept


def forged(data: bytes) -> Message:
    """A reply whose labels are right and whose bytes are not."""
    reply = answer(1)
    record: Any = reply.content["arrays"]
    record["weight"] = Array("float32", (2, 2), "numpy.ndarray", data)
    return reply


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
    "metric huge": (answer(1, train_loss=1e101), "metrics missing or not finite: train-loss"),
    "not asked": (answer(7), "was not asked"),
    "too large": (answer(1, moved(0.0, weight=np.full((2, 2), 3e38, np.float32))), "not finite, or not below 1e"),
    "large integer": (
        answer(1, moved(0.0, count=np.array(-(2**63)))),
        "'count' has values that are not finite, or not",
    ),
    "pickle": (forged(b"\x80\x04N."), "'weight' cannot be read: expected an array in NumPy's format"),
    "count of many digits": (answer(1, num_examples=10**5000), "cannot be read: ValueError"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_reply_is_set_aside_with_its_reason(validator: ReplyValidator, kind: str):
    bad, reason = BAD[kind]
    updates, report = validator.screen([answer(2), bad, answer(0)], arrays)
    culprit = bad.metadata.src_node_id
    assert [update.client for update in updates] == [0, 2]
    assert report.quarantined.keys() == {1, culprit}  # a client that was not asked leaves client 1 silent
    assert re.search(reason, report.quarantined[culprit])


def test_silence_and_a_second_reply_are_noticed(validator: ReplyValidator):
    updates, report = validator.screen([answer(0), answer(0, moved(5.0)), answer(2)], arrays)
    assert report.quarantined == {0: "replied twice in one round; the first reply counts", 1: "no reply in time"}
    assert [update.client for update in updates] == [0, 2]
    assert np.array_equal(updates[0].kept["weight"], MODEL["weight"])


def test_the_first_reply_counts_also_if_it_is_the_bad_one(validator: ReplyValidator):
    updates, report = validator.screen([answer(0), failure(1), answer(1), answer(2)], arrays)
    assert [update.client for update in updates] == [0, 2]
    assert report.quarantined == {1: "error 2: boom"}


def test_replies_lose_their_content_before_the_next_one_is_read(validator: ReplyValidator):
    replies = [answer(2), answer(0, moved(np.nan)), failure(1), answer(7), answer(2)]

    def one_by_one() -> Iterator[Message]:
        for place, reply in enumerate(replies):
            assert not any(earlier.has_content() and earlier.content for earlier in replies[:place])
            yield reply

    updates, _ = validator.screen(one_by_one(), arrays)
    assert [update.client for update in updates] == [2]
    assert np.array_equal(updates[0].kept["weight"], MODEL["weight"])


def test_labels_that_lie_about_the_bytes_do_not_reach_the_strategy(validator: ReplyValidator):
    reply = answer(1)
    record: Any = reply.content["arrays"]
    record["weight"] = Array("object", (9,), "pickle", record["weight"].data)
    updates, _ = validator.screen([reply], FlowerStrategyAdapter(FedAvg()).keep)
    (kept,) = [update.kept for update in updates]
    assert [(array.dtype, array.shape, array.stype) for array in kept.values()] == [
        ("float32", (2, 2), "numpy.ndarray"),
        ("float32", (2,), "numpy.ndarray"),
        ("float64", (), "numpy.ndarray"),  # strategies scale in place what they get
    ]


def test_extra_metrics_of_a_minority_are_dropped(validator: ReplyValidator):
    updates, report = validator.screen([answer(0, secret=1.0), answer(1), answer(2)], arrays)
    assert [update.metrics for update in updates] == [{"train-loss": 0.5}] * 3
    assert not report.quarantined


def test_updates_come_in_client_order_and_in_the_order_of_the_model(validator: ReplyValidator):
    reversed_model = dict(reversed(MODEL.items()))
    updates, _ = validator.screen([answer(2, reversed_model), answer(1), answer(0)], arrays)
    assert [update.client for update in updates] == [0, 1, 2]
    assert all(list(update.kept) == list(MODEL) for update in updates)


def test_without_a_registered_count_any_sane_count_will_do():
    updates, _ = ReplyValidator(MODEL, [instruction(0)]).screen([answer(0, num_examples=123)], arrays)
    assert updates[0].examples == 123


def test_a_reason_is_one_printable_line_whatever_the_client_sends(validator: ReplyValidator):
    name = "\x1b[2J\nround 20/20 accuracy 99 %" + "x" * 100_000
    _, report = validator.screen([answer(1, {name: MODEL["weight"]}), failure(0, "a\nb\x07")], arrays)
    assert all(reason.isprintable() and len(reason) < 310 for reason in report.quarantined.values())
    assert report.quarantined[0] == "error 2: a?b?"


def test_replies_to_an_evaluation_are_screened_too(validator: ReplyValidator):
    two_records = answer(1)
    two_records.content["more"] = MetricRecord({"num-examples": 10, "train-loss": 999.0})
    replies = [answer(2, extra=7.0), two_records, answer(0, num_examples=-30), answer(0), failure(1)]
    updates = validator.screen_metrics(replies)
    assert [(update.client, update.metrics) for update in updates] == [
        (0, {"train-loss": 0.5}),
        (2, {"train-loss": 0.5}),
    ]


def test_a_strategy_may_set_a_reply_aside_but_its_own_mistake_ends_the_run(validator: ReplyValidator):
    def keep(update: Update[Arrays]) -> str:
        if update.client == 1:
            raise ReplyError("not from you")
        return f"{update.client}: {update.examples}, {update.metrics}"

    updates, report = validator.screen([answer(client) for client in (0, 1, 2)], keep)
    assert [update.kept for update in updates] == ["0: 10, {'train-loss': 0.5}", "2: 10, {'train-loss': 0.5}"]
    assert report.quarantined == {1: "not from you"}
    with pytest.raises(ZeroDivisionError):
        validator.screen([answer(0)], lambda update: 1 / 0)


def test_arrays_are_views_of_the_bytes_that_came(validator: ReplyValidator):
    reply = answer(0)
    came = np.frombuffer(reply.content.array_records["arrays"]["weight"].data, np.uint8)
    (update,), _ = validator.screen([reply], arrays)
    assert np.shares_memory(update.kept["weight"], came)
