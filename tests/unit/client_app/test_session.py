"""Session: message headers that are refused with a reason, and settings that are parsed once a message."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict

import tests.messages  # noqa: F401  gives this process the ids that Flower's messages need
from client_app.app import app as client_app
from client_app.attacks import Alie
from client_app.session import Session
from tasks import protocol
from tasks.client_data import load_task
from tasks.config import DEFAULTS, parse
from tasks.protocol import ARRAYS, RECORD, MessageHeader, Mode
from tasks.settings import Settings


def message(**record: Any) -> Message:
    values = {**MessageHeader(client=-1, server_round=3).record(), **record}
    header = ConfigRecord({key: value for key, value in values.items() if value is not None})
    return Message(RecordDict({RECORD: header}), dst_node_id=1, message_type="query.identity")


def context(**node: Any) -> Context:
    return Context(1, 1, node, RecordDict(), {**DEFAULTS, "federation.num-clients": 2})


def test_a_trainer_that_cannot_be_had_as_the_operator_has_it_set_is_an_error() -> None:
    reply = client_app(message(client=0), context(**{"trainer-idle": "an hour"}))
    assert reply.error.reason == (
        "NodeError: node-config: trainer-idle = 'an hour': expected minutes, 0 for no trainer process, up to a million"
    )


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"client": None}, "the message has no client that is a whole number, got None"),
        ({"client": 1.5}, "the message has no client that is a whole number, got 1.5"),
        ({"client": -2}, "client of the message must lie in -1..2147483647, got -2"),
        ({"server_round": -1}, "server_round of the message must lie in 0"),
        ({"num_rounds": 2**40}, "num_rounds of the message must lie in 0"),
        ({"run_name": b"x"}, "the message has no run_name that is a text, got b'x'"),
        ({"layout": ["x" * 1000]}, "the message has no layout that is a text, got ['xxx"),
        ({"overrides": "no JSON"}, "the overridden settings of the message are not JSON"),
        ({"overrides": "[" * 100_000}, "the overridden settings of the message are not JSON"),
        ({"overrides": "[1]"}, "the overridden settings of the message are not a JSON object"),
        ({"overrides": '{"seed": "x"}'}, "seed = 'x': must be a whole number"),
        ({"overrides": '{"../x": 1}'}, "unknown key '../x'"),
        ({"overrides": '{"seed": {"a": 1}}'}, "must be a whole number"),
    ],
)
def test_a_message_header_that_is_none_is_refused_with_a_reason(record: dict[str, Any], reason: str) -> None:
    reply = client_app(message(**record), context(**{"partition-id": 0}))
    assert reason in reply.error.reason
    assert len(reply.error.reason) < 1000


def test_a_message_without_a_header_is_refused() -> None:
    bare = Message(RecordDict(), dst_node_id=1, message_type="query.identity")
    assert "the message has no client" in client_app(bare, context()).error.reason


def test_a_message_header_survives_the_way() -> None:
    sent = MessageHeader(3, 2, 9, "noisy", '{"seed": 4}', "[]", "run", "", 1)
    assert MessageHeader.of(ConfigRecord(sent.record())) == sent
    assert sent.changes() == {"seed": 4}


def test_the_settings_are_parsed_once_a_message(monkeypatch: pytest.MonkeyPatch):
    parsed: list[dict[str, object]] = []
    monkeypatch.setattr("client_app.session.parse", lambda flat: parsed.append(flat) or parse(flat))
    monkeypatch.setattr("client_app.node.detect_mode", lambda: Mode.SIMULATION)
    quick = {"model.name": "mlp", "train.epochs": 1, "federation.num-clients": 4, "privacy.mode": "local"}
    model = load_task(parse({}).task).build_model("mlp", "")
    flat, layout = protocol.pack({name: tensor.numpy() for name, tensor in model.state_dict().items()})
    record = MessageHeader(client=0, server_round=1, num_rounds=1, layout=layout).record()
    content = RecordDict({"arrays": ArrayRecord({ARRAYS: Array(flat)}), RECORD: ConfigRecord(record)})
    node = Context(1, 1, {"partition-id": 0, "num-partitions": 4}, RecordDict(), quick)  # type: ignore[arg-type]
    reply = client_app(Message(content, dst_node_id=1, message_type="train"), node)
    assert not reply.has_error()
    assert len(parsed) == 1


@pytest.mark.parametrize(("mode", "told"), [(Mode.SIMULATION, True), (Mode.DEPLOYMENT, False)])
def test_only_a_simulated_client_builds_what_the_server_names(mode: Mode, told: bool) -> None:
    header = MessageHeader(client=0, rule="client_app.attacks:Alie")
    unread: Any = None
    session = Session(unread, unread, header, Settings(), unread, torch.device("cpu"), mode)
    assert session.build_rule() is (Alie if told else None)
    assert replace(session, header=MessageHeader(client=0)).build_rule() is None
