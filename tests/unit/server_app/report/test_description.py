"""What was run, in words: of a simulation, of a federation, and of a run from before some of it was recorded."""

import json
from pathlib import Path

from server_app.report import read_run, write_report
from server_app.report.description import description
from server_app.storage.run_directory import VERSIONS
from tests.run_directories import CLIENT_LINES, write_run

LATE, SOON = "2026-11-29T23:50:00+01:00", "2026-11-29T22:51:30+00:00"


def text_of(path: Path) -> str:
    return " ".join(description(read_run(path)))


def test_a_simulation(tmp_path: Path) -> None:
    words = {"model": "digits-cnn, 9,930 parameters", "wrong_labels": "Labels made wrong on purpose: <i>some</i>."}
    path = write_run(tmp_path, clients=CLIENT_LINES, started=LATE, finished=SOON, **words)
    (path / VERSIONS).write_text(json.dumps({"winnow": "1.2", "git": "0123456789abcdef", "device": "cpu"}))
    assert text_of(path) == (
        "2 simulated clients learned the task digits with the model digits-cnn, 9,930 parameters, its training "
        "examples divided among them by the partition dirichlet (alpha = 0.5, min_size = 20). They trained by the "
        "method sgd with the loss nce+rce; the server combined their models by the strategy robust with the "
        "aggregator geometric-median. Labels made wrong on purpose: <i>some</i>. "
        "Seed 1, started 2026-11-29 23:50:00 UTC+01:00 and took 1 min 30 s. "
        "Winnow version 1.2, git commit 0123456789, on cpu."
    )
    assert "on purpose: &lt;i&gt;some" in write_report(path).read_text()


def test_a_federation_whose_sites_have_data_of_their_own_is_said_to_divide_nothing(tmp_path: Path) -> None:
    path = write_run(tmp_path, clients=CLIENT_LINES, simulation=False)
    with (path / "config.toml").open("a") as file:
        file.write('[strategy]\npre-aggregators = "clip"\nserver-optimizer = "adam"\n[attack]\nname = "sign-flip"\n')
    text = text_of(path)
    assert text.startswith("2 sites learned the task digits with the task's own model. ")
    assert "partition" not in text
    assert "noise" not in text.lower()
    assert "geometric-median after clip and the server optimizer adam. The attack sign-flip is tried on it." in text


def test_a_warm_up_is_said(tmp_path: Path) -> None:
    path = write_run(tmp_path, clients=CLIENT_LINES)
    assert "cross-entropy" not in text_of(path)
    config = (path / "config.toml").read_text()
    (path / "config.toml").write_text(config.replace('name = "nce+rce"', 'name = "nce+rce"\nwarmup = 8.0'))
    assert "with the loss nce+rce, warmed up with cross-entropy over 8 passes; the server" in text_of(path)


def test_a_run_that_recorded_little(tmp_path: Path) -> None:
    path = write_run(tmp_path, simulation=True)
    (path / VERSIONS).unlink()
    text = text_of(path)
    assert "Label noise: auto, rates linear (max = 0.85). Seed 1." in text
    assert text.startswith("20 simulated clients")
    assert "Winnow" not in text
    (path / "config.toml").unlink()
    assert text_of(path) == ""
