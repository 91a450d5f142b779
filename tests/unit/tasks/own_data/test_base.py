"""Tasks on own data in a run: what does not go together, test data, and what is said before the start."""

from pathlib import Path

import pytest

from server_app.validation.config import check
from tasks.base import DataError
from tasks.client_data import load_task
from tasks.config import ConfigError
from tasks.plugins import PluginError
from tasks.protocol import Mode
from tasks.settings import TaskSettings
from tests.issues import warning_lines
from tests.site_data import (
    ARGS,
    KINDS,
    image_folder,
    image_masks,
)
from tests.unit.tasks.own_data.test_files import task_of


def configuration(kind: str, root: Path, **changes: object) -> dict[str, object]:
    flat = {
        "task.name": kind,
        "task.args": ARGS[kind],
        "task.data-path": str(root),
        "partition.name": "iid",
        "partition.args": "",
        "noise.name": "none",
        "federation.num-clients": 2,
        "train.device": "cpu",
        "model.name": "auto",
        "model.args": {"image-masks": "width = 8, depth = 1", "text-csv": "width = 4"}.get(kind, ""),
    }
    return flat | {key.replace("__", ".").replace("_", "-"): value for key, value in changes.items()}


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (
            "image-masks",
            {"method__name": "masked-optim"},
            "masked-optim needs one label per example.*image-masks has one",
        ),
        ("image-masks", {"method__name": "fedelc"}, "method fedelc needs one label"),
        ("image-masks", {"method__name": "fednoro"}, "method fednoro needs one label"),
        ("image-masks", {"method__name": "fedcorr"}, "method fedcorr needs one label"),
        ("image-masks", {"strategy__name": "noise-partition"}, "strategy noise-partition needs one label"),
        ("image-masks", {"attack__name": "label-flip", "attack__share": 0.5}, "attack label-flip changes one label"),
        ("image-masks", {"model__name": "mlp", "model__args": ""}, "the model must answer for each pixel"),
        ("image-masks", {"noise__name": "symmetric"}, "noise: .*for masks choose the noise 'masks'"),
        (
            "image-masks",
            {"partition__name": "dirichlet", "partition__args": "alpha = 1.0"},
            "a partition by class needs one class number per example",
        ),
        ("text-csv", {"method__name": "fedcorr"}, "method fedcorr mixes inputs"),
        (
            "text-csv",
            {"loss__name": "anl-ce", "loss__args": 'regularizer = "jacobian"'},
            "loss anl-ce differentiates by inputs",
        ),
        ("text-csv", {"model__name": "mlp", "model__args": ""}, "cannot take texts as hashed words"),
        ("image-folder", {"run__monitor": "dice"}, "'dice' is measured where each pixel has a label"),
        (
            "image-folder",
            {"run__early_stopping": 3, "evaluate__validation": 0.0},
            "no examples are held out to stop by",
        ),
    ],
)
def test_parts_that_cannot_work_with_the_data_are_refused_before_the_start(
    tmp_path: Path, kind: str, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check(configuration(kind, KINDS[kind](tmp_path), **changes))  # type: ignore[arg-type]


def test_a_server_of_real_nodes_needs_no_data(tmp_path: Path) -> None:
    flat = configuration("image-folder", tmp_path / "nowhere", noise__name="symmetric", noise__rates_args="max = 0.1")
    with pytest.raises(ConfigError, match="there is no folder"):
        check(flat)  # type: ignore[arg-type]
    lines = warning_lines(flat, Mode.DEPLOYMENT)
    assert any("the server does not evaluate: name a task.data-path with test data" in line for line in lines)
    measured = warning_lines(flat | {"federation.fraction-evaluate": 0.5}, Mode.DEPLOYMENT)
    assert any("only the clients do, on their own labels" in line for line in measured)
    assert "noise.rates-args has no effect: real nodes use their own data as it is" in lines


def test_damaged_test_data_of_a_server_is_an_error(tmp_path: Path) -> None:
    image_folder(tmp_path / "test")
    (tmp_path / "test" / "dark" / "000.png").write_bytes(b"")
    flat = configuration("image-folder", tmp_path)
    with pytest.raises(ConfigError, match="1 of 40 examples"):
        check(flat, Mode.DEPLOYMENT)  # type: ignore[arg-type]


def test_test_data_must_fit_whatever_is_skipped_elsewhere(tmp_path: Path) -> None:
    image_folder(tmp_path)
    image_folder(tmp_path / "test")
    (tmp_path / "test" / "dark" / "000.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 40 examples cannot be used in .*/test; correct them:"):
        task_of("image-folder", tmp_path, bad_data="skip").test_examples()


def test_test_data_inside_of_the_data_folder_is_not_trained_on(tmp_path: Path) -> None:
    for folder, count in ((".", 40), ("clean", 4), ("test", 2)):
        image_folder(tmp_path / folder, count)
    task = task_of("image-folder", tmp_path, ', test_path = "clean"')
    assert (len(task.train_examples()), len(task.test_examples())) == (40, 4)
    with pytest.raises(PluginError, match="the folder 'test' is for test data"):
        load_task(TaskSettings("image-folder", 'classes = ["train", "test"]'))


def test_test_data_may_lie_elsewhere_on_the_server(tmp_path: Path) -> None:
    image_folder(tmp_path / "clean", count=6)
    task = task_of("image-folder", image_folder(tmp_path / "data"), f', test_path = "{tmp_path}/clean"')
    assert (len(task.train_examples()), len(task.test_examples())) == (40, 6)
    missing = task_of("image-folder", tmp_path / "data", ', test_path = "no"')
    assert missing.has_test_examples()
    with pytest.raises(DataError, match=r"there is no folder .*no"):
        missing.check()


def test_test_data_may_lie_in_a_home_folder_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    image_folder(tmp_path / "clean", count=6)
    task = task_of("image-folder", image_folder(tmp_path / "data"), ', test_path = "~/clean"')
    assert len(task.test_examples()) == 6
    strange = task_of("image-folder", tmp_path / "data", ', test_path = "~nobody2/clean"')
    assert len(strange.train_examples()) == 40, "sites never look there"
    with pytest.raises(DataError, match=r"there is no folder .*/~nobody2/clean"):
        strange.check()


def test_what_was_left_out_is_said_before_a_simulation(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    (root / "dark" / "000.png").write_bytes(b"")
    lines = warning_lines(configuration("image-folder", root, task__bad_data="skip"))
    assert any("1 of 40 examples cannot be used" in line for line in lines)


def test_the_audit_of_masks_has_an_effect(tmp_path: Path) -> None:
    lines = warning_lines(configuration("image-masks", image_masks(tmp_path)))
    assert not any(line.startswith("audit.") for line in lines)
