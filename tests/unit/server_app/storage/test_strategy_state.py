"""What a strategy keeps between rounds comes back from a checkpoint equal, with its types; what cannot is named."""

import enum
import functools
import json
import logging
import math
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import strategy as stock
from flwr.serverapp.strategy import FedAvg, FedAvgM, FedXgbBagging, FedXgbCyclic, Strategy
from hypothesis import given
from hypothesis import strategies as st

from server_app.callbacks.checkpoints import Checkpoints, unsaved_issues
from server_app.registration import Registration
from server_app.state import RunState
from server_app.storage.checkpoints import Checkpoint, CheckpointError
from server_app.storage.run_directory import RunDirectory
from server_app.storage.strategy_state import restore_strategy, strategy_state, unsaved_attributes
from server_app.strategy import STRATEGIES, build_strategy
from server_app.validation.config import check
from strategies.aggregators import AGGREGATORS
from strategies.base import FlowerStrategyAdapter
from strategies.robust import RobustStrategy
from strategies.server_optimizers import SERVER_OPTIMIZERS
from strategies.validation import to_numpy
from tasks.protocol import Mode
from tasks.settings import Settings
from tests.issues import warning_lines
from tests.messages import MODEL, answer, record

STOCK = [entry.name for entry in STRATEGIES.entries() if entry.name.startswith("flower-")]
ARGS = {
    "flower-qfedavg": 'client_learning_rate = 0.1, train_loss_key = "train-loss"',
    "flower-fedavgm": "server_momentum = 0.9",
}


def through_a_file(strategy: Any, fresh: Any, folder: Path) -> None:
    """Give ``fresh`` the state of ``strategy`` as a resumed run does."""
    arrays, state = strategy_state(strategy)
    Checkpoint(MODEL, arrays, {"strategy": state}).write(folder / "last.safetensors")
    back = Checkpoint.read(folder / "last.safetensors")
    restore_strategy(fresh, back.strategy, back.progress["strategy"])


