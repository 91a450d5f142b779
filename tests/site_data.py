"""Small folders of a site's own data, each easy to learn: bright or dark images, two kinds of words, bright squares."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("dark", "bright")
WORDS = {"dark": "night coal shadow cave", "bright": "sun snow lamp day"}


def save(path: Path, pixels: np.ndarray) -> Path:
    """Write an array (H, W) or (H, W, 3) as an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def shades(count: int, seed: int, size: int = 12) -> list[tuple[str, np.ndarray]]:
    """Return ``count`` images (size, size, 3) with their class, both classes in turn."""
    rng = np.random.default_rng(seed)
    return [(CLASSES[i % 2], rng.integers(0, 110, (size, size, 3)) + 145 * (i % 2)) for i in range(count)]


def image_folder(root: Path, count: int = 40, seed: int = 0) -> Path:
    """Write a folder for each class."""
    for i, (name, pixels) in enumerate(shades(count, seed)):
        save(root / name / f"{i:03}.png", pixels)
    return root


def image_table(root: Path, count: int = 40, seed: int = 0) -> Path:
    """Write ``scans/`` and ``labels.csv`` with a column for the hospital."""
    rows = []
    for i, (name, pixels) in enumerate(shades(count, seed)):
        save(root / "scans" / f"{i:03}.png", pixels)
        rows.append((f"scans/{i:03}.png", name, f"hospital {i % 4}"))
    return table(root / "labels.csv", ("image", "label", "hospital"), rows)


def text_table(root: Path, count: int = 40, seed: int = 0) -> Path:
    """Write ``texts.csv``."""
    rng = np.random.default_rng(seed)
    names = [CLASSES[i % 2] for i in range(count)]
    rows = [(" ".join(rng.choice(WORDS[name].split(), 6)), name) for name in names]
    return table(root / "texts.csv", ("text", "label"), rows)


def column_table(root: Path, count: int = 40, seed: int = 0) -> Path:
    """Write ``table.csv`` with two numbers, one of them with gaps and a category."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        age, unit = rng.normal(40 + 30 * (i % 2), 5), ("north", "south", "")[rng.integers(3)]
        dose = "NA" if rng.random() < 0.2 else f"{rng.normal(1e-3, 1e-4):.6g}"
        rows.append((f"{age:.3f}", dose, unit, CLASSES[i % 2]))
    return table(root / "table.csv", ("age", "dose", "unit", "label"), rows)


def image_masks(root: Path, count: int = 24, seed: int = 0, size: int = 16) -> Path:
    """Write ``images/`` with a bright square each, and ``masks/`` with 255 where it is."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        mask = np.zeros((size, size), bool)
        top, left = rng.integers(0, size // 2, 2)
        mask[top : top + size // 2, left : left + size // 2] = True
        save(root / "masks" / f"{i:03}.png", 255 * mask)
        save(root / "images" / f"{i:03}.png", rng.integers(0, 100, (size, size, 3)) + 150 * mask[..., None])
    return root


def table(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> Path:
    """Write a CSV file and return its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path.parent


KINDS = {
    "image-folder": image_folder,
    "image-csv": image_table,
    "text-csv": text_table,
    "image-masks": image_masks,
    "table": column_table,
}
ARGS = {
    "image-folder": 'classes = ["dark", "bright"], size = 8',
    "image-csv": 'classes = ["dark", "bright"], size = 8, group = "hospital"',
    "text-csv": 'classes = ["dark", "bright"], words = 8, vocabulary = 200',
    "table": 'classes = ["dark", "bright"], numbers = ["age", "dose"], categories = ["unit"], min_count = 1',
    "image-masks": 'classes = ["ground", "square"], size = 16, values = [0, 255]',
}
MODELS = {
    "table": ("auto", ""),
    "image-folder": ("mlp", ""),
    "image-csv": ("mlp", ""),
    "text-csv": ("auto", "width = 8"),
    "image-masks": ("auto", "width = 8, depth = 1"),
}
