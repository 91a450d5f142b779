"""Image tasks: crops and mirror images, digits, and CIFAR with and without the published files."""

import hashlib
import pickle
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional
from torchvision import datasets

from tasks.augmentation import crop_and_flip
from tasks.base import DataError, Examples
from tasks.images import Cifar10, Cifar100, Digits, ImageTask
from tasks.plugins import PluginError
from tasks.registry import TASKS

DEVICES = [
    "cpu",
    *(["cuda"] if torch.cuda.is_available() else []),
    *(["mps"] if torch.backends.mps.is_available() else []),
]


SIZES = {"train": 12, "test": 5}
TEST_IMAGES = "342538e35bc5249d"
"""Recorded with scikit-learn 1.9: another split of the digits would make old and new results incomparable."""


def random_images(*shape: int) -> Tensor:
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def windows(images: Tensor, padding: int) -> Tensor:
    """Return every allowed outcome by padding and slicing, (offsets^2 * 2, N, C, H, W)."""
    height, width = images.shape[-2:]
    padded = functional.pad(images, (padding,) * 4)
    offsets = range(2 * padding + 1)
    cuts = [padded[..., top : top + height, left : left + width] for top in offsets for left in offsets]
    return torch.stack([image for cut in cuts for image in (cut, cut.flip(-1))])


def which_window(images: Tensor, outcome: Tensor, padding: int) -> Tensor:
    """Return the number of the window that each outcome is; exactly one must fit."""
    fits = (windows(images, padding) == outcome).flatten(2).all(2)
    assert fits.sum(0).tolist() == [1] * len(images)
    return fits.int().argmax(0)


@pytest.mark.parametrize("shape", [(300, 3, 32, 32), (300, 1, 5, 9)])
def test_each_image_becomes_one_of_its_windows(shape: tuple[int, ...]) -> None:
    images = random_images(*shape)
    original = images.clone()
    outcome = crop_and_flip(images, torch.Generator().manual_seed(1), padding=4)
    assert (outcome.shape, outcome.dtype) == (images.shape, torch.uint8)
    assert outcome.is_contiguous()
    assert torch.equal(images, original)
    assert len(set(which_window(images, outcome, 4).tolist())) > 100


def test_offsets_and_mirror_images_are_uniform_and_independent() -> None:
    images = random_images(10_000, 1, 5, 5)
    outcome = crop_and_flip(images, torch.Generator().manual_seed(2), padding=2)
    counts = torch.bincount(which_window(images, outcome, 2), minlength=50)
    assert chisquare(counts.numpy()).pvalue > 0.01


def test_neighbours_in_a_batch_are_drawn_independently() -> None:
    images = random_images(10_000, 1, 3, 4)
    drawn = which_window(images, crop_and_flip(images, torch.Generator().manual_seed(3), padding=1), 1)
    pairs = torch.bincount(drawn[::2] * 18 + drawn[1::2], minlength=18 * 18)
    assert chisquare(pairs.numpy()).pvalue > 0.01


def test_padding_is_black() -> None:
    white = torch.full((500, 2, 6, 6), 255, dtype=torch.uint8)
    outcome = crop_and_flip(white, torch.Generator().manual_seed(4), padding=3)
    assert set(outcome.flatten().tolist()) == {0, 255}
    share = (outcome > 0).double().mean().item()  # each side keeps 6 - |offset - 3| of 6 rows: 30/7 on average
    assert share == pytest.approx((30 / 42) ** 2, abs=0.02)


def test_without_padding_only_mirror_images_remain() -> None:
    images = random_images(200, 3, 4, 4)
    outcome = crop_and_flip(images, torch.Generator().manual_seed(5), padding=0)
    mirrored = (outcome == images.flip(-1)).flatten(1).all(1)
    kept = (outcome == images).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert 70 < mirrored.sum().item() < 130


def test_empty_batch_stays_empty() -> None:
    assert crop_and_flip(random_images(0, 3, 4, 4), torch.Generator(), padding=2).shape == (0, 3, 4, 4)


