import json
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Error, Message

from client_app.app import app as client_app
from client_app.label_audit_files import SUMMARY, read_columns
from client_app.label_audit_report import REPORT
from client_app.label_quality import audit_client
from client_app.personal.report import FACTS, TEXT
from server_app.run import run_training
from server_app.storage.audit_scores import SCORES
from server_app.storage.checkpoints import BEST, LAST, Checkpoint
from server_app.transport.client_grid import ClientGrid
from server_app.validation.config import check
from tasks.client_data import client_dataset
from tasks.config import DEFAULTS, ConfigError, to_flat
from tasks.fresh_model import fresh_model
from tasks.protocol import Mode
from tasks.settings import Settings
from tasks.weights import load_arrays
from tests.integration.conftest import QUICK, Play
from tests.integration.local_grid import LocalGrid
from tests.messages import PlainDownload

NOISY = {"noise__rates_args": "max = 0.6", "loss__name": "ce"}


class Listener:
    """Notes what comes back for the audit, and lets the clients in ``broken`` fail."""

    def __init__(self, **broken: Message | Error | None) -> None:
        self.replies: dict[int, Message] = {}
        self._broken = {int(name.removeprefix("client_")): answer for name, answer in broken.items()}

    def __call__(self, client: int, message: Message, reply: Message) -> Message | None:
        if message.metadata.message_type != "query.audit":
            return reply
        self.replies[client] = reply
        answer = self._broken.get(client, reply)
        return Message(answer, reply_to=message) if isinstance(answer, Error) else answer


def settings_of(run: Any) -> Settings:
    changes = {key.replace("__", ".").replace("_", "-"): value for key, value in NOISY.items()}
    return check({**DEFAULTS, **QUICK, **changes})


def test_every_client_gets_its_list_and_nothing_of_it_leaves(play: Play):
    listener = Listener()
    run = play(tamper=listener, federation__fraction_train=0.5, federation__min_replies=1, **NOISY)
    assert sorted(listener.replies) == [0, 1, 2, 3]  # also those that were not sampled in the last round
    for client, reply in listener.replies.items():
        data = client_dataset(settings_of(run), client).data
        folder = run.path / "clients" / str(client)
        listed = read_columns(folder / "label-audit.csv")
        given = dict(zip(map(str, data.ids), map(str, data.labels), strict=True))
        assert dict(zip(listed["id"], listed["given"], strict=True)) == given
        assert listed["suspicion"] == sorted(listed["suspicion"], reverse=True)
        assert not any(listed["changed"])
        summary = json.loads((folder / SUMMARY).read_text())
        assert (summary["client"], summary["round"], summary["examples"]) == (client, 3, len(data))
        assert list(reply.content) == ["metrics"]
        assert dict(reply.content.metric_records["metrics"]) == {"num-examples": len(data)}


def test_the_lists_find_wrong_labels_and_the_report_says_so(play: Play, capsys: pytest.CaptureFixture[str]):
    run = play(num_server_rounds=8, train__epochs=2, **NOISY)
    scores = json.loads((run.path / SCORES).read_text())
    truth = [client_dataset(settings_of(run), client) for client in range(4)]
    assert [entry["wrong"] for entry in scores["clients"]] == [int(share.wrong().sum()) for share in truth]
    assert scores["mean_over_clients"]["auc"] > 0.85
    assert scores["suggested"]["accuracy"] > 1 - scores["wrong"] / scores["examples"]
    output = capsys.readouterr().out
    assert "Label audit: 4 of 4 clients have a list of suspicious labels" in output
    page = (run.path / "report.html").read_text()
    assert "<h2>Label audit</h2>" in page
    assert f"{scores['mean_over_clients']['auc']:.3f}" in page


