"""The attack grid: which runs it makes, what it tells the rules, and its files; never how fast it is."""

import math
from pathlib import Path

import pytest

from benchmarks import attack_grid
from benchmarks.attack_cases import Case, impossible, named
from benchmarks.attack_runs import Outcome, run_case, tables
from benchmarks.ledger import Ledger
from server_app.validation.config import check
from strategies.aggregators import AGGREGATORS
from tasks.plugins import PluginError


def parsed(*extra: str) -> list[Case]:
    return attack_grid.cases(attack_grid.arguments(["--output", "x.csv", *extra]))


def outcome(accuracy: float, backdoor: float = math.nan) -> Outcome:
    return Outcome(accuracy - 1, accuracy, backdoor, 0.0, 2.0)


def test_the_default_grid_has_every_built_in_rule_and_only_possible_configurations():
    cases = parsed()
    assert {entry.name for entry in AGGREGATORS.entries()} < {case.rule for case in cases}
    assert [case for case in cases if impossible(case)] == []
    for case in cases:  # an attack's settings do not depend on the rule, nor a rule's on the attack
        if case.attack == "none" or case.rule == "mean":
            check(case.configuration())


def test_rules_are_told_how_many_clients_are_hostile():
    flat = Case(rule="nnm+krum", share=0.2, attack="alie: z = 1.5").configuration()
    assert flat["strategy.aggregator"] == "krum"
    assert flat["strategy.aggregator-args"] == "f = 4"
    assert flat["strategy.pre-aggregators"] == "nnm = { f = 4 }"
    assert (flat["attack.name"], flat["attack.args"], flat["attack.share"]) == ("alie", "z = 1.5", 0.2)
    assert flat["noise.name"] == "none"
    assert Case(rule="median").configuration()["strategy.aggregator-args"] == ""


def test_an_import_path_is_no_name_with_arguments():
    assert named("my.rules:Rule") == ("my.rules:Rule", "")
    assert named("my.rules:Rule: f = 2") == ("my.rules:Rule", "f = 2")


def test_what_cannot_be_is_told_from_what_is_wrong():
    assert "bulyan with f = 6 needs" in impossible(Case(rule="bulyan", share=0.3))
    assert "one hostile client" in impossible(Case(attack="alie: z = 1.0", share=0.05))
    assert impossible(Case(attack="alie: z = 1.0")) == ""
    with pytest.raises(PluginError, match="did you mean 'krum'"):
        impossible(Case(rule="krumm"))


def test_a_kind_of_client_is_a_name_and_settings():
    given = ["--client", 'anl=loss.name = "anl-ce", train.epochs = 3', "--rules", "mean", "--attacks", "none"]
    (case, _) = parsed(*given)
    assert case.client == "anl"
    assert (case.flat()["loss.name"], case.flat()["train.epochs"]) == ("anl-ce", 3)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("--client anl", "NAME=settings"),
        ("--shares 0", "above 0"),
        ("--shares 1.5", "at most 1"),
        ("--jobs 0", "at least 1"),
    ],
)
def test_a_wrong_argument_says_what_is_right(given: str, complaint: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parsed(*given.split())
    assert complaint in capsys.readouterr().err


def test_finished_runs_are_read_back_and_not_repeated(tmp_path: Path):
    ledger = Ledger(tmp_path / "grid.csv", Case, Outcome)
    first, second = Case(rule="mean"), Case(rule="krum", attack="backdoor: size = 3", share=0.1)
    ledger.append(first, outcome(80.0))
    made: list[Case] = []

    def run(case: Case) -> Outcome:
        made.append(case)
        return outcome(70.0, 12.5)

    runs = ledger.complete([first, second], run, 1, attack_grid.words)
    assert made == [second]
    assert ledger.read().keys() == runs.keys()
    assert ledger.read()[second] == outcome(70.0, 12.5)


def test_another_file_is_refused(tmp_path: Path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="is not a file of this benchmark"):
        Ledger(path, Case, Outcome).read()


def test_the_table_has_rules_in_rows_attacks_in_columns_and_the_spread_over_seeds():
    cases = [
        Case(rule=rule, attack=a, seed=s) for s in (1, 2) for a in ("none", "backdoor") for rule in ("mean", "krum")
    ]
    runs = {case: outcome(90.0 + case.seed, 50.0 if case.attack == "backdoor" else math.nan) for case in cases}
    del runs[Case(rule="krum", attack="none", seed=1)], runs[Case(rule="krum", attack="none", seed=2)]
    lines = tables(runs, cases).splitlines()
    assert lines[0] == "### Client ce, 4 of 20 clients hostile"
    assert lines[2:6] == [
        "| rule | none | backdoor |",
        "|---|---|---|",
        "| mean | 91.50 ± 0.71 | 91.50 ± 0.71 (backdoor 50.00 ± 0.00) |",
        "| krum | - | 91.50 ± 0.71 (backdoor 50.00 ± 0.00) |",
    ]


def test_a_run_measures_its_last_rounds_and_the_backdoor():
    settings = 'loss.name = "ce", federation.num-clients = 5, partition.args = "alpha = 1.0, min_size = 30"'
    measured = run_case(Case(rounds=2, attack="backdoor: size = 3", settings=settings))
    assert 0 < measured.accuracy <= 100
    assert 0 <= measured.backdoor <= 100
    assert measured.quarantined == 0
    again = run_case(Case(rounds=2, attack="backdoor: size = 3", settings=settings))
    assert (again.accuracy, again.backdoor) == (measured.accuracy, measured.backdoor)