def test_same_generator_state_same_crops() -> None:
    images = random_images(50, 3, 8, 8)
    generator = torch.Generator().manual_seed(6)
    first, second = (crop_and_flip(images, generator, padding=4) for _ in range(2))
    again = crop_and_flip(images, torch.Generator().manual_seed(6), padding=4)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("device", DEVICES)
def test_pixels_are_the_same_on_every_device(device: str) -> None:
    images = random_images(20, 3, 32, 32)
    outcome = crop_and_flip(images.to(device), torch.Generator().manual_seed(7), padding=4)
    assert outcome.device.type == device
    assert torch.equal(outcome.cpu(), crop_and_flip(images, torch.Generator().manual_seed(7), padding=4))
    own = crop_and_flip(images.to(device), torch.Generator(device).manual_seed(7), padding=4)
    assert which_window(images, own.cpu(), 4).shape == (20,)
    assert torch.allclose(Cifar10().prepare(outcome).cpu(), Cifar10().prepare(outcome.cpu()), atol=1e-6)


@pytest.mark.parametrize(("task", "brightest"), [(Digits, 16), (Cifar10, 255), (Cifar100, 255)])
def test_prepared_images_equal_the_formula_in_float64(task: Callable[[], ImageTask], brightest: int) -> None:
    made = task()
    channels = made.input_shape[0]
    raw = torch.arange(brightest + 1, dtype=torch.uint8).repeat(channels, 1).view(1, channels, 1, -1)
    expected = np.stack(
        [(np.arange(brightest + 1) / brightest - mean) / std for mean, std in zip(made.mean, made.std, strict=True)]
    )
    prepared = made.prepare(raw)
    assert prepared.dtype == torch.float32
    np.testing.assert_allclose(prepared[0, :, 0].numpy(), expected, atol=1e-6)


def test_augmentation_and_preparation_go_together() -> None:
    images = random_images(10, 3, 32, 32)
    task = Cifar10()
    prepared = task.prepare(task.augment(images, torch.Generator().manual_seed(8)))
    black = torch.tensor([-m / s for m, s in zip(task.mean, task.std, strict=True)])
    assert torch.isclose(prepared, black.view(1, 3, 1, 1)).any()  # padded before normalisation, as in the literature


def test_training_after_evaluation_can_differentiate() -> None:
    class Other(Digits):
        """Constants that no other test has prepared with."""

        mean, std = (0.25,), (0.5,)

    with torch.inference_mode():
        Other().prepare(random_images(1, 1, 8, 8))
    images = torch.ones(1, 1, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(Other().prepare(images).sum(), images)
    assert torch.allclose(gradient, torch.full((1, 1, 8, 8), 1 / (16 * 0.5)))


def test_digits_are_split_once_and_for_all() -> None:
    first = Digits()
    np.random.seed(99)
    torch.manual_seed(99)
    train, test = Digits().train_examples(), Digits().test_examples()
    assert (train.features.shape, test.features.shape) == ((1437, 1, 8, 8), (360, 1, 8, 8))
    assert torch.equal(first.train_examples().features, train.features)
    assert hashlib.sha256(test.features.numpy().tobytes()).hexdigest()[:16] == TEST_IMAGES
    assert first.train_examples() is first.train_examples()


def images_with_labels(examples: Examples) -> list[bytes]:
    flat = examples.features.flatten(1).numpy().astype(np.int64)
    return [np.append(image, label).tobytes() for image, label in zip(flat, examples.labels, strict=True)]


def test_digits_cover_the_published_set_by_class() -> None:
    task, published = Digits(), load_digits()
    everything = Examples(torch.from_numpy(published.images.astype(np.uint8))[:, None], published.target)
    train, test = task.train_examples(), task.test_examples()
    assert sorted(images_with_labels(train) + images_with_labels(test)) == sorted(images_with_labels(everything))
    wanted = np.bincount(published.target) * 360 / 1797
    assert np.abs(np.bincount(test.labels) - wanted).max() < 1
    assert (train.features.dtype, int(train.features.min()), int(train.features.max())) == (torch.uint8, 0, 16)


def test_digits_and_their_split_are_those_of_scikit_learn_bit_for_bit() -> None:
    published = load_digits()
    parts = train_test_split(np.arange(1797), test_size=360, random_state=0, stratify=published.target)
    for examples, indices in zip((Digits().train_examples(), Digits().test_examples()), parts, strict=True):
        np.testing.assert_array_equal(examples.features[:, 0].numpy(), published.images[np.sort(indices)])
        np.testing.assert_array_equal(examples.labels, published.target[np.sort(indices)])


def test_digits_have_no_augmentation() -> None:
    images = random_images(4, 1, 8, 8)
    assert Digits().augment(images, torch.Generator()) is images


@pytest.mark.parametrize(("model", "least"), [("auto", 0.95), ("mlp", 0.92)])
def test_digits_can_be_learned_in_a_second(model: str, least: float) -> None:
    task = TASKS.build("digits")
    train, test = task.train_examples(), task.test_examples()
    inputs, labels = task.prepare(train.features), torch.from_numpy(train.labels)
    torch.manual_seed(0)
    network = task.build_model(model, "")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(300):
        batch = torch.randint(len(labels), (32,))
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(network(inputs[batch]), labels[batch]))
        optimizer.step()
    measures = task.metrics(network(task.prepare(test.features)), torch.from_numpy(test.labels))
    assert measures["accuracy"] > least
    assert measures["macro-f1"] == pytest.approx(measures["accuracy"], abs=0.01)


