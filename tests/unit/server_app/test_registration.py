"""What nodes say about their data at the start: equal data is named, and what is no fingerprint is refused."""

import logging

import pytest
from flwr.app import Error, Message, MetricRecord, RecordDict

from server_app.registration import Client, FederationError, Registration, register_clients
from tasks.protocol import MessageHeader, Mode
from tasks.settings import FederationSettings
from tests.messages import PlainDownload


@pytest.fixture(autouse=True)
def plain_parcels(monkeypatch: pytest.MonkeyPatch) -> None:
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
