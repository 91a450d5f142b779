"""Issues: how they read, that no name is hard-wired where they are judged, and that nothing is tried twice."""

import ast
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client_app.attacks import ATTACKS
from client_app.losses import LOSSES
from client_app.methods import METHODS
from server_app.cli import run
from server_app.cli.config import RunPlan
from server_app.cli.run_log import RunLog
from server_app.strategy import STRATEGIES
from server_app.validation.config import validate
from strategies.aggregators import AGGREGATORS, PRE_AGGREGATORS
from strategies.server_optimizers import SERVER_OPTIMIZERS
from tasks.config import CHECKED, DEFAULTS, ConfigError, digest, is_checked
from tasks.issues import Component, Issue, RunContext
from tasks.noise import NOISES, RATE_DISTRIBUTIONS
from tasks.partition import PARTITIONS
from tasks.plugins import Registry
from tasks.protocol import Mode
from tasks.registry import TASKS
from tasks.settings import Settings
from tests.conftest import ROOT
from tests.issues import warning_lines

FILES = [path for folder in ("validation", "report") for path in sorted((ROOT / "server_app" / folder).glob("*.py"))]
REGISTRIES: tuple[Registry[Any], ...] = (
    *(
        ATTACKS,
        LOSSES,
        METHODS,
        STRATEGIES,
        AGGREGATORS,
        PRE_AGGREGATORS,
        SERVER_OPTIMIZERS,
        RATE_DISTRIBUTIONS,
        NOISES,
        PARTITIONS,
        TASKS,
    ),
)
HARMLESS = {"groups", "none", "table"}  # also a picture, what no attack, noise or marker is called, and a module
NAMES = {entry.name for registry in REGISTRIES for entry in registry.entries()} - HARMLESS


def built_in_names(source: str) -> list[str]:
    """The constants of a source that are names of built-in parts."""
    constants = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    return [value for value in constants if isinstance(value, str) and value in NAMES]


def asked_classes(source: str) -> set[str]:
    """The names that a source asks for with isinstance or issubclass."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    asked = [call.args[1] for call in calls if getattr(call.func, "id", "") in ("isinstance", "issubclass")]
    return {node.id for kinds in asked for node in ast.walk(kinds) if isinstance(node, ast.Name)}


def components(kind: type = Component) -> Iterator[str]:
    """The names of all classes of parts, the general one left out."""
    for child in kind.__subclasses__():
        yield child.__name__
        yield from components(child)


@pytest.mark.parametrize("file", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_part_is_known_by_name_or_class(file: Path) -> None:
    source = file.read_text()
    assert built_in_names(source) == []
    assert not asked_classes(source) & {*components(), "Strategy", "FlowerStrategyAdapter"}


def test_the_search_for_names_and_classes_finds_them() -> None:
    assert built_in_names("chosen == 'noise-partition' or chosen in ('fedelc', 'x')") == ["noise-partition", "fedelc"]
    assert asked_classes("isinstance(a, FedCorr | NoisePartition)") & {*components()} == {"FedCorr", "NoisePartition"}


def test_an_issue_is_one_line_with_its_remedy_and_its_variants() -> None:
    issue = Issue("error", "method", "the method needs labels", "choose sgd")
    assert issue.line == "the method needs labels: choose sgd"
    assert (
        replace(issue, text="method: it needs labels", variants="a, b").line
        == "variant a, b: method: it needs labels; choose sgd"
    )
    assert replace(issue, remedy="").line == "the method needs labels"


def test_an_issue_of_all_variants_is_said_once_and_of_some_with_their_names() -> None:
    variants = "a = { seed = 2 }\nb = { train.optimizer = 'adam', train.momentum = 0.5 }"
    assert warning_lines({"variants": variants, "train.step-rounds": 3}) == [
        "train.step-rounds has no effect: only the step schedule has steps",
        "variant b: train.momentum has no effect: only SGD has momentum",
    ]


def test_errors_and_warnings_come_from_one_pass_with_key_and_level() -> None:
    with pytest.raises(ConfigError) as caught:
        validate({"seed": -1, "loss.name": "xx", "method.name": "fedelc", "strategy.server-optimizer": "adm"})
    assert [issue.key for issue in caught.value.issues] == ["seed", "strategy", "loss"]
    assert {issue.level for issue in caught.value.issues} == {"error"}


@pytest.mark.parametrize(
    ("method", "strategy", "level"),
    [("sgd", "fedcorr", "error"), ("fedcorr", "fedcorr", ""), ("fedcorr", "robust", "warning"), ("xx", "fedcorr", "")],
)
def test_who_asks_and_who_answers_must_go_together(method: str, strategy: str, level: str) -> None:
    flat = {"method.name": method, "strategy.name": strategy, "num-server-rounds": 2000, "strategy.aggregator": "mean"}
    try:
        issues = validate(flat).warnings
    except ConfigError as error:
        issues = list(error.issues)
    assert [issue.level for issue in issues if "asks" in issue.text] == ([level] if level else [])


def test_a_part_of_the_users_own_reports_its_issues_too() -> None:
    flat = {"method.name": f"{__name__}:Picky", "strategy.aggregator": "mean"}
    assert warning_lines(flat) == ["the method likes 3 clients, not 20: set federation.num-clients = 3"]


class Picky(METHODS.find("sgd")):  # type: ignore[misc]
    """Says how many clients it likes."""

    def issues(self, context: RunContext) -> list[Issue]:
        text = f"the method likes 3 clients, not {context.sampled}"
        return [Issue("warning", "federation.num-clients", text, "set federation.num-clients = 3")]


def test_stock_strategies_do_not_read_the_settings_of_aggregation() -> None:
    flat = {"strategy.name": "flower-fedavg", "strategy.aggregator": "median"}
    assert warning_lines(flat) == [
        "strategy.aggregator has no effect: Flower's own strategies combine updates their own way"
    ]


def divided(**changes: Any) -> None:
    validate({"federation.num-clients": 2000, "federation.min-replies": 2}, **changes)


def test_without_trials_the_data_is_not_divided() -> None:
    with pytest.raises(ConfigError, match="not enough for 2000 clients"):
        divided()
    divided(trials=False)


def test_only_the_same_configuration_counts_as_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = {**DEFAULTS, "train.learning-rate": 1}
    assert not is_checked(flat, Mode.SIMULATION), "nobody has checked a plain flwr run"
    monkeypatch.setenv(CHECKED, digest(flat, Mode.SIMULATION))
    assert is_checked({**flat, "train.learning-rate": 1.0}, Mode.SIMULATION)
    assert not is_checked({**flat, "seed": 2}, Mode.SIMULATION)
    assert not is_checked(flat, Mode.DEPLOYMENT)


def test_a_configuration_is_promised_to_be_checked_and_never_submitted_if_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Mapping[str, str]] = []

    @contextmanager
    def link(extra: Mapping[str, str]) -> Iterator[None]:
        given.append(extra)
        yield None

    def refuse(plan: RunPlan) -> dict[str, Settings]:
        raise ConfigError([Issue("error", "seed", "no")])

    monkeypatch.setattr(run, "local_superlink", link)
    monkeypatch.setattr(run, "check_parts", refuse)
    monkeypatch.setattr(run, "submit", lambda *_: pytest.fail("submitted without a check"))
    with pytest.raises(ConfigError):
        run.simulate(RunPlan(tmp_path, {}, {"seed": 3}), RunLog())
    assert given[0][CHECKED] == digest({"seed": 3}, Mode.SIMULATION)
