"""Which callbacks a run can choose, and what is wrong with a choice; built before any client starts."""

from typing import Any

import pytest

from server_app.callbacks import CALLBACKS, Callback, TensorBoard, chosen_callbacks
from server_app.callbacks.base import NamedCallback
from server_app.callbacks.records import Progress
from server_app.state import RunState
from strategies.validation import RoundReport
from tasks.config import parse
from tasks.plugins import PluginError
from tasks.protocol import Mode


class Every(Callback):
    """Acts in every so many rounds."""

    def __init__(self, every: int) -> None:
        self.every = every


class Misspelt(Callback):
    """Its hook is never called."""

    def on_rounds_end(self, state: Any, metrics: dict[str, Any]) -> str:
        """Stop."""
        return "enough"


def test_callbacks_act_in_the_order_in_which_they_are_written() -> None:
    built = chosen_callbacks(f'"{__name__}:Every" = {{ every = 2 }}, tensorboard = {{}}')
    inner = [named.callback for named in built if isinstance(named, NamedCallback)]
    assert [type(callback) for callback in inner] == [Every, TensorBoard]
    assert isinstance(inner[0], Every)
    assert inner[0].every == 2


def test_none_is_chosen_by_default() -> None:
    assert chosen_callbacks("") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tensorbord = {}", r"unknown callback 'tensorbord'; did you mean 'tensorboard'\?"),
        ("tensorboard", r"each callback is written as name = { its arguments }: .*not inline TOML"),
        ("tensorboard = true", r"callback 'tensorboard': write its arguments as tensorboard = { ... }, got True"),
        ('"a.b:C" = 1', r"callback 'a.b:C': write its arguments as \"a.b:C\" = { ... }, got 1"),
        ("tensorboard = { every = 2 }", r"callback 'tensorboard': unknown argument 'every' \(its arguments: none\)"),
        (f'"{__name__}:Every" = {{}}', r"missing argument every"),
        (f'"{__name__}:Every" = {{ every = "x" }}', r"argument every must be a whole number, not 'x'"),
        (
            '"collections:Counter" = {}',
            r"expected a subclass of server_app.callbacks.base.Callback, got the class Counter",
        ),
        (f'"{__name__}:Misspelt" = {{}}', r"no hook is called on_rounds_end; did you mean 'on_round_end'\?"),
        ('"tests.unit.server_app.test_callbacks:function" = {}', r"expected a Callback, got a NoneType"),
    ],
)
def test_a_mistake_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        chosen_callbacks(text)


def test_the_time_left_is_that_of_all_variants_and_not_that_of_the_warm_up(capsys: pytest.CaptureFixture[str]) -> None:
    progress, state = Progress("first", later_rounds=20), RunState.__new__(RunState)
    state.settings, state.mode, state.report = parse({"num-server-rounds": 10}), Mode.SIMULATION, RoundReport()
    for server_round, seconds in enumerate((60.0, 2.0, 3.0), 1):
        state.server_round = server_round
        progress.on_round_end(state, {"seconds": seconds, "quarantined": 0})
    first, _, third = capsys.readouterr().out.splitlines()
    assert first.endswith("60.0 s  ETA 29 min")
    assert third.endswith("3.0 s  ETA 81 s"), "7 rounds and 20, of 3 s"


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.1, "validation loss 1.5000  validation accuracy  60.0 %"), (0.0, "test loss 0.5000  test accuracy  90.0 %")],
)
def test_who_watches_a_run_sees_validation_data_and_test_data_only_without(
    share: float, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state = RunState.__new__(RunState)
    state.settings, state.mode, state.report = parse({"evaluate.validation": share}), Mode.SIMULATION, RoundReport()
    state.server_round = 0
    measures = {"loss": 0.5, "accuracy": 0.9, "validation_loss": 1.5, "validation_accuracy": 0.6}
    Progress("").on_round_end(state, measures)
    assert capsys.readouterr().out == f"round  0/20  {expected}\n"


def function() -> None:
    """It builds nothing."""


def test_a_package_that_is_not_installed_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server_app.callbacks.trackers.find_spec", lambda name: None)
    with pytest.raises(PluginError, match=r'tensorboard is not installed; pip install -e "\.\[tracking\]"'):
        CALLBACKS.build("tensorboard")
