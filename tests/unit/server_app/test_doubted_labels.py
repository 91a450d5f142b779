"""Doubted labels to look at: which are chosen, what is shown of them, and of whose data none is shown."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from client_app.label_audit_files import list_path
from server_app.doubted_labels import MOST_DOUBTS, SIDE, doubted_labels, picture, shows_doubts
from server_app.report import ReportError, read_run, write_report
from server_app.storage.doubted_labels import DOUBTS, Doubt, read_doubts, write_doubts
from tasks.client_data import client_dataset, load_task
from tasks.settings import FederationSettings, Settings, TaskSettings
from tests.run_directories import write_run

SETTINGS = replace(Settings(), federation=FederationSettings(num_clients=8))
HEAD = "id,given,suggested,confidence,suspicion,changed,changed_to,rank"


def listed(folder: Path, client: int, doubted: int) -> list[str]:
    """Write a list whose first labels are doubted, the later the less; return the names of the examples."""
    data = client_dataset(SETTINGS, client).data
    names = [str(number) for number in data.ids]
    rows = []
    for place, (name, label) in enumerate(zip(names, data.labels, strict=True)):
        suggested = (label + 1) % 10 if place < doubted else label
        rows.append(f"{name},{label},{suggested},0.1,{0.9 - place / 1000 - client / 100:.4f},false,,{place + 1}")
    path = list_path(folder / "clients" / str(client), "csv")
    path.parent.mkdir(parents=True)
    path.write_text("\n".join([HEAD, *rows]) + "\n")
    return names


def test_the_most_suspicious_are_shown_two_of_a_client_with_picture_and_truth(tmp_path: Path) -> None:
    names = [listed(tmp_path, client, doubted=[0, 1, 5, 5, 5, 5, 5, 5][client]) for client in range(8)]
    found = doubted_labels(tmp_path, SETTINGS, range(8))
    assert len(found) == MOST_DOUBTS
    chosen = [(doubt.client, doubt.name) for doubt in found]
    assert chosen == [
        (1, names[1][0]),
        *((c, names[c][place]) for c in range(2, 7) for place in (0, 1)),
        (7, names[7][0]),
    ]
    for doubt in found:
        dataset = client_dataset(SETTINGS, doubt.client)
        place = names[doubt.client].index(doubt.name)
        assert (doubt.given, doubt.true) == (str(dataset.data.labels[place]), str(dataset.true_labels[place]))
        assert doubt.suggested == str((dataset.data.labels[place] + 1) % 10)
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(doubt.png))))
        np.testing.assert_allclose(shown / 255 * 16, dataset.data.features[place][0].numpy(), atol=0.05)
    assert any(doubt.given != doubt.true for doubt in found)


def test_the_list_of_another_run_is_refused(tmp_path: Path) -> None:
    listed(tmp_path, 0, doubted=3)
    (tmp_path / "clients/0").rename(tmp_path / "clients/1")
    with pytest.raises(ValueError, match="client 1 has no example"):
        doubted_labels(tmp_path, SETTINGS, [1])


@pytest.mark.parametrize(
    ("name", "args", "shown"),
    [
        ("digits", "", True),
        ("cifar-10", "", True),
        ("image-folder", "classes = ['cat', 'dog']", False),
        ("isic-2017", "", False),  # a label for each pixel
        ("clothing1m", "", False),  # labels as the web gave them: nobody knows the true ones
        ("ag-news", "", False),
    ],
)
def test_nobody_s_own_data_is_shown(name: str, args: str, shown: bool, tmp_path: Path) -> None:
    settings = TaskSettings(name=name, args=args, data_path=str(tmp_path))
    assert shows_doubts(load_task(settings)) is shown
    if not shown:  # nothing is read, neither a list nor data
        assert doubted_labels(tmp_path, replace(SETTINGS, task=settings), [0]) == []


def test_large_pictures_become_small_and_colours_stay() -> None:
    image = torch.zeros(3, 4 * SIDE, 2 * SIDE)
    image[0] = 1
    small = Image.open(io.BytesIO(picture(image)))
    assert (small.width, small.height) == (SIDE // 2, SIDE)
    assert small.getpixel((3, 3)) == (255, 0, 0)


def doubt(**changes: object) -> Doubt:
    png = base64.b64encode(picture(torch.zeros(1, 2, 2))).decode()
    return Doubt(**{**vars(Doubt(3, "a", "cat", "dog", "dog", 0.5, png)), **changes})  # type: ignore[arg-type]


def test_what_is_written_is_read_and_shown_in_words(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    doubts = (doubt(), doubt(true="cat"), doubt(true="<b>"), doubt(true=""))
    write_doubts(path, doubts)
    assert read_run(path).doubts == doubts
    page = write_report(path).read_text()
    assert "The 4 labels that the audits doubt most, two of a client at most: 3 of them are wrong, and for 1" in page
    verdicts = [
        "wrong, and the suggestion is right",
        "the given label is right",
        "in truth &lt;b&gt;",
        "none of the classes",
    ]
    assert [page.count(verdict) for verdict in verdicts] == [1, 1, 1, 1]
    assert page.count('<img src="data:image/png;base64,') == 4
    assert "img-src data:;" in page
    (path / DOUBTS).unlink()
    assert "Doubted labels" not in write_report(path).read_text()


@pytest.mark.parametrize(
    "changes", [{"png": "PHN2Zz4="}, {"png": "no base64"}, {"client": "1"}, {"given": 3}, {"other": 1}]
)
def test_anything_else_is_an_error_that_names_the_file(tmp_path: Path, changes: dict[str, object]) -> None:
    path = write_run(tmp_path)
    (path / DOUBTS).write_text(json.dumps({"doubted": [{**vars(doubt()), **changes}]}))
    with pytest.raises(ReportError, match=DOUBTS):
        read_run(path)
    assert read_doubts({}) == ()