@pytest.mark.parametrize("answer", [Error(2, "disk is full"), None], ids=["error", "silence"])
def test_a_client_without_an_audit_is_named_and_the_run_completes(
    play: Play, answer: Error | None, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("WARNING", logger="flwr")
    run = play(tamper=Listener(client_2=answer), **NOISY)
    assert run.status["status"] == "completed"
    assert [entry["client"] for entry in json.loads((run.path / SCORES).read_text())["clients"]] == [0, 1, 3]
    reason = "disk is full" if answer else "no answer within 0.2 s"
    assert f"No label audit from client 2: {reason}" in caplog.text


def test_the_model_that_the_run_keeps_as_its_best_judges(play: Play, capsys: pytest.CaptureFixture[str]):
    run = play(num_server_rounds=8, train__epochs=10, run__monitor="loss", strategy__ema=0.0, **NOISY)
    best, last = run.status["best_round"], run.metrics[-1]["round"]
    assert best < last, "else this test shows nothing"
    settings = check({**to_flat(settings_of(run)), "train.device": "cpu"})
    data, model = client_dataset(settings, 1).data, fresh_model(settings)
    beliefs = []
    for name in (BEST, LAST):
        load_arrays(model, Checkpoint.read(run.path / "checkpoints" / name).model)
        found = audit_client(model, data, settings, None, torch.device("cpu"))
        beliefs.append([round(value, 4) for value in found.suspicion.tolist()])
    folder = run.path / "clients" / "1"
    assert beliefs[0] == read_columns(folder / "label-audit.csv")["suspicion"] != beliefs[1]
    summary = json.loads((folder / SUMMARY).read_text())
    assert (summary["model_round"], summary["round"]) == (best, last)
    said = f"The model of round {best} of {last} judged, which the run keeps as its best."
    assert said in (folder / REPORT).read_text()
    assert f"Label audit: by the model of round {best}" in capsys.readouterr().out


def test_early_stopping_is_followed_by_the_audit_of_the_last_round_played(play: Play):
    run = play(num_server_rounds=20, run__early_stopping=1, train__learning_rate=1e-9, **NOISY)
    summary = json.loads((run.path / "clients" / "0" / SUMMARY).read_text())
    assert summary["round"] == run.metrics[-1]["round"] < 20


def test_resuming_a_finished_run_makes_the_same_lists_again(play: Play):
    run = play(method__name="tests.integration.counting:Counting", **NOISY)
    names = ["label-audit.csv", SUMMARY, REPORT, "label-audit-issues.csv"]
    before = [(run.path / "clients" / "1" / name).read_bytes() for name in names]
    play(run__resume=str(run.path), method__name="tests.integration.counting:Counting", **NOISY)
    assert [(run.path / "clients" / "1" / name).read_bytes() for name in names] == before


def test_the_audit_can_be_switched_off(play: Play):
    listener = Listener()
    run = play(tamper=listener, audit__enabled=False)
    assert listener.replies == {}
    assert not (run.path / "clients").exists()
    assert "Label audit" not in (run.path / "report.html").read_text()


def test_near_duplicates_and_outliers_can_be_left_out(play: Play):
    run = play(audit__embeddings=False, **NOISY)
    assert (run.path / "clients" / "1" / SUMMARY).exists()
    assert not list(run.path.glob("clients/*/label-audit-issues.*"))


def test_a_real_nodes_log_says_when_the_model_is_too_weak(real_nodes: Any, caplog: pytest.LogCaptureFixture):
    caplog.set_level("WARNING", logger="flwr")
    real_nodes(train__learning_rate=1e-9)
    assert "Label audit: The model is too weak to judge these labels: it seems to be right on" in caplog.text


def test_lists_in_parquet_are_scored_too(play: Play):
    run = play(audit__format="parquet", **NOISY)
    assert not list(run.path.glob("clients/*/*.csv"))
    assert len(list(run.path.glob("clients/*/label-audit-issues.parquet"))) == 4
    assert len(json.loads((run.path / SCORES).read_text())["clients"]) == 4


def test_a_site_finds_its_own_file_names(play: Play):
    run = play(task__name="tests.integration.correcting:NamedDigits", **NOISY)
    listed = read_columns(run.path / "clients" / "1" / "label-audit.csv")
    ids = client_dataset(settings_of(run), 1).data.ids
    assert sorted(listed["id"]) == sorted(f"=scan {number}.png" for number in ids)
    assert len(json.loads((run.path / SCORES).read_text())["clients"]) == 4


def test_names_that_are_missing_are_an_error_before_the_start(play: Play):
    with pytest.raises(ConfigError, match="one text for each of the 1437 ids, got 1"):
        play(task__name="tests.integration.correcting:Nameless")


def test_a_client_that_has_dropped_out_is_named_too(play: Play, monkeypatch: pytest.MonkeyPatch, caplog: Any):
    caplog.set_level("WARNING", logger="flwr")
    everybody = ClientGrid.get_node_ids
    monkeypatch.setattr(ClientGrid, "get_node_ids", lambda grid: [c for c in everybody(grid) if c != 3])
    assert play(**NOISY).status["status"] == "completed"
    assert "No label audit from client 3: it took no further part in the run" in caplog.text


def test_what_the_method_corrected_is_listed_and_scored(play: Play):
    run = play(method__name="tests.integration.correcting:NextLabel", **NOISY)
    listed = read_columns(run.path / "clients" / "3" / "label-audit.csv")
    assert all(listed["changed"])
    assert listed["changed_to"] == [str((int(label) + 1) % 10) for label in listed["given"]]
    entry = json.loads((run.path / SCORES).read_text())["clients"][3]
    share = client_dataset(settings_of(run), 3)
    assert entry["corrected"]["right"] == int(((share.data.labels + 1) % 10 == share.true_labels).sum())


@pytest.fixture
def real_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Play a run as if the clients were real nodes; node 0 has a folder of its own, the others have none."""

    def go(**changes: Any) -> Path:
        given = {key.replace("__", ".").replace("_", "-"): value for key, value in {**NOISY, **changes}.items()}
        flat = {**DEFAULTS, **QUICK, "run.output-dir": str(tmp_path / "server"), **given}
        settings = check(flat)
        monkeypatch.setattr("client_app.node.detect_mode", lambda: Mode.DEPLOYMENT)
        monkeypatch.setattr("server_app.transport.replies.ReplyDownload", PlainDownload)
        grid = LocalGrid(client_app, flat, settings.federation.num_clients)
        for context in grid._contexts.values():
            if context.node_config["partition-id"] == 0:
                context.node_config["state-dir"] = str(tmp_path / "site")
        return run_training(grid, settings, Mode.DEPLOYMENT)

    return go


def test_a_real_node_keeps_its_list_and_the_server_knows_nothing(
    real_nodes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", logger="flwr")
    path = real_nodes()
    own = tmp_path / "site" / path.name / "0"
    lists = {"label-audit.csv", SUMMARY, REPORT, "label-audit-issues.csv"}
    assert {file.name for file in own.iterdir()} == lists | {TEXT, FACTS}
    assert f"Label audit: {own / 'label-audit.csv'}" in caplog.text
    assert caplog.text.count("No label audit: this node has no folder of its own") == 3
    assert not (path / SCORES).exists()
    assert not (path / "clients").exists()
    assert "1 site of 4 made a label audit. What is in it no other party knows" in (path / "report.html").read_text()
    assert f"1 of 4 clients made one, each at its node in <state-dir>/{path.name}/" in capsys.readouterr().out
    assert "No label audit from client 1, 2, 3: it has no folder of its own" in caplog.text
