"""The table of methods under label noise: what each run is, and what is measured about it."""

import math
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest

from benchmarks import noisy_clients
from benchmarks.in_process import Federation
from benchmarks.noisy_clients import CHANGES, COMMON, METHODS_SHOWN, Case, Outcome, label_accuracy, roles, run_case
from server_app.validation.config import check
from tasks.client_data import client_dataset
from tasks.config import to_flat

SMALL = {
    "num-server-rounds": 2,
    "federation.num-clients": 4,
    "partition.args": "alpha = 5.0, min_size = 60",
    "train.epochs": 1,
    "model.name": "mlp",
}


def federation(**changes: Any) -> Federation:
    flat = {key.replace("__", "."): value for key, value in changes.items()}
    return Federation(check({**COMMON, **SMALL, **flat, "seed": 1}))


def knows_noisy(given: Federation, called: set[int]) -> Federation:
    given.strategy.roles = {client: "noisy" if client in called else "clean" for client in range(4)}
    return given


def test_every_method_sees_the_same_clients_and_labels():
    shared = ("seed", "federation.", "partition.", "noise.", "task.", "model.")
    seen = []
    for method in METHODS_SHOWN:
        flat = to_flat(check(Case(method, 2).configuration()))
        seen.append({key: value for key, value in flat.items() if key.startswith(shared)})
        assert all(flat[key] == value for key, value in {**COMMON, **CHANGES.get(method, {})}.items())
    assert all(one == seen[0] for one in seen)
    assert seen[0]["seed"] == 2
    assert seen[0]["noise.rates-args"] == "max = 0.8"


def test_changes_belong_to_methods_that_are_shown():
    assert CHANGES.keys() <= METHODS_SHOWN.keys()


@pytest.mark.parametrize(
    ("called", "expected"),
    [({2, 3}, (100.0, 0.0)), ({1, 3}, (50.0, 50.0)), ({0, 1, 2, 3}, (50.0, 0.0)), (set(), (math.nan, 100.0))],
)
def test_roles_are_compared_with_the_truth(called: set[int], expected: tuple[float, float]):
    laws = {"noise__rates": "groups"}
    laws["noise__rates-args"] = "groups = [{clients = 2, rate = 0.1}, {clients = 2, rate = 0.7}]"
    assert roles(knows_noisy(federation(**laws), called)) == pytest.approx(expected, nan_ok=True)


def test_a_run_without_roles_has_nothing_to_compare():
    assert roles(federation()) == pytest.approx((math.nan, math.nan), nan_ok=True)


def test_label_accuracy_is_that_of_the_clients_with_many_wrong_labels():
    given = federation(method__name="masked-optim")
    shares = {client: client_dataset(given.settings, client) for client in range(4)}
    noisy = [client for client, share in shares.items() if share.noise_rate >= noisy_clients.NOISY]
    assert noisy
    assert len(noisy) < 4
    right = np.concatenate([shares[client].data.labels == shares[client].true_labels for client in noisy])
    assert label_accuracy(given) == pytest.approx((100 * right.mean(),) * 2)  # nothing learned yet
    for client, share in shares.items():
        given.clients.states[client] = {"label_logits": np.eye(10, dtype=np.float32)[share.true_labels]}
    assert label_accuracy(given) == pytest.approx((100 * right.mean(), 100.0))
    assert all(math.isnan(value) for value in label_accuracy(federation(method__name="fednoro")))


def test_a_run_of_two_rounds_is_measured_and_repeats(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(noisy_clients, "COMMON", {**COMMON, **SMALL, "strategy.args": "warmup_rounds = 1"})
    first, again = (run_case(Case("masked-optim", 1)) for _ in range(2))
    assert 0 < first.mean_accuracy == first.accuracy < 100  # a tenth of two rounds is the last one
    assert 0 < first.labels_before < 60
    assert astuple(first)[:-1] == pytest.approx(astuple(again)[:-1], nan_ok=True, rel=0, abs=0)


def test_the_table_has_a_row_a_method_with_dashes_for_what_it_does_not_have():
    runs = {
        Case("fedavg", 1): Outcome(80.0, 70.0, math.nan, math.nan, math.nan, math.nan, 5.0),
        Case("fedavg", 2): Outcome(82.0, 72.0, math.nan, math.nan, math.nan, math.nan, 5.0),
        Case("masked-optim", 1): Outcome(90.0, 91.0, 40.0, 85.0, 100.0, 10.0, 6.0),
    }
    *_, fedavg, masked = noisy_clients.table(runs).splitlines()
    assert fedavg == "| fedavg | 81.00 ± 1.41 | 71.00 ± 1.41 | - | - | - | - | 5.00 ± 0.00 |"
    assert masked == "| masked-optim | 90.00 | 91.00 | 40.00 | 85.00 | 100.00 | 10.00 | 6.00 |"
