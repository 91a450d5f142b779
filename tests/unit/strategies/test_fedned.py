"""FedNed's server: who is called noisy, whose models teach, limit cases, roles, state, and what is refused."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord
from torch import nn

from server_app.validation.config import check
from strategies.aggregators import build_aggregator
from strategies.fedned import FedNed
from strategies.negative_distillation import negative_loss
from strategies.robust import RobustStrategy
from strategies.validation import RoundReport, Update
from tasks.config import DEFAULTS, ConfigError
from tasks.protocol import Arrays, Mode
from tasks.public_examples import PublicExamples
from tasks.settings import ModelSettings, Settings, TaskSettings
from tasks.weights import model_arrays
from tests.messages import answer, record

CLIENTS = (1, 2, 3, 7)
SETTINGS = Settings(task=TaskSettings(name="digits"), model=ModelSettings(name="mlp"))
PUBLIC = PublicExamples(SETTINGS, Mode.SIMULATION, lambda: torch.device("cpu"))


class Grid:
    """Four clients."""

    def get_node_ids(self) -> list[int]:
        return [*CLIENTS]


def network(scale: float, seed: int) -> Arrays:
    """A network; the larger the scale of its last layer, the surer."""
    torch.manual_seed(seed)
    model = PUBLIC.model(SENT)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(scale)
    return {name: array.copy() for name, array in model_arrays(model).items()}


def both(first: Arrays, second: Arrays) -> Arrays:
    return {**first, **{f"network-2/{name}": array for name, array in second.items()}}


def first_arrays() -> Arrays:
    from tasks.fresh_model import initial_model

    return {name: array.copy() for name, array in model_arrays(initial_model(SETTINGS)).items()}


SENT = first_arrays()
SURE = {client: network(30.0, client) for client in CLIENTS}
UNSURE = {client: network(3.0, client) for client in CLIENTS}


def strategy(**options: Any) -> FedNed:
    chosen = {"warmup_rounds": 0, "passes": 3, "steps": 2, "rate": 1e-3} | options
    return FedNed(build_aggregator("mean"), public_examples=PUBLIC, weighting="uniform", **chosen)


def asked(of: RobustStrategy, server_round: int) -> dict[int, Any]:
    sent = of.configure_train(server_round, record(both(SENT, SENT)), ConfigRecord(), Grid())  # type: ignore[arg-type]
    return {message.metadata.dst_node_id: message.content["config"].get("role") for message in sent}


def updates(of: RobustStrategy, arrays: Mapping[int, Arrays]) -> list[Update[Any]]:
    read = [Update(client, own, 10, {"train-loss": 1.0}, answer(client)) for client, own in arrays.items()]
    return [Update(one.client, of.keep(one), 10, one.metrics, one.message) for one in read]


def combined(of: RobustStrategy, server_round: int, arrays: Mapping[int, Arrays]) -> Arrays:
    asked(of, server_round)
    found, _ = of.aggregate_updates(server_round, updates(of, arrays), RoundReport())
    assert found is not None
    return found


def replies(noisy: set[int], second: Arrays = SENT) -> dict[int, Arrays]:
    return {client: both((UNSURE if client in noisy else SURE)[client], second) for client in CLIENTS}


def mean_of(clients: set[int]) -> Arrays:
    return {name: np.mean([SURE[one][name].astype(np.float64) for one in sorted(clients)], 0) for name in SENT}


def test_models_that_are_much_less_sure_than_usual_are_left_out_and_their_clients_called_noisy() -> None:
    own = strategy(steps=0)
    found = combined(own, 1, replies({2}))
    for name, array in mean_of({1, 3, 7}).items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(found[f"network-2/{name}"], found[name])
    assert asked(own, 2) == {1: "clean", 2: "noisy", 3: "clean", 7: "clean"}
    combined(own, 2, {client: both(SURE[1], SENT) for client in CLIENTS})
    assert asked(own, 3)[2] == "noisy", "for good, also if its model is sure later"
    report = RoundReport(examples={1: 10, 2: 10}, quarantined={3: "late"})
    own.finish_round(report)
    assert report.roles == {1: "clean", 2: "noisy", 3: "clean"}


def test_in_the_warm_up_it_is_plain_aggregation_and_nobody_has_a_role() -> None:
    own, plain = strategy(warmup_rounds=1), RobustStrategy(build_aggregator("mean"), weighting="uniform")
    found, expected = (combined(one, 1, replies({2})) for one in (own, plain))
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    assert set(asked(own, 2).values()) == {"unknown"}


def taught_by(own: FedNed, monkeypatch: pytest.MonkeyPatch, arrays: Mapping[int, Arrays], server_round: int) -> Any:
    seen: list[Any] = []
    monkeypatch.setattr("strategies.fedned.distil", lambda model, teachers, inputs, **rest: seen.extend(teachers))
    combined(own, server_round, arrays)
    return seen


def logits(arrays: Arrays) -> torch.Tensor:
    with torch.no_grad():
        return torch.as_tensor(PUBLIC.model(arrays)(PUBLIC.inputs(torch.arange(len(PUBLIC.features)))))


def test_bad_teachers_are_models_of_given_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    own = strategy()
    (first,) = taught_by(own, monkeypatch, replies({2}), 1)
    torch.testing.assert_close(first, logits(UNSURE[2]))
    later = taught_by(own, monkeypatch, replies({3}, second=UNSURE[7]), 2)  # 2 was noisy, 3 is now
    assert len(later) == 2
    torch.testing.assert_close(later[0], logits(UNSURE[7]), msg="the second network of who has a role")
    torch.testing.assert_close(later[1], logits(UNSURE[3]), msg="the model of who has none yet")


def test_the_result_moves_away_from_what_the_bad_teacher_says() -> None:
    plain, own = combined(strategy(steps=0), 1, replies({2})), combined(strategy(steps=20), 1, replies({2}))
    teacher = logits(UNSURE[2])[None]
    before, after = (
        negative_loss(logits({name: found[name] for name in SENT}), teacher, 2.0).item() for found in (plain, own)
    )
    assert after < 0.9 * before
    again = combined(strategy(steps=20), 1, replies({2}))
    for name, array in own.items():
        np.testing.assert_array_equal(again[name], array)


def test_without_a_noisy_client_nothing_is_distilled() -> None:
    alike = {client: both(SURE[1], SENT) for client in CLIENTS}
    plain, own = combined(strategy(steps=0), 1, alike), combined(strategy(steps=5), 1, alike)
    for name, array in plain.items():
        np.testing.assert_array_equal(own[name], array)


def test_judgements_are_resumed() -> None:
    own, again = strategy(steps=0), strategy(steps=0)
    combined(own, 1, replies({7}))
    again.load_state_dict(own.state_dict())
    assert asked(again, 2) == asked(own, 2)


def test_a_model_that_distillation_ruins_is_not_taken() -> None:
    own, report = strategy(rate=3e36, steps=3), RoundReport()
    asked(own, 1)
    assert own.aggregate_updates(1, updates(own, replies({2})), report) == (None, None)
    assert report.skipped == "the distilled model has values that are not finite"


CHOSEN = {"strategy.name": "fedned", "method.name": "fedned", "loss.name": "ce", "strategy.aggregator": "mean"}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"evaluate.validation": 0.0}, "it holds none out: set evaluate.validation = 0.1"),
        (
            {"evaluate.validation-at": "sites", "federation.fraction-evaluate": 1.0},
            "it holds none out: set evaluate.validation = 0.1 and evaluate.validation-at = 'server'",
        ),
        ({"method.name": "sgd"}, "needs the two models that the method sgd does not send: set method.name = 'fedned'"),
        ({"strategy.name": "robust"}, "with which the strategy robust does nothing: set strategy.name = 'fedned'"),
        ({"model.name": "linear"}, "choose a model with a hidden layer that is trained"),
        ({"strategy.args": "threshold = 0.9"}, "threshold = 0.9: must be at least 1"),
        ({"strategy.args": "dropout = 1.0"}, "dropout = 1.0: must be above 0 and below 1"),
        ({"method.args": "confidence = 1.1"}, "confidence = 1.1: must be from 0 to 1"),
        ({"privacy.mode": "local", "privacy.epsilon": 1.0}, "sends 2 networks"),
    ],
)
def test_what_cannot_work_is_said_before_the_start(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check({**DEFAULTS, **CHOSEN, **changes})
    assert text in str(caught.value)


def test_public_examples_are_the_validation_inputs_and_need_some() -> None:
    from tasks.client_data import validation_examples

    expected = validation_examples(SETTINGS, Mode.SIMULATION)
    assert expected is not None
    assert torch.equal(PUBLIC.features, expected.features)
    without = check({**DEFAULTS, "evaluate.validation": 0.0})
    with pytest.raises(ValueError, match="the server holds no examples out"):
        _ = PublicExamples(without, Mode.SIMULATION, partial(torch.device, "cpu")).features