@pytest.mark.parametrize(
    ("name", "last", "classes"), [("digits", nn.Linear, 10), ("cifar-10", nn.Linear, 10), ("cifar-100", nn.Linear, 100)]
)
def test_auto_is_the_default_model(name: str, last: type[nn.Linear], classes: int) -> None:
    task = TASKS.build(name)
    torch.manual_seed(0)
    auto = task.build_model("auto", "")
    torch.manual_seed(0)
    named = task.build_model(task.default_model, "")
    layer = list(auto.modules())[-1]
    assert isinstance(layer, last)
    assert layer.out_features == task.num_classes == classes
    assert all(torch.equal(a, b) for a, b in zip(auto.state_dict().values(), named.state_dict().values(), strict=True))


def test_model_arguments_and_errors_pass_through_the_task() -> None:
    first = next(TASKS.build("digits").build_model("mlp", "hidden = 5").parameters())
    assert first.shape == (5, 64)
    with pytest.raises(PluginError, match="did you mean 'resnet18'"):
        TASKS.build("digits").build_model("resnet118", "")


def test_tasks_are_listed_with_summary_and_source() -> None:
    entries = TASKS.entries()
    own = ["image-csv", "image-folder", "image-masks", "table", "text-csv"]
    assert {"cifar-10", "digits", "mnist", "clothing1m", "isic-2017", *own} <= {entry.name for entry in entries}
    assert all(entry.summary and (entry.paper or entry.name in own) for entry in entries)