def exact(value: Any) -> Any:
    """Return a value in a form that is equal only for the same types and bits, down to the elements."""
    kind, content = type(value), value
    if isinstance(value, np.ndarray | np.generic):
        content = (value.dtype.str, value.shape, value.strides, value.tobytes())
    elif isinstance(value, ArrayRecord):
        content = exact(to_numpy(value))
    elif isinstance(value, float):
        content = repr(value)
    elif isinstance(value, dict):
        content = [exact(pair) for pair in value.items()]
    elif isinstance(value, list | tuple):
        content = [exact(item) for item in value]
    elif isinstance(value, set | frozenset):
        content = sorted(repr(exact(item)) for item in value)
    return kind, content


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal to the last bit, with the same types."""
    return bool(exact(one) == exact(other))


class Kinds(FedAvg):
    """A plug-in without state_dict, with an attribute of every kind that a checkpoint holds."""

    def __init__(self, values: dict[str, Any] | None = None) -> None:
        super().__init__()
        vars(self).update(values or {})


VALUES: dict[str, Any] = {
    "nothing": None,
    "flag": True,
    "whole": 2**80,
    "zero": -0.0,
    "nan": math.nan,
    "inf": -math.inf,
    "tiny": 5e-324,
    "text": "ä\n\ud800 ",
    "raw": b"\x00\xff",
    "names": {"a", "b"},
    "nodes": {3, 1, np.int64(7)},
    "fixed": frozenset({(1, "x"), None}),
    "levels": {0: 0.1, 17: math.nan, -3: -0.0},
    "keys": {None: 1, True: 2, 2.5: 3, (1, 2): 4, "1": 5, 0: 6},
    "pairs": [(1, 2.0), (3, None)],
    "empty": [[], (), {}, set(), frozenset(), "", b""],
    "scalar": np.float32(0.1),
    "bit": np.bool_(True),
    "array": np.arange(6, dtype=np.int16).reshape(2, 3),
    "point": np.array(-0.0),
    "no_rows": np.zeros((0, 4), np.float16),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "moments": {"weight": np.ones(3), "bias": np.full(2, np.nan)},
    "history": [np.zeros(2), np.ones(1, bool)],
    "start": ArrayRecord({}),
    "mixed": {"round": 3, "seen": {1: [np.ones(2), {"a": (None, {2})}]}},
    "a": {"b/c": np.ones(1), "b": {"c": np.zeros(1)}},
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_plug_in_gets_back_an_attribute_of_every_kind(kind: str, tmp_path: Path):
    before, after = Kinds({kind: VALUES[kind]}), Kinds({kind: "built anew"})
    assert unsaved_attributes(before) == []
    through_a_file(before, after, tmp_path)
    assert same(vars(after)[kind], VALUES[kind])


def test_a_plug_in_gets_back_all_of_them_together(tmp_path: Path):
    before, after = Kinds(VALUES), Kinds()
    before.start = record(MODEL)  # type: ignore[attr-defined]
    through_a_file(before, after, tmp_path)
    assert [name for name in [*VALUES, "start"] if not same(vars(after)[name], vars(before)[name])] == []


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=3)
DTYPES = st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.int64, np.uint64, np.bool_])
SHAPES = st.sampled_from([(), (0,), (1,), (3,), (2, 2), (2, 0)])
ARRAYS = st.builds(lambda shape, dtype: np.arange(math.prod(shape)).reshape(shape).astype(dtype), SHAPES, DTYPES)
KEYS = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2).map(tuple), max_leaves=3)
STATES = st.recursive(
    SCALARS | ARRAYS | st.builds(np.float32, st.floats(width=32)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.sets(KEYS, max_size=3)
        | st.frozensets(KEYS, max_size=3)
    ),
    max_leaves=12,
)


class Stated(FedAvg):
    """A plug-in that says what it keeps."""

    def __init__(self, state: dict[Any, Any] | None = None) -> None:
        super().__init__()
        self.state = state

    def state_dict(self) -> dict[Any, Any]:
        assert self.state is not None
        return self.state

    def load_state_dict(self, state: dict[Any, Any]) -> None:
        self.state = state


@given(st.dictionaries(KEYS, STATES, max_size=4))
def test_any_nested_state_comes_back(state: dict[Any, Any]):
    arrays, tree = strategy_state(Stated(state))
    after = Stated()
    restore_strategy(after, arrays, json.loads(json.dumps(tree, allow_nan=False)))
    assert same(after.state, state)


def test_the_same_state_is_written_the_same_way_whatever_the_order_of_a_set():
    one, other = set(), set()
    for number in range(0, 800, 8):
        one.add(number)
        other.add(792 - number)
    assert strategy_state(Stated({"seen": one})) == strategy_state(Stated({"seen": other}))


class Phase(enum.IntEnum):
    WARM = 1


CYCLE: list[Any] = []
CYCLE.append(CYCLE)
REFUSED = {
    "a counter": (Counter("aab"), r"\['seen'\]\[3\] is a collections\.Counter"),
    "an ordered dict": (OrderedDict(), r"is a collections\.OrderedDict"),
    "an enum": (Phase.WARM, r"is a .*Phase"),
    "a generator": (np.random.default_rng(0), r"is a numpy\.random.*Generator"),
    "objects": (np.array([None]), "dtype object"),
    "texts": (np.array(["a"]), "dtype <U1"),
    "other byte order": (np.ones(2, ">f8"), "dtype >f8"),
    "complex": (np.complex64(1), "dtype complex64"),
    "itself": (CYCLE, "nested more than 50 levels deep, or holds itself"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_value_that_cannot_be_kept_is_refused_by_its_place_and_with_the_way_out(kind: str):
    value, said = REFUSED[kind]
    strategy = Stated({"seen": {3: value}})
    for call in (strategy_state, unsaved_attributes):
        with pytest.raises(CheckpointError, match=said) as caught:
            call(strategy)
        assert str(caught.value).startswith("Stated.state_dict()")
        assert "let state_dict turn it into None, bool, int" in str(caught.value)
    assert unsaved_attributes(Kinds({"seen": {3: value}})) == ["seen"]


class Half(FedAvg):
    def state_dict(self) -> dict[str, Any]:
        return {}


class Lists(Half):
    def state_dict(self) -> Any:
        return [1]

    def load_state_dict(self, state: Any) -> None:
        raise AssertionError


def test_one_method_of_the_two_is_an_error_and_so_is_a_state_that_is_no_dict():
    with pytest.raises(CheckpointError, match="Half has state_dict but no load_state_dict: write both"):
        unsaved_attributes(Half())
    with pytest.raises(CheckpointError, match=r"Lists\.state_dict\(\) must return a dict, got list"):
        unsaved_attributes(Lists())


def settings_of(name: str) -> Settings:
    method = name if name in ("fedcorr", "fedned", "fedrn") else "sgd"
    return check({"strategy.name": name, "strategy.args": ARGS.get(name, ""), "method.name": method})


def flower(name: str) -> Strategy:
    built = build_strategy(settings_of(name))
    assert isinstance(built, FlowerStrategyAdapter)
    return built.inner


def play_rounds(strategy: Strategy, rounds: range, model: dict[str, Any]) -> dict[str, Any]:
    """Play rounds in which four clients answer with steps of their own; return the model after them."""

    class Nodes:
        def get_node_ids(self) -> list[int]:
            return [0, 1, 2, 3]

    for number in rounds:
        list(strategy.configure_train(number, record(model), ConfigRecord(), Nodes()))  # type: ignore[arg-type]
        draw = np.random.default_rng(number)
        trained = [{k: v + draw.standard_normal(v.shape).astype(v.dtype) for k, v in model.items()} for _ in range(4)]
        replies = [answer(client, arrays, train_loss=1.0 + client) for client, arrays in enumerate(trained)]
        arrays, _ = strategy.aggregate_train(number, replies)
        model = model if arrays is None else to_numpy(arrays)
    return model


FLOATS = {"weight": MODEL["weight"], "bias": MODEL["running_var"]}


@pytest.mark.parametrize("name", STOCK)
def test_flowers_strategies_go_on_as_if_nothing_had_happened_and_none_is_warned_about(name: str, tmp_path: Path):
    whole, half, fresh = flower(name), flower(name), flower(name)
    assert unsaved_attributes(whole) == []
    middle = play_rounds(half, range(1, 3), FLOATS)
    assert unsaved_attributes(half) == []
    through_a_file(half, fresh, tmp_path)
    expected, got = play_rounds(whole, range(1, 5), FLOATS), play_rounds(fresh, range(3, 5), middle)
    assert same(got, expected)


def test_strategies_with_a_memory_need_it():
    for name in ("flower-fedadam", "flower-fedyogi", "flower-fedadagrad", "flower-fedavgm"):
        middle = play_rounds(flower(name), range(1, 3), FLOATS)
        expected = play_rounds(flower(name), range(1, 5), FLOATS)
        assert not same(play_rounds(flower(name), range(3, 5), middle), expected), name


def test_flowers_trees_and_its_privacy_wrappers_lose_nothing(tmp_path: Path):
    before, after = FedXgbCyclic(), FedXgbCyclic()
    before.registered_nodes = {7: 1}
    through_a_file(before, after, tmp_path)
    assert after.registered_nodes == {7: 1}
    trees, fresh = FedXgbBagging(), FedXgbBagging()
    trees.current_bst = b"{}"
    through_a_file(trees, fresh, tmp_path)
    assert fresh.current_bst == b"{}"
    wrapped = stock.DifferentialPrivacyServerSideFixedClipping(FedAvgM(server_momentum=0.9), 1.0, 1.0, 4)
    wrapped.strategy.momentum_vector = [np.ones(2)]  # type: ignore[attr-defined]
    assert unsaved_attributes(wrapped) == []
    again = stock.DifferentialPrivacyServerSideFixedClipping(FedAvgM(server_momentum=0.9), 1.0, 1.0, 4)
    through_a_file(wrapped, again, tmp_path)
    assert same(again.strategy.momentum_vector, [np.ones(2)])  # type: ignore[attr-defined]


class Opaque(FedAvg):
    """A plug-in with attributes that a checkpoint cannot hold, and some that need not be held."""

    def __init__(self, **fedavg: Any) -> None:
        super().__init__(**fedavg)
        self.rng = np.random.default_rng(0)
        self.log, self.kind, self.tool = logging.getLogger("x"), Counter, json
        self.rate = functools.partial(max, 0)
        self.votes: dict[int, Any] = {1: Counter("a")}
        self.inner = Wrapped(self)


class Wrapped(FedAvg):
    """A wrapped strategy that knows the one around it."""

    def __init__(self, around: Strategy) -> None:
        super().__init__()
        self.around, self.phase, self.seen = around, Phase.WARM, {1}


def test_only_what_could_matter_is_called_unsaved():
    assert unsaved_attributes(Opaque()) == ["rng", "votes", "inner.phase"]


def test_a_wrapped_strategys_state_comes_back(tmp_path: Path):
    before, after = Opaque(), Opaque()
    before.inner.seen = {2, 3}
    through_a_file(before, after, tmp_path)
    assert after.inner.seen == {2, 3}
    assert after.inner.around is after


def test_what_will_not_be_saved_is_said_once_before_the_run_and_never_of_built_in_strategies():
    two = {"strategy.name": f"{__name__}:Opaque", "variants": "a = { seed = 1 }\nb = { seed = 2 }"}
    lines = [line for line in warning_lines(two) if "a resumed run" in line]
    (line,) = lines
    assert f"strategy {__name__}:Opaque: a resumed run does not get back rng, votes, inner.phase" in line
    assert "state_dict and load_state_dict" in line
    for entry in STRATEGIES.entries():
        assert unsaved_issues(entry.name, build_strategy(settings_of(entry.name))) == []


def test_an_attribute_that_becomes_unsavable_in_a_later_round_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    strategy = Kinds({"seen": None})
    directory = RunDirectory.create(tmp_path, "", Settings())
    adapter = FlowerStrategyAdapter(strategy)
    state = RunState(Settings(), directory, Registration(()), adapter, dict(MODEL), Mode.SIMULATION)
    callback = Checkpoints(1)
    with caplog.at_level(logging.WARNING, "flwr"):
        callback.on_run_start(state)
        callback.on_round_end(state, {})
        assert caplog.records == []
        strategy.seen = Counter("a")  # type: ignore[attr-defined]
        for state.server_round in (1, 2):
            callback.on_round_end(state, {})
    (line,) = caplog.records
    assert "does not get back seen" in line.getMessage()


class Remembering(RobustStrategy):
    """A plug-in that derives from Winnow's strategy and forgets to extend its state_dict."""

    def __init__(self, **options: Any) -> None:
        self.trust: dict[int, float] = {}
        super().__init__(AGGREGATORS.build("mean"), **options)
        self.votes: Any = None


