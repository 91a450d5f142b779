"""What methods find wrong with a run before it starts: each need that is not met, alone, and nothing where all are."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from torch import nn

from client_app.methods import METHODS, ClientMethod, FitResult
from tasks.base import Task
from tasks.extra_arrays import ExtraArray
from tasks.issues import Component, Issue, RunContext
from tasks.settings import LossSettings, MethodSettings, PrivacySettings, Settings, StrategySettings


class Nothing(Component):
    """A strategy that gives nothing."""


class Everything(Component):
    """A strategy that does all that a method may need."""

    gives_roles: ClassVar[bool] = True
    asks_method: ClassVar[bool] = True
    gives_neighbours: ClassVar[bool] = True
    combines_extras: ClassVar[bool] = True


class Modest(ClientMethod):
    """Needs nothing."""

    def fit(self, *_: object) -> FitResult:
        raise AssertionError


class Single(Modest):
    one_label_each: ClassVar[bool] = True


class Mixing(Modest):
    mixes_inputs: ClassVar[bool] = True


class Judging(Modest):
    reads_role: ClassVar[bool] = True


class Twins(Modest):
    networks: ClassVar[int] = 2


class Sender(Modest):
    def extra_arrays(self, task: Task, model: nn.Module) -> Sequence[ExtraArray]:
        return ()


def found(method: ClientMethod, strategy: Component, privacy: str = "none", **context: Any) -> list[Issue]:
    chosen = MethodSettings("judging"), StrategySettings("robust"), PrivacySettings(mode=privacy)  # type: ignore[arg-type]
    settings = Settings(method=chosen[0], strategy=chosen[1], privacy=chosen[2])
    return method.issues(RunContext(**{"settings": settings, "sampled": 6, "strategy": strategy, **context}))


ODD = {"labels_pixels": True, "has_smooth_inputs": False, "privacy": "central-dp"}


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (Modest, []),
        (Single, ["needs one label per example"]),
        (Mixing, ["mixes inputs"]),
        (Judging, ["trains all clients on their given labels"]),
        (Twins, ["sends 2 networks, and strategy robust combines a model", "sends 2 networks, and the clipping"]),
        (Sender, ["sends named arrays beside the model, and strategy", "sends named arrays beside the model, and the"]),
    ],
)
def test_every_need_that_is_not_met_is_named_and_no_other(kind: type[ClientMethod], texts: list[str]) -> None:
    issues = found(kind(), Nothing(), **ODD)
    assert len(issues) == len(texts)
    for issue, text in zip(issues, texts, strict=True):
        assert f"method judging {text}" in issue.text
        assert issue.level == ("warning" if kind is Judging else "error")
        assert issue.remedy
    assert found(kind(), Everything()) == []


@pytest.mark.parametrize(("strategy", "privacy", "count"), [(Nothing(), "none", 1), (Everything(), "central-dp", 1)])
def test_extras_must_be_combined_and_not_noised(strategy: Component, privacy: str, count: int) -> None:
    assert len(found(Twins(), strategy, privacy)) == count


def test_of_a_part_of_ones_own_nobody_knows_whether_it_calls_clients_noisy() -> None:
    settings = Settings(strategy=StrategySettings("own.module:Strategy"))
    assert found(Judging(), Nothing(), settings=settings) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fedcorr", "corrects labels only where the strategy asks for it"),
        ("fedrn", "trains plainly: the strategy robust sends no neighbours"),
    ],
)
def test_a_strategy_of_its_own_is_missed(name: str, text: str) -> None:
    method = METHODS.build(name)
    able = Everything()
    assert [text in issue.text for issue in found(method, Nothing()) if issue.level == "warning"] == [True]
    assert found(method, able) == []
    own = Settings(strategy=StrategySettings("own.module:Strategy"))
    assert [issue for issue in found(method, Nothing(), settings=own) if issue.level == "warning"] == []


def test_remedies_name_at_least_one_round() -> None:
    short = RunContext(Settings(num_server_rounds=4), sampled=6)
    for name, argument in (("selfie", "warmup_rounds"), ("joint-optim", "warmup_rounds"), ("rofl", "pseudo_after")):
        remedies = [issue.remedy for issue in METHODS.build(name).issues(short)]
        assert any(remedy.startswith(f"set method.args = '{argument} = 1'") for remedy in remedies)


def test_soft_labels_matter_only_after_the_warm_up() -> None:
    method, loss = METHODS.build("joint-optim", "warmup_rounds = 5"), LossSettings("gce")
    context = RunContext(Settings(num_server_rounds=5, loss=loss), sampled=6)
    assert [issue.level for issue in method.issues(context)] == ["warning"]
    longer = replace(context, settings=replace(context.settings, num_server_rounds=6))
    assert [issue.level for issue in method.issues(longer)] == ["error"]
