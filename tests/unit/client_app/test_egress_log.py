"""What a real node tells the server of its errors, and what its own log says."""

import logging
import re
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

import tests.messages  # noqa: F401  gives this process the ids that Flower's messages need
from client_app.app import app as client_app
from client_app.mods import egress_log, public_text
from client_app.node import NodeError, OwnDataError, StateDirError, with_mode
from tasks.config import DEFAULTS, ConfigError
from tasks.issues import Issue
from tasks.noise import NoiseError
from tasks.plugins import PluginError
from tasks.protocol import RECORD, HeaderError, MessageHeader, Mode, SerializationError

SECRET = "/srv/clinic/mr smith.png is labelled 7"
OPEN = [NodeError, StateDirError, OwnDataError, HeaderError, SerializationError]
CLOSED = [ValueError, FileNotFoundError, KeyError, NoiseError, PluginError, PermissionError, MemoryError]


def message(kind: str = "query.identity", **record: Any) -> Message:
    values = {**MessageHeader(client=-1, server_round=3).record(), **record}
    header = ConfigRecord({key: value for key, value in values.items() if value is not None})
    return Message(RecordDict({RECORD: header}), dst_node_id=1, message_type=kind)


def context(**node: Any) -> Context:
    return Context(1, 1, node, RecordDict(), {**DEFAULTS, "federation.num-clients": 2})


def fail(error: Exception) -> Any:
    def call(_message: Message, _context: Context) -> Message:
        raise error

    return call


@pytest.mark.parametrize("kind", CLOSED)
def test_of_most_errors_the_server_learns_the_type_and_where_to_ask(
    kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flwr")
    reply = egress_log(message(), context(), fail(kind(SECRET)))
    found = re.fullmatch(rf"{kind.__name__}: see the log of the node \(reference ([0-9a-f]{{8}})\)", reply.error.reason)
    assert found, reply.error.reason
    assert f"Error {found[1]}:" in caplog.text
    assert SECRET in caplog.text, "the operator of the site finds all of it under the reference"
    [line] = [line for line in caplog.messages if line.startswith("To the server")]
    assert line == f"To the server, round 3, query.identity: the error {reply.error.reason!r}"


@pytest.mark.parametrize("kind", OPEN)
def test_errors_made_for_the_coordinator_go_there_in_full(kind: type[Exception]) -> None:
    assert public_text(kind("give it a number of its own")) == f"{kind.__name__}: give it a number of its own"
    assert public_text(ConfigError([Issue("error", "seed", "seed = 'x'")])).startswith(
        "ConfigError: 1 error in the configuration"
    )


def test_two_errors_have_two_references() -> None:
    assert public_text(ValueError("a")) != public_text(ValueError("a"))


def test_in_a_simulation_errors_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_inside(message: Message, context: Context) -> Message:
        return egress_log(message, context, fail(KeyError(SECRET)))

    monkeypatch.setattr("client_app.node.detect_mode", lambda: Mode.SIMULATION)
    with pytest.raises(KeyError, match="smith"):
        with_mode(message(), context(), fail_inside)
    assert SECRET not in fail_inside(message(), context()).error.reason, "the next message is not part of it"


def test_a_path_in_an_error_of_the_real_client_app_stays_at_the_node(caplog: pytest.LogCaptureFixture) -> None:
    noise = {"noise.name": "human", "noise.args": 'path = "labels.csv", column = "a"'}
    asked = context(**{"partition-id": 0, "data-path": "/srv/clinic"})
    reply = client_app(message(), Context(1, 1, asked.node_config, RecordDict(), {**asked.run_config, **noise}))
    assert re.fullmatch(r"PluginError: see the log of the node \(reference \w{8}\)", reply.error.reason)
    assert "there is no label file /srv/clinic/labels.csv" in caplog.text


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
def test_an_envelope_that_is_none_is_refused_with_a_reason(record: dict[str, Any], reason: str) -> None:
    reply = client_app(message(**record), context(**{"partition-id": 0}))
    assert reason in reply.error.reason
    assert len(reply.error.reason) < 1000


def test_a_message_without_an_envelope_is_refused() -> None:
    bare = Message(RecordDict(), dst_node_id=1, message_type="query.identity")
    assert "the message has no client" in client_app(bare, context()).error.reason


def test_an_envelope_survives_the_way() -> None:
    sent = MessageHeader(3, 2, 9, "noisy", '{"seed": 4}', "[]", "run", "", 1)
    assert MessageHeader.of(ConfigRecord(sent.record())) == sent
    assert sent.changes() == {"seed": 4}
