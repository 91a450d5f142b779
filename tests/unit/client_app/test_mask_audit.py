"""Mask audit of one client: which masks are doubted and where, the files, and how the audit is scored."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import precision_score, recall_score, roc_auc_score
from torch import Tensor, nn

from client_app.label_audit_files import SUMMARY
from client_app.label_quality import confident_pairs
from client_app.mask_audit import MaskAudit, audit_masks, rank_masks
from client_app.mask_audit_files import (
    COLUMNS,
    PICTURES,
    REGIONS,
    read_mask_list,
    read_suggested,
    write_mask_audit,
)
from client_app.mask_pictures import COLOURS, GIVEN_COLOUR, picture
from client_app.mask_regions import EXTRA, MISSING, Region, find_regions, in_words
from server_app.storage.audit_scores import Scores, read_scores, write_scores
from server_app.storage.audit_scoring import score_masks
from server_app.validation.config import check
from tasks.base import ClientData, DataError
from tasks.client_data import ClientDataset, client_dataset, load_task
from tasks.config import DEFAULTS
from tasks.metrics import IGNORED
from tasks.settings import Settings
from tests.site_data import ARGS, image_masks

CPU = torch.device("cpu")


class Bright(nn.Module):
    """Takes bright pixels for the object, and is surer of it the brighter they are."""

    def forward(self, images: Tensor) -> Tensor:
        light = images.mean(1)
        return torch.stack([-light, light], 1)


def settings(folder: Path) -> Settings:
    task = {"task.name": "image-masks", "task.args": ARGS["image-masks"], "task.data-path": str(image_masks(folder))}
    noise = {"noise.name": "masks", "noise.rates-args": "max = 0.5", "noise.args": "strength = 0.7"}
    few = {"partition.name": "iid", "partition.args": "", "federation.num-clients": 2, "train.device": "cpu"}
    return check({**DEFAULTS, **task, **noise, **few, "model.args": "width = 8, depth = 1", "loss.name": "ce"})


Audited = tuple[MaskAudit, ClientDataset, Settings]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Audited:
    """The audit of a client half of whose masks are wrong."""
    config = settings(tmp_path_factory.mktemp("masks"))
    dataset = client_dataset(config, 1)
    return audit_masks(Bright(), dataset.data, config, CPU), dataset, config


@pytest.fixture
def written(tmp_path: Path, audited: Audited) -> Audited:
    audit, dataset, config = audited
    write_mask_audit(tmp_path / "own", audit, dataset.data, load_task(config.task), "csv", {"client": 1})
    return audited


def test_pixels_are_doubted_as_confident_learning_doubts_labels(audited: Audited) -> None:
    audit, dataset, config = audited
    data = dataset.data
    logits = Bright()(load_task(config.task).prepare(data.features))
    beliefs = torch.softmax(logits.double(), 1).movedim(1, -1).flatten(0, 2).numpy()
    given, confident = confident_pairs(beliefs, data.labels.ravel())
    assert 0 < (given != confident).sum() == audit.regions.sum()
    for rank, place in enumerate(audit.places):
        assert audit.suspicion[rank] == (audit.suggested[rank] != data.labels[place]).mean()
    assert (np.diff(audit.suspicion) <= 0).all()


def test_what_a_pixel_without_a_class_shows_is_not_judged(audited: Audited) -> None:
    _, dataset, config = audited
    data = dataset.data
    labels = data.labels.copy()
    labels[:, :8] = IGNORED
    half = audit_masks(Bright(), ClientData(1, data.features, labels, data.ids, 2), config, CPU)
    assert (half.suggested[:, :8] == IGNORED).all()
    assert half.regions.any()
    place = list(half.places).index(0)
    assert half.suspicion[place] == half.regions[place].sum() / labels[0, 8:].size


def hand_made(suggested: list[list[list[int]]], given: list[list[list[int]]]) -> MaskAudit:
    labels = np.array(given)
    data = ClientData(0, torch.zeros(len(labels), 3, *labels.shape[1:]), labels, np.arange(len(labels)), 2)
    return rank_masks(np.array(suggested), data, ["=a", "b"])


def test_the_region_is_said_by_its_rows_and_columns() -> None:
    audit = hand_made(
        [[[0, 0, 0], [0, 0, 0]], [[0, 1, 1], [0, 1, 0]]], [[[0, 0, 0], [0, 0, 0]], [[0, 0, 1], [0, 0, 0]]]
    )
    assert audit.names == ("b", "=a")
    assert audit.boxes() == [(0, 1, 1, 1), None]
    assert audit.suspicion.tolist() == [2 / 6, 0.0]
    assert (audit.doubted, audit.noise_rate) == (1, 0.5)


@pytest.mark.parametrize("wanted", ["csv", "parquet"])
def test_a_list_is_read_as_it_was_written(tmp_path: Path, audited: Audited, wanted: str) -> None:
    audit, dataset, config = audited
    path = write_mask_audit(tmp_path / "own", audit, dataset.data, load_task(config.task), wanted, {"client": 1})
    listed = read_mask_list(path)
    assert listed["id"] == list(audit.names)
    assert listed["suspicion"] == pytest.approx(audit.suspicion, abs=1e-4)
    assert listed["look"] == [True] * audit.doubted + [False] * (len(audit) - audit.doubted)
    assert listed["doubted_pixels"] == audit.regions.sum((1, 2)).tolist()
    places, suggested = read_suggested(tmp_path / "own")
    assert np.array_equal(places, audit.places)
    assert np.array_equal(suggested, audit.suggested)
    summary = json.loads((tmp_path / "own" / SUMMARY).read_text())
    assert (summary["client"], summary["look_at_first"]) == (1, audit.doubted)
    assert summary["estimated_share_of_wrong_pixels"] == pytest.approx(audit.regions.mean(), abs=1e-4)


def test_pictures_are_of_the_masks_to_look_at_and_for_this_user_alone(tmp_path: Path, audited: Audited) -> None:
    old = tmp_path / "own" / PICTURES / "0099.png"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"of an earlier audit")
    audit, dataset, config = audited
    folder = tmp_path / "own"
    write_mask_audit(folder, audit, dataset.data, load_task(config.task), "csv", {})
    assert sorted(path.name for path in (folder / PICTURES).iterdir()) == [
        f"{rank:04}.png" for rank in range(1, audit.doubted + 1)
    ]
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.rglob("*") if path.is_file())
    lines = (folder / "label-audit.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert f",{PICTURES}/0001.png," in lines[1]
    assert Image.open(folder / PICTURES / "0001.png").size == (512, 256)


def test_a_picture_shows_the_outlines_of_the_mask_and_of_what_is_doubted_over_the_image() -> None:
    given = np.zeros((256, 256), np.int64)
    given[100:200, 100:200] = 1
    suggested = given.copy()
    suggested[100:200, 200:230] = 1
    suggested[120:180, 110:140] = 0
    shown = picture(np.full((1, 256, 256), 0.5, np.float32), given, suggested)
    assert (shown[:, :256] == 128).all()
    assert tuple(shown[99, 256 + 150]) == GIVEN_COLOUR
    for column, row in ((201, 150), (229, 150), (215, 100), (215, 199)):
        assert tuple(shown[row, 256 + column]) == COLOURS[MISSING]
    for column, row in ((110, 150), (139, 150), (125, 120), (125, 179)):
        assert tuple(shown[row, 256 + column]) == COLOURS[EXTRA]
    for column in (150, 215, 125):  # what lies inside an outline can be seen
        assert tuple(shown[150, 256 + column]) == (128, 128, 128)


def test_the_doubted_regions_are_listed_beside_the_masks(tmp_path: Path, written: Audited) -> None:
    audit, _, _ = written
    folder = tmp_path / "own"
    with (folder / f"{REGIONS}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (folder / "label-audit.csv").open(newline="") as file:
        masks = list(csv.DictReader(file))
    assert {row["direction"] for row in rows} == {MISSING, EXTRA}
    for rank, line in enumerate(masks):
        mine = [row for row in rows if row["id"] == audit.names[rank]]
        assert [int(row["pixels"]) for row in mine] == [region.pixels for region in found(audit, rank)]
        assert line["regions"] == in_words(found(audit, rank))
        for row in mine:
            inside = audit.regions[rank][
                int(row["top"]) : int(row["bottom"]) + 1, int(row["left"]) : int(row["right"]) + 1
            ]
            assert inside.sum() >= int(row["pixels"])


def found(audit: MaskAudit, rank: int) -> list[Region]:
    return find_regions(audit.given[rank], audit.suggested[rank])


def test_a_list_of_masks_is_scored_as_sklearn_scores_it(tmp_path: Path, written: Audited) -> None:
    audit, dataset, config = written
    names = load_task(config.task).example_names(dataset.data.ids)
    places, suggested = read_suggested(tmp_path / "own")
    score = score_masks(read_mask_list(tmp_path / "own" / "label-audit.csv"), places, suggested, dataset, names)
    wrong = dataset.wrong()[audit.places]
    images, doubted = wrong.any((1, 2)), audit.regions
    assert 0 < images.sum() < len(images)
    assert score.auc == pytest.approx(roc_auc_score(images, -np.arange(len(images))))
    assert (score.wrong, score.pixels, score.wrong_pixels) == (images.sum(), wrong.size, wrong.sum())
    rates = Scores((score,)).rates("suggested")
    assert rates["precision"] == pytest.approx(precision_score(wrong.ravel(), doubted.ravel()))
    assert rates["fix_rate"] == pytest.approx(recall_score(wrong.ravel(), doubted.ravel()))
    assert rates["accuracy"] == pytest.approx((audit.suggested == dataset.true_labels[audit.places]).mean())
    write_scores(tmp_path, Scores((score,)))
    assert read_scores(json.loads((tmp_path / "audit-scores.json").read_text())) == Scores((score,))


def test_masks_of_another_list_are_not_scored(tmp_path: Path, written: Audited) -> None:
    _, dataset, config = written
    names = load_task(config.task).example_names(dataset.data.ids)
    places, suggested = read_suggested(tmp_path / "own")
    listed = read_mask_list(tmp_path / "own" / "label-audit.csv")
    with pytest.raises(ValueError, match="not those of the list"):
        score_masks(listed, places[::-1], suggested, dataset, names)
    (tmp_path / "own" / "label-audit-masks.npz").write_bytes(b"")
    with pytest.raises(DataError, match="does not hold the masks of an audit"):
        read_suggested(tmp_path / "own")
