"""Tables in whole runs: sites are asked once before the first round, and one with a broken answer takes no part."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message, MetricRecord
from sklearn.datasets import load_breast_cancer, load_wine

from benchmarks.in_process import rounds
from server_app.registration import FederationError
from server_app.storage.audit_scores import SCORES
from server_app.validation.config import check
from tasks.config import DEFAULTS
from tests.integration.conftest import QUICK, Play
from tests.site_data import ARGS, column_table, table

QUERY = "query.statistics"
LEARN = {"federation.num-clients": 3, "train.batch-size": 16, "train.epochs": 3, "model.name": "auto"}


def scikit_table(root: Path, name: str) -> dict[str, Any]:
    """Write three of four rows of one of scikit-learn's data sets and the others as test data; return the settings."""
    found = {"wine": load_wine, "cancer": load_breast_cancer}[name]()
    columns = [str(column) for column in found.feature_names]
    rows = [(*map(str, row), str(label)) for row, label in zip(found.data, found.target, strict=True)]
    table(root / "table.csv", (*columns, "label"), [row for at, row in enumerate(rows) if at % 4])
    table(root / "test" / "table.csv", (*columns, "label"), rows[::4])
    classes = [str(label) for label in range(len(found.target_names))]
    args = f"classes = {json.dumps(classes)}, numbers = {json.dumps(columns)}"
    return {"task.name": "table", "task.args": args, "task.data-path": str(root), **LEARN}


def small(root: Path) -> dict[str, Any]:
    column_table(root, 90)
    column_table(root / "test", 30, seed=1)
    more = {"partition.name": "iid", "partition.args": "", "loss.name": "ce", "noise.name": "none"}
    return {"task.name": "table", "task.args": ARGS["table"], "task.data-path": str(root), **LEARN, **more}


@pytest.mark.parametrize(("name", "auc", "accuracy"), [("wine", 0.9, 0.9), ("cancer", 0.9, 0.9)])
def test_wrong_labels_of_real_tables_are_found_by_fsanl_and_the_audit(
    play: Play, tmp_path: Path, name: str, auc: float, accuracy: float
) -> None:
    more = {"noise.name": "symmetric", "noise.rates-args": "max = 0.4", "partition.args": "alpha = 5.0, min_size = 30"}
    run = play(**scikit_table(tmp_path / "data", name), **more, **{"loss.name": "fsanl", "num-server-rounds": 5})
    scores = json.loads((run.path / SCORES).read_text())["clients"]
    found = [client["auc"] for client in scores if client["auc"] is not None]
    assert len(found) == 2
    assert min(found) > auc
    assert run.metrics[-1]["accuracy"] > accuracy
    versions = json.loads((run.path / "versions.json").read_text())
    assert versions["preprocessing"] in (run.path / "report.html").read_text()


class Liar:
    """Lets client 1 answer the question for statistics in another way, and counts who is asked what."""

    def __init__(self, change: Any = None) -> None:
        self.asked: list[tuple[str, int]] = []
        self._change = change

    def __call__(self, client: int, message: Message, reply: Message) -> Message | None:
        self.asked.append((message.metadata.message_type, client))
        if message.metadata.message_type != QUERY or client != 1 or self._change is None:
            return reply
        if isinstance(self._change, dict):
            reply.content["metrics"] = MetricRecord({**reply.content.metric_records["metrics"], **self._change})
            return reply
        return Message(self._change, reply_to=message) if self._change else None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"number-means": [np.nan, 0.0]}, "number-means must be 2 numbers"),
        ({"number-means": [1e9, 0.0]}, "cannot be those of the other sites"),
        (False, "no answer within 0.2 s"),
    ],
)
def test_a_site_with_a_broken_answer_takes_no_part_and_the_run_goes_on(
    play: Play, tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Any, reason: str
) -> None:
    liar = Liar(change)
    run = play(tamper=liar, **small(tmp_path / "data"))
    assert "Left out: client 1, whose statistics cannot be used: " in caplog.text
    assert reason in caplog.text
    assert {client for kind, client in liar.asked if kind == "train"} == {0, 2}
    assert run.metrics[-1]["accuracy"] > 0.9
    assert json.loads((run.path / "checkpoints" / "preprocessing.json").read_text())["clients"] == [0, 2]


def test_with_too_few_sound_answers_the_run_ends(play: Play, tmp_path: Path) -> None:
    with pytest.raises(FederationError, match=r"2 clients have said .* = 3 are needed:\n  - client 1: boom"):
        play(tamper=Liar(Error(2, "boom")), **small(tmp_path / "data"), **{"federation.min-replies": 3})


def test_a_resumed_run_goes_on_with_the_same_sites_and_statistics(play: Play, tmp_path: Path) -> None:
    settings = small(tmp_path / "data")
    whole = play(tamper=Liar(Error(2, "boom")), **settings)
    half = play(tamper=Liar(Error(2, "boom")), **settings, **{"num-server-rounds": 2})
    again = Liar()
    resumed = play(tamper=again, **settings, **{"run.resume": str(half.path)})
    assert resumed.metrics == whole.metrics
    assert resumed.weights() == whole.weights()
    assert not [client for kind, client in again.asked if kind == QUERY]
    assert {client for kind, client in again.asked if kind == "train"} == {0, 2}


def test_statistics_that_are_declared_are_asked_of_nobody(play: Play, tmp_path: Path) -> None:
    settings, asked = {**small(tmp_path / "data"), "num-server-rounds": 1}, Liar()
    first = play(tamper=asked, **settings)
    assert [client for kind, client in asked.asked if kind == QUERY] == [0, 1, 2]
    kept = (first.path / "checkpoints" / "preprocessing.json").read_text()
    silent = Liar()
    second = play(tamper=silent, **settings, **{"task.statistics": kept})
    assert not [client for kind, client in silent.asked if kind == QUERY]
    assert second.metrics == first.metrics
    assert json.loads((second.path / "checkpoints" / "preprocessing.json").read_text()) == json.loads(kept)
    flat = {**DEFAULTS, **QUICK, **settings}
    alone = [line["accuracy"] for line in rounds(check(flat))]
    assert alone == [line["accuracy"] for line in first.metrics[1:]], "as benchmarks do it"
    private = {"privacy.mode": "local", "privacy.clipping-norm": 1.0}
    play(**settings, **private, **{"task.statistics": kept})
