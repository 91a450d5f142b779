"""Names that come from outside lead only where they should: runs, variants, clients, label files, data folders."""

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from safetensors.numpy import load_file

import tests.messages  # noqa: F401  gives this process the ids that Flower's messages need
from client_app.app import app as client_app
from client_app.label_audit_files import read_columns, write_audit
from client_app.node import NodeError, OwnDataError, client_number, lock_state_dir, node_settings
from client_app.session import Session, run_key
from client_app.state import FolderStore
from tasks.config import DEFAULTS, ConfigError, variants
from tasks.noise import RATE_DISTRIBUTIONS, NoiseError
from tasks.noise.human import below
from tasks.protocol import RECORD, MessageHeader, Mode
from tasks.seeds import rng
from tasks.settings import FederationSettings, Settings, TaskSettings
from tests.unit.client_app.test_label_quality import CLASSES, example_audit

NAMES = [
    "",
    ".",
    "..",
    "../up",
    "a/../../up",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "a\0b",
    "a\nb",
    "-rf",
    ".hidden",
    "run\u202egnp",
    "r\u00fcn",
    "\uff0e\uff0e",
    "x" * 5000,
]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_or_an_arm_with_such_a_name_is_refused(name: str) -> None:
    with pytest.raises(NodeError, match="the name of a run must be up to 200 letters"):
        run_key(name)
    quoted = name.encode("unicode_escape").decode().replace("\\x", "\\u00")
    with pytest.raises(ConfigError, match=r"variants|a name is up to 100 letters"):
        variants({"variants": f'"{quoted}" = {{ seed = 2 }}'})


def test_ordinary_names_are_not() -> None:
    assert run_key("20260101-120000-my.arm_2") == "20260101-120000-my.arm_2"
    assert list(variants({"variants": "my-arm_2 = { seed = 2 }"})) == ["my-arm_2"]


@pytest.mark.parametrize("name", NAMES)
def test_a_client_writes_nothing_for_such_a_run(name: str, tmp_path: Path) -> None:
    own = tmp_path / "state"
    record = ConfigRecord(MessageHeader(client=0, server_round=1, num_rounds=1, run_name=name).record())
    message = Message(RecordDict({RECORD: record}), dst_node_id=1, message_type="query.audit")
    node = {"partition-id": 0, "state-dir": str(own)}
    reply = client_app(message, Context(1, 1, node, RecordDict(), {**DEFAULTS, "federation.num-clients": 4}))
    assert reply.error.reason.startswith("NodeError: the name of a run must be")
    assert not own.exists()


@pytest.mark.parametrize("number", ["../1", "1/..", "\u0661", "0x1", " ", "", "1e0", "9" * 50, -3, 2.5, None])
def test_a_node_whose_number_is_none_takes_no_part(number: Any) -> None:
    settings = Settings(federation=FederationSettings(num_clients=4))
    with pytest.raises(NodeError, match="partition-id=K"):
        client_number(settings, {"partition-id": number}, 1, Mode.DEPLOYMENT)


def test_where_a_client_keeps_its_files_follows_from_checked_names_only(tmp_path: Path) -> None:
    def folder(node: dict[str, Any], header: MessageHeader, mode: Mode = Mode.DEPLOYMENT) -> Path | None:
        session = Session.__new__(Session)
        vars(session).update(context=Context(1, 1, node, RecordDict(), {}), header=header, mode=mode)
        return session.folder()

    sent = MessageHeader(client=3, run_name="run", run_dir=str(tmp_path / "server"))
    assert folder({"state-dir": "/own", "partition-id": 3}, sent) == Path("/own/run/3")
    assert folder({"state-dir": "/own"}, sent) == Path("/own/run/site")
    assert folder({}, sent) is None, "a real node writes nowhere else, whatever run_dir the server names"
    assert folder({}, sent, Mode.SIMULATION) == tmp_path / "server/clients/3"


LABEL_FILES = ["../labels.npz", "/etc/passwd", "a/../../labels.npz", "a\0.npz", "link.npz", "folder/labels.npz"]


