"""Messages about odd models, one after the other in one process: each answer is that of a process that is new."""

from collections.abc import Iterator
from typing import Any

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict

import tests.messages  # noqa: F401  gives this process the ids that Flower's messages need
from client_app.app import app as client_app
from server_app.evaluation import CentralEvaluation
from tasks import fresh_model, protocol
from tasks.config import parse
from tasks.protocol import ARRAYS, RECORD, MessageHeader, Mode

KINDS = ["Tied", "Counter", "Running", "LazyCache", "RandomFeatures", "Hooked", "OldWeightNorm", "Dropped", "Normed"]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's older weight_norm


@pytest.fixture(autouse=True)
def simulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("client_app.node.detect_mode", lambda: Mode.SIMULATION)
    yield
    fresh_model._source.cache_clear()


def config(kind: str, **changes: Any) -> dict[str, Any]:
    clients = {"federation.num-clients": 4, "partition.args": "alpha = 1.0, min_size = 30"}
    return {**clients, "model.name": f"tests.odd_models:{kind}", "train.epochs": 1, "train.threads": 1, **changes}


def ask(flat: dict[str, Any], kind: str, client: int) -> Message:
    """Send one message about the initial model."""
    array, layout = protocol.pack(CentralEvaluation(parse(flat)).initial_arrays())
    record = MessageHeader(client=client, server_round=1, num_rounds=1, layout=layout).record()
    content = RecordDict({"arrays": ArrayRecord({ARRAYS: Array(array)}), RECORD: ConfigRecord(record)})
    node = Context(1, 1, {"partition-id": client, "num-partitions": 4}, RecordDict(), flat)
    reply = client_app(Message(content, dst_node_id=1, message_type=kind), node)
    assert not reply.has_error(), reply.error.reason
    return reply


def said(reply: Message) -> tuple[bytes, ...]:
    """Everything in a reply, as bytes."""
    arrays = [array.data for record in reply.content.array_records.values() for array in record.values()]
    return (*arrays, repr(sorted(reply.content.metric_records["metrics"].items())).encode())


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_does_not_depend_on_who_was_asked_before(kind: str):
    flat = config(kind)
    questions = ("train", "evaluate", "query.profile")
    alone = {}
    for question in questions:
        fresh_model._source.cache_clear()  # as in a new process
        alone[question] = said(ask(flat, question, 1))
    for before in questions:
        ask(flat, before, 2)
        for question in questions:
            assert said(ask(flat, question, 1)) == alone[question], f"{question} after {before}"


@pytest.mark.parametrize("attack", ["sign-flip", "alie"])
def test_hostile_clients_train_fresh_models_too(attack: str):
    args = "z = 1.0" if attack == "alie" else ""
    flat = config("Running", **{"attack.name": attack, "attack.args": args, "attack.share": 1.0})
    alone = said(ask(flat, "train", 1))
    ask(flat, "train", 2)
    assert said(ask(flat, "train", 1)) == alone


@pytest.mark.parametrize("kind", ["Counter", "Running", "LazyCache", "Hooked"])
def test_the_servers_evaluation_measures_a_fresh_model(kind: str):
    evaluation = CentralEvaluation(parse(config(kind)))
    arrays = evaluation.initial_arrays()
    assert evaluation.measure(arrays) == evaluation.measure(arrays)
