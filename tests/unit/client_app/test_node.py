"""A real node's own folder, its number, and the account of what leaves it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from client_app.mods import contents
from client_app.node import OwnDataError, client_number, node_dataset, node_settings
from tasks.protocol import Mode
from tasks.settings import FederationSettings, Settings, TaskSettings
from tests.site_data import ARGS, image_folder

REAL = Mode.DEPLOYMENT
DIGITS = Settings(federation=FederationSettings(num_clients=4))
OWN = replace(DIGITS, task=TaskSettings("image-folder", ARGS["image-folder"], "/the/server's/folder"))


def test_a_node_with_a_folder_gets_all_of_it_with_its_labels_as_they_are(tmp_path: Path) -> None:
    node = {"data-path": str(image_folder(tmp_path))}
    dataset = node_dataset(node_settings(OWN, node, REAL), node, 2, REAL)
    assert (len(dataset.data), dataset.data.client, dataset.noise_rate) == (40, 2, 0)
    assert dataset.data.class_counts().tolist() == [20, 20]


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
    told = str(caught.value)
    assert told.endswith("; what and where is in the log of this node")
    assert not any(word in told for word in ("clinic", "smith", "dark", str(tmp_path)))
    assert str(root) in caplog.text


def test_a_node_with_its_own_data_needs_no_number_and_others_do() -> None:
    node = {"data-path": "/data"}
    assert client_number(OWN, node, -1, REAL) == -1
    assert client_number(OWN, node, 3, REAL) == 3
    assert client_number(OWN, {**node, "partition-id": 1}, 3, REAL) == 1
    for settings, given, asked in ((DIGITS, node, -1), (OWN, node, 4), (OWN, {**node, "partition-id": -1}, 0)):
        with pytest.raises(ValueError, match="partition-id=K"):
            client_number(settings, given, asked, REAL)


def test_the_account_names_everything_that_is_sent() -> None:
    content = RecordDict(
        {
            "arrays": ArrayRecord({"flat": Array(np.zeros(250_000, np.float32))}),
            "metrics": MetricRecord({"num-examples": 12, "class-losses": [0.1, 0.2, 0.3]}),
            "winnow": ConfigRecord({"layout": "the order of the arrays"}),
            "other": ConfigRecord({"flag": True, "note": "abc"}),
        }
    )
    assert contents(content) == (
        "model (1.0 MB), num-examples = 12, class-losses (3 values), other.flag = True, other.note (3 values)"
    )
