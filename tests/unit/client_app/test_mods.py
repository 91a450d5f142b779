"""Mods of the ClientApp: what the server learns of errors, packing, and privacy."""

import logging
import re
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from torch import nn

import tests.messages  # noqa: F401  gives this process the ids that Flower's messages need
from client_app.app import app as client_app
from client_app.mods import contents, egress_log, named_arrays, public_text, with_privacy
from client_app.node import NodeError, OwnDataError, StateDirError, with_mode
from client_app.session import Session
from tasks import protocol
from tasks.config import DEFAULTS, ConfigError
from tasks.issues import Issue
from tasks.noise import NoiseError
from tasks.plugins import PluginError
from tasks.protocol import ARRAYS, RECORD, HeaderError, MessageHeader, Mode, SerializationError
from tasks.records import view_record, views
from tasks.weights import load_arrays, model_arrays
from tasks.wire import pack_half, wires_of
from tests.messages import record

SECRET = "/srv/clinic/mr smith.png is labelled 7"
SIZE = 200_000
START = {"a": np.zeros((SIZE // 2, 2), np.float32), "b": np.full(7, 3, np.float32)}
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


def test_the_egress_log_names_everything_that_is_sent() -> None:
    content = RecordDict(
        {
            "arrays": ArrayRecord({"flat": Array(np.zeros(250_000, np.float32))}),
            "metrics": MetricRecord({"num-examples": 12, "class-losses": [0.1, 0.2, 0.3]}),
            "winnow": ConfigRecord(
                {"layout": '[["w",[2],"float32"],["network-2/w",[2],"float32"],["extra/centroids",[3,4],"float32"]]'}
            ),
            "other": ConfigRecord({"flag": True, "note": "abc"}),
        }
    )
    assert contents(content) == (
        "model (1.0 MB), in it 1 further networks, in it array centroids (3, 4), "
        "num-examples = 12, class-losses (3 values), other.flag = True, other.note (3 values)"
    )


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


def training_context(**settings: str | float) -> Context:
    given = {f"privacy.{name.replace('_', '-')}": value for name, value in settings.items()}
    return Context(1, 1, {"partition-id": 0}, RecordDict(), given)  # type: ignore[arg-type]


def training_header(**changes: object) -> ConfigRecord:
    return ConfigRecord(MessageHeader(client=0, server_round=1, **changes).record())  # type: ignore[arg-type]


def training_message(config: dict[str, float] | None = None, **changes: object) -> Message:
    records = {"arrays": record(START), "config": ConfigRecord({**(config or {})}), RECORD: training_header(**changes)}
    return Message(RecordDict({**records}), dst_node_id=1, message_type="train")


def private(message: Message, context: Context, train: Callable[[Session], Message]) -> Message:
    """Train with the configured privacy."""
    return with_privacy(Session.open(message, context), train)


def adds(step: float) -> Callable[[Session], Message]:
    """A client whose training adds the same number to every parameter."""

    def train(session: Session) -> Message:
        message = session.message
        assert RECORD in message.content
        arrays = {name: array.numpy() + np.float32(step) for name, array in message.content["arrays"].items()}
        content = RecordDict({"arrays": record(arrays), "metrics": MetricRecord({"num-examples": 1})})
        return Message(content, reply_to=message)

    return train


def update(reply: Message) -> np.ndarray:
    """What came back minus what was sent, as one vector."""
    assert not reply.has_error(), reply.error
    arrays = next(iter(reply.content.array_records.values()))
    return np.concatenate([(arrays[name].numpy() - start).reshape(-1) for name, start in START.items()]).astype(float)


def test_without_privacy_a_reply_is_left_alone():
    reply = private(training_message(), training_context(mode="none"), adds(1.0))
    np.testing.assert_array_equal(update(reply), 1)


def test_local_privacy_clips_and_adds_noise_of_the_stated_scale():
    """Sensitivity 2 C: sigma = 2 C sqrt(2 ln(1.25 / delta)) / epsilon, here with C = 0.5, epsilon 2, delta 0.001."""
    options = {"mode": "local", "clipping_norm": 0.5, "epsilon": 2.0, "delta": 1e-3}
    np.random.seed(0)
    found = update(private(training_message(), training_context(**options), adds(10.0)))
    sigma = 2 * 0.5 * np.sqrt(2 * np.log(1.25 / 1e-3)) / 2.0
    assert found.std() == pytest.approx(sigma, rel=0.01)  # six standard errors
    clipped = np.full(SIZE + 7, 0.5 / np.sqrt(SIZE + 7))
    assert found.mean() == pytest.approx(clipped[0], abs=5 * sigma / np.sqrt(SIZE))
    quantiles = np.quantile(found / sigma, [0.0228, 0.1587, 0.8413, 0.9772])
    np.testing.assert_allclose(quantiles, [-2, -1, 1, 2], atol=0.03)


def test_privacy_noise_of_a_real_client_cannot_be_predicted_and_that_of_a_simulated_one_can(
    monkeypatch: pytest.MonkeyPatch,
):
    def noise() -> np.ndarray:
        np.random.seed(1)
        return update(
            with_mode(training_message(), training_context(mode="local"), lambda *asked: private(*asked, adds(10.0)))
        )

    assert np.any(noise() != noise())
    monkeypatch.setattr("client_app.node.detect_mode", lambda: Mode.SIMULATION)
    np.testing.assert_array_equal(noise(), noise())


@pytest.mark.parametrize("mode", ["client-fixed", "client-adaptive"])
@pytest.mark.parametrize(("step", "norm"), [(10.0, 0.25), (1e-5, 1e-5 * np.sqrt(SIZE + 7))])
def test_a_client_clips_at_the_norm_that_the_server_sends(mode: str, step: float, norm: float):
    reply = private(training_message({"clipping_norm": 0.25}), training_context(mode=mode), adds(step))
    assert np.linalg.norm(update(reply)) == pytest.approx(norm, rel=0.02)  # float32: 3 + 1e-5 is rounded
    if mode == "client-adaptive":
        assert reply.content["metrics"]["norm_bit"] == (step == 10.0)


def test_a_variant_can_switch_privacy_on_by_its_message():
    overrides = '{"privacy.mode": "client-fixed"}'
    reply = private(
        training_message({"clipping_norm": 0.25}, overrides=overrides), training_context(mode="none"), adds(1.0)
    )
    assert np.linalg.norm(update(reply)) == pytest.approx(0.25, rel=1e-3)


def test_without_the_wrapper_at_the_server_a_client_does_not_answer_unclipped():
    assert private(training_message(), training_context(mode="client-fixed"), adds(1.0)).has_error()


def test_training_that_changes_nothing_is_an_error_with_a_reason():
    with pytest.raises(ValueError, match="exactly as it came"):
        private(training_message(), training_context(mode="local"), adds(0.0))


def test_inside_the_client_arrays_have_names_and_outside_they_are_one(monkeypatch: pytest.MonkeyPatch):
    arrays = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "steps": np.array(3, np.int64)}
    flat, layout = protocol.pack(arrays)
    content = RecordDict({"arrays": ArrayRecord({ARRAYS: Array(flat)}), RECORD: training_header(layout=layout)})
    sent = Message(content, dst_node_id=1, message_type="train")

    def train(inner: Message, context: Context) -> Message:
        named = inner.content["arrays"]
        assert {name: array.numpy().tolist() for name, array in named.items()} == {
            name: array.tolist() for name, array in arrays.items()
        }
        return Message(RecordDict({"arrays": named, "metrics": MetricRecord({"loss": 0.5})}), reply_to=inner)

    reply = named_arrays(sent, training_context(), train)
    assert reply.content["arrays"][ARRAYS].numpy().tobytes() == flat.tobytes()
    assert reply.content[RECORD] == ConfigRecord({"layout": layout})
    assert reply.content["metrics"] == MetricRecord({"loss": 0.5})
    assert sent.content["arrays"][ARRAYS].numpy().tobytes() == flat.tobytes()


@pytest.mark.parametrize(("wire", "sent"), [("float32", 1.0), ("float16", 0.5)])
def test_a_model_is_copied_once_on_its_way_out_and_not_at_all_on_its_way_in(wire: str, sent: float):
    model = nn.Sequential(*[nn.Linear(200, 200, bias=False) for _ in range(20)])
    arrays = model_arrays(model)
    size = sum(array.nbytes for array in arrays.values())
    flat, layout, _ = pack_half(arrays, wires_of(arrays, wire))
    content = RecordDict({"arrays": ArrayRecord({ARRAYS: flat}), RECORD: training_header(layout=layout)})

    def train(inner: Message, context: Context) -> Message:
        received = inner.content.array_records["arrays"]
        load_arrays(model, views(received))
        tracemalloc.reset_peak()
        return Message(RecordDict({"arrays": view_record(arrays), "metrics": MetricRecord({})}), reply_to=inner)

    tracemalloc.start()
    reply = named_arrays(Message(content, dst_node_id=1, message_type="train"), training_context(), train)
    held, peak = (count / size for count in tracemalloc.get_traced_memory())
    tracemalloc.stop()
    assert reply.content.array_records["arrays"].count_bytes() / size == pytest.approx(sent, abs=0.01)
    assert held == pytest.approx(sent, abs=0.1)
    assert peak < sent + 0.6, "bytes, and what is made for one tensor or for half of the bits"


def test_messages_without_a_model_pass_as_they_are():
    sent = Message(RecordDict({RECORD: training_header()}), dst_node_id=1, message_type="query.identity")
    answer = RecordDict({"metrics": MetricRecord({"client": 0})})
    reply = named_arrays(sent, training_context(), lambda inner, _: Message(answer, reply_to=inner))
    assert dict(reply.content) == dict(answer)
