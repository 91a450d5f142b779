"""Tiny named data sets in exactly the layout in which their authors publish them."""

import gzip
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from tasks.datasets.idx import IdxImages

COUNTS = {"noisy_train": 12, "clean_train": 4, "clean_val": 3, "clean_test": 5}


def photograph(path: Path, number: int, size: tuple[int, int] = (40, 30)) -> Path:
    """Write a smooth picture (width, height) that differs from all others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(number).integers(0, 256, (3, 4, 3)).astype(np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path, quality=95)
    return path


def lines(path: Path, *given: str) -> None:
    """Write a list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in given))


def clothing1m(root: Path, annotations: str = "") -> Path:
    """Write 12 noisy and 4 clean training images, 3 to validate and 5 to test with; return the data folder."""
    base, noisy, clean = root / "clothing1m", list[str](), list[str]()
    keys: dict[str, list[str]] = {}
    for place, (part, count) in enumerate(COUNTS.items()):
        for i in range(count):
            number = 100 * place + i
            key = f"images/{number % 3}/{number % 7}/{number},{number}.jpg"
            photograph(base / key, number, (40 + i, 30))
            keys.setdefault(part, []).append(key)
            (noisy if part == "noisy_train" else clean).append(f"{key} {(5 * i + 1) % 14}")
        lines(base / annotations / f"{part}_key_list.txt", *keys[part])
    noisy += [f"{key} 13" for key in keys["clean_train"]]  # the same images have noisy labels too, as published
    lines(base / annotations / "noisy_label_kv.txt", *noisy[::-1])
    lines(base / annotations / "clean_label_kv.txt", *clean)
    return root


def webvision(root: Path) -> Path:
    """Write 10 training images of which 6 are of the first 50 classes, and 4 of which 3 are to test with."""
    base = root / "webvision"
    train = [(f"google/q{i % 2:04}/{i}.jpg", (7 * i) % 60 if i < 6 else 500 + i) for i in range(10)]
    val = [(f"val{i:06}.jpg", 49 + (i == 3)) for i in range(4)]
    for i, (name, _) in enumerate(train):
        photograph(base / name, i)
    for i, (name, _) in enumerate(val):
        photograph(base / "val_images_256" / name, 100 + i)
    lines(base / "info/train_filelist_google.txt", *(f"{name} {label}" for name, label in train))
    lines(base / "info/val_filelist.txt", *(f"{name} {label}" for name, label in val))
    return root


def animal10n(root: Path, train: int = 15, test: int = 5) -> Path:
    """Write images of 64x64 with their label in their name."""
    for folder, count in (("training", train), ("testing", test)):
        for i in range(count):
            photograph(root / "animal-10n" / folder / f"{i % 10}_{1000 + i}.jpg", i, (64, 64))
    return root


def isic2017(root: Path, parts: tuple[str, ...] = ("Training",), count: int = 20) -> Path:
    """Write photographs of an odd size, their masks, and superpixels beside them as the challenge does."""
    for seed, part in enumerate(parts):
        for i in range(count):
            stem, number = f"ISIC_{1000 * seed + i:07}", 100 * seed + i
            data = root / "ISIC-2017" / f"ISIC-2017_{part}_Data"
            photograph(data / f"{stem}.jpg", number, (24, 18))
            photograph(data / f"{stem}_superpixels.png", number, (24, 18))
            mask = np.zeros((18, 24), np.uint8)
            mask[: 2 + number % 16, :8] = 255
            path = root / "ISIC-2017" / f"ISIC-2017_{part}_Part1_GroundTruth" / f"{stem}_segmentation.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(mask).save(path)
    return root


def idx(root: Path, task: type[IdxImages], packed: bool = False, sizes: tuple[int, int] = (12, 5)) -> Path:
    """Write the four files where torchvision puts them."""
    rng = np.random.default_rng(0)
    for prefix, count in zip(("train", "t10k"), sizes, strict=True):
        images = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        labels = (np.arange(count) * 3 % 10).astype(np.uint8)
        for kind, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
            path = root / task.folder / "raw" / f"{prefix}-{kind}{'.gz' if packed else ''}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(content) if packed else content)
    return root
