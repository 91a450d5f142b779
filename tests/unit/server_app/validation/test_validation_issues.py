"""What of the settings does not fit who holds out validation examples; said before any client starts."""

from pathlib import Path

import pytest

from server_app.validation.config import issues
from tasks.config import DEFAULTS, Flat, parse
from tasks.protocol import Mode
from tests.site_data import ARGS, image_folder

KEYS = ("evaluate.", "run.", "federation.fraction-evaluate", "task.data-path")
NO_SHARE: Flat = {"evaluate.validation": 0.0}
SITES: Flat = {"evaluate.validation-at": "sites"}
ALL: Flat = {"federation.fraction-evaluate": 1.0}


def said(mode: Mode, task: Flat, changes: Flat) -> list[tuple[str, str]]:
    """The level and the line of each issue that is about evaluation."""
    found = issues(parse({**DEFAULTS, **task, **changes}), mode, trials=False)
    return [(issue.level, issue.line) for issue in found if issue.key.startswith(KEYS)]


@pytest.mark.parametrize(
    ("changes", "level", "text"),
    [
        (
            NO_SHARE | {"run.early-stopping": 3},
            "error",
            "run.early-stopping = 3: no examples are held out to stop by; set evaluate.validation to a share such as "
            "0.1, or run.early-stopping to 0",
        ),
        (
            SITES,
            "error",
            "evaluate.validation-at = 'sites': nobody measures on what the sites would hold out; "
            "set federation.fraction-evaluate to 1.0",
        ),
        (
            SITES | ALL | {"run.monitor": "balanced-accuracy"},
            "error",
            "'balanced-accuracy' is not measured at the sites",
        ),
        (SITES | {"federation.fraction-evaluate": 0.5}, "warning", "every round is measured at other sites"),
        (NO_SHARE | {"run.monitor": "loss"}, "warning", "run.monitor has no effect: no examples are held out"),
        (NO_SHARE | SITES, "warning", "evaluate.validation-at has no effect: no examples are held out"),
    ],
)
def test_what_does_not_fit_in_a_simulation(changes: Flat, level: str, text: str) -> None:
    [(found, line)] = said(Mode.SIMULATION, {}, changes)
    assert found == level
    assert text in line


@pytest.mark.parametrize("changes", [{}, ALL, NO_SHARE, SITES | ALL, {"run.early-stopping": 3, "run.monitor": "loss"}])
def test_what_fits_is_not_talked_about(changes: Flat) -> None:
    assert said(Mode.SIMULATION, {}, changes) == []


@pytest.mark.parametrize(
    ("changes", "level", "text"),
    [
        (
            {"run.early-stopping": 3},
            "error",
            "no examples are held out to stop by; set federation.fraction-evaluate to 1.0, or run.early-stopping to 0",
        ),
        (
            NO_SHARE | {"run.early-stopping": 3},
            "error",
            "set evaluate.validation to a share such as 0.1 and federation.fraction-evaluate to 1.0, or",
        ),
        ({"evaluate.validation-at": "server"}, "error", "the server has no training examples, which are at the sites"),
        (
            {"evaluate.validation": 0.2},
            "warning",
            "evaluate.validation has no effect: the sites, which have the examples",
        ),
    ],
)
def test_what_does_not_fit_where_sites_have_their_own_data(
    tmp_path: Path, changes: Flat, level: str, text: str
) -> None:
    image_folder(tmp_path / "test")
    task: Flat = {"task.name": "image-folder", "task.args": ARGS["image-folder"], "task.data-path": str(tmp_path)}
    assert said(Mode.DEPLOYMENT, task, ALL | {"run.early-stopping": 3}) == []
    [(found, line)] = said(Mode.DEPLOYMENT, task, changes)
    assert found == level
    assert text in line
