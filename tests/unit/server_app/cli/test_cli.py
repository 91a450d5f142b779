"""The command line: what is run where, with which settings, and what the user is told when that cannot be."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from server_app.cli import build_parser, garbage, listing, main
from server_app.cli.config import (
    CommandError,
    app_folder,
    check_keys,
    find_recipe,
    make_plan,
    parse_value,
    read_toml,
    split_words,
)
from server_app.cli.run import data_environment
from tasks.client_data import data_root
from tasks.config import DEFAULTS, ConfigError
from tests.conftest import ROOT

MakeApp = Callable[..., Path]


@pytest.fixture
def make_app(tmp_path: Path) -> MakeApp:
    """Make the folder of an app that declares some settings."""

    def make(config: dict[str, Any] | None = None) -> Path:
        folder = tmp_path / "checkout"
        folder.mkdir()
        app = {"tool": {"flwr": {"app": {"publisher": "someone", "config": config or {}}}}}
        (folder / "pyproject.toml").write_text(tomli_w.dumps(app))
        return folder

    return make


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("train.epochs", "3", 3),
        ("train.learning-rate", "1e-3", 0.001),
        ("train.augment", "false", False),
        ("loss.name", "anl-ce*", "anl-ce*"),
        ("loss.name", '"gce"', "gce"),
        ("loss.name", "package.module:Name", "package.module:Name"),
        ("noise.rates-args", "max = 0.8", "max = 0.8"),
        ("task.args", "", ""),
        ("run.output-dir", "2026", "2026"),
        ("run.output-dir", "true", "true"),
        ("run.output-dir", "2026-01-31", "2026-01-31"),
        ("seed", "[1, 2]", "[1, 2]"),
        ("variants", "a = {}\nb = {}", "a = {}\nb = {}"),
        ("unknown.key", "7", 7),
        ("seed", "1_000", 1000),
        ("seed", "0x10", 16),
        ("seed", "007", "007"),
        ("seed", "9" * 5000, "9" * 5000),
        ("seed", "[" * 4000, "[" * 4000),
    ],
)
def test_a_value_is_toml_or_else_the_text_itself(key: str, text: str, value: Any) -> None:
    found = parse_value(key, text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("key", [key for key, value in DEFAULTS.items() if value != ""])
def test_every_default_survives_being_typed_on_a_command_line(key: str) -> None:
    value = DEFAULTS[key]
    assert parse_value(key, str(value).lower() if isinstance(value, bool) else str(value)) == value


def test_words_are_one_recipe_and_settings_in_any_order() -> None:
    assert split_words(["seed=2", "demo", "train.epochs = 3"]) == ("demo", [{"seed": 2, "train.epochs": 3}])
    assert split_words(["noise.rates-args=max = 0.8"]) == ("", [{"noise.rates-args": "max = 0.8"}])
    assert split_words(["seed=1", "loss.args=", "loss.args=q = 1"]) == (
        "",
        [{"seed": 1, "loss.args": ""}, {"loss.args": "q = 1"}],
    )
    with pytest.raises(CommandError, match=r"one recipe.*demo and full"):
        split_words(["demo", "full"])


def test_later_sources_win(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app({"seed": 1, "num-server-rounds": 1, "train": {"epochs": 1, "batch-size": 1}})
    (tmp_path / "mine.toml").write_text('train.epochs = 3\nrun.resume = "old"')
    (tmp_path / "old").mkdir()
    saved = {"num-server-rounds": 2, "train": {"epochs": 2, "batch-size": 2}, "run": {"output-dir": "/elsewhere"}}
    (tmp_path / "old/config.toml").write_text(tomli_w.dumps(saved))
    plan = make_plan(["mine.toml", "train.batch-size=4"], Path("checkout"), tmp_path)
    assert plan.app == app
    assert plan.flat["seed"] == 1, "from pyproject.toml"
    assert plan.flat["num-server-rounds"] == 2, "from the run to resume"
    assert plan.flat["train.epochs"] == 3, "from the recipe"
    assert plan.flat["train.batch-size"] == 4, "from the command line"
    assert plan.flat["run.resume"] == str(tmp_path / "old")
    assert plan.flat["run.output-dir"] == "/elsewhere"
    assert "seed" not in plan.overrides()
    assert plan.overrides()["train.epochs"] == 3


@pytest.mark.parametrize(
    ("words", "partition", "loss"),
    [
        ([], ("dirichlet", "alpha = 0.9, min_size = 20"), ("gce", "q = 0.3")),
        (["partition.args=min_size = 3"], ("dirichlet", "alpha = 0.9, min_size = 3"), ("gce", "q = 0.3")),
        (["partition.args="], ("dirichlet", ""), ("gce", "q = 0.3")),
        (["partition.args=", "partition.args=alpha = 3"], ("dirichlet", "alpha = 3"), ("gce", "q = 0.3")),
        (["partition.name=iid", "loss.name=ce"], ("iid", ""), ("ce", "")),
        (["partition.args=x = 1", "partition.name=iid"], ("iid", "x = 1"), ("gce", "q = 0.3")),
        (
            ["loss.name=gce", "partition.name=dirichlet"],
            ("dirichlet", "alpha = 0.9, min_size = 20"),
            ("gce", "q = 0.3"),
        ),
        (
            ["loss.args=other = 'x', q = 1", "seed=2", "seed=3"],
            ("dirichlet", "alpha = 0.9, min_size = 20"),
            ("gce", "other = 'x', q = 1"),
        ),
        (["partition.args=x y"], ("dirichlet", "x y"), ("gce", "q = 0.3")),
    ],
)
def test_arguments_that_are_not_named_stay_while_the_component_does(
    words: list[str], partition: tuple[str, str], loss: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text('loss = { name = "gce", args = "q = 0.3" }\npartition.args = "alpha = 0.9"')
    flat = make_plan(["mine.toml", *words], str(ROOT), tmp_path).flat
    assert (flat["partition.name"], flat["partition.args"]) == partition
    assert (flat["loss.name"], flat["loss.args"]) == loss


def test_a_resumed_run_has_the_arguments_that_it_recorded(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old/config.toml").write_text('partition = { name = "dirichlet", args = "alpha = 0.9" }')
    assert make_plan(["run.resume=old"], str(ROOT), tmp_path).flat["partition.args"] == "alpha = 0.9"


def test_paths_become_absolute_and_runs_is_the_default(make_app: MakeApp, tmp_path: Path) -> None:
    make_app({"run": {"output-dir": ""}, "task": {"data-path": ""}})
    plan = make_plan([], Path("checkout"), tmp_path)
    assert plan.flat["run.output-dir"] == str(tmp_path / "runs")
    assert plan.flat["task.data-path"] == "", "stays: the task looks for WINNOW_DATA"
    plan = make_plan(["task.data-path=pictures", "run.output-dir=/abs"], Path("checkout"), tmp_path)
    assert (plan.flat["task.data-path"], plan.flat["run.output-dir"]) == (str(tmp_path / "pictures"), "/abs")


def test_a_tilde_is_the_home_folder_wherever_a_path_is_given(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "o'brien"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    (home / "mine.toml").write_text('task.data-path = "~/pictures"\n')
    make_app({"task": {"cache-path": "~/cache"}})
    plan = make_plan(["~/mine.toml", "run.output-dir=~/runs"], Path("checkout"), tmp_path)
    found = [plan.flat[key] for key in ("task.data-path", "task.cache-path", "run.output-dir")]
    assert found == [str(home / name) for name in ("pictures", "cache", "runs")]
    with pytest.raises(ConfigError, match=r"task\.data-path = '~nobody2/x': no home folder") as caught:
        make_plan(["task.data-path=~nobody2/x", "run.output-dir=~nobody2/x", "seed=a"], Path("checkout"), tmp_path)
    assert len(caught.value.errors) == 3, "all at once"
    with pytest.raises(CommandError, match=r"run\.resume = '~nobody2/x': no home folder"):
        make_plan(["run.resume=~nobody2/x"], Path("checkout"), tmp_path)
    monkeypatch.setenv("WINNOW_DATA", "~/data")
    assert data_environment(tmp_path) == {"WINNOW_DATA": str(home / "data")}
    assert data_root("") == home / "data"
    monkeypatch.setenv("WINNOW_DATA", "~nobody2/data")
    with pytest.raises(CommandError, match=r"WINNOW_DATA = '~nobody2/data': no home folder"):
        data_environment(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--app={}"],
        ["preview", "--output={}"],
        ["report", "{}"],
        ["runs", "{}"],
        ["compare", "{}"],
        ["doctor", "--root-certificates={}"],
        ["keys", "--folder={}", "show"],
        ["keys", "create", "--env={}"],
        ["federation", "run", "--data={}"],
        ["federation", "run", "--folder={}"],
        ["federation", "submit", "--root-certificates={}"],
        ["federation", "register", "{}"],
    ],
)
def test_every_option_that_is_a_path_knows_home_folders(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    parsed = build_parser().parse_args([word.format("~/x") for word in words])
    assert "/home/me/x" in str(vars(parsed))
    assert "~" not in str(vars(parsed))
    with pytest.raises(SystemExit):
        build_parser().parse_args([word.format("~nobody2/x") for word in words])
    assert "no home folder ~nobody2" in capsys.readouterr().err


def test_the_app_is_the_given_folder_else_here_else_the_checkout(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app()
    assert app_folder(Path("checkout"), tmp_path) == app
    assert app_folder(None, app) == app
    checkout = app_folder(None, tmp_path)
    assert (checkout / "server_app/cli/__init__.py").is_file()
    with pytest.raises(CommandError, match=r"no pyproject\.toml with \[tool\.flwr\.app\].*--app"):
        app_folder(".", tmp_path)


def test_a_recipe_is_a_file_or_a_name_that_comes_with_the_package(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("seed = 3")
    assert find_recipe("own.toml", tmp_path) == tmp_path / "own.toml"
    assert find_recipe("demo", tmp_path) == ROOT / "server_app/recipes/demo.toml"
    with pytest.raises(CommandError, match=r"no recipe 'demmo'.*did you mean 'demo'"):
        find_recipe("demmo", tmp_path)


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("seed = 1\nseed = 2\n")
    with pytest.raises(CommandError, match=r"broken\.toml is not TOML.*line 2"):
        read_toml(tmp_path / "broken.toml")
    (tmp_path / "long.toml").write_text(f"seed = {'9' * 5000}")
    with pytest.raises(CommandError, match=r"long\.toml is not TOML: .*limit"):
        read_toml(tmp_path / "long.toml")
    with pytest.raises(CommandError, match=r"cannot read .*absent\.toml"):
        read_toml(tmp_path / "absent.toml")


def test_a_run_to_resume_must_be_one(make_app: MakeApp, tmp_path: Path) -> None:
    make_app()
    with pytest.raises(CommandError, match=r"run\.resume = 'nowhere'.*config\.toml does not exist"):
        make_plan(["run.resume=nowhere"], Path("checkout"), tmp_path)


def test_all_wrong_settings_are_reported_at_once(make_app: MakeApp, tmp_path: Path) -> None:
    make_app()
    with pytest.raises(ConfigError) as caught:
        make_plan(["trian.epochs=2", "seed=x", "train.momentum=3"], Path("checkout"), tmp_path)
    assert len(caught.value.errors) == 3
    assert "did you mean 'train.epochs'" in str(caught.value)
    with pytest.raises(ConfigError, match="variants"):
        make_plan(["variants=nonsense"], Path("checkout"), tmp_path)


@pytest.mark.parametrize("word", ["loss.name=nope", "mine.toml", 'variants=a = { loss.name = "nope" }'])
def test_a_wrong_key_hides_no_wrong_part(word: str, make_app: MakeApp, tmp_path: Path) -> None:
    make_app()
    (tmp_path / "mine.toml").write_text('loss.name = "nope"')
    with pytest.raises(ConfigError, match=r"did you mean 'train\.epochs'") as caught:
        make_plan(["trian.epochs=2", word], Path("checkout"), tmp_path)
    assert [error for error in caught.value.errors if "'nope'" in error]


def test_a_wrong_value_that_one_variant_replaces_is_an_error_of_the_others() -> None:
    sound = {**DEFAULTS, "variants": "one = { train.epochs = 1 }\ntwo = {}"}
    with pytest.raises(ConfigError) as caught:
        check_keys({**sound, "train.epochs": 0}, sound)
    assert [issue.variants for issue in caught.value.issues] == ["two"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["run", "trian.epochs=2"], "did you mean 'train.epochs'"),
        (["run", "no-such-recipe"], "no recipe 'no-such-recipe'"),
        (["run", "--app", "nowhere"], "no pyproject.toml"),
        (["report", "nowhere"], "nowhere"),
        (["compare", "nowhere"], "nowhere"),
    ],
)
def test_what_the_user_can_correct_is_a_message_and_exit_code_2(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith(f"winnow {argv[0]}: ")
    assert not captured.out


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["rum"], "'run', 'sweep', 'results', 'list', 'preview', 'report', 'runs', 'compare', "),
        (["list", "losses"], "'loss'"),
        (["run", "seed=1", "--fast"], "--fast"),
    ],
)
def test_a_command_line_that_does_not_parse_says_what_would(
    argv: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "list", "doctor", "report", "compare"])
def test_every_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"example: winnow {command}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("argv", "expected"), [(["list", "server-optimizer"], 1), (["run", "--dry-run"], 1), (["keys", "--help"], 1)]
)
def test_output_that_cannot_be_written_is_one_line(
    argv: list[str], expected: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(argv) == expected
        monkeypatch.undo()
    assert capsys.readouterr().err == "winnow: the output could not be written: No space left on device\n"


def test_ctrl_c_while_a_command_shows_something_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(listing, "main", interrupted)
    assert main(["list"]) == 130


def test_a_dry_run_shows_what_would_run(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["federation.num-clients=4", "train.optimizer=adam", "train.momentum=0.5"]
    assert main(["run", "seed=3", "--dry-run", *words]) == 0
    shown = capsys.readouterr().out
    assert "num-supernodes=4 client-resources-num-cpus=1 client-resources-num-gpus=0.0" in shown
    assert "seed = 3" in shown
    assert "warning: train.momentum has no effect" in shown


def test_a_dry_run_builds_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--dry-run", "loss.name=gcee", "federation.client-gpus=99"]) == 2
    assert "did you mean 'gce'" in capsys.readouterr().err
    assert main(["run", "--dry-run", "federation.client-gpus=99"]) == 2
    assert "federation.client-gpus = 99: this machine has" in capsys.readouterr().err


def test_the_end_looks_for_no_garbage_unless_a_library_would_complain(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list[bool] = []
    monkeypatch.setattr(garbage.gc, "freeze", lambda: frozen.append(True))
    monkeypatch.setitem(sys.modules, "triton", sys)
    garbage.end_without_search()
    assert not frozen
    monkeypatch.delitem(sys.modules, "triton")
    garbage.end_without_search()
    assert frozen
