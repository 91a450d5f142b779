"""The rules by which an image or mask file becomes an array, or is refused with a reason."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.own_data.files import UnusableError
from tasks.own_data.pixels import mask_image, mask_labels, read_image

RAMP = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16


def written(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def coloured() -> Image.Image:
    return Image.fromarray(np.stack([RAMP, 255 - RAMP, RAMP // 2], 2))


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    pixels = read_image(written(tmp_path / "a.png", Image.fromarray(RAMP)), 3, 4)
    np.testing.assert_array_equal(pixels, np.stack([RAMP] * 3))
    assert pixels.dtype == np.uint8


def test_colours_that_are_grey_become_one_channel_and_others_are_refused(tmp_path: Path) -> None:
    grey = written(tmp_path / "grey.png", Image.fromarray(RAMP).convert("RGB"))
    np.testing.assert_array_equal(read_image(grey, 1, 4), RAMP[None])
    with pytest.raises(UnusableError, match=r"has colours, but the run declares channels = 1"):
        read_image(written(tmp_path / "colour.png", coloured()), 1, 4)


def test_sixteen_bits_are_cut_to_the_upper_eight(tmp_path: Path) -> None:
    deep = RAMP.astype(np.uint16) * 256 + 200
    path = written(tmp_path / "deep.png", Image.fromarray(deep))
    np.testing.assert_array_equal(read_image(path, 1, 4), RAMP[None])


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    image = Image.new("P", (2, 2))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1, 1, 0])
    pixels = read_image(written(tmp_path / "palette.png", image), 3, 2)
    assert pixels[:, 0, 0].tolist() == [10, 20, 30]
    assert pixels[:, 0, 1].tolist() == [200, 100, 50]


def test_what_is_transparent_is_shown_on_black(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (200, 100, 50, 255))
    image.putpixel((1, 0), (200, 100, 50, 0))
    pixels = read_image(written(tmp_path / "clear.png", image), 3, 2)
    assert pixels[:, 0].T.tolist() == [[200, 100, 50], [0, 0, 0]]
    grey = Image.new("LA", (2, 2), (90, 0))
    assert not read_image(written(tmp_path / "grey.png", grey), 1, 2).any()


@pytest.mark.parametrize(("mode", "expected"), [("1", 255), ("CMYK", 255), ("RGB", 255), ("L", 255)])
def test_other_kinds_of_white_are_white(tmp_path: Path, mode: str, expected: int) -> None:
    white = Image.new("RGB", (8, 8), "white").convert(mode)
    name = "a.jpg" if mode == "CMYK" else "a.png"
    assert (read_image(written(tmp_path / name, white), 3, 4) == expected).all()


def test_images_are_turned_as_their_orientation_says(tmp_path: Path) -> None:
    image = Image.fromarray(RAMP)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    pixels = read_image(written(tmp_path / "turned.png", image, exif=exif), 1, 4)
    np.testing.assert_array_equal(pixels[0], np.rot90(RAMP, -1))


def test_images_are_scaled_to_a_square_by_averaging(tmp_path: Path) -> None:
    board = 200 * (np.indices((8, 16)).sum(0) % 2).astype(np.uint8)
    pixels = read_image(written(tmp_path / "wide.png", Image.fromarray(board)), 1, 2)
    np.testing.assert_allclose(pixels, np.full((1, 2, 2), 100), atol=2)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_values_without_a_known_range_are_refused(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (2, 2), 70_000)
    with pytest.raises(UnusableError, match=r"pixels of the kind 'F'|values from 70000 to 70000"):
        read_image(written(tmp_path / "a.tif", image), 1, 2)


def test_damaged_and_strange_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = written(tmp_path / "good.png", coloured())
    (tmp_path / "empty.png").write_bytes(b"")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8))
    (tmp_path / "cut.png").write_bytes(written(tmp_path / "noise.png", noise).read_bytes()[:800])
    for name in ("empty.png", "cut.png"):
        with pytest.raises(UnusableError, match="cannot be read as an image"):
            read_image(tmp_path / name, 3, 4)
    with pytest.raises(UnusableError, match="cannot be read as an image"):
        read_image(written(tmp_path / "a.png", coloured(), format="GIF"), 3, 4)
    pages = written(tmp_path / "pages.tif", coloured(), save_all=True, append_images=[coloured()])
    with pytest.raises(UnusableError, match="holds 2 pictures; one per file"):
        read_image(pages, 3, 4)
    monkeypatch.setattr("tasks.own_data.depth.MOST_PIXELS", 15)
    with pytest.raises(UnusableError, match="has 4 x 4 pixels; at most 15"):
        read_image(good, 3, 4)


def test_of_a_camera_s_two_pictures_the_first_is_read_and_a_smaller_version_is_not(tmp_path: Path) -> None:
    large, small, page, next_page = (Image.new("RGB", (n, n), (n, n, n)) for n in (200, 8, 200, 8))
    camera = written(tmp_path / "camera.jpg", large, format="MPO", save_all=True, append_images=[small])
    with Image.open(camera) as image:
        assert (image.format, image.n_frames) == ("MPO", 2)  # type: ignore[attr-defined]
    assert (read_image(camera, 1, 4) == 200).all()
    pages = written(tmp_path / "p.tif", page, save_all=True, append_images=[next_page], tiffinfo={254: 1})
    assert (read_image(pages, 1, 4) == 200).all()


def test_masks_keep_their_values_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    values = np.array([[0, 255], [7, 0]], np.uint8)
    mask = mask_image(written(tmp_path / "mask.png", Image.fromarray(values)))
    assert mask_labels(mask, {0: 0, 255: 1, 7: -100}, 2).tolist() == [[0, 1], [-100, 0]]
    with pytest.raises(UnusableError, match=r"holds the values 7; declared are 0, 255"):
        mask_labels(mask, {0: 0, 255: 1}, 2)
    with pytest.raises(UnusableError, match=r"holds the values 7;"):
        mask_labels(mask, {0: 0, 255: 1}, 1)  # the pixel would not survive the scaling


def test_palette_and_black_and_white_masks_count_from_zero(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.putpixel((1, 0), 1)
    for name, image in (
        ("p.png", palette),
        ("b.png", palette.convert("L").point(lambda v: 255 * (v > 0)).convert("1")),
    ):
        mask = mask_image(written(tmp_path / name, image))
        assert mask_labels(mask, {0: 0, 1: 1}, 2).tolist() == [[0, 1], [0, 1]]


def test_masks_in_colours_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match="one number a pixel"):
        mask_image(written(tmp_path / "colour.png", coloured()))
