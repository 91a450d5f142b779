"""Strong augmentation: each change against torchvision, what is drawn for each image, and where it comes back to."""

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as peer

from tasks.augmentation import brighten, contrast, grey, rotate, saturate, strong_augment, turn_hue
from tasks.images import Digits

IMAGES = torch.rand(5, 3, 9, 7, generator=torch.Generator().manual_seed(0))
FACTORS = torch.tensor([0.2, 0.7, 1.0, 1.3, 1.8])
TURNS = torch.tensor([-0.2, -0.05, 0.0, 0.1, 0.2])


def each(images: torch.Tensor, change: object, values: torch.Tensor) -> torch.Tensor:
    pairs = zip(images, values.tolist(), strict=True)
    return torch.stack([change(image, value) for image, value in pairs])  # type: ignore[operator]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(brighten, peer.adjust_brightness), (contrast, peer.adjust_contrast), (saturate, peer.adjust_saturation)],
)
def test_changes_of_colour_are_those_of_torchvision(ours: object, theirs: object) -> None:
    found = ours(IMAGES, FACTORS.view(-1, 1, 1, 1))  # type: ignore[operator]
    torch.testing.assert_close(found, each(IMAGES, theirs, FACTORS), rtol=1e-4, atol=2e-4)


def test_hues_are_those_of_torchvision() -> None:
    images = IMAGES.clone()
    images[0, :, :3] = 0.5  # grey has no hue
    images[1, :, :3] = 0.0
    images[2, 0], images[2, 1] = 1.0, 0.0
    torch.testing.assert_close(turn_hue(images, TURNS), each(images, peer.adjust_hue, TURNS), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(turn_hue(images, torch.zeros(5)), images)
    torch.testing.assert_close(turn_hue(images, torch.ones(5)), images, rtol=1e-4, atol=1e-4)


def test_grey_is_that_of_torchvision() -> None:
    torch.testing.assert_close(grey(IMAGES), peer.rgb_to_grayscale(IMAGES), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(8, 8), (9, 7)])
def test_turns_are_those_of_torchvision(shape: tuple[int, int]) -> None:
    images = torch.rand(5, 1, *shape, generator=torch.Generator().manual_seed(1))
    angles = torch.tensor([-30.0, -7.3, 0.0, 11.1, 30.0])
    theirs = each(images, lambda image, angle: peer.rotate(image, angle, InterpolationMode.NEAREST), angles)
    differs = (rotate(images, angles) != theirs).float().mean().item()
    assert differs < 0.02  # where a place is half-way between two pixels
    assert torch.equal(rotate(images, torch.zeros(5)), images)
    assert torch.equal(rotate(images[..., :7, :7], torch.full((5,), 90.0)), images[..., :7, :7].rot90(1, (2, 3)))


def test_each_image_is_changed_by_draws_of_its_own() -> None:
    one = torch.randint(256, (3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    changed = strong_augment(one.expand(2000, 3, 8, 8), torch.Generator().manual_seed(3))
    assert changed.dtype == torch.uint8
    assert changed.shape == (2000, 3, 8, 8)
    mirrored = one.flip(2)
    untouched = ((changed == one).flatten(1).all(1) | (changed == mirrored).flatten(1).all(1)).float().mean().item()
    is_grey = (changed[:, :1] == changed).flatten(1).all(1).float().mean().item()
    assert untouched == pytest.approx(0.2 * 0.8, abs=0.03)  # neither jittered nor greyed
    assert is_grey == pytest.approx(0.2, abs=0.03)
    plain = (changed == one).flatten(1).all(1).float().mean().item()
    assert plain == pytest.approx(untouched / 2, abs=0.03)


def test_brightness_has_the_published_range() -> None:
    even = torch.full((4000, 3, 2, 2), 100, dtype=torch.uint8)  # grey: contrast, saturation and hue leave it
    levels = strong_augment(even, torch.Generator().manual_seed(4))[:, 0, 0, 0].float() / 100
    changed = levels[levels != 1]
    assert changed.min() == pytest.approx(0.2, abs=0.02)
    assert changed.max() == pytest.approx(1.8, abs=0.02)
    assert changed.mean() == pytest.approx(1.0, abs=0.03)


def test_images_without_colours_are_turned_and_come_back_as_they_were_stored() -> None:
    task = Digits()
    raw = task.first_examples(200).features
    views = [task.strong_augment(raw, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)]
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])
    assert views[0].dtype == raw.dtype
    assert set(views[0].unique().tolist()) <= set(range(17))
    bar = torch.zeros(400, 1, 31, 31, dtype=torch.uint8)
    bar[:, 0, :, 15] = 255
    top = strong_augment(bar, torch.Generator().manual_seed(7))[:, 0, 2].float().argmax(1) - 15
    assert (top.min().item(), top.max().item()) == pytest.approx((-7, 7), abs=1)  # 13 tan 30 = 7.5 pixels
