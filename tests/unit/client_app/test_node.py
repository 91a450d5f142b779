"""Node of a site: its own folder, its number, the fingerprint of its data, the lock of its state directory."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch

from client_app.node import (
    FINGERPRINT_BITS,
    NodeError,
    OwnDataError,
    StateDirError,
    client_number,
    fingerprint,
    lock_state_dir,
    node_dataset,
    node_settings,
)
from strategies.validation import one_line
from tasks.base import ClientData
from tasks.protocol import Mode
from tasks.settings import FederationSettings, Settings, TaskSettings
from tests.site_data import ARGS, image_folder

DATA = ClientData(
    0, torch.arange(24, dtype=torch.uint8).reshape(4, 1, 2, 3), np.array([0, 1, 1, 0]), np.arange(4), num_classes=2
)
OLD, NEW = 13221729497652991868, 4800910847626579947
REAL = Mode.DEPLOYMENT
DIGITS = Settings(federation=FederationSettings(num_clients=4))
OWN = replace(DIGITS, task=TaskSettings("image-folder", ARGS["image-folder"], "/the/server's/folder"))


def test_a_node_with_a_folder_gets_all_of_it_with_its_labels_as_they_are(tmp_path: Path) -> None:
    node = {"data-path": str(image_folder(tmp_path))}
    dataset = node_dataset(node_settings(OWN, node, REAL), node, 2, REAL)
    assert (len(dataset.data), dataset.data.client, dataset.noise_rate) == (40, 2, 0)
    assert dataset.data.class_counts().tolist() == [20, 20]


def test_an_operator_s_folders_may_be_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    found = node_settings(OWN, {"data-path": "~/scans", "state-dir": "~/state"}, REAL).task
    assert (found.data_path, found.cache_path) == (f"{tmp_path}/scans", f"{tmp_path}/state")
    for node in ({"data-path": "~nobody2/x"}, {"data-path": "/d", "state-dir": "~nobody2/x"}):
        with pytest.raises(NodeError, match=f"the {[*node][-1]} of this node cannot be used") as caught:
            node_settings(OWN, node, REAL)
        assert "nobody2" not in str(caught.value), "the operator's path stays there"


def test_the_folder_that_the_server_names_is_never_read_on_a_node(tmp_path: Path) -> None:
    settings = replace(OWN, task=replace(OWN.task, data_path=str(image_folder(tmp_path))))
    with pytest.raises(OwnDataError, match="start the node with 'data-path=/its/folder'"):
        node_dataset(settings, {}, 0, REAL)


def test_nodes_of_a_built_in_data_set_take_their_share_of_it(tmp_path: Path) -> None:
    parts = [
        node_dataset(node_settings(DIGITS, node, REAL), node, 1, REAL) for node in ({}, {"data-path": str(tmp_path)})
    ]
    for part in parts:
        assert 0 < len(part.data) < 1437
        np.testing.assert_array_equal(part.data.ids, parts[0].data.ids)


@pytest.mark.parametrize("content", ["no folder", "broken image", "empty"])
def test_nothing_of_the_site_is_in_what_the_server_is_told(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "clinic"
    if content != "no folder":
        (root / "dark").mkdir(parents=True)
    if content == "broken image":
        (root / "dark" / "mr smith.png").write_bytes(b"")
    node = {"data-path": str(root)}
    with pytest.raises(OwnDataError) as caught:
        node_dataset(node_settings(OWN, node, REAL), node, 0, REAL)
    text = str(caught.value)
    assert text.endswith("; what and where is in the log of this node")
    assert not any(word in text for word in ("clinic", "smith", "dark", str(tmp_path)))
    assert str(root) in caplog.text


def test_a_node_with_its_own_data_needs_no_number_and_others_do() -> None:
    node = {"data-path": "/data"}
    assert client_number(OWN, node, -1, REAL) == -1
    assert client_number(OWN, node, 3, REAL) == 3
    assert client_number(OWN, {**node, "partition-id": 1}, 3, REAL) == 1
    for settings, given, asked in ((DIGITS, node, -1), (OWN, node, 4), (OWN, {**node, "partition-id": -1}, 0)):
        with pytest.raises(ValueError, match="partition-id=K"):
            client_number(settings, given, asked, REAL)


def test_equal_data_of_other_clients_has_the_same_number_in_a_run_and_another_one_in_the_next() -> None:
    same = replace(DATA, client=3, features=DATA.features.clone(), labels=DATA.labels.copy())
    assert fingerprint(DATA, "monday") == fingerprint(same, "monday")
    assert fingerprint(DATA, "monday") != fingerprint(DATA, "tuesday")
    assert 0 <= fingerprint(DATA, "monday") < 2**FINGERPRINT_BITS


def test_each_pixel_label_shape_and_kind_of_number_counts() -> None:
    pixel, label = DATA.features.clone(), DATA.labels.copy()
    pixel[3, 0, 1, 2] += 1
    label[2] = 0
    others = [
        replace(DATA, features=pixel),
        replace(DATA, labels=label),
        replace(DATA, features=DATA.features.reshape(4, 1, 3, 2)),
        replace(DATA, features=DATA.features.to(torch.int8)),
        replace(DATA, features=DATA.features.flip(0)),
    ]
    numbers = {fingerprint(data, "run") for data in [DATA, *others]}
    assert len(numbers) == len(others) + 1


def test_words_and_masks_have_numbers_too() -> None:
    words = replace(DATA, features=torch.arange(8).reshape(4, 2))
    masks = replace(DATA, labels=np.zeros((4, 2, 3), np.int64))
    assert len({fingerprint(data, "run") for data in (DATA, words, masks)}) == 3


def test_a_node_gets_a_folder_and_keeps_it(tmp_path: Path) -> None:
    folder = tmp_path / "20260101-120000" / "site"
    for _ in range(2):
        lock_state_dir(folder, OLD)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"owner": str(OLD)}


def test_another_node_is_refused_and_told_both_ids_and_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "20260101-120000-2" / "site"
    lock_state_dir(folder, OLD)
    for _ in range(2):
        with pytest.raises(StateDirError) as refused:
            lock_state_dir(folder, NEW)
    text = str(refused.value)
    assert f"nodes {NEW} and {OLD} have the same state directory" in text
    assert "remove 20260101-120000-2/site/owner there" in text
    assert str(tmp_path) not in text
    assert not one_line(f"StateDirError: {text}").endswith("..."), "all of it is shown"
    lock_state_dir(folder, OLD)  # which is not disturbed by the attempt


def test_a_node_with_a_new_key_goes_on_once_the_old_lock_is_removed(tmp_path: Path) -> None:
    lock_state_dir(tmp_path, OLD)
    (tmp_path / "state-3.safetensors").touch()
    (tmp_path / "owner").unlink()
    lock_state_dir(tmp_path, NEW)
    assert (tmp_path / "state-3.safetensors").exists()


def test_of_nodes_that_lock_a_folder_at_the_same_time_exactly_one_gets_it(tmp_path: Path) -> None:
    together = Barrier(4)

    def gets(folder: Path, node: int) -> bool:
        together.wait()
        try:
            lock_state_dir(folder, node)
        except StateDirError:
            return False
        return True

    with ThreadPoolExecutor(4) as nodes:
        for number in range(100):
            folder = tmp_path / f"run-{number}" / "site"
            got = list(nodes.map(gets, [folder] * 4, range(4)))
            assert sum(got) == 1
            assert {path.name: path.read_text() for path in folder.iterdir()} == {"owner": str(got.index(True))}


def test_a_node_that_is_a_moment_too_late_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def late(source: str, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        lock_state_dir(tmp_path, OLD)
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(StateDirError, match=f"nodes {NEW} and {OLD}"):
        lock_state_dir(tmp_path, NEW)
    lock_state_dir(tmp_path, OLD)


def test_an_attempt_that_was_cut_off_locks_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(_source: str, _target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", killed)
        with pytest.raises(KeyboardInterrupt):
            lock_state_dir(tmp_path, NEW)
    (tmp_path / ".owner-k1ll3d").write_text(str(NEW))  # what a process leaves that has no time to clean up
    lock_state_dir(tmp_path, OLD)
    assert (tmp_path / "owner").read_text() == str(OLD)