@pytest.mark.parametrize("name", LABEL_FILES)
def test_label_files_lie_below_the_data_folder(name: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    np.savez(tmp_path / "labels.npz", labels=np.zeros(3, np.int64))
    (root / "link.npz").symlink_to(tmp_path / "labels.npz")
    (root / "folder").symlink_to(tmp_path)
    with pytest.raises(NoiseError, match="name a file below"):
        below(root, name)


@pytest.mark.parametrize(
    "name", ["../rates.csv", "{above}/rates.csv", "a/../../rates.csv", "link.csv", "folder/rates.csv"]
)
def test_tables_of_noise_rates_lie_below_the_data_folder(name: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (tmp_path / "rates.csv").write_text("client,rate\n0,0.25\n")
    (root / "link.csv").symlink_to(tmp_path / "rates.csv")
    (root / "folder").symlink_to(tmp_path)
    law = RATE_DISTRIBUTIONS.build("table", {"path": name.format(above=tmp_path)}, data_root=root)
    with pytest.raises(NoiseError, match="name a file below"):
        law(1, rng(1, "noise-law"))


def test_a_link_inside_of_the_data_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link.npz").symlink_to(tmp_path / "labels.npz")
    assert below(tmp_path, "link.npz") == tmp_path / "link.npz"


def at(path: str, **more: Any) -> TaskSettings:
    return TaskSettings("digits", data_path=path, **more)


@pytest.mark.parametrize("path", ["/etc", "..", "shared/..", "shared/link", "a\0b", "/", "x" * 5000, "sharedmore"])
def test_a_server_cannot_name_a_folder_of_a_node(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/link").symlink_to("/etc")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WINNOW_DATA", "shared")
    with pytest.raises(OwnDataError, match="a node reads only where its operator says"):
        node_settings(Settings(task=at(path)), {"partition-id": 0}, Mode.DEPLOYMENT)


def test_below_the_data_folder_of_its_environment_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_DATA", str(tmp_path))
    for path in ("", str(tmp_path), str(tmp_path / "cifar")):
        assert node_settings(Settings(task=at(path)), {}, Mode.DEPLOYMENT).task.data_path == path


def test_a_node_reads_and_keeps_in_its_own_folders_whatever_the_server_names() -> None:
    node = {"data-path": "/own/data", "state-dir": "/own/state"}
    named = Settings(task=at("/etc", cache_path="/home"))
    assert node_settings(named, node, Mode.DEPLOYMENT).task == at("/own/data", cache_path="/own/state")
    bare = replace(named, task=replace(named.task, data_path=""))
    assert node_settings(bare, {}, Mode.DEPLOYMENT).task == at("", cache_path="")


def test_states_audits_and_marks_are_for_this_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = tmp_path / "state" / "run" / "0"
        FolderStore(folder, 0).save(1, {"belief": np.ones(3)})
        list_file = write_audit(folder, example_audit(), CLASSES, "csv", {"run": "r"})
        lock_state_dir(tmp_path / "state" / "run" / "site", 7)
    finally:
        os.umask(before)
    assert load_file(folder / "state-1.safetensors")["belief"].sum() == 3
    assert read_columns(list_file)["id"]
    made = [path for path in (tmp_path / "state").rglob("*") if path.is_dir()]
    assert {mode(path) for path in [tmp_path / "state", *made]} == {0o700}
    assert {mode(path) for path in folder.iterdir()} == {0o600}


def test_a_folder_that_is_there_stays_as_its_owner_made_it(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o750)
    before = mode(tmp_path / "state")
    FolderStore(tmp_path / "state" / "run", 0).save(1, {"belief": np.ones(3)})
    assert mode(tmp_path / "state") == before
    assert mode(tmp_path / "state" / "run") == 0o700


ODD_CLASSES = ("../../etc", "<script>alert(1)</script>", "/etc/passwd")


def test_class_names_are_text_in_an_audit_and_no_paths(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    path = write_audit(folder, example_audit(), ODD_CLASSES, "csv", {"run": "r"})
    written = {"label-audit.csv", "label-audit-summary.json", "label-audit-report.md"}
    assert {file.name for file in folder.iterdir()} == written
    assert list(tmp_path.iterdir()) == [folder]
    assert set(read_columns(path)["given"]) <= set(ODD_CLASSES)
