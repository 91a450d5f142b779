"""What sites do to a run with real nodes: they die, freeze, are slow; what is said of it, and that nothing is lost."""

import csv
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.deployment.conftest import words
from tests.deployment.scene import SharedScene
from tests.integration.conftest import Played

pytestmark = pytest.mark.slow
THREE = {"num_server_rounds": 3, "federation__num_clients": 3, "federation__min_replies": 1}


def left_out(record: Played, server_round: int) -> dict[int, str]:
    """The clients whose replies a round did not use, with the reasons on record."""
    lines = [line for line in record.lines("clients.jsonl") if line["round"] == server_round]
    return {line["client"]: line["quarantine"] for line in lines if line["quarantine"]}


def audited_labels(path: Path) -> list[str]:
    """The labels with which a client has trained in the end, by its audit, sorted."""
    with path.open() as file:
        return sorted(line["changed_to"] or line["given"] for line in csv.DictReader(file))


@pytest.mark.timeout(1800)
def test_processes_that_die_cost_a_round_and_no_label_state(tmp_path: Path, app: Path, shared: SharedScene) -> None:
    method = {"method__name": "gated:GatedELC", "method__args": "label_rate = 500.0"}
    with shared.with_nodes(3) as found:
        for client in range(3):
            found.hold(client, 2)
        seconds = round(max(75.0, 6 * found.start_seconds))  # a death is known after 30, whatever else runs here
        settings = {**THREE, **method, "strategy__aggregator": "mean", "federation__round_timeout": seconds}
        run = found.submit(tmp_path, app, *words(**settings))
        client_apps = [found.wait_until_training(client, 2) for client in range(3)]
        found.kill_machine("node-1")
        os.kill(client_apps[2], signal.SIGKILL)
        assert found.bring_back("node-1") > 1, "its old session counts for up to half a minute"
        found.restart("node-1-executor")
        for client in range(3):
            found.release(client, 2)
        assert run.end() == ("finished:completed", "N/A")
        refused, states = found.log("node-1"), found.logs
    assert "Exit Code: 305" in refused
    assert "[code: 2004] Failed to activate SuperNode." in refused
    reasons = left_out(run.record, 2)
    assert reasons.keys() == {1, 2}
    assert reasons[1].startswith(("error 5: Error: Node Unavailable", "no reply in time"))
    assert reasons[2].startswith("error 8: ClientApp stopped responding. Of its trainer process is known: it")
    assert left_out(run.record, 3) == {}
    assert "Label audit: 3 of 3 clients made one" in run.output
    for client, times in enumerate((3, 2, 2)):
        folder = states / f"node-{client}" / run.record.path.name / str(client)
        state = load_file(folder / "state-3.safetensors")
        assert state["times"].item() == times, "it goes on from the state before the fault"
        learned = sorted(str(label) for label in state["label_logits"].argmax(1))
        assert audited_labels(folder / "label-audit.csv") == learned


@pytest.mark.timeout(1800)
def test_frozen_and_slow_nodes_are_not_waited_for_and_their_late_work_is_not_used(
    tmp_path: Path, app: Path, shared: SharedScene
) -> None:
    with shared.with_nodes(3) as found:
        for client, server_round in ((1, 1), (2, 1), (0, 3)):
            found.hold(client, server_round)
        seconds = round(max(40.0, 4 * found.start_seconds))  # enough for those who work, whatever else runs here
        settings = {**THREE, "method__name": "gated:GatedSGD", "federation__round_timeout": seconds}
        run = found.submit(tmp_path, app, *words(**settings, audit__enabled=False))
        frozen = found.wait_until_training(1, 1)
        os.kill(frozen, signal.SIGSTOP)
        run.wait_for_line(r"^round 1/3 ")
        found.release(2, 1)
        with suppress(ProcessLookupError):  # killed as dead, after a minute
            os.kill(frozen, signal.SIGCONT)
        found.release(1, 1)
        for client in (1, 2):
            found.wait_until_training(client, 3)
        found.release(0, 3)
        assert run.end() == ("finished:completed", "N/A")
        told = found.log("flower-superlink")
    reasons = left_out(run.record, 1)
    assert {1, 2} <= reasons.keys()
    assert reasons[1].startswith(("no reply in time", "error 8: ClientApp stopped responding.")), (
        "the latter in a minute"
    )
    assert reasons[2] == "no reply in time"
    assert set(left_out(run.record, 3).values()) <= {"no reply in time"}, "both work again"
    used = [line for line in run.record.metrics[1:] if line["replies"]]
    assert used
    assert all(line["train_asked_in"] == line["round"] for line in used), "each reply is to its own round"
    assert "Message TTL has expired" in told
