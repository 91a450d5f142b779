"""Comparison of two sets of recorded runs, bit for bit: does a change of the code leave results as they were?

    python -m tests.compare_runs play FOLDER     # play six recipes into FOLDER with the code that is installed
    python -m tests.compare_runs BEFORE AFTER    # compare two such folders; exit status 1 where anything differs

Compared are all values of ``metrics.jsonl`` but the seconds, all of ``clients.jsonl``, the bytes of every model
array in the checkpoints, the clients' states, the label audits and their scores. A measure that is new is no
difference. What a strategy keeps for itself in a checkpoint may change its form with the code, so it is compared by
what follows from it: the later rounds.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors import safe_open

RECIPES = (
    "demo",
    "masked-optim-digits",
    "fednoro-digits",
    "fedelc-digits",
    "fedcorr-digits",
    "cifar10-cpu",
)
CLOCK = ("seconds",)
OWN_STATE = "strategy:"  # arrays that a strategy keeps for itself; see server_app's checkpoints
EXACT = ("clients/*/label-audit.csv", "clients/*/state-*.safetensors", "audit-scores.json")


def play(folder: Path) -> None:
    """Play every recipe into a folder of its own."""
    for recipe in RECIPES:
        command = [sys.executable, "-m", "server_app.cli", "run", recipe, f"run.output-dir={folder / recipe}"]
        subprocess.run(command, check=True)


def runs(folder: Path) -> dict[str, Path]:
    """Return the run directories below a folder by recipe and variant, without the time in their names."""
    found = {}
    for file in sorted(folder.glob("*/*/metrics.jsonl")):
        variant = re.sub(r"^\d{8}-\d{6}-?", "", file.parent.name)
        found[f"{file.parent.parent.name}/{variant}".rstrip("/")] = file.parent
    return found


def compare(before: Path, after: Path) -> Iterator[str]:
    """Yield what differs between two run directories."""
    for name in ("metrics.jsonl", "clients.jsonl"):
        old, new = lines(before / name), lines(after / name)
        if len(old) != len(new):
            yield f"{name}: {len(old)} lines before, {len(new)} after"
        known = [{key: b[key] for key in a if key in b} for a, b in zip(old, new, strict=False)]
        pairs = enumerate(zip(old, known, strict=False), 1)
        yield from (f"{name} line {i}: {a} != {b}" for i, (a, b) in pairs if a != b)
    for file in sorted(before.glob("checkpoints/*.safetensors")):
        yield from compare_models(file, after / "checkpoints" / file.name)
    for pattern in EXACT:
        for file in sorted(before.glob(pattern)):
            twin = after / file.relative_to(before)
            if not twin.is_file() or twin.read_bytes() != file.read_bytes():
                yield f"{file.relative_to(before)} differs"


def lines(path: Path) -> list[dict[str, object]]:
    """Return the lines of a record without what the clock says."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCK} for line in found]


def compare_models(before: Path, after: Path) -> Iterator[str]:
    """Yield which model arrays of two checkpoints differ, in name, shape, dtype or any bit."""
    if not after.is_file():
        yield f"{before.name}: missing"
        return
    old, new = model(before), model(after)
    if list(old) != list(new):
        yield f"{before.name}: arrays {list(old)} != {list(new)}"
    for name in old.keys() & new.keys():
        a, b = old[name], new[name]
        if (a.shape, a.dtype, a.tobytes()) != (b.shape, b.dtype, b.tobytes()):
            yield f"{before.name}: array {name} differs"


def model(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of the model in a checkpoint."""
    with safe_open(path, framework="numpy") as file:
        return {key: file.get_tensor(key) for key in file.keys() if not key.startswith(OWN_STATE)}  # noqa: SIM118


def main(before: Path, after: Path) -> int:
    """Print one line for each run and each difference."""
    old, new = runs(before), runs(after)
    wrong = 0
    for name, folder in old.items():
        differences = list(compare(folder, new[name])) if name in new else ["no such run after"]
        rounds = len(lines(folder / "metrics.jsonl")) - 1
        print(f"{name}: {rounds} rounds, {len(differences)} differences" + "".join(f"\n  {d}" for d in differences[:5]))
        wrong += bool(differences)
    print(f"{len(old) - wrong} of {len(old)} runs are the same bit for bit")
    return 1 if wrong or not old else 0


if __name__ == "__main__":
    if sys.argv[1] == "play":
        play(Path(sys.argv[2]).resolve())
    else:
        sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
