"""Several networks and named arrays through whole runs: combined, guarded, resumed, in half precision, refused."""

import re
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from safetensors.numpy import load_file

from server_app.transport.replies import ALLOWANCE, reply_limit
from tasks import protocol
from tasks.config import ConfigError
from tasks.protocol import ARRAYS, OF_STRATEGY, RECORD, Arrays
from tasks.records import byte_array
from tests.integration.conftest import Play, Played
from tests.messages import MODEL, record

METHOD = "tests.integration.two_networks:TwoNetworks"
TWO: dict[str, Any] = {"method__name": METHOD, "audit__enabled": False, "num_server_rounds": 2}
BAD = 2


def sent(message: Message) -> Arrays:
    """The named arrays of a message or a reply."""
    flat = message.content.array_records["arrays"][ARRAYS].numpy()
    return protocol.unpack(flat, str(message.content.config_records[RECORD]["layout"]))


def changed(reply: Message, arrays: Arrays) -> Message:
    flat, layout = protocol.pack(arrays)
    reply.content["arrays"] = ArrayRecord({ARRAYS: byte_array(flat)})
    reply.content[RECORD] = ConfigRecord({"layout": layout})
    return reply


def final(played: Played) -> Arrays:
    arrays = load_file(played.path / "checkpoints" / "last.safetensors")
    return {name: array for name, array in arrays.items() if not name.startswith(OF_STRATEGY)}


class Notes:
    """What was sent and returned, by round and client."""

    def __init__(self) -> None:
        self.down: dict[int, Arrays] = {}
        self.up: dict[int, dict[int, tuple[int, Arrays]]] = {}

    def __call__(self, client: int, message: Message, reply: Message) -> Message:
        if message.metadata.message_type == "train":
            number = int(message.metadata.group_id)
            count = reply.content.metric_records["metrics"]["num-examples"]
            self.down[number] = sent(message)
            self.up.setdefault(number, {})[client] = int(count), sent(reply)  # type: ignore[arg-type]
        return reply

    def mean(self, number: int, name: str) -> np.ndarray:
        counts = np.array([count for count, _ in self.up[number].values()], np.float64)
        stacked = np.stack([arrays[name].astype(np.float64) for _, arrays in self.up[number].values()])
        return np.tensordot(counts / counts.sum(), stacked, 1)


def test_both_networks_and_named_arrays_are_combined_and_travel_on(play: Play):
    notes = Notes()
    played = play(notes, **TWO, strategy__aggregator="mean", strategy__ema=0.0)
    first, second = notes.down[1], notes.down[2]
    weights = [name for name in first if "/" not in name]
    assert [*first] == [*weights, *(f"network-2/{name}" for name in weights), "extra/shares", "extra/seen"]
    assert all(first[name].shape == first[f"network-2/{name}"].shape for name in weights)
    assert not np.array_equal(first[weights[0]], first[f"network-2/{weights[0]}"])  # drawn for itself
    assert first["extra/seen"] == 3
    assert not first["extra/shares"].any()
    for name in second:
        if name != "extra/seen":
            assert np.allclose(second[name], notes.mean(1, name), atol=1e-6), name
    assert second["extra/seen"] == np.rint(notes.mean(1, "extra/seen"))
    end = final(played)
    assert end.keys() == second.keys()
    assert all(np.allclose(end[name], notes.mean(2, name), atol=1e-6) for name in weights)


def test_a_robust_aggregator_holds_for_each_network_and_for_named_arrays(play: Play):
    def hostile(client: int, message: Message, reply: Message) -> Message:
        if client == BAD and message.metadata.message_type == "train":
            arrays = sent(reply)
            far = {name: arrays[name] + arrays[name].dtype.type(1e6) for name in arrays if "/" in name}
            return changed(reply, {**arrays, **far})
        return reply

    options = TWO | {"num_server_rounds": 1, "strategy__aggregator": "median"}
    good, bad = final(play(**options)), final(play(hostile, **options))
    for name in good:
        if "/" in name:
            assert abs(good[name].astype(float) - bad[name].astype(float)).max() < (1 if name != "extra/seen" else 30)


def without(name: str) -> Any:
    return lambda arrays: {key: array for key, array in arrays.items() if key != name}


def filled(name: str, value: float) -> Any:
    return lambda arrays: arrays | {name: np.full_like(arrays[name], value)}


