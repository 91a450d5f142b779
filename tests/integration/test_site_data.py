"""A site's own data in whole runs: divided in a simulation, as it is on real nodes; and what leaves a node."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from client_app.app import app as client_app
from client_app.label_audit_files import read_columns
from client_app.word_importance import read_words
from server_app.registration import FederationError
from server_app.run import run_training
from server_app.validation.config import check
from tasks.config import DEFAULTS, ConfigError
from tasks.own_data.tables import TableFormat, read_table
from tasks.own_data.texts import TextTable
from tasks.protocol import Mode
from tests.integration.conftest import QUICK, Play, Played
from tests.integration.local_grid import LocalGrid
from tests.messages import PlainDownload
from tests.site_data import ARGS, CLASSES, KINDS, MODELS, column_table, image_folder, save, shades

LEARN = {"train.learning-rate": 0.05, "train.batch-size": 4, "loss.name": "ce", "train.epochs": 3}
PLAIN = {"partition.name": "iid", "partition.args": "", "noise.name": "none", "noise.rates-args": "max = 0.85"}


def settings_for(kind: str, root: Path) -> dict[str, Any]:
    name, args = MODELS[kind]
    task = {"task.name": kind, "task.args": ARGS[kind], "task.data-path": str(root)}
    few = {"evaluate.validation": 0.0}  # of which most tests count all
    return {**PLAIN, **LEARN, **task, **few, "model.name": name, "model.args": args}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_data_is_divided_and_learned_in_a_simulation(
    play: Play, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    KINDS[kind](tmp_path / "data")
    KINDS[kind](tmp_path / "data" / "test", seed=1)
    run = play(**{**settings_for(kind, tmp_path / "data"), "noise.name": "auto"})
    assert "No labels are made wrong on purpose.\n" in capsys.readouterr().out
    assert run.metrics[-1]["accuracy"] > 0.9
    assert ("mean-iou" in run.metrics[-1]) == (kind == "image-masks")
    assert ("Mean IoU" in (run.path / "report.html").read_text()) == (kind == "image-masks")
    assert sum(line["examples"] for line in run.lines("clients.jsonl") if line["round"] == 0) == (
        24 if kind == "image-masks" else 40
    )


@pytest.mark.parametrize(("kind", "left"), [("image-masks", 22), ("table", 36), ("text-csv", 36)])
def test_of_own_data_a_share_is_held_out_where_the_server_has_it(
    play: Play, tmp_path: Path, kind: str, left: int
) -> None:
    KINDS[kind](tmp_path / "data")
    run = play(**{**settings_for(kind, tmp_path / "data"), "noise.name": "auto", "evaluate.validation": 0.1})
    assert sum(line["examples"] for line in run.lines("clients.jsonl") if line["round"] == 0) == left
    assert 0 <= run.metrics[-1]["validation_accuracy"] <= 1
    assert "accuracy" not in run.metrics[-1]  # there is no test data
    assert run.status["best_round"] is not None
    assert "Validation accuracy" in (run.path / "report.html").read_text()


def test_the_audit_of_a_site_names_its_files(play: Play, tmp_path: Path) -> None:
    image_folder(tmp_path / "data")
    image_folder(tmp_path / "data" / "test", seed=1)
    changes = settings_for("image-folder", tmp_path / "data")
    run = play(**{**changes, "noise.name": "symmetric", "noise.rates-args": "max = 0.4"})
    listed = [
        name for client in range(4) for name in read_columns(run.path / f"clients/{client}/label-audit.csv")["id"]
    ]
    assert sorted(listed) == sorted(f"{name}/{i:03}.png" for i, (name, _) in enumerate(shades(40, 0)))


def test_an_audit_of_texts_marks_words_of_the_texts_as_they_are(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    KINDS["text-csv"](tmp_path / "data")
    texts = [row["text"] for row in csv.DictReader((tmp_path / "data" / "texts.csv").open())]
    changes = {
        **settings_for("text-csv", tmp_path / "data"),
        "noise.name": "symmetric",
        "noise.rates-args": "max = 0.4",
    }
    run = play(**changes)
    marks = 0
    for client in range(4):
        folder = run.path / f"clients/{client}"
        found, listed = read_words(folder), read_columns(folder / "label-audit.csv")
        assert sorted(found) == sorted(listed["id"])
        for name, given in zip(listed["id"], listed["given"], strict=True):
            marked, text = found[name], texts[int(name.split()[-1]) - 2]
            assert (marked.given, {marked.given, marked.other}) == (given, set(CLASSES))
            assert all(text.startswith(word.word, word.start) for word in marked.words)
            marks += len(marked.words)
    assert marks
    monkeypatch.setattr(TextTable, "texts", lambda self: read_table(self.root, TableFormat("gone.csv"), ()))
    own = play(**{**changes, "num-server-rounds": 1}).path / "clients/0"
    assert "No words are marked in the texts of the label audit: " in caplog.text
    assert (read_words(own), len(read_columns(own / "label-audit.csv")["id"])) == ({}, 10)


def test_each_group_of_a_table_can_be_a_client(play: Play, tmp_path: Path) -> None:
    KINDS["image-csv"](tmp_path / "data")
    changes = settings_for("image-csv", tmp_path / "data") | {"partition.name": "natural"}
    run = play(**changes)
    assert [line["examples"] for line in run.lines("clients.jsonl") if line["round"] == 0] == [10, 10, 10, 10]


def test_masks_can_be_made_wrong_in_a_simulation(
    play: Play, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    KINDS["image-masks"](tmp_path / "data")
    changes = settings_for("image-masks", tmp_path / "data")
    run = play(**{**changes, "noise.name": "masks", "num-server-rounds": 1})
    said = capsys.readouterr().out
    assert re.search(r"about [1-9]\d? % of the training labels, by the noise 'masks'", said)
    assert re.search(r"Label audit: \d+\.\d % of all masks are wrong, and .* of all pixels would be right", said)
    page = (run.path / "report.html").read_text()
    assert "Wrong masks" in page
    assert "masks are wrong" in page
    scores = json.loads((run.path / "audit-scores.json").read_text())
    assert [entry["pixels"] for entry in scores["clients"]] == [6 * 16 * 16] * 4
    assert all((run.path / f"clients/{client}/label-audit-masks.npz").is_file() for client in range(4))
    rates = [line["noise_rate"] for line in run.lines("clients.jsonl") if line["round"] == 0]
    assert rates[0] == 0 < rates[-1]


def test_a_simulation_on_own_data_claims_nothing_about_its_labels(
    play: Play, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    KINDS["image-folder"](tmp_path / "data")
    run = play(**{**settings_for("image-folder", tmp_path / "data"), "num-server-rounds": 1})
    assert "Which of these labels are right nobody knows" in capsys.readouterr().out
    assert not (run.path / "audit-scores.json").exists()
    first = [line for line in run.lines("clients.jsonl") if line["round"] == 0]
    assert first
    assert all(line.get("noise_rate") is None for line in first)
    page = (run.path / "report.html").read_text()
    assert "made a label audit, in clients/&lt;client&gt;/ of this run" in page
    assert "Wrong labels" not in page


class Federation:
    """Real nodes in this process, each with a folder of its own and without a partition-id.

    ``node`` is what the operators of single nodes set besides.
    """

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = tmp_path
        self.sent: list[Message] = []
        self.node: dict[int, dict[str, Any]] = {}
        monkeypatch.setattr("client_app.node.detect_mode", lambda: Mode.DEPLOYMENT)
        monkeypatch.setattr("server_app.transport.replies.ReplyDownload", PlainDownload)

    def play(self, kind: str, **changes: Any) -> Played:
        flat = {**DEFAULTS, **QUICK, **settings_for(kind, self._root / "server"), **changes}
        flat["run.output-dir"] = str(self._root / "runs")
        grid = LocalGrid(client_app, flat, 4)
        for context in grid._contexts.values():
            number = context.node_config.pop("partition-id")
            context.node_config["data-path"] = str(self._root / f"site{number}")
            context.node_config["state-dir"] = str(self._root / f"state{number}")
            context.node_config.update(self.node.get(int(number), {}))

        def note(client: int, message: Message, reply: Message) -> Message:
            self.sent.append(reply)
            return reply

        grid.tamper = note
        return Played(run_training(grid, check(flat, Mode.DEPLOYMENT), Mode.DEPLOYMENT))


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Federation:
    return Federation(tmp_path, monkeypatch)


@pytest.mark.parametrize("kind", KINDS)
def test_real_nodes_learn_from_their_own_folders(federation: Federation, tmp_path: Path, kind: str) -> None:
    for site in range(4):
        KINDS[kind](tmp_path / f"site{site}", count=10 + site, seed=site)
    KINDS[kind](tmp_path / "server" / "test", seed=9)
    run = federation.play(kind)
    assert run.metrics[-1]["accuracy"] > 0.9
    assert sorted(line["examples"] for line in run.lines("clients.jsonl") if line["round"] == 0) == [10, 11, 12, 13]


def test_nothing_but_the_model_and_named_numbers_leaves_a_node(
    federation: Federation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="flwr")
    for site in range(4):
        image_folder(tmp_path / f"site{site}", count=8 + site, seed=site)
    run = federation.play("image-folder", **{"federation.fraction-evaluate": 1.0, "evaluate.validation": 0.1})
    allowed = {"client", "num-examples", "data-fingerprint", "train-loss", "loss", "accuracy", "macro-f1"}
    for reply in federation.sent:
        records = reply.content.metric_records.values()
        assert {key for record in records for key in record} <= allowed
        assert set(reply.content) <= {"metrics", "arrays", "winnow"}
        assert set(reply.content.config_records.get("winnow", {})) <= {"layout"}
    sent = [line for line in caplog.messages if line.startswith("To the server, ")]
    assert len(sent) == len(federation.sent)
    size = (128 + 4 * ((3 * 8 * 8 + 1) * 64 + (64 + 1) * 2)) / 1e3  # NumPy's header and the weights
    assert any(
        line.startswith(f"To the server, round 3, train: model ({size:.1f} kB), num-examples = 7, ") for line in sent
    )
    assert (run.metrics[-1]["validation_accuracy"], "accuracy" in run.metrics[-1]) == (
        pytest.approx(1.0, abs=0.1),
        False,
    )
    assert run.status["best_round"] >= 1
    assert (tmp_path / "state0" / run.path.name / "site" / "label-audit.csv").is_file()


def test_of_a_table_no_rare_category_leaves_a_node(
    federation: Federation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="flwr")
    for site in range(4):
        column_table(tmp_path / f"site{site}", count=30, seed=site)
    with (tmp_path / "site0" / "table.csv").open("a") as file:
        file.write("50,0.001,one patient only,dark\n" * 4)
    args = ARGS["table"].replace("min_count = 1", "min_count = 5")
    federation.play("table", **{"task.args": args, "num-server-rounds": 1})
    told = [record for reply in federation.sent for record in reply.content.metric_records.values()]
    named = [bytes(record["category-values"]) for record in told if "category-values" in record]
    assert named == [b'[["north", "south"]]'] * 4
    columns = {"number-counts", "number-missing", "number-means", "number-squares", "category-missing"}
    assert {key for record in told for key in record if key.startswith(("number", "categor"))} == {
        *columns,
        "category-values",
    }
    (line,) = (line for line in caplog.messages if line.startswith("Statistics for the server: 'age': 34 numbers"))
    assert "'unit': ['north', 'south'], " in line


def test_a_node_with_damaged_files_is_left_out_and_the_server_learns_only_how_many(
    federation: Federation, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    for site in range(4):
        image_folder(tmp_path / f"site{site}", count=8, seed=site)
    (tmp_path / "site2" / "dark" / "secret name.png").write_bytes(b"no image")
    run = federation.play("image-folder")
    errors = [reply.error.reason for reply in federation.sent if reply.has_error()]
    assert len(errors) == 1
    assert "1 of 9 examples cannot be used; what and where is in the log of this node" in errors[0]
    assert not any(word in errors[0] for word in ("secret", "dark", str(tmp_path)))
    assert "    dark/secret name.png: cannot be read as an image (UnidentifiedImageError)" in caplog.text
    assert "secret" not in (run.path / "status.json").read_text() + capsys.readouterr().out
    assert len([line for line in run.lines("clients.jsonl") if line["round"] == 0]) == 3


def test_a_node_with_damaged_files_takes_part_with_the_others_if_the_run_says_so(
    federation: Federation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for site in range(4):
        image_folder(tmp_path / f"site{site}", count=8, seed=site)
    (tmp_path / "site2" / "dark" / "notes.txt").write_text("no image")
    run = federation.play("image-folder", **{"task.bad-data": "skip"})
    assert [line["examples"] for line in run.lines("clients.jsonl") if line["round"] == 0] == [8, 8, 8, 8]
    assert caplog.text.count("1 of 9 examples cannot be used") == 1
    assert "dark/notes.txt: is not an image" in caplog.text


def test_nodes_without_any_usable_data_end_the_run_without_naming_files(federation: Federation, tmp_path: Path) -> None:
    image_folder(tmp_path / "site0", count=8)
    with pytest.raises(FederationError, match="the data of this node cannot be used") as caught:
        federation.play("image-folder", **{"federation.min-replies": 4})
    assert "site1" not in str(caught.value)


def test_damaged_files_of_a_simulation_are_an_error_before_the_start(play: Play, tmp_path: Path) -> None:
    image_folder(tmp_path / "data")
    (tmp_path / "data" / "dark" / "broken.png").write_bytes(b"no image")
    with pytest.raises(ConfigError, match=r"task: 1 of 41 examples cannot be used in .*\n    dark/broken.png: cannot"):
        play(**settings_for("image-folder", tmp_path / "data"))
    (tmp_path / "data" / "dark" / "broken.png").unlink()
    save(tmp_path / "data" / "test" / "darkk" / "a.png", shades(1, 0)[0][1])
    with pytest.raises(ConfigError, match="darkk: unknown class 'darkk'; did you mean 'dark'"):
        play(**settings_for("image-folder", tmp_path / "data"))


def test_nodes_without_a_number_are_numbered_by_their_ids(federation: Federation, tmp_path: Path) -> None:
    for site in range(4):
        image_folder(tmp_path / f"site{site}", count=8 + site, seed=site)
    run = federation.play("image-folder", **{"num-server-rounds": 1})
    sizes = {line["client"]: line["examples"] for line in run.lines("clients.jsonl") if line["round"] == 0}
    answers = {reply.metadata.src_node_id: reply for reply in federation.sent}
    ordered = [answers[node].content.metric_records["metrics"]["num-examples"] for node in sorted(answers)]
    assert [sizes[client] for client in range(4)] == ordered
    assert json.loads((run.path / "status.json").read_text())["status"] == "completed"


def test_sites_with_the_same_data_are_named_and_the_run_goes_on(
    federation: Federation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for site, seed in enumerate((0, 1, 0, 2)):
        image_folder(tmp_path / f"site{site}", count=8, seed=seed)
    run = federation.play("image-folder", **{"num-server-rounds": 1})
    registration = [line for line in run.lines("clients.jsonl") if line["round"] == 0]
    twins = [line["client"] for line in registration if "same_data" in line]
    assert len(twins) == 2
    assert [line["same_data"] for line in registration if "same_data" in line] == [twins, twins]
    first, second = twins
    assert f"Clients {first}, {second} have exactly the same data, and each counts as a site of its own" in caplog.text
    assert f"clients {first} and {second} with exactly the same data" in (run.path / "report.html").read_text()
    assert run.metrics[-1]["replies"] == 4
    texts = [(tmp_path / f"state{site}" / run.path.name / "site/site-report.txt").read_text() for site in range(4)]
    warned = ["Another node of this run has exactly the same data" in text for text in texts]
    assert warned == [True, False, True, False]


def test_of_two_unnumbered_nodes_with_one_state_directory_one_is_left_out(
    federation: Federation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for site in range(4):
        image_folder(tmp_path / f"site{site}", count=8, seed=site)
    (tmp_path / "state1").symlink_to(tmp_path / "state3", target_is_directory=True)
    (tmp_path / "state3").mkdir()
    run = federation.play("image-folder", **{"num-server-rounds": 1})
    assert len([line for line in run.lines("clients.jsonl") if line["round"] == 0]) == 3
    assert re.search(r"Left out: node \d+: .*nodes \d+ and \d+ have the same state directory; give each", caplog.text)
    assert (tmp_path / "state3" / run.path.name / "site" / "label-audit.csv").is_file()


def striped(root: Path, count: int, seed: int) -> None:
    """Write images of lying ("dark") and standing ("bright") stripes: a network knows them, their mean says nothing."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        lines = 160 * (np.arange(32) // rng.integers(3, 6) % 2) + rng.integers(0, 90, (32, 32))
        save(root / ("dark", "bright")[number % 2] / f"{number:03}.png", lines if number % 2 else lines.T)


def test_a_site_s_images_are_learned_on_the_features_of_an_encoder(play: Play, tmp_path: Path) -> None:
    striped(tmp_path / "data", 40, seed=0)
    striped(tmp_path / "data/test", 40, seed=1)
    changes = settings_for("image-folder", tmp_path / "data")
    args = changes["task.args"].replace("size = 8", "size = 32")
    encoder = {"task.encoder": "efficientnet-lite0", "task.encoder-args": "size = 32", "task.args": args}
    run = play(**{**changes, **encoder, "model.name": "auto", "model.args": "", "task.cache-path": str(tmp_path / "c")})
    assert run.metrics[-1]["accuracy"] > 0.9
    versions = json.loads((run.path / "versions.json").read_text())
    assert re.fullmatch(r"efficientnet-lite0 [0-9a-f]{64}", versions["encoder"])
    assert versions["encoder"] in (run.path / "report.html").read_text()
