"""One query for registration, strategies and audit: who answered what, and why the others did not."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from flwr.app import Error, Message, MetricRecord, RecordDict

import tests.messages  # noqa: F401  gives this process the ids that Flower's messages need
from strategies.query import Answers, query, with_count
from strategies.validation import ReplyError

Reply = Callable[[Message], list[Message]]


def says(**metrics: Any) -> Reply:
    values = MetricRecord({name.replace("_", "-"): value for name, value in metrics.items()})
    return lambda message: [Message(RecordDict({"metrics": values}), reply_to=message)]


def fails(reason: str) -> Reply:
    return lambda message: [Message(Error(2, reason), reply_to=message)]


def holds(*records: str) -> Reply:
    return lambda message: [Message(RecordDict({name: MetricRecord() for name in records}), reply_to=message)]


class Clients:
    """Delivers messages to clients that each answer as they are told."""

    def __init__(self, *replies: Reply) -> None:
        self._replies = replies
        self.sent: list[Message] = []
        self.timeout: float | None = None
        self.extra: list[Message] = []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        self.sent, self.timeout = list(messages), timeout
        found = [reply for message in self.sent for reply in self._replies[message.metadata.dst_node_id](message)]
        return [*self.extra, *reversed(found)]


def value(client: int, answer: MetricRecord) -> object:
    if "value" not in answer:
        raise ValueError(f"client {client} has no value")
    return answer["value"]


def ask(clients: Clients, asked: Iterable[int], **options: Any) -> Answers[object]:
    return query(clients, asked, "query.any", RecordDict(), value, **options)


def test_every_client_is_asked_once_and_answers_are_in_order() -> None:
    clients = Clients(says(value=1), says(value=2), says(value=3))
    answers = ask(clients, {2, 0, 1}, timeout=7.0)
    assert list(answers.found.items()) == [(0, 1), (1, 2), (2, 3)]
    assert answers.problems == {}
    assert clients.timeout == 7.0
    assert [(m.metadata.dst_node_id, m.metadata.message_type, m.metadata.ttl) for m in clients.sent] == [
        (client, "query.any", 7.0) for client in range(3)
    ]


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (lambda message: [], "no answer in time"),
        (fails("disk is full"), "error 2: disk is full"),
        (fails("{code}\n{x}"), "error 2: {code}?{x}"),
        (fails(""), "error 2: no reason given"),
        (fails("x" * 10_000), f"error 2: {'x' * 291}..."),
        (holds(), "expected one set of metrics, got 0"),
        (holds("a", "b"), "expected one set of metrics, got 2"),
        (says(other=1), "client 1 has no value"),
    ],
)
def test_a_bad_answer_costs_only_itself(reply: Reply, problem: str) -> None:
    answers = ask(Clients(says(value=1), reply, says(value=3)), range(3))
    assert (answers.found, answers.problems) == ({0: 1, 2: 3}, {1: problem})


def test_what_reading_breaks_is_the_clients_fault() -> None:
    answers = query(Clients(says(value=0)), [0], "query.any", RecordDict(), lambda client, answer: 1 / answer["value"])  # type: ignore[operator]
    assert (answers.found, answers.problems) == ({}, {0: "ZeroDivisionError('division by zero')"})


def test_the_caller_says_how_silence_and_failure_are_put() -> None:
    clients = Clients(fails("boom"), lambda message: [])
    answers = ask(clients, [0, 1], silence="no answer in 3 s", failure="{reason}")
    assert answers.problems == {0: "boom", 1: "no answer in 3 s"}


def test_the_first_good_answer_counts_and_only_those_asked_have_one() -> None:
    def twice(message: Message) -> list[Message]:
        return [*says(value=1)(message), *says(value=2)(message), *fails("boom")(message)]

    clients = Clients(twice, says(value=3))
    clients.extra = says(value=9)(Message(RecordDict(), dst_node_id=1, message_type="query.any"))
    answers = ask(clients, [0])
    assert (answers.found, answers.problems) == ({0: 2}, {}), "they come in reverse: an error, then 2, then 1"


def test_messages_are_made_while_they_are_sent_so_that_none_expires_before_the_wait_is_over() -> None:
    made: list[bool] = []

    class Waiting(Clients):
        def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
            made.append(isinstance(messages, list | tuple))
            return super().send_and_receive(messages, timeout=timeout)

    ask(Waiting(says(value=1)), [0])
    assert made == [False]


@pytest.mark.parametrize(("known", "claimed", "count"), [({}, 5, 5), ({0: 7}, 5, 7), ({0: 7}, None, 7), ({1: 7}, 5, 5)])
def test_a_known_example_count_counts_more_than_a_claim(known: dict[int, int], claimed: int | None, count: int) -> None:
    read = with_count(lambda values, examples: examples, known)
    assert read(0, {} if claimed is None else {"num-examples": claimed}) == count


@pytest.mark.parametrize("claimed", [None, 0, -1, 2.0, 10**9 + 1, [3]])
def test_a_claim_that_is_no_count_is_refused(claimed: object) -> None:
    with pytest.raises(ReplyError, match="num-examples must be a positive whole number"):
        with_count(lambda values, examples: examples, {})(0, {"num-examples": claimed})
