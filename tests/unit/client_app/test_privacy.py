from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from client_app.app import app
from client_app.mods import named_arrays, with_privacy
from client_app.node import with_mode
from client_app.session import Session
from tasks import protocol
from tasks.client_data import load_task
from tasks.config import parse
from tasks.protocol import ARRAYS, RECORD, MessageHeader, Mode
from tests.messages import record

SIZE = 200_000
START = {"a": np.zeros((SIZE // 2, 2), np.float32), "b": np.full(7, 3, np.float32)}


def context(**settings: str | float) -> Context:
    given = {f"privacy.{name.replace('_', '-')}": value for name, value in settings.items()}
    return Context(1, 1, {"partition-id": 0}, RecordDict(), given)  # type: ignore[arg-type]


def header(**changes: object) -> ConfigRecord:
    return ConfigRecord(MessageHeader(client=0, server_round=1, **changes).record())  # type: ignore[arg-type]


def message(config: dict[str, float] | None = None, **changes: object) -> Message:
    records = {"arrays": record(START), "config": ConfigRecord({**(config or {})}), RECORD: header(**changes)}
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
    reply = private(message(), context(mode="none"), adds(1.0))
    np.testing.assert_array_equal(update(reply), 1)


def test_local_privacy_clips_and_adds_noise_of_the_stated_scale():
    """Sensitivity 2 C: sigma = 2 C sqrt(2 ln(1.25 / delta)) / epsilon, here with C = 0.5, epsilon 2, delta 0.001."""
    options = {"mode": "local", "clipping_norm": 0.5, "epsilon": 2.0, "delta": 1e-3}
    np.random.seed(0)
    found = update(private(message(), context(**options), adds(10.0)))
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
        return update(with_mode(message(), context(mode="local"), lambda *asked: private(*asked, adds(10.0))))

    assert np.any(noise() != noise())
    monkeypatch.setattr("client_app.node.detect_mode", lambda: Mode.SIMULATION)
    np.testing.assert_array_equal(noise(), noise())


@pytest.mark.parametrize("mode", ["client-fixed", "client-adaptive"])
@pytest.mark.parametrize(("step", "norm"), [(10.0, 0.25), (1e-5, 1e-5 * np.sqrt(SIZE + 7))])
def test_a_client_clips_at_the_norm_that_the_server_sends(mode: str, step: float, norm: float):
    reply = private(message({"clipping_norm": 0.25}), context(mode=mode), adds(step))
    assert np.linalg.norm(update(reply)) == pytest.approx(norm, rel=0.02)  # float32: 3 + 1e-5 is rounded
    if mode == "client-adaptive":
        assert reply.content["metrics"]["norm_bit"] == (step == 10.0)


def test_an_arm_can_switch_privacy_on_by_its_message():
    overrides = '{"privacy.mode": "client-fixed"}'
    reply = private(message({"clipping_norm": 0.25}, overrides=overrides), context(mode="none"), adds(1.0))
    assert np.linalg.norm(update(reply)) == pytest.approx(0.25, rel=1e-3)


def test_without_the_wrapper_at_the_server_a_client_does_not_answer_unclipped():
    assert private(message(), context(mode="client-fixed"), adds(1.0)).has_error()


def test_training_that_changes_nothing_is_an_error_with_a_reason():
    with pytest.raises(ValueError, match="exactly as it came"):
        private(message(), context(mode="local"), adds(0.0))


def test_inside_the_client_arrays_have_names_and_outside_they_are_one(monkeypatch: pytest.MonkeyPatch):
    arrays = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "steps": np.array(3, np.int64)}
    flat, layout = protocol.pack(arrays)
    content = RecordDict({"arrays": ArrayRecord({ARRAYS: Array(flat)}), RECORD: header(layout=layout)})
    sent = Message(content, dst_node_id=1, message_type="train")

    def train(inner: Message, context: Context) -> Message:
        named = inner.content["arrays"]
        assert {name: array.numpy().tolist() for name, array in named.items()} == {
            name: array.tolist() for name, array in arrays.items()
        }
        return Message(RecordDict({"arrays": named, "metrics": MetricRecord({"loss": 0.5})}), reply_to=inner)

    reply = named_arrays(sent, context(), train)
    assert reply.content["arrays"][ARRAYS].numpy().tobytes() == flat.tobytes()
    assert reply.content[RECORD] == ConfigRecord({"layout": layout})
    assert reply.content["metrics"] == MetricRecord({"loss": 0.5})
    assert sent.content["arrays"][ARRAYS].numpy().tobytes() == flat.tobytes()


def test_messages_without_a_model_pass_as_they_are():
    sent = Message(RecordDict({RECORD: header()}), dst_node_id=1, message_type="query.identity")
    answer = RecordDict({"metrics": MetricRecord({"client": 0})})
    reply = named_arrays(sent, context(), lambda inner, _: Message(answer, reply_to=inner))
    assert dict(reply.content) == dict(answer)


def test_the_settings_are_parsed_once_a_message(monkeypatch: pytest.MonkeyPatch):
    parsed: list[dict[str, object]] = []
    monkeypatch.setattr("client_app.session.parse", lambda flat: parsed.append(flat) or parse(flat))
    monkeypatch.setattr("client_app.node.detect_mode", lambda: Mode.SIMULATION)
    quick = {"model.name": "mlp", "train.epochs": 1, "federation.num-clients": 4, "privacy.mode": "local"}
    model = load_task(parse({}).task).build_model("mlp", "")
    flat, layout = protocol.pack({name: tensor.numpy() for name, tensor in model.state_dict().items()})
    content = RecordDict({"arrays": ArrayRecord({ARRAYS: Array(flat)}), RECORD: header(layout=layout, num_rounds=1)})
    node = Context(1, 1, {"partition-id": 0, "num-partitions": 4}, RecordDict(), quick)  # type: ignore[arg-type]
    reply = app(Message(content, dst_node_id=1, message_type="train"), node)
    assert not reply.has_error()
    assert len(parsed) == 1
