"""A task with an encoder: its features stand for the examples, are kept, and everything else is the task's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from client_app.node import EncoderMismatchError, check_encoder
from server_app.validation.config import validate
from tasks.base import DataError
from tasks.client_data import divide, encode_examples, load_task
from tasks.config import to_flat
from tasks.encoders import EncodedTask, ImageEncoder
from tasks.plugins import PluginError
from tasks.protocol import Mode
from tasks.settings import FederationSettings, PartitionSettings, Settings, TaskSettings
from tests.site_data import ARGS, image_folder, save, shades, text_table

SIZE = "size = 32"


@pytest.fixture
def images(tmp_path: Path) -> TaskSettings:
    """Forty images of 32 pixels with ten for the test, and a small network that encodes them."""
    for part, seed in (("", 0), ("test", 1)):
        for number, (name, pixels) in enumerate(shades(40 if not part else 10, seed, size=32)):
            save(tmp_path / "data" / part / name / f"{number:03}.png", pixels)
    torch.manual_seed(0)
    torch.jit.script(nn.Sequential(nn.Conv2d(3, 24, 3, stride=2), nn.ReLU())).save(str(tmp_path / "net.pt"))
    args = 'classes = ["dark", "bright"], size = 32'
    return TaskSettings(
        "image-folder",
        args,
        str(tmp_path / "data"),
        cache_path=str(tmp_path / "cache"),
        encoder="torchscript",
        encoder_args="weights = 'net.pt', size = 32",
        weights_path=str(tmp_path),
    )


def fresh(settings: TaskSettings) -> EncodedTask:
    """The task as another process would build it."""
    load_task.cache_clear()
    task = load_task(settings)
    assert isinstance(task, EncodedTask)
    return task


def test_examples_are_the_features_of_the_images_with_their_labels_and_names(images: TaskSettings) -> None:
    task = fresh(images)
    plain = load_task(replace(images, encoder=""))
    examples, raw = task.train_examples(), plain.train_examples()
    expected = task.encoder.encode(raw.features / 255)
    torch.testing.assert_close(examples.features.float(), expected, rtol=1e-3, atol=1e-3)
    assert examples.features.dtype == torch.float16
    assert np.array_equal(examples.labels, raw.labels)
    ids = task.train_ids()
    assert list(task.example_names(ids)) == list(plain.example_names(ids))
    assert len(task.test_examples()) == 10
    assert (task.class_names, task.input_shape, task.brings_own_data) == (("dark", "bright"), (24,), True)


def test_every_row_of_the_input_has_mean_zero_and_deviation_one(images: TaskSettings) -> None:
    task = fresh(images)
    inputs = task.prepare(task.train_examples().features)
    assert inputs.dtype == torch.float32
    torch.testing.assert_close(inputs.mean(1), torch.zeros(40), rtol=0, atol=1e-5)
    torch.testing.assert_close(inputs.std(1, correction=0), torch.ones(40), rtol=1e-4, atol=0)
    assert bool(task.prepare(torch.zeros(1, 24, dtype=torch.float16)).isfinite().all()), "a vector without any spread"


def test_the_head_is_linear_and_starts_without_an_opinion(images: TaskSettings) -> None:
    model = fresh(images).build_model("auto", "")
    assert [tuple(parameter.shape) for parameter in model.parameters()] == [(2, 24), (2,)]
    assert not any(parameter.any() for parameter in model.parameters())
    assert sum(map(torch.numel, fresh(images).build_model("mlp", "hidden = 3").parameters())) == 24 * 3 + 3 + 3 * 2 + 2


def count_encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let a list tell how many images are encoded from here on."""
    counts: list[int] = []
    encode = ImageEncoder.encode

    def counted(self: ImageEncoder, inputs: torch.Tensor) -> torch.Tensor:
        counts.append(len(inputs))
        return encode(self, inputs)

    monkeypatch.setattr(ImageEncoder, "encode", counted)
    return counts