LARGE = np.zeros(2**21, np.float32)
HOSTILE = {
    "array missing": (without("extra/shares"), "arrays missing: extra/shares"),
    "array extra": (lambda arrays: arrays | {"extra/more": np.zeros(1)}, "not expected: extra/more"),
    "what only the server gives": (lambda arrays: arrays | {"given/x": np.zeros(1)}, "not expected: given/x"),
    "array shape": (lambda arrays: arrays | {"extra/shares": np.zeros(9, np.float32)}, r"got float32 \(9,\)"),
    "array dtype": (lambda arrays: arrays | {"extra/seen": np.array(1.0)}, "expected int64"),
    "array nan": (filled("extra/shares", np.nan), "'extra/shares' has values that are not finite"),
    "array inf": (filled("extra/shares", -np.inf), "'extra/shares' has values that are not finite"),
    "array huge integer": (filled("extra/seen", 2**60), "'extra/seen'.*not below"),
    "array of absurd size": (lambda arrays: arrays | {"extra/shares": LARGE}, "extra/shares.*got|too large"),
    "network missing": (without("network-2/1.weight"), "arrays missing: network-2/1.weight"),
    "network more": (lambda arrays: arrays | {"network-3/1.weight": np.zeros(1)}, "not expected: network-3/1.weight"),
    "network nan": (filled("network-2/1.weight", np.nan), "'network-2/1.weight' has values that are not finite"),
    "network inf": (filled("network-2/1.bias", np.inf), "'network-2/1.bias' has values that are not finite"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_forms_are_quarantined_and_leave_no_trace(play: Play, kind: str):
    change, reason = HOSTILE[kind]

    def hostile(client: int, message: Message, reply: Message) -> Message:
        bad = client == BAD and message.metadata.message_type == "train"
        return changed(reply, change(sent(reply))) if bad else reply

    def silent(client: int, message: Message, reply: Message) -> Message | None:
        return None if client == BAD and message.metadata.message_type == "train" else reply

    options = TWO | {"num_server_rounds": 1, "strategy__aggregator": "mean"}
    bad, without_it = play(hostile, **options), play(silent, **options)
    assert bad.weights() == without_it.weights()
    (said,) = [line["quarantine"] for line in bad.lines("clients.jsonl") if line.get("quarantine")]
    assert re.search(reason, said)


@pytest.mark.parametrize("wire", ["float32", "float16"])
def test_a_resumed_run_equals_one_that_was_not_interrupted(play: Play, wire: str):
    options = TWO | {
        "strategy__server_optimizer": "fedadam",
        "federation__fraction_train": 0.5,
        "federation__wire": wire,
    }
    whole = play(**options | {"num_server_rounds": 4})
    half = play(**options)
    before = final(half)
    again = play(**options | {"num_server_rounds": 4}, run__resume=str(half.path))
    assert again.metrics == whole.metrics
    assert again.weights() == whole.weights()
    name = next(name for name in final(whole) if name.startswith("network-2/"))
    assert not np.array_equal(before[name], final(whole)[name])


def test_in_half_precision_networks_are_rounded_and_named_arrays_are_not(play: Play):
    layouts = {}

    def look(client: int, message: Message, reply: Message) -> Message:
        if message.metadata.message_type == "train":
            header = str(reply.content.config_records[RECORD]["layout"])
            layouts.update({slot.name: slot.wire for slot in protocol.read_header(header)})
        return reply

    play(look, **TWO, federation__wire="bfloat16")
    assert {wire for name, wire in layouts.items() if name.startswith("extra/")} == {""}
    assert {wire for name, wire in layouts.items() if not name.startswith("extra/")} == {"bfloat16"}


def test_an_ensemble_is_evaluated_as_the_mean_of_both(play: Play):
    one = play(**TWO | {"num_server_rounds": 1})
    both = play(**TWO | {"num_server_rounds": 1, "method__name": "tests.integration.two_networks:Ensemble"})
    assert all(np.array_equal(array, final(both)[name]) for name, array in final(one).items())
    assert one.metrics[-1]["loss"] != both.metrics[-1]["loss"]


def test_a_method_that_returns_too_little_says_what_is_missing(play: Play):
    with pytest.raises(ConfigError, match="must return the named arrays seen, shares, got shares"):
        play(**TWO | {"method__name": "tests.integration.two_networks:Forgetful"})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"strategy__name": "flower-fedavg"}, "sends 2 networks, and strategy flower-fedavg combines a model"),
        (
            {"privacy__mode": "local"},
            "sends 2 networks, and the clipping and noise of privacy.mode = 'local' are made for one model",
        ),
    ],
)
def test_what_cannot_combine_them_is_refused_before_the_start(play: Play, changes: dict[str, str], reason: str):
    with pytest.raises(ConfigError, match=reason):
        play(**TWO, **changes)


@pytest.mark.parametrize("name", ["noise-partition", "fedcorr"])
def test_the_strategies_that_ask_questions_combine_them_too(play: Play, name: str):
    args = {"noise-partition": "warmup_rounds = 1", "fedcorr": "iterations = 1, clients_per_step = 4"}[name]
    notes = Notes()
    options = TWO | {"strategy__name": name, "strategy__args": args, "strategy__aggregator": "mean"}
    if name == "fedcorr":
        with pytest.raises(ConfigError, match="asks what the method"):
            play(notes, **options)
        return
    played = play(notes, **options)
    assert np.allclose(final(played)["extra/shares"], notes.mean(2, "extra/shares"), atol=1e-6)


def test_an_attack_changes_all_networks(play: Play):
    notes = Notes()
    play(notes, **TWO | {"num_server_rounds": 1}, attack__name="sign-flip", attack__share=1.0)
    hostile = notes.up[1]
    notes = Notes()
    play(notes, **TWO | {"num_server_rounds": 1})
    for name, before in notes.down[1].items():
        flipped, own = hostile[1][1][name] - before, notes.up[1][1][1][name] - before
        expected = own if name.startswith("extra/") else -own
        assert np.allclose(flipped, expected, atol=1e-6), name


def test_a_reply_as_large_as_what_was_sent_fits_and_no_larger():
    def limit(arrays: Arrays) -> int:
        return reply_limit(Message(RecordDict({"arrays": record(arrays)}), dst_node_id=1, message_type="train"))

    extra, given = ({f"{kind}/x": np.zeros(10_000, np.float32)} for kind in ("extra", "given"))
    assert limit(MODEL | given) == limit(MODEL)
    assert limit(MODEL | extra) > limit(MODEL) + 40_000
    assert limit({}) == ALLOWANCE