def write_cifar100(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a CIFAR-100 of a few random images and make torchvision expect its MD5 sums."""
    folder = root / "cifar-100-python"
    folder.mkdir()
    rng = np.random.default_rng(0)
    contents: dict[str, dict[str, object]] = {"meta": {"fine_label_names": list(Cifar100.class_names)}}
    for part, count in SIZES.items():
        pixels = rng.integers(256, size=(count, 3072), dtype=np.uint8)
        contents[part] = {"data": pixels, "fine_labels": rng.integers(100, size=count).tolist()}
    sums = {}
    for name, content in contents.items():
        stored = pickle.dumps(content)
        (folder / name).write_bytes(stored)
        sums[name] = hashlib.md5(stored).hexdigest()
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(datasets.CIFAR100, "meta", {**datasets.CIFAR100.meta, "md5": sums["meta"]})
    monkeypatch.setattr(Cifar100, "sizes", SIZES)


def test_small_cifar100_is_read_as_torchvision_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar100(tmp_path, monkeypatch)
    task = TASKS.build("cifar-100", data_path=tmp_path)
    task.check()
    for train, examples in ((True, task.train_examples()), (False, task.test_examples())):
        shown = datasets.CIFAR100(tmp_path, train=train)
        assert examples.features.is_contiguous()
        assert np.array_equal(examples.features.permute(0, 2, 3, 1).numpy(), shown.data)
        assert examples.labels.tolist() == shown.targets
    assert tuple(shown.classes) == task.class_names
    assert task.train_examples() is task.train_examples()


def test_subset_is_fixed_nested_and_knows_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar100(tmp_path, monkeypatch)
    whole = Cifar100(tmp_path)
    some = Cifar100(tmp_path, train_samples=7, test_samples=2)
    fewer = Cifar100(tmp_path, train_samples=3)
    places = some.positions("train")
    assert len(set(places)) == 7
    assert set(fewer.positions("train")) < set(places)
    assert torch.equal(some.train_examples().features, whole.train_examples().features[torch.from_numpy(places)])
    assert some.train_examples().labels.tolist() == whole.train_examples().labels[places].tolist()
    assert len(some.test_examples()) == 2
    assert whole.positions("test").tolist() == list(range(5))


def test_missing_folder_and_files_are_named_with_the_remedy(tmp_path: Path) -> None:
    task = TASKS.build("cifar-10", data_path=tmp_path)
    for attempt in (task.check, task.train_examples, task.test_examples):
        with pytest.raises(DataError, match="cannot read data_batch_1, data_batch_2") as caught:
            attempt()
        assert str(tmp_path / "cifar-10-batches-py") in str(caught.value)
        assert f"in {tmp_path}, or let task.data-path" in str(caught.value)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in Cifar10.files[:-1]:
        (folder / name).touch()
    with pytest.raises(DataError, match=r"cannot read batches\.meta in"):
        task.check()


def test_the_remedy_is_a_command_that_a_shell_and_python_understand() -> None:
    with pytest.raises(DataError) as caught:
        Cifar10(Path("nowhere")).check()
    words = shlex.split(str(caught.value).split("run  ")[1].split("  in ")[0])
    assert words[:2] == ["python", "-c"]
    compile(words[2], "remedy", "exec")
    assert words[2].endswith("CIFAR10('.', download=True)")


def test_no_folder_at_all_is_an_error_too() -> None:
    with pytest.raises(DataError, match="CIFAR-100 needs a data folder and none is given"):
        TASKS.build("cifar-100", data_path=None).check()


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_damaged_file_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar100(tmp_path, monkeypatch)
    path = tmp_path / "cifar-100-python" / name
    path.write_bytes(path.read_bytes()[:-7])
    task = Cifar100(tmp_path)
    task.check()  # cheap: contents are looked at when they are read
    with pytest.raises(DataError, match=f"damaged in .*: {name}; delete that folder and fetch it: run"):
        task.train_examples()


@pytest.mark.parametrize(
    "args", ["train_samples = 50001", "test_samples = -1", "train_samples = 0.5", "samples = 3", "data_path = 3"]
)
def test_arguments_that_do_not_fit(args: str) -> None:
    with pytest.raises(PluginError, match="cifar-10"):
        TASKS.build("cifar-10", args, data_path=None)


def test_cifar_class_names() -> None:
    assert Cifar10.class_names[9] == "truck"
    assert len(set(Cifar100.class_names)) == 100
    assert list(Cifar100.class_names) == sorted(Cifar100.class_names)
    trees, fish = [47, 52, 56, 59, 96], [1, 32, 67, 73, 91]  # two of the published superclasses
    assert all(Cifar100.class_names[index].endswith("_tree") for index in trees)
    assert [Cifar100.class_names[index] for index in fish] == ["aquarium_fish", "flatfish", "ray", "shark", "trout"]