def test_what_a_class_below_winnows_adds_is_saved_too_or_warned_about(tmp_path: Path):
    before, after = (Remembering(server_optimizer=SERVER_OPTIMIZERS.build("fedavgm")) for _ in range(2))
    assert unsaved_attributes(before) == []
    before.trust, before.fraction_train = {3: 0.5}, 0.25
    before.server_optimizer.apply(np.ones(3), np.ones(2), None, False)  # type: ignore[union-attr]
    assert [*strategy_state(before)[0]] == ["server_optimizer/momentum"]
    through_a_file(before, after, tmp_path)
    assert (after.trust, after.fraction_train) == ({3: 0.5}, 0.25)
    assert same(after.server_optimizer.momentum, np.ones(3))  # type: ignore[union-attr]
    before.votes = Counter("a")
    assert unsaved_attributes(before) == ["votes"]


OLD = {"fraction_train": {"kind": "plain", "value": 1.0}}


@pytest.mark.parametrize(
    ("strategy", "state"),
    [
        (Kinds(), OLD),
        (Kinds(), strategy_state(Stated({}))[1]),
        (Stated({}), strategy_state(Kinds())[1]),
        (Kinds(), {"state": None, "attributes": {"x": {"unheard-of": 1}}, "parts": {}}),
        (Kinds(), {"state": None, "attributes": {"x": {"array": "lost"}}, "parts": {}}),
        (RobustStrategy(AGGREGATORS.build("mean")), strategy_state(Stated({"queue": []}))[1]),
    ],
)
def test_a_state_of_another_version_is_refused_with_the_way_out(strategy: Strategy, state: dict[str, Any]):
    with pytest.raises(CheckpointError, match=r"cannot be loaded .*: it was written by another version .* a new run"):
        restore_strategy(strategy, {}, state)
