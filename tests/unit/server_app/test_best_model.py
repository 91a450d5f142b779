"""Which round's model is the best: by the measure, among equals of what sites hold out by the lower loss."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from server_app.callbacks.checkpoints import BestModel
from server_app.state import RunState
from tasks.validation_split import SERVER, SITES, Place


def chosen(place: Place, rounds: list[tuple[float, float | None]], patience: int = 0) -> tuple[int | None, str]:
    """Return the best round of rounds with (accuracy, loss), and why the run would stop."""
    state: Any = SimpleNamespace(best_value=None, best_loss=0.0, best_round=None, evaluations_since_best=0)
    state.validation, state.settings = place, SimpleNamespace(evaluate=SimpleNamespace(report="median"))
    callback, reason = BestModel("accuracy", patience), ""
    for state.server_round, (accuracy, loss) in enumerate(rounds, start=1):
        measures = {"validation_accuracy": accuracy} | ({} if loss is None else {"validation_loss": loss})
        reason = reason or callback.on_round_end(cast(RunState, state), measures)
    return state.best_round, reason


@pytest.mark.parametrize(
    ("rounds", "best"),
    [
        ([(0.6, 0.9), (0.6, 0.7), (0.6, 0.8)], 2),
        ([(0.6, 0.9), (0.6, 1.1)], 1),
        ([(0.6, 0.9), (0.7, 1.5), (0.7, 1.4), (0.6, 0.1)], 3),
        ([(0.6, None), (0.6, None)], 1),
        ([(0.6, None), (0.6, 0.5)], 2),
    ],
)
def test_of_equal_rounds_the_one_with_the_lowest_loss_is_the_best_at_sites(
    rounds: list[tuple[float, float | None]], best: int
) -> None:
    assert chosen(SITES, rounds)[0] == best


def test_at_the_server_the_first_of_equal_rounds_is_the_best() -> None:
    assert chosen(SERVER, [(0.6, 0.9), (0.6, 0.7)])[0] == 1


def test_an_equal_round_is_no_improvement_that_a_run_goes_on_for() -> None:
    assert "has not improved for 2 evaluations" in chosen(SITES, [(0.6, 0.9), (0.6, 0.7), (0.6, 0.5)], patience=2)[1]
