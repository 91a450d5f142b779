"""The line that says which labels a run makes wrong on purpose, and that own data is left alone unless asked."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_app.cli import main
from server_app.registration import Client, Registration
from server_app.validation.config import issues
from server_app.wrong_labels import NONE_WRONG, wrong_labels_line
from tasks.client_data import client_dataset
from tasks.config import parse
from tasks.protocol import Mode
from tests.site_data import ARGS, KINDS, image_folder

SITE = {"partition.name": "iid", "partition.args": "", "federation.num-clients": 2, "model.name": "mlp"}


def site(kind: str, root: Path, **changes: Any) -> dict[str, Any]:
    KINDS[kind](root)
    return SITE | {"task.name": kind, "task.args": ARGS[kind], "task.data-path": str(root)} | changes


def line(mode: Mode = Mode.SIMULATION, registration: Registration | None = None, **flat: Any) -> str:
    return wrong_labels_line(parse({key.replace("__", "."): v for key, v in flat.items()}), mode, registration)


@pytest.mark.parametrize("kind", KINDS)
def test_own_data_keeps_its_labels_by_default(tmp_path: Path, kind: str) -> None:
    settings = parse(site(kind, tmp_path))
    assert [client_dataset(settings, client).noise_rate for client in range(2)] == [0, 0]
    assert wrong_labels_line(settings, Mode.SIMULATION) == NONE_WRONG


@pytest.mark.filterwarnings("ignore::tasks.noise.NoiseWarning")
def test_own_data_gets_the_noise_that_is_asked_for(tmp_path: Path) -> None:
    settings = parse(site("image-folder", tmp_path, **{"noise.name": "symmetric", "evaluate.validation": 0.0}))
    np.testing.assert_allclose([client_dataset(settings, client).noise_rate for client in range(2)], [0, 0.85])
    assert "by the noise 'symmetric' at rates 0 to 0.85" in wrong_labels_line(settings, Mode.SIMULATION)
    assert wrong_labels_line(settings, Mode.DEPLOYMENT) == NONE_WRONG  # real nodes use their data as it is


def test_rates_alone_do_not_ask_for_noise_on_own_data_and_that_is_said(tmp_path: Path) -> None:
    flat = site("image-folder", tmp_path, **{"noise.rates-args": "max = 0.4"})
    said = [issue for issue in issues(parse(flat)) if issue.key.startswith("noise")]
    assert [(issue.level, issue.key) for issue in said] == [("warning", "noise.rates-args")]
    assert "set noise.name=symmetric" in said[0].line
    assert not [issue for issue in issues(parse(flat | {"noise.name": "symmetric"})) if issue.key.startswith("noise")]


def test_a_built_in_data_set_is_made_noisy_as_before() -> None:
    rates = [client_dataset(parse({"noise.name": name}), 19).noise_rate for name in ("auto", "symmetric")]
    assert rates[0] == rates[1] > 0.8


def test_the_share_is_that_of_all_training_labels() -> None:
    clients = (Client(0, 10, 300, 0.0), Client(1, 11, 100, 0.8))
    expected = "about 20 % of the training labels, by the noise 'symmetric' at rates 0 to 0.85; test labels stay"
    assert expected in line(registration=Registration(clients))
    unknown = Registration((Client(0, 10, 300), *clients[1:]))
    assert "about" not in line(Mode.DEPLOYMENT, unknown)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"noise.name": "none"}, NONE_WRONG),
        ({"noise.rates-args": "max = 0.0"}, NONE_WRONG),
        ({"noise.rates": "constant", "noise.rates-args": "rate = 0.3"}, "at rate 0.3;"),
        ({"noise.name": "human", "noise.args": 'path = "x.npz", column = "y"'}, "by the noise 'human'; test labels"),
        ({"attack.name": "sign-flip"}, "at rates 0 to 0.85; test labels"),
        ({"attack.name": "label-flip"}, "0.85; hostile clients change their own data (attack 'label-flip'); test"),
        ({"attack.name": "label-flip", "noise.name": "none"}, "except that hostile clients change their own data"),
    ],
)
def test_the_line_says_who_makes_labels_wrong(changes: dict[str, Any], expected: str) -> None:
    assert expected in line(**changes)


def test_a_dry_run_says_it_once_for_variants_with_the_same_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image_folder(tmp_path / "scans")
    monkeypatch.chdir(tmp_path)
    task = ["task.name=image-folder", f"task.args={ARGS['image-folder']}", "task.data-path=scans"]
    words = [*task, "partition.name=iid", "partition.args=", "federation.num-clients=2", "model.name=mlp"]
    noisy = 'plain = {}\nother = { loss.name = "ce" }\nnoisy = { noise.name = "symmetric" }'
    assert main(["run", "--dry-run", *words, f"variants={noisy}"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "wrong on purpose" in line]
    assert said[0] == NONE_WRONG
    assert [text[:40] for text in said[1:]] == ["Labels made wrong on purpose: by the noi"]
