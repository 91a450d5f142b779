"""Values of 16 bits of which fewer are used, and of fewer than 8 bits: what a file says, and what is found."""

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tasks.client_data import load_task
from tasks.own_data.base import OwnDataTask
from tasks.own_data.depth import found_bits
from tasks.own_data.files import UnusableError
from tasks.own_data.pixels import mask_image, mask_labels, read_image
from tasks.plugins import PluginError
from tasks.settings import TaskSettings
from tests.site_data import ARGS, image_folder, image_masks, table

GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6
TWELVE = np.array([[0, 1000, 2000, 4095]])
EIGHT = [0, 62, 125, 255]


def png(path: Path, values: npt.ArrayLike, depth: int, kind: int = GREY, **chunks: bytes) -> Path:
    """Write a PNG file of any depth and kind, values as they are, with chunks such as tRNS."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    array = np.asarray(values)
    width = max(depth, 8)
    bits = np.unpackbits(array.astype(f">u{width // 8}").reshape(len(array), -1, 1).view(np.uint8), axis=2)
    rows = np.packbits(bits[..., -depth:].reshape(len(array), -1), axis=1)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], depth, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *((name.encode(), data) for name, data in chunks.items())]
    parts += [(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))), (b"IEND", b"")]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


def pgm(path: Path, values: npt.ArrayLike, maxval: int) -> Path:
    array = np.asarray(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f"P5 {array.shape[1]} {array.shape[0]} {maxval}\n".encode()
    path.write_bytes(head + array.astype(">u2" if maxval > 255 else "u1").tobytes())
    return path


def tiff(path: Path, values: npt.ArrayLike, **options: object) -> Path:
    Image.fromarray(np.asarray(values, np.uint16)).save(path, **options)
    return path


def row(path: Path, bits: int = 16, channels: int = 1) -> list[list[int]]:
    with Image.open(path) as image:
        size = image.size[0]
    pixels: list[list[int]] = read_image(path, channels, size, lambda: bits)[:, 0].tolist()
    return pixels


def task_of(kind: str, root: Path, more: str = "") -> OwnDataTask:
    task = load_task.__wrapped__(TaskSettings(kind, ARGS[kind].replace("size = 8", "size = 4") + more, str(root)))
    assert isinstance(task, OwnDataTask)
    return task


def test_twelve_bits_are_read_alike_from_every_format(tmp_path: Path) -> None:
    assert row(pgm(tmp_path / "a.pgm", TWELVE, 4095)) == [EIGHT]  # declared: nothing is asked
    for path in (
        png(tmp_path / "a.png", TWELVE, 16),
        pgm(tmp_path / "b.pgm", TWELVE, 65535),
        tiff(tmp_path / "a.tif", TWELVE),
        tiff(tmp_path / "b.tif", TWELVE, compression="tiff_lzw"),
    ):
        assert (found_bits([path]), row(path, 12)) == (12, [EIGHT])


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (COLOUR, [[[4095, 2000, 100], [255, 0, 4000]]], [[255, 15], [125, 0], [6, 250]]),
        (COLOUR_ALPHA, [[[4095, 2000, 100, 65535], [4095, 0, 9, 0]]], [[255, 0], [125, 0], [6, 0]]),
        (GREY_ALPHA, [[[4095, 65535], [2000, 65535]]], [[255, 125]] * 3),
    ],
)
def test_twelve_bits_of_colours_are_read_too(tmp_path: Path, kind: int, values: object, expected: object) -> None:
    path = png(tmp_path / "a.png", values, 16, kind)  # type: ignore[arg-type]
    assert (found_bits([path]), row(path, 12, 3)) == (12, expected)
    assert np.max(row(path, 16, 3)) == 15


@pytest.mark.parametrize(("largest", "bits"), [(0, 8), (200, 8), (256, 10), (1024, 12), (4096, 14), (16384, 16)])
def test_the_range_is_that_of_the_largest_value_of_all(tmp_path: Path, largest: int, bits: int) -> None:
    dark = png(tmp_path / "dark.png", [[0, 3]], 16)
    assert found_bits([dark, png(tmp_path / "a.png", [[0, largest]], 16), dark]) == bits


def test_files_that_say_their_range_or_cannot_be_read_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"")
    others = [tmp_path / "broken.png", png(tmp_path / "8.png", [[255]], 8), pgm(tmp_path / "a.pgm", TWELVE, 4095)]
    assert found_bits(others) == 8
    key = png(tmp_path / "key.png", [[65535, 900]], 16, tRNS=struct.pack(">H", 65535))
    assert found_bits([*others, key]) == 10
    assert found_bits([tiff(tmp_path / "max.tif", [[900]], tiffinfo={281: 4095})]) == 12
    assert found_bits([tiff(tmp_path / "all.tif", [[900]], tiffinfo={281: 65535})]) == 10


def test_a_tiff_in_which_zero_is_white_is_turned_around(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", TWELVE, tiffinfo={262: 0})
    with Image.open(path) as image:
        assert image.tag_v2[262] == 0
    assert row(path, 12) == [[255, 193, 130, 0]]


@pytest.mark.parametrize("kind", ["image-folder", "image-csv", "image-masks"])
def test_all_images_of_a_data_folder_are_read_by_one_rule_that_is_said(tmp_path: Path, kind: str) -> None:
    folder = {"image-folder": "dark", "image-csv": "scans", "image-masks": "images"}[kind]
    for name, values in (("a", TWELVE), ("b", TWELVE // 8)):
        png(tmp_path / folder / f"{name}.png", values.repeat(4, 0), 16)
        if kind == "image-masks":
            png(tmp_path / "masks" / f"{name}.png", np.full((4, 4), 40_000), 16)
    if kind == "image-csv":
        table(tmp_path / "labels.csv", ("image", "label"), [(f"scans/{name}.png", "dark") for name in "ab"])
    values = ", values = [0, 40000]" if kind == "image-masks" else ""
    args = 'classes = ["dark", "bright"], size = 4, bits = {}' + values
    found, declared, full = (
        load_task.__wrapped__(TaskSettings(kind, args.format(bits), str(tmp_path))) for bits in (0, 12, 16)
    )
    assert found.train_examples().features[:, 0, 0].tolist() == [EIGHT, [0, 7, 15, 31]]
    [issue] = found.data_issues()
    assert "hold no value above 4,095 and are read as 12 bits" in issue.line
    assert "declare bits = 12 in task.args" in issue.line
    np.testing.assert_array_equal(declared.train_examples().features, found.train_examples().features)
    assert declared.data_issues() == []
    assert full.train_examples().features[:, 0, 0].tolist() == [[0, 3, 7, 15], [0, 0, 0, 1]]


@pytest.mark.parametrize("kind", ["image-folder", "image-csv", "image-masks"])
def test_the_range_is_also_that_of_images_behind_links_and_in_hidden_folders(tmp_path: Path, kind: str) -> None:
    folder = {"image-folder": "dark", "image-csv": "scans", "image-masks": "test/images"}[kind]
    png(tmp_path / ".store" / "7" / "a.png", TWELVE.repeat(4, 0), 16)
    (tmp_path / ".store" / "up").symlink_to(tmp_path)  # a circle
    (tmp_path / folder).parent.mkdir(exist_ok=True)
    (tmp_path / folder).symlink_to(tmp_path / ".store" / "7")
    png(tmp_path / "masks" / "a.png", np.zeros((4, 4)), 8)
    if kind == "image-csv":
        table(tmp_path / "labels.csv", ("image", "label"), [("scans/a.png", "dark")])
    if kind != "image-masks":
        (tmp_path / "masks" / "a.png").unlink()
        (tmp_path / "masks").rmdir()
    more = ', images = "test/images"' if kind == "image-masks" else ""
    args = 'classes = ["dark", "bright"], size = 4' + more
    task = load_task.__wrapped__(TaskSettings(kind, args, str(tmp_path)))
    assert task.train_examples().features[0, 0, 0].tolist() == EIGHT


def test_the_rule_is_said_again_by_a_process_that_decodes_nothing(tmp_path: Path) -> None:
    png(tmp_path / "data" / "dark" / "a.png", TWELVE, 16)
    png(tmp_path / "data" / "test" / "dark" / "a.png", TWELVE // 16, 16)
    settings = TaskSettings(
        "image-folder", ARGS["image-folder"], str(tmp_path / "data"), cache_path=str(tmp_path / "c")
    )
    first, second = (load_task.__wrapped__(settings) for _ in range(2))
    assert first.data_issues() == second.data_issues() != []
    assert second.test_examples().features.max() == 255  # a range of its own, and that is said too
    assert [issue.line.split(" and ")[0].rsplit(" ", 1)[1] for issue in second.data_issues()] == ["4,095", "255"]


def test_values_beyond_the_declared_bits_and_strange_numbers_of_bits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match="has values up to 4095; bits = 10 declares at most 1023"):
        row(png(tmp_path / "a.png", TWELVE, 16), 10)
    with pytest.raises(PluginError, match="bits = 7: 8 to 16"):
        task_of("image-folder", image_folder(tmp_path), ", bits = 7")


def test_the_transparent_value_of_deep_and_of_few_bits_is_shown_on_black(tmp_path: Path) -> None:
    clear = struct.pack(">H", 65535)
    assert row(png(tmp_path / "16.png", [[0, 65535, 4000, 256]], 16, tRNS=clear)) == [[0, 0, 15, 1]]
    colours = png(tmp_path / "c.png", [[[65535] * 3, [256] * 3, [65300] * 3]], 16, COLOUR, tRNS=clear * 3)
    assert row(colours, 16, 3) == [[0, 1, 255]] * 3
    assert row(png(tmp_path / "2.png", [[0, 1, 2, 3]], 2, tRNS=struct.pack(">H", 3))) == [[0, 85, 170, 0]]
    assert row(png(tmp_path / "4.png", [[0, 1, 2, 15]], 4, tRNS=struct.pack(">H", 2))) == [[0, 17, 0, 255]]
    assert row(png(tmp_path / "1.png", [[0, 1, 0, 1]], 1, tRNS=struct.pack(">H", 1))) == [[0, 0, 0, 0]]
    alpha = png(tmp_path / "a.png", [[[65535] * 3 + [0], [65535, 0, 0, 65535]]], 16, COLOUR_ALPHA)
    assert row(alpha, 16, 3) == [[0, 255], [0, 0], [0, 0]]


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_masks_give_the_numbers_that_are_stored(tmp_path: Path, depth: int) -> None:
    values = np.array([[0, 1, 2**depth - 1, 1]])
    classes = {int(value): int(value) for value in values[0]}
    files = [png(tmp_path / "a.png", values, depth)]
    files += [pgm(tmp_path / "a.pgm", values, 2**depth - 1)] if depth > 1 else []
    files += [png(tmp_path / "p.png", values, depth, PALETTE, PLTE=bytes(3 * 2**depth))] if depth <= 8 else []
    for path in files:
        assert mask_labels(mask_image(path), classes, 4)[0].tolist() == values[0].tolist()
    assert mask_labels(mask_image(pgm(tmp_path / "b.pgm", [[0, 1, 2, 300]], 300)), {0: 0, 1: 1, 2: 2, 300: 3}, 4)[
        0
    ].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 8])
@pytest.mark.parametrize("own", [False, True])
def test_a_mask_is_turned_with_its_image_where_that_can_be_told(tmp_path: Path, orientation: int, own: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:2, :2] = 255
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        tagged = folder == "images" or own
        Image.fromarray(pixels).save(tmp_path / folder / "a.png", exif=exif if tagged else b"")
    task = task_of("image-masks", tmp_path)
    if orientation in (2, 3) and not own:  # the size is the same, turned or not
        with pytest.raises(
            ValueError, match=rf"turned by its EXIF orientation {orientation}, and its mask does not say"
        ):
            task.train_examples()
        return
    examples = task.train_examples()
    shown = examples.features[0, 0].numpy() > 127
    assert np.mean(shown == (examples.labels[0] == 1)) > 0.99  # but for a corner, where images are averaged
    notes = ["1 masks in" for _ in range(orientation in (6, 8) and not own)]
    assert [issue.line[:10] for issue in task.data_issues()] == notes


def test_a_mask_of_the_turned_size_fits_as_it_is_and_one_that_says_1_stays(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    root = image_masks(tmp_path, count=2)
    wide = np.zeros((4, 8), np.uint8)
    Image.fromarray(wide).save(root / "images" / "000.png", exif=exif)
    Image.fromarray(wide.T).save(root / "masks" / "000.png")
    exif[0x0112] = 1
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(root / "masks" / "001.png", exif=exif)
    task = task_of("image-masks", root)
    assert len(task.train_examples()) == 2
    assert task.data_issues() == []
