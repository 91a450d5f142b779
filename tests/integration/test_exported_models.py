"""From a run to its exported model: what ``winnow predict`` says is what the run measured, and others get the same.

Outside means a process that finds torch, onnxruntime and safetensors but no Winnow; it runs the program of the card.
"""

import csv
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from server_app.cli import main
from server_app.export.usage import usage
from tasks.datasets.digits import read_digits
from tasks.images import Digits
from tests.integration.conftest import Play, Played, player
from tests.site_data import ARGS, column_table, image_folder, text_table

OUTSIDE = """
import contextlib, importlib.util, io, json, os, runpy, sys
assert not any(map(importlib.util.find_spec, ("tasks", "client_app", "strategies", "server_app"))), "this is inside"
found = []
for folder, program, files in json.loads(sys.argv[1]):
    os.chdir(folder)
    sys.argv = [program, *files]
    with contextlib.redirect_stdout(io.StringIO()) as text:
        runpy.run_path(program, run_name="__main__")
    found.append([line.split("\\t") for line in text.getvalue().splitlines()])
print(json.dumps(found))
"""
PLAIN = """
import json, sys
import torch
from safetensors.torch import load_file
from torch import nn
network = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(512, 10),
)
network.load_state_dict({weights})
import numpy as np
from PIL import Image
how = json.load(open("manifest.json"))["preprocessing"]
for path in sys.argv[1:]:
    values = np.rint(np.asarray(Image.open(path)) * (how["values"][1] / 255))
    inputs = (torch.tensor(values)[None, None] / how["values"][1] - how["mean"][0]) / how["std"][0]
    with torch.no_grad():
        answer = network(inputs.float()).softmax(1)[0].tolist()
    print(path, "", *answer, sep="\\t")
"""
FORMATS = {
    "digits": ("safetensors", "state-dict", "torch-export", "torchscript", "onnx"),
    "texts": ("torch-export",),
    "table": ("torchscript",),
}
LEARN = {"num-server-rounds": 2, "federation.num-clients": 2, "loss.name": "ce", "noise.name": "none"}
IID = {"partition.name": "iid", "partition.args": ""}


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Played, list[Path], list[str]]]:
    """By task: a run, its test data as files, and the true classes in their order."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        play = player(folder, patch)
        return {name: make(play, folder / f"{name}-data") for name, make in CASES.items()}


def digits(play: Play, folder: Path) -> tuple[Played, list[Path], list[str]]:
    folder.mkdir()
    test, paths = Digits().test_examples(), []
    for number, image in enumerate(test.features.numpy()):
        paths.append(folder / f"{number:03}.png")
        Image.fromarray(np.rint(image[0] * (255 / 16)).astype(np.uint8)).save(paths[-1])
    run = play(**LEARN, **IID, **{"model.name": "digits-cnn"})
    return run, [folder], [str(label) for label in test.labels]


def own(task: str, args: str, file: str, make: Any, **more: Any) -> Any:
    def build(play: Play, folder: Path) -> tuple[Played, list[Path], list[str]]:
        make(folder, 60)
        make(folder / "test", 30, seed=1)
        changes = {"task.name": task, "task.args": args, "task.data-path": str(folder), "model.name": "auto", **more}
        run = play(**LEARN, **IID, **changes)
        if file:
            lines = list(csv.DictReader((folder / "test" / file).open()))
            return run, [folder / "test" / file], [line["label"] for line in lines]
        paths = sorted((folder / "test").rglob("*.png"))
        return run, [folder / "test"], [path.parent.name for path in paths]

    return build


ENCODED = {"task.encoder": "examples.colour_encoder:ColourGrid"}
CASES = {
    "digits": digits,
    "texts": own("text-csv", ARGS["text-csv"], "texts.csv", text_table),
    "table": own("table", ARGS["table"], "table.csv", column_table),
    "images": own("image-folder", ARGS["image-folder"], "", image_folder, **ENCODED),
}


def predicted(run: Path, files: list[Path], output: Path) -> list[dict[str, str]]:
    assert main(["predict", str(run), *map(str, files), "--output", str(output)]) == 0
    return list(csv.DictReader(output.open()))


@pytest.mark.parametrize("name", CASES)
def test_predictions_of_files_are_what_the_run_measured_on_them(name: str, runs: Any, tmp_path: Path) -> None:
    run, files, truth = runs[name]
    rows = predicted(run.path, files, tmp_path / "out.csv")
    best = run.metrics[run.status["best_round"]]
    right = [float(row[f"probability_{label}"]) for row, label in zip(rows, truth, strict=True)]
    assert -sum(map(math.log, right)) / len(right) == pytest.approx(best["loss"], abs=2e-6)
    assert np.mean([row["class"] == label for row, label in zip(rows, truth, strict=True)]) == best["accuracy"]
    assert {float(row["probability"]) for row in rows} == {
        max(float(value) for key, value in row.items() if key.startswith("probability_")) for row in rows
    }


@pytest.fixture(scope="module")
def exports(runs: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By task: the folder of its export."""
    folder, found = tmp_path_factory.mktemp("exports"), {}
    for name, formats in FORMATS.items():
        found[name] = folder / name
        words = ["export", str(runs[name][0].path), "--output", str(found[name]), "--name", name, "--format", *formats]
        assert main(words) == 0
    return found


