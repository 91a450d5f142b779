"""What commands of the guides take for granted: a site's own files as the command declares them, runs, a sweep."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from server_app.cli import build_parser
from server_app.storage.checkpoints import Checkpoint, CheckpointFolder
from tasks.config import DEFAULTS, nest
from tasks.plugins import parse_args
from tests.label_reviews import audited
from tests.run_directories import accuracies, write_run
from tests.site_data import save, table
from tests.sweep_cases import design_of, synthetic_runs, write_sweep
from tests.trained_runs import run_of

AUDIT = "label-audit.csv"
EXAMPLES = 160  # enough for the partition that is the default


def make_data(changes: dict[str, Any], folder: Path) -> None:
    """Write the files of a site's own task into the folder that a command names."""
    name, where = changes.get("task.name", ""), str(changes.get("task.data-path", ""))
    if name in MAKERS:
        MAKERS[name](folder / where, parse_args(str(changes["task.args"])))


def make_run(path: Path) -> None:
    """Write as much of a run with default settings as a check of its continuation reads."""
    path.mkdir(parents=True)
    (path / "config.toml").write_text(tomli_w.dumps(nest({**DEFAULTS, "run.output-dir": str(path.parent)})))
    CheckpointFolder(path).save(Checkpoint({"weight": np.zeros(2, np.float32)}, {}, {"server_round": 1}))


def make_trained_run(path: Path, files: list[Path]) -> None:
    """Write a run with a trained model of digits, and files to predict: images, and folders of one."""
    run_of(path)
    for file in files:
        save(file if file.suffix else file / "image.png", np.full((8, 8), 100))


def make_named_runs(folder: Path) -> None:
    """Write finished runs with the names that the guides use."""
    for name in ("pilot", "main", "first", "second"):
        write_run(folder / f"20260131-101500-{name}", accuracies(0.1, 0.9), name=name, label=name)


def make_audits(folder: Path, words: list[str]) -> None:
    """Write the audits that a command names, parts of one folder of images, and what it reads: decisions, a file."""
    whole = folder / "audited/audit"
    if not whole.exists():
        audited(folder / "audited")
    lines = (whole / AUDIT).read_text().splitlines()
    args = build_parser().parse_args(words)
    folders = args.folder if isinstance(args.folder, list) else [args.folder]
    named = [folder / str(each).replace("*", "20260131-101500") for each in folders]
    for place, audit in enumerate(named):
        if audit.exists():  # an earlier command of the block
            continue
        shutil.copytree(whole, audit)
        part = [lines[0], *lines[1 + place :: len(named)]]
        (audit / AUDIT).write_text("\n".join(part) + "\n")
        name, given, *_ = part[1].split(",")
        (audit / "decisions.csv").write_text(f"id,given,decision,label\n{name},{given},wrong,\n")
        for file in (word for word in words[3:] if words[1] == "import"):
            (folder / file).write_text(f"id,decision\n{name},right\n")


def make_sweep(path: Path) -> None:
    """Write the results of a sweep of three methods against three noises."""
    design = design_of()
    write_sweep(path, design, synthetic_runs(design))


def _labels(args: dict[str, Any]) -> list[str]:
    cells = [str(cell) for cell in args.get("values", args["classes"])]
    return [cells[number % len(cells)] for number in range(EXAMPLES)]


def _image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (8, 8, 3))


def _image_folder(root: Path, args: dict[str, Any]) -> None:
    for number, label in enumerate(_labels(args)):
        save(root / label / f"{number}.png", _image(number))


def _image_table(root: Path, args: dict[str, Any]) -> None:
    rows = [(f"scans/{number}.png", label, f"group {number % 4}") for number, label in enumerate(_labels(args))]
    for number, row in enumerate(rows):
        save(root / row[0], _image(number))
    table(root / "labels.csv", ("image", "label", args.get("group", "from")), rows)


def _texts(root: Path, args: dict[str, Any]) -> None:
    rows = [(f"text {number} of {label}", label) for number, label in enumerate(_labels(args))]
    table(root / "texts.csv", ("text", "label"), rows)


def _masks(root: Path, args: dict[str, Any]) -> None:
    low, high = args["values"]
    for number in range(40):
        save(root / "images" / f"{number}.png", _image(number))
        save(root / "masks" / f"{number}{args['mask_suffix']}.png", np.where(np.eye(8) > 0, high, low))


MAKERS = {"image-folder": _image_folder, "image-csv": _image_table, "text-csv": _texts, "image-masks": _masks}
"""What writes the files of a task whose data the sites bring."""
