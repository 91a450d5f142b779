"""Exports and predictions of made-up models: what is refused, what is told apart, and what a card must not break."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from server_app.cli import main
from server_app.export.card import model_card
from server_app.export.exporting import export_manifest, export_model
from server_app.export.formats import write_model
from server_app.export.manifest import manifest, read_manifest, rebuilding
from server_app.export.trained import ExportError, open_model
from server_app.report.reading import read_run
from tasks.client_data import load_task
from tasks.config import parse
from tasks.inference import sample_inputs
from tests.site_data import save
from tests.trained_runs import DIGITS, run_of, trained

OWN = {"task.name": "image-folder", "model.name": "linear"}
CLASSES = 'classes = ["be|nign", "m`al\\n#"], size = 8'


def test_what_cannot_be_read_is_told_and_the_others_are_predicted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, files = run_of(tmp_path / "run"), tmp_path / "files"
    save(files / "good.png", np.full((8, 8), 200))
    save(files / "colour.png", np.random.default_rng(0).integers(0, 255, (8, 8, 3)))
    (files / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (files / "notes.md").write_text("no image, and nobody named it")
    words = [str(files), str(tmp_path / "gone.png")]
    assert main(["predict", str(run), *words, "--output", str(tmp_path / "out.csv")]) == 1
    (row,) = csv.DictReader((tmp_path / "out.csv").open())
    assert Path(row["file"]).name == "good.png"
    assert sum(float(row[f"probability_{digit}"]) for digit in range(10)) == pytest.approx(1, abs=1e-6)
    said = capsys.readouterr().err
    assert "colour.png: has colours, but the run declares channels = 1" in said
    assert "damaged.png: cannot be read as an image" in said
    assert "gone.png: there is no such file" in said
    assert "notes.md" not in said
    assert "3 of 4 could not be predicted" in said


def test_images_of_another_size_and_depth_become_what_training_saw(tmp_path: Path) -> None:
    model = trained()
    values = np.arange(64, dtype=np.uint8).reshape(8, 8) % 17
    save(tmp_path / "same.png", np.rint(values * (255 / 16)))
    (example,) = model.task.unlabelled(tmp_path / "same.png")  # type: ignore[attr-defined]
    assert example.read()[0].tolist() == values.tolist()


def test_bits_are_never_guessed_from_one_file_and_kept_if_they_were_found(tmp_path: Path) -> None:
    args = 'classes = ["a", "b"], size = 8, channels = 1'
    deep = (np.arange(64, dtype=np.uint16) * 64).reshape(8, 8)
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.fromarray(deep).save(tmp_path / name / "0.png")
    settings = parse({**OWN, "task.args": args, "task.data-path": str(tmp_path)})
    task: Any = load_task(settings.task)
    (example,) = task.unlabelled(tmp_path / "a" / "0.png")
    with pytest.raises(Exception, match="does not say how many bits are used"):
        example.read()
    expected = task.train_examples().features[0]
    assert rebuilding(settings, task)["task.args"] == f"{args}, bits = 12"
    assert np.array_equal(example.read(), expected.numpy())


@pytest.mark.parametrize("form", ["safetensors", "state-dict", "torchscript"])
def test_a_format_is_checked_against_the_model(form: str, tmp_path: Path) -> None:
    assert write_model(form, tmp_path, trained()).is_file()


class Counting(nn.Module):
    """Answers otherwise for many examples, which a trace of three does not show."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.layer(inputs.flatten(1))
        return -logits if len(inputs) > 5 else logits


def test_a_format_that_answers_otherwise_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="as torchscript the model answers otherwise, by up to"):
        write_model("torchscript", tmp_path, trained(Counting()))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server_app.export.formats.find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ExportError, match=r'pip install -e "\.\[onnx\]" \(missing: onnxscript\)'):
        write_model("onnx", tmp_path, trained())


def test_a_folder_with_other_files_is_refused_and_an_earlier_export_replaced(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    model, record = open_model(run), read_run(run)
    export_model(model, record, tmp_path / "out", ["state-dict"])
    export_model(model, record, tmp_path / "out", ["safetensors"], licence="mit")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.md", "manifest.json", "model.safetensors"}
    (tmp_path / "out" / "thesis.doc").write_text("mine")
    with pytest.raises(ExportError, match=r"holds other files \(thesis.doc\)"):
        export_model(model, record, tmp_path / "out", ["safetensors"])
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert torch.equal(*(open_model(folder).probabilities(inputs()) for folder in (run, tmp_path / "out")))


def inputs() -> Tensor:
    return sample_inputs(load_task(parse(DIGITS).task), 4, torch.Generator().manual_seed(3))


def test_the_card_is_sound_whatever_classes_are_called(tmp_path: Path) -> None:
    flat = {**OWN, "task.args": CLASSES}
    run = run_of(tmp_path / "run", **flat)
    model = open_model(run)
    content = export_manifest(model, read_run(run), {}, licence='say: "what"', name="- a: [b]")
    card = model_card(content, read_run(run))
    front = yaml.safe_load(card.split("---")[1])
    assert (front["license"], front["model-index"][0]["name"]) == ('say: "what"', "- a: [b]")
    assert "`be\\|nign`, `m'al #`" in card
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.3


MISTAKES: list[tuple[Callable[[Path], Any], list[str], str]] = [
    (lambda run: None, ["--model", "best"], "has no best model"),
    (lambda run: (run / "config.toml").unlink(), [], "neither a run directory"),
    (lambda run: (run / "checkpoints" / "last.safetensors").write_bytes(b"x"), [], "cannot be read"),
    (
        lambda run: (run / "config.toml").write_text('[model]\nname = "mlp"'),
        [],
        "the weights are those of another model",
    ),
    (lambda run: (run / "config.toml").write_text('[model]\nname = "mpl"'), [], "did you mean 'mlp'"),
]


@pytest.mark.parametrize(("spoil", "more", "message"), MISTAKES)
def test_a_model_that_cannot_be_built_is_one_line(
    spoil: Callable[[Path], Any], more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path / "run")
    spoil(run)
    assert main(["predict", str(run), "x.png", *more]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_another_encoder_than_in_training_is_refused(tmp_path: Path) -> None:
    flat = {"task.name": "image-folder", "task.args": 'classes = ["a", "b"], size = 16', "model.name": "linear"}
    run = run_of(tmp_path / "run", **flat, **{"task.encoder": "examples.colour_encoder:ColourGrid"})
    known = manifest(open_model(run).settings)
    path = run / "checkpoints" / "manifest.json"
    path.write_text(json.dumps(known))
    assert open_model(run).predict(torch.zeros(2, 3, 16, 16, dtype=torch.uint8)).shape == (2, 2)
    path.write_text(json.dumps({**known, "encoder": {**known["encoder"], "sha256": "other"}}))
    with pytest.raises(ExportError, match="is not the one that the model was trained with"):
        open_model(run)


def test_a_manifest_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"winnow_manifest": 2, "settings": {}}))
    with pytest.raises(ValueError, match="manifest of version 2, this Winnow reads 1"):
        read_manifest(path)