def single(name: str, runs: Any) -> list[Path]:
    """The files that a program outside reads: images, one text a file, a table."""
    (given,) = runs[name][1]
    if name != "texts":
        return sorted(given.iterdir())[:40] if given.is_dir() else [given]
    found = [given.with_name(f"{number}.txt") for number in range(3)]
    texts = ["night coal", "Sun, SNOW! \u00c9t\u00e9 e\u0301t\u00e9 \u0130stanbul lamp", "shadow " * 90]
    for path, text in zip(found, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    return found


@pytest.fixture(scope="module")
def outside(runs: Any, exports: dict[str, Path]) -> dict[tuple[str, str], list[list[str]]]:
    """By task and format: what a process without Winnow predicts."""
    cases: dict[tuple[str, str], Any] = {}
    for name, folder in exports.items():
        manifest = json.loads((folder / "manifest.json").read_text())
        files = [str(path) for path in single(name, runs)]
        for form in FORMATS[name]:
            program = usage(manifest, (form,)) or PLAIN.replace(
                "{weights}", 'torch.load("model.pt")' if form == "state-dict" else 'load_file("model.safetensors")'
            )
            path = folder.parent / f"use-{name}-{form}.py"
            path.write_text(program)
            cases[name, form] = (str(folder), str(path), files)
    packages = str(Path(torch.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", OUTSIDE, json.dumps(list(cases.values()))],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": packages, "OMP_NUM_THREADS": "1", "PATH": ""},
        cwd="/",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(cases, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize(("name", "form"), [(name, form) for name, forms in FORMATS.items() for form in forms])
def test_an_exported_model_predicts_the_same_without_winnow(
    name: str, form: str, runs: Any, outside: Any, tmp_path: Path
) -> None:
    rows = predicted(runs[name][0].path, single(name, runs), tmp_path / "out.csv")
    answers = outside[name, form]
    expected = [[float(value) for key, value in row.items() if key.startswith("probability_")] for row in rows]
    found = [[float(value) for value in line[2:]] for line in answers]
    np.testing.assert_allclose(found, expected[: len(found)], rtol=0, atol=1e-5 if form == "onnx" else 1e-6)
    assert len(found) > 0


def test_the_card_is_one_that_hugging_face_reads_and_shows_the_program(exports: dict[str, Path]) -> None:
    text = (exports["digits"] / "README.md").read_text()
    manifest = json.loads((exports["digits"] / "manifest.json").read_text())
    front = yaml.safe_load(text.split("---")[1])
    assert (front["license"], front["pipeline_tag"]) == ("unknown", "image-classification")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert program == usage(manifest, FORMATS["digits"])
    hub = pytest.importorskip("huggingface_hub")
    results = {one.metric_name: one.metric_value for one in hub.ModelCard(text).data.eval_results}
    assert results["Accuracy"] == manifest["metrics"]["accuracy"]
    assert manifest["classes"] == [str(label) for label in sorted(set(read_digits()[1].tolist()))]


def test_an_exported_folder_predicts_as_its_run_does(runs: Any, exports: dict[str, Path], tmp_path: Path) -> None:
    run, files, _ = runs["digits"]
    assert predicted(exports["digits"], files, tmp_path / "a") == predicted(run.path, files, tmp_path / "b")