def test_another_process_neither_reads_nor_encodes_again(images: TaskSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fresh(images).train_examples()
    counts = count_encoded(monkeypatch)
    task = fresh(images)
    monkeypatch.setattr(type(task.inner), "train_examples", lambda _: pytest.fail("the images were read again"))
    assert torch.equal(task.train_examples().features, first.features)
    assert counts == [1], "one image tells the width"


def test_a_new_file_and_other_declarations_and_weights_are_encoded_anew(
    images: TaskSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = fresh(images).train_examples().features.clone()
    counts = count_encoded(monkeypatch)
    save(tmp_path / "data/dark/new.png", np.zeros((32, 32, 3)))
    assert len(fresh(images).train_examples()) == 41
    smaller = replace(images, args=images.args.replace("size = 32", "size = 24"))
    assert not torch.equal(fresh(smaller).train_examples().features[:40], before)
    torch.manual_seed(1)
    torch.jit.script(nn.Sequential(nn.Conv2d(3, 24, 3, stride=2), nn.ReLU())).save(str(tmp_path / "net.pt"))
    assert not torch.equal(fresh(images).train_examples().features[:40], before)
    assert sum(counts) == 3 * (41 + 1)


def test_what_was_left_out_once_is_refused_where_nothing_may_be(images: TaskSettings, tmp_path: Path) -> None:
    (tmp_path / "data/dark/broken.png").write_text("no image")
    assert len(fresh(replace(images, bad_data="skip")).train_examples()) == 40
    with pytest.raises(DataError, match="1 of 41 examples cannot be used"):
        fresh(images).train_examples()


def test_what_is_kept_inside_the_data_folder_does_not_count_as_data(
    images: TaskSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = replace(images, cache_path=str(Path(images.data_path) / ".state"))
    fresh(inside).train_examples()
    counts = count_encoded(monkeypatch)
    fresh(inside).train_examples()
    assert counts == [1]


def test_texts_are_cut_by_the_encoder_and_learned_from_its_features(tmp_path: Path) -> None:
    text_table(tmp_path / "data")
    settings = TaskSettings(
        "text-csv", ARGS["text-csv"], str(tmp_path / "data"), cache_path=str(tmp_path / "cache"), encoder="wordllama"
    )
    task = fresh(settings)
    assert task.train_examples().features.shape == (40, 256)
    labels = torch.from_numpy(task.train_examples().labels)
    inputs = task.prepare(task.train_examples().features)
    centres = torch.stack([inputs[labels == number].mean(0) for number in range(2)])
    assert bool((torch.cdist(inputs, centres).argmin(1) == labels).all()), "words of night are not words of day"
    hashed = load_task(replace(settings, encoder=""))
    assert hashed.train_examples().features.shape[1] != task.inner.train_examples().features.shape[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "wordllama", "encoder_args": ""}, "the encoder takes texts, and the examples of this task are no"),
        ({"name": "image-masks"}, "this task has a label for each pixel"),
        ({"encoder": "torchskript"}, "unknown encoder 'torchskript'; did you mean 'torchscript'"),
        ({"encoder_args": "weights = 'no.pt'"}, "there is no such file"),
    ],
)
def test_what_does_not_fit_together_is_refused(images: TaskSettings, changes: dict[str, str], message: str) -> None:
    with pytest.raises((DataError, PluginError), match=message):
        fresh(replace(images, **changes))


def test_small_images_are_refused_when_they_are_encoded(images: TaskSettings, tmp_path: Path) -> None:
    image_folder(tmp_path / "small")
    small = replace(images, args='classes = ["dark", "bright"], size = 12', data_path=str(tmp_path / "small"))
    with pytest.raises(DataError, match="at least 16 pixels a side"):
        fresh(small).train_examples()


def test_a_site_with_other_weights_takes_no_part(images: TaskSettings, caplog: pytest.LogCaptureFixture) -> None:
    own = fresh(images).encoder_digest
    check_encoder(Settings(task=images), own)
    check_encoder(Settings(task=replace(images, encoder="")), "")
    with pytest.raises(EncoderMismatchError, match=f"has the digest {own[:12]}, the coordinator's has 0123456789ab"):
        check_encoder(Settings(task=images), "0123456789abcdef")
    missing = replace(images, encoder_args="weights = 'gone.pt'")
    with pytest.raises(EncoderMismatchError, match="cannot be used on this node; why is in its log") as caught:
        check_encoder(Settings(task=missing), own)
    assert "gone.pt" not in str(caught.value), "a path is the site's own"
    assert "gone.pt" in caplog.text


def test_a_check_encodes_a_few_examples_and_a_division_none(
    images: TaskSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = count_encoded(monkeypatch)
    settings = Settings(
        task=images, federation=FederationSettings(num_clients=4), partition=PartitionSettings("iid", "")
    )
    assert sum(map(len, divide(images, settings.partition, 4, seed=1))) == 40
    assert counts == [1], "one image tells the width"
    flat = {**to_flat(settings), "loss.name": "ce"}
    validate(flat, Mode.SIMULATION)
    assert sum(counts) < 20
    first = fresh(images).first_examples(3)
    counts.clear()
    encode_examples(images)
    assert sum(counts) == 50
    assert torch.equal(first.features, load_task(images).train_examples().features[:3])
