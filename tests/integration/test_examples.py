"""Plug-ins in examples/ and docs/plugins.md: short, introduced by commands that work, and run for two rounds."""

import re
import shlex
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from server_app.cli.config import split_words
from server_app.validation.config import check
from tasks.config import ConfigError
from tests.conftest import ROOT
from tests.integration.conftest import Play

FILES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.stem != "__init__")
KINDS = {
    "attack.name",
    "loss.name",
    "method.name",
    "model.name",
    "noise.rates",
    "noise.name",
    "partition.name",
    "run.callbacks",
    "strategy.aggregator",
    "strategy.name",
    "strategy.pre-aggregators",
    "strategy.server-optimizer",
    "task.encoder",
    "task.name",
}


def settings(file: Path) -> dict[str, Any]:
    """The settings in the command that the file's docstring shows."""
    [command] = re.findall(r"^ {4}(winnow run (?:.*\\\n)*.*)$", file.read_text().split('"""')[1], re.MULTILINE)
    program, action, *words = shlex.split(command.replace("\\\n", ""))
    assert (program, action) == ("winnow", "run")
    recipe, [changes] = split_words(words)
    assert recipe == ""
    return dict(changes)


def chosen(file: Path) -> set[str]:
    """The settings by which the command names this file."""
    return {key for key, value in settings(file).items() if f"examples.{file.stem}:" in str(value)}


def test_there_is_an_example_of_every_kind() -> None:
    assert set().union(*map(chosen, FILES)) == KINDS


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_is_shorter_than_sixty_lines(file: Path) -> None:
    assert len(file.read_text().splitlines()) < 60


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_command_of_an_example_passes_the_check(file: Path) -> None:
    assert len(chosen(file)) == 1
    check(settings(file))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_trains(file: Path, play: Play) -> None:
    quick = {"federation.num-clients": 5, "num-server-rounds": 2, "loss.name": "ce", "noise.rates-args": "max = 0.2"}
    run = play(**{**quick, **settings(file)})
    assert run.status["status"] == "completed"
    assert [line["quarantined"] for line in run.metrics] == [0, 0, 0]
    assert run.metrics[-1]["loss"] < run.metrics[0]["loss"]
    assert examples_in_record(run.path) == {f"examples.{file.stem}"}


def test_the_example_of_a_callback_ends_the_run_at_its_target(play: Play) -> None:
    target = "{ target = 0.3, evaluations = 2 }"
    run = play(
        num_server_rounds=20,
        loss__name="ce",
        noise__name="none",
        run__callbacks=f'"examples.target_accuracy:TargetAccuracy" = {target}',
    )
    reached = [line["validation_accuracy"] >= 0.3 for line in run.metrics]
    assert reached[-2:] == [True, True]
    assert not any(first and second for first, second in pairwise(reached[:-1]))
    assert run.status["reason"].startswith("examples.target_accuracy:TargetAccuracy: the validation accuracy is 0.")


def examples_in_record(path: Path) -> set[str]:
    return set(re.findall(r"examples\.\w+", (path / "config.toml").read_text()))


@pytest.fixture
def guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The guide to plug-ins; the files that it shows can be imported."""
    text = (ROOT / "docs/plugins.md").read_text()
    files = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", text, re.DOTALL))
    for name, source in files.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    yield text
    for name in files:
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("guide")
def test_the_guide_shows_the_errors_that_come() -> None:
    shown = re.findall(r"^  - (.*)$", (ROOT / "docs/plugins.md").read_text(), re.MULTILINE)
    with pytest.raises(ConfigError) as caught:
        check(
            {
                "strategy.aggregator": "my_rules:midle",
                "loss.name": "examples.bootstrap_loss:Bootstrap",
                "loss.args": 'beta = "high"',
                "model.name": "vision_nets:Net",
            }
        )
    assert caught.value.errors == shown


def test_the_guide_has_a_row_for_every_example(guide: str) -> None:
    assert set(re.findall(r"\(\.\./examples/(\w+)\.py\)", guide)) == {file.stem for file in FILES}
