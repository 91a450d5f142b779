"""Large data sets of images: decoded once into mapped files, encoded without that, and shares that do not add up."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tasks import client_data, example_store
from tasks.base import DataError, Task
from tasks.client_data import client_dataset, load_task
from tasks.datasets.image_files import WebImages
from tasks.datasets.isic import Isic2017
from tasks.datasets.web import Animal10N, Clothing1M
from tasks.settings import FederationSettings, PartitionSettings, Settings, TaskSettings
from tests.named_data import animal10n, clothing1m, isic2017

SIZE = "size = 16"


@pytest.fixture(autouse=True)
def nothing_is_kept() -> None:
    load_task.cache_clear()


def settings(name: str, root: Path, **more: str) -> TaskSettings:
    return TaskSettings(name, SIZE, str(root), cache_path=str(root / "cache"), **more)


def again(given: TaskSettings) -> Task:
    load_task.cache_clear()
    return load_task(given)


def test_images_are_decoded_once_and_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Clothing1M(data_path=clothing1m(tmp_path), size=16)
    chosen = settings("clothing1m", tmp_path)
    for part in ("train_examples", "test_examples"):
        assert torch.equal(getattr(load_task(chosen), part)().features, getattr(plain, part)().features)
    monkeypatch.setattr(WebImages, "pixels", None)
    for part in ("train_examples", "test_examples"):
        found, expected = getattr(again(chosen), part)(), getattr(plain, part)()
        assert torch.equal(found.features, expected.features)
        assert np.array_equal(found.labels, expected.labels)


def test_masks_are_mapped_with_their_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Isic2017(data_path=isic2017(tmp_path, count=10), size=16).train_examples()
    chosen = settings("isic-2017", tmp_path)
    load_task(chosen).train_examples()
    monkeypatch.setattr(Isic2017, "pair", lambda *_: pytest.fail("decoded again"))
    assert np.array_equal(again(chosen).train_examples().labels, plain.labels)
    assert torch.equal(again(chosen).train_examples().features, plain.features)


def test_an_interrupted_decoding_goes_on_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example_store, "BLOCK", 4)
    monkeypatch.setattr(example_store, "SECONDS_BETWEEN_MARKS", 0.0)
    plain = Animal10N(data_path=animal10n(tmp_path), size=16).train_examples()
    decode, read = Animal10N.pixels, list[str]()

    def interrupted(self: Animal10N, path: Path) -> object:
        read.append(path.name)
        if len(read) == 11:
            raise KeyboardInterrupt
        return decode(self, path)

    monkeypatch.setattr(Animal10N, "pixels", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_task(settings("animal-10n", tmp_path)).train_examples()
    assert torch.equal(again(settings("animal-10n", tmp_path)).train_examples().features, plain.features)
    assert len(read) == 11 + 15 - 8, "two blocks of four were done"


def test_changed_lists_and_folders_are_seen(tmp_path: Path) -> None:
    root = animal10n(tmp_path) / "animal-10n/training"
    chosen = settings("animal-10n", tmp_path)
    before = load_task(chosen).train_examples().labels.tolist()
    (root / "0_1000.jpg").rename(root / "9_1000.jpg")
    after = again(chosen).train_examples()
    assert sorted(after.labels.tolist()) != sorted(before)
    expected = Animal10N(data_path=tmp_path, size=16).train_examples()
    assert torch.equal(after.features, expected.features)


def test_an_encoder_reads_the_files_and_no_pixels_are_kept(tmp_path: Path) -> None:
    clothing1m(tmp_path)
    encoder = "examples.colour_encoder:ColourGrid"
    encoded = load_task(settings("clothing1m", tmp_path, encoder=encoder))
    assert len(encoded.first_examples(3)) == 3
    features = encoded.train_examples().features
    assert [path.name[:9] for path in (tmp_path / "cache").glob("*.npy")] == ["features-"] * 2
    skipping = again(settings("clothing1m", tmp_path, encoder=encoder, bad_data="skip"))
    assert torch.equal(skipping.train_examples().features, features), "through decoded pixels"
    assert any((tmp_path / "cache").glob("examples-*"))
    assert np.array_equal(skipping.train_labels(), encoded.train_labels())
    assert (encoded.keeps_labels, encoded.train_ids().tolist()) == (True, list(range(12)))


def test_an_unreadable_image_stops_an_encoding_with_its_name(tmp_path: Path) -> None:
    clothing1m(tmp_path)
    (tmp_path / "clothing1m/images/1/4/4,4.jpg").write_bytes(b"no image")
    encoder = "examples.colour_encoder:ColourGrid"
    with pytest.raises(DataError, match=r"images/1/4/4,4.jpg: cannot be read as an image"):
        load_task(settings("clothing1m", tmp_path, encoder=encoder)).train_examples()


@pytest.mark.parametrize(("limit", "kept"), [(0, 1), (2**40, 5)])
def test_shares_of_a_large_set_do_not_pile_up(
    limit: int, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_data, "_dataset", client_data.DatasetCache(client_data._make_dataset, limit))
    chosen = Settings(
        task=settings("animal-10n", animal10n(tmp_path)),
        federation=FederationSettings(num_clients=5),
        partition=PartitionSettings("iid", ""),
    )
    made = [client_dataset(chosen, client) for client in range(5)]
    again = [client_dataset(chosen, client) for client in reversed(range(5))]
    assert sum(first is second for first, second in zip(made, reversed(again), strict=True)) == kept
    whole = load_task(chosen.task).train_examples()
    for dataset in made:
        assert torch.equal(dataset.data.features, whole.features[torch.from_numpy(dataset.data.ids)])
