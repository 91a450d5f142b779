"""What nodes say about themselves at the start is checked, and the truth about labels is believed of simulated ones."""

import math
from typing import Any

import pytest
from flwr.app import Message, MetricRecord, RecordDict

from server_app.registration import Client, FederationError, register_clients
from tasks.protocol import MessageHeader, Mode
from tasks.settings import FederationSettings
from tests.messages import PlainDownload


@pytest.fixture(autouse=True)
def plain_parcels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server_app.transport.replies.ReplyDownload", PlainDownload)


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
