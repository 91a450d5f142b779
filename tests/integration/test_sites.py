"""What sites get for taking part: the best model by their own measures, comparisons and a report of their own."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from safetensors.numpy import load_file

from client_app.label_audit_files import read_columns
from server_app.report import read_run
from tasks.config import ConfigError
from tests.integration.conftest import Play, Played
from tests.integration.test_site_data import Federation, federation  # noqa: F401  a fixture
from tests.site_data import image_folder

SITES: dict[str, Any] = {"run__monitor": "sites", "noise__name": "none", "loss__name": "ce"}


def measures(run: Played) -> dict[tuple[int, int], dict[str, float]]:
    """What single clients measured, by round and client."""
    lines = [line for line in run.lines("clients.jsonl") if "measured" in line]
    return {(line["round"], line["client"]): line["measured"] for line in lines}


def test_the_median_of_the_sites_chooses_the_best_model_and_one_liar_does_not(play: Play) -> None:
    def lie(client: int, message: Message, reply: Message) -> Message:
        if message.metadata.message_type == "evaluate" and client == 0:
            said = reply.content.metric_records["metrics"]
            said["accuracy"] = 1e9 * (-1) ** message.content.config_records["winnow"]["server_round"]
        return reply

    fedavg = {"strategy__name": "flower-fedavg"}  # which would take a mean
    run = play(lie, **SITES, **fedavg, evaluate__report="per-site", federation__num_clients=5, num_server_rounds=4)

    found = measures(run)
    assert len(found) == 5 * 4
    medians = [float(np.median([found[number, client]["accuracy"] for client in range(5)])) for number in range(1, 5)]
    assert [line["validation_accuracy"] for line in run.metrics[1:]] == pytest.approx(medians)
    honest = [[found[number, client]["accuracy"] for client in range(1, 5)] for number in range(1, 5)]
    for number, middle in enumerate(medians, 1):
        honest = [found[number, client]["accuracy"] for client in range(1, 5)]
        assert min(honest) <= middle <= max(honest)
    assert run.status["best_round"] == 1 + int(np.argmax(medians))
    assert (run.path / "checkpoints" / "best.safetensors").is_file()
    page = (run.path / "report.html").read_text()
    assert "Measured at the sites" in page
    assert "is the best by validation accuracy" in page


def test_a_mean_weighs_by_examples_and_who_only_measures_is_not_said_to_have_trained(play: Play) -> None:
    run = play(**SITES, evaluate__report="per-site", evaluate__combine="mean", federation__fraction_train=0.5)

    examples = {line["client"]: line["examples"] for line in run.lines("clients.jsonl") if line["round"] == 0}
    for number in (1, 2, 3):
        each = {client: values["loss"] for (of, client), values in measures(run).items() if of == number}
        mean = np.average([*each.values()], weights=[examples[client] for client in each])
        assert len(each) == 4
        assert run.metrics[number]["validation_loss"] == pytest.approx(mean)
    record = read_run(run.path)
    assert len(record.measured) == 12
    assert len(record.client_rounds) == sum(line["selected"] for line in run.metrics) == 6


def test_what_a_site_holds_out_is_in_its_list_and_scored(play: Play) -> None:
    run = play(**{**SITES, "noise__name": "symmetric"}, evaluate__validation=0.2, train__epochs=5)

    folders = [run.path / "clients" / str(client) for client in range(4)]
    listed = [int(name) for folder in folders for name in read_columns(folder / "label-audit.csv")["id"]]
    assert sorted(listed) == list(range(1437))
    summaries = [json.loads((folder / "label-audit-summary.json").read_text()) for folder in folders]
    assert sum(one["held_out"]["examples"] for one in summaries) == pytest.approx(0.2 * 1437, abs=4)
    scores = json.loads((run.path / "audit-scores.json").read_text())["clients"]
    assert [one["examples"] for one in scores] == [one["examples"] for one in summaries]
    assert json.loads((run.path / "doubted-labels.json").read_text())["doubted"]


def test_sites_choose_and_nothing_of_it_is_recorded(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = play(**SITES, num_server_rounds=4, run__early_stopping=1)
    quiet = play(**SITES, num_server_rounds=4, run__early_stopping=1, evaluate__report="none")

    assert quiet.status["best_round"] == chosen.status["best_round"]
    assert quiet.weights() == chosen.weights()
    assert not [name for line in quiet.metrics for name in line if name.startswith(("validation_", "clients_"))]
    assert measures(quiet) == measures(chosen) == {}
    assert f"Round {quiet.status['best_round']} is the best" in (quiet.path / "report.html").read_text()


def test_with_noise_only_a_private_accuracy_leaves_and_its_budget_adds_up(play: Play) -> None:
    exact = play(**SITES, evaluate__report="per-site")
    noisy = play(**SITES, evaluate__report="per-site", evaluate__epsilon=0.5)

    assert [line.get("evaluation_epsilon") for line in noisy.metrics] == [None, 0.5, 1.0, 1.5]
    assert {name for values in measures(noisy).values() for name in values} == {"accuracy"}
    differences = [measures(exact)[key]["accuracy"] - value["accuracy"] for key, value in measures(noisy).items()]
    assert 0 < np.mean(np.abs(differences)) < 0.5
    again = play(**SITES, evaluate__report="per-site", evaluate__epsilon=0.5)
    assert measures(again) == measures(noisy)  # in a simulation the noise follows from the seed


def test_a_site_compares_with_training_alone_and_tunes_and_none_of_it_leaves(
    play: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[Message] = []

    def note(client: int, message: Message, reply: Message) -> Message:
        sent.extend([reply] if message.metadata.message_type == "query.personal" else [])
        return reply

    run = play(note, **SITES, personal__compare=True, personal__tune="head", evaluate__validation=0.2)

    examples = {line["client"]: line["examples"] for line in run.lines("clients.jsonl") if line["round"] == 0}
    assert [dict(reply.content.metric_records["metrics"]) for reply in sent] == [
        {"num-examples": examples[client]} for client in range(4)
    ]
    assert all(set(reply.content) == {"metrics"} for reply in sent)
    final = load_file(run.path / "checkpoints" / "best.safetensors")
    for client in range(4):
        folder = run.path / "clients" / str(client)
        report = json.loads((folder / "site-report.json").read_text())
        assert report["model_round"] == run.status["best_round"]
        assert report["held_out"] == pytest.approx(0.2 / 0.8 * examples[client], abs=1)
        alone, personal = report["models"]["alone, as long"], report["models"]["personal model"]
        for one in (alone, personal):
            gain = one["only_this_one_right"] - one["only_the_federated_right"]
            assert one["accuracy"] - report["accuracy"] == pytest.approx(gain / report["held_out"], abs=2e-4)
        plain, tuned = load_file(folder / "final-model.safetensors"), load_file(folder / "personal-model.safetensors")
        changed = {name for name in plain if not np.array_equal(plain[name], tuned[name])}
        assert changed == {"3.weight", "3.bias"}, "the last layer of the mlp"
        assert all(np.array_equal(plain[name], final[name]) for name in plain)
        assert (folder / "alone" / "label-audit.csv").is_file()
        assert (folder / "site-report.txt").stat().st_mode & 0o077 == 0
    said = capsys.readouterr().out
    assert re.search(r"\(mean over clients\): model of all sites after round \d+ \d+.\d %, alone", said)


def test_real_sites_have_names_and_agree_or_not(
    federation: Federation,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for site in range(4):
        image_folder(tmp_path / f"site{site}", count=12 + 2 * site, seed=site)
    federation.node = {0: {"site-name": "Klinik <Süd>", "share-results": True}, 1: {"site-name": "B"}}
    run = federation.play(
        "image-folder",
        **{"run.monitor": "sites", "evaluate.validation": 0.3, "evaluate.report": "per-site", "num-server-rounds": 2},
    )
    registered = {line["examples"]: line for line in run.lines("clients.jsonl") if line["round"] == 0}
    first, second = registered[8], registered[10]
    assert (first["name"], second["name"]) == ("Klinik <Süd>", "B")
    assert {client for _, client in measures(run)} == {first["client"]}
    assert (
        f"Results of single sites are kept of 1 of 4 that agree: {first['client']} Klinik <Süd>"
        in capsys.readouterr().out
    )
    page = (run.path / "report.html").read_text()
    assert "Klinik &lt;Süd&gt;" in page
    assert "4 sites of 4 made a label audit" in page
    assert f"&lt;state-dir&gt;/{run.path.name}/" in page
    text = (tmp_path / "state0" / run.path.name / "site" / "site-report.txt").read_text()
    assert text.startswith(f"Report of site {first['client']} about run {run.path.name}, after round 2\n")
    assert run.status["best_round"] in (1, 2)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"run__monitor": "sites", "evaluate__validation": 0.0}, "the sites hold nothing out to choose by"),
        ({"run__monitor": "sites", "evaluate__validation_at": "server"}, "set evaluate.validation-at to auto"),
        ({"personal__compare": True}, "personal.compare: the sites hold no examples out"),
        (
            {"run__monitor": "sites", "personal__tune": "norm"},
            "personal.tune = 'norm': the model has no such parameters",
        ),
        (
            {
                "evaluate__validation_at": "sites",
                "federation__fraction_evaluate": 1.0,
                "evaluate__epsilon": 1.0,
                "run__monitor": "macro-f1",
            },
            "with noise the sites report their accuracy alone",
        ),
    ],
)
def test_what_cannot_work_is_said_before_the_start(play: Play, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(text)):
        play(**changes)
