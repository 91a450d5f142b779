"""A plug-in that Flower would leave out of the bundle is refused before anything starts."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from server_app.cli.packages import bundle_issues
from tasks.settings import MethodSettings, RunSettings, Settings


@pytest.mark.parametrize(
    ("path", "pattern"),
    [("mine/methods.py", ""), ("tests/methods.py", "tests/**"), ("test_methods.py", "test_*.py"), ("../far.py", "")],
)
def test_a_file_that_is_not_sent_is_named_with_the_pattern(
    path: str, pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = tmp_path / "app"
    file = (app / path).resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    app.mkdir(exist_ok=True)
    (app / "pyproject.toml").write_text('[tool.flwr.app]\nfab-exclude = ["tests/**"]')
    monkeypatch.setitem(sys.modules, "a_plug_in", type(sys)("a_plug_in"))
    sys.modules["a_plug_in"].__file__ = str(file)
    run = replace(Settings(), method=MethodSettings(name="a_plug_in:Method"))
    message = f"a_plug_in:Method: {path} is not sent with the app (excluded by {pattern!r}); move or rename it"
    assert [issue.line for issue in bundle_issues(app, [run, run])] == ([message] if pattern else [])


def test_a_plug_in_that_inline_toml_names_is_found_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.flwr.app]")
    monkeypatch.setitem(sys.modules, "mine.test_plug_in", type(sys)("mine.test_plug_in"))
    sys.modules["mine.test_plug_in"].__file__ = str(tmp_path / "mine/test_plug_in.py")
    run = replace(Settings(), run=RunSettings(callbacks='tensorboard = {}, "mine.test_plug_in:Log" = { every = 2 }'))
    [message] = bundle_issues(tmp_path, [run])
    assert message.line.startswith("mine.test_plug_in:Log: mine/test_plug_in.py is not sent with the app")
