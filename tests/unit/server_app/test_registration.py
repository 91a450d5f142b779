"""What nodes say about themselves at the start is checked, and the truth about labels is believed of simulated ones."""

import logging
import math
from typing import Any

import pytest
from flwr.app import Error, Message, MetricRecord, RecordDict

from server_app.registration import Client, FederationError, Registration, register_clients
from tasks.protocol import MessageHeader, Mode
from tasks.settings import FederationSettings
from tests.messages import PlainDownload


@pytest.fixture(autouse=True)
def plain_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server_app.transport.replies.ReplyDownload", PlainDownload)


class Sites:
    """A grid whose nodes each say what they are told to."""

    def __init__(self, *fingerprints: object) -> None:
        self._says = {100 + client: {"client": client, "data-fingerprint": f} for client, f in enumerate(fingerprints)}
        self._replies: list[Message] = []

    def get_node_ids(self) -> list[int]:
        return list(self._says)

    def push_messages(self, messages: list[Message]) -> list[str]:
        for number, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = str(number)
            facts = MetricRecord({"num-examples": 5, **self._says[message.metadata.dst_node_id]})  # type: ignore[dict-item]
            self._replies.append(Message(RecordDict({"metrics": facts}), reply_to=message))
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids: list[str]) -> list[Message]:
        found = [reply for reply in self._replies if reply.metadata.reply_to_message_id in message_ids]
        self._replies = [reply for reply in self._replies if reply not in found]
        return found


def roll(*fingerprints: object) -> Registration:
    options = FederationSettings(num_clients=len(fingerprints), min_replies=len(fingerprints))
    return register_clients(Sites(*fingerprints), options, MessageHeader(client=-1), Mode.DEPLOYMENT)  # type: ignore[arg-type]


def test_clients_with_the_same_data_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "flwr"):
        registration = roll(7, 8, 7, 9, 8, 7)
    assert registration.same_data() == [(0, 2, 5), (1, 4)]
    told = [line for line in caplog.messages if "exactly the same data" in line]
    assert [line.split(" have")[0] for line in told] == ["Clients 0, 2, 5", "Clients 1, 4"]


def test_clients_that_say_nothing_about_their_data_are_not_compared() -> None:
    assert Registration((Client(0, 100, 5), Client(1, 101, 5))).same_data() == []


@pytest.mark.parametrize("mark", [-1, 2**48, 0.5, [7]])
def test_what_is_no_fingerprint_is_refused(mark: object) -> None:
    with pytest.raises(FederationError, match="its data-fingerprint must be a whole number of 48 bits"):
        roll(7, mark)


def failed(reply: Message, code: int, reason: str) -> Message:
    """An error in place of a reply; the SuperLink itself is named as the sender."""
    asked = Message(RecordDict(), 100, "query.identity")
    asked.metadata.__dict__["_message_id"] = reply.metadata.reply_to_message_id
    error = Message(Error(code, reason), reply_to=asked)
    error.metadata.__dict__["_src_node_id"] = 1
    return error


def test_a_node_whose_message_has_expired_is_one_without_an_answer() -> None:
    class Late(Sites):
        def pull_messages(self, message_ids: list[str]) -> list[Message]:
            return [failed(reply, 3, "unavailable") for reply in super().pull_messages(message_ids)]

    options = FederationSettings(num_clients=1, min_replies=1, round_timeout=1e-9)
    with pytest.raises(FederationError, match=r"0 of 1 clients are ready(.|\n)*node 100: no answer in 1e-09 s"):
        register_clients(Late(7), options, MessageHeader(client=-1), Mode.DEPLOYMENT)  # type: ignore[arg-type]


def test_an_error_is_charged_to_the_node_that_was_asked_whoever_is_named_as_its_sender() -> None:
    class Lost(Sites):
        def pull_messages(self, message_ids: list[str]) -> list[Message]:
            replies = super().pull_messages(message_ids)
            return [failed(reply, 5, "lost") if reply.metadata.src_node_id == 101 else reply for reply in replies]

    options = FederationSettings(num_clients=2, min_replies=2)
    with pytest.raises(FederationError, match=r"1 of 2 clients are ready(.|\n)*  - node 101: lost$"):
        register_clients(Lost(7, 8), options, MessageHeader(client=-1), Mode.DEPLOYMENT)  # type: ignore[arg-type]


class OneNode:
    """A grid with a single node that answers what it is told to."""

    def __init__(self, **facts: Any) -> None:
        values = {"client": 0, "num-examples": 10, **{key.replace("_", "-"): value for key, value in facts.items()}}
        self._metrics = MetricRecord({key: value for key, value in values.items() if value is not None})

    def get_node_ids(self) -> list[int]:
        return [77]

    def push_messages(self, messages: list[Message]) -> list[str]:
        [message] = messages
        message.metadata.__dict__["_message_id"] = "m"
        self._reply = Message(RecordDict({"metrics": self._metrics}), reply_to=message)
        return ["m"]

    def pull_messages(self, message_ids: list[str]) -> list[Message]:
        return [self._reply]


def only_client(mode: Mode, **facts: Any) -> Client:
    options = FederationSettings(num_clients=1, min_replies=1, round_timeout=5.0)
    [client] = register_clients(OneNode(**facts), options, MessageHeader(client=-1), mode).clients  # type: ignore[arg-type]
    return client


TRUTH = {"noise_rate": 0.25, "class_counts": [4, 6]}


def test_a_simulated_client_tells_the_truth_about_its_labels() -> None:
    assert only_client(Mode.SIMULATION, **TRUTH) == Client(0, 77, 10, 0.25, (4, 6))


@pytest.mark.parametrize("claims", [TRUTH, {"class_counts": [1e300]}, {"noise_rate": -5.0}])
def test_a_real_node_knows_no_truth_whatever_it_claims(claims: dict[str, Any]) -> None:
    assert only_client(Mode.DEPLOYMENT, **claims) == Client(0, 77, 10, None, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"client": None},
        {"client": 1},
        {"client": -2},
        {"client": 0.0},
        {"client": [0]},
        {"num_examples": None},
        {"num_examples": 0},
        {"num_examples": 10**9 + 1},
        {"num_examples": 10.0},
        {"num_examples": [10]},
        {"noise_rate": 1.5},
        {"noise_rate": math.nan},
        {"noise_rate": [0.5]},
        {"class_counts": []},
        {"class_counts": 10},
        {"class_counts": [11, -1]},
        {"class_counts": [4, 5]},
        {"class_counts": [9.5, 0.5]},
        {"class_counts": [math.inf]},
        {"class_counts": [math.nan]},
    ],
)
def test_a_wrong_answer_is_named_and_nothing_breaks(wrong: dict[str, Any]) -> None:
    with pytest.raises(FederationError, match=r"0 of 1 clients are ready.*\n  - node 77: its .* must be"):
        only_client(Mode.SIMULATION, **wrong)
