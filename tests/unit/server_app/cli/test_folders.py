"""Folders that are missing, files, unwritable, full or somebody else's: each command says so, and none breaks."""

import os
from pathlib import Path

import pytest

from server_app.cli import main
from server_app.cli.config import CommandError, app_folder, make_plan, output_issues
from server_app.cli.run import check_plan
from server_app.cli.superlink import SuperLinkError, writing
from tasks.config import ConfigError
from tasks.files import write_problem
from tests.full_disk import fill, small_disk
from tests.run_directories import accuracies, write_run

LONG = "a" * 300  # neither missing nor there: looking at it is an error, as for a folder that one may not read
BAD = ("nowhere", "file", "file/below", "empty", "other", "loop", LONG)
READ = (
    ["report", "{}"],
    ["compare", "good", "{}"],
    ["run", "--dry-run", "run.resume={}"],
    ["run", "--dry-run", "--app", "{}"],
    ["preview", "--app", "{}"],
    ["keys", "--folder", "{}", "show"],
    ["keys", "--folder", "{}", "renew-server"],
    ["keys", "--folder", "{}", "renew-node", "a"],
    ["federation", "submit", "--root-certificates", "{}", "--app", "{}"],
    ["federation", "follow", "--root-certificates", "{}", "17"],
    ["federation", "register", "--root-certificates", "{}", "{}"],
)
UNWRITABLE = ("file", "file/below", "/proc", "/proc/nope", "loop", LONG)
WRITE = (
    ["keys", "--folder", "{}", "create", "--nodes", "1"],
    ["keys", "--folder", "{}", "node", "a"],
    ["federation", "run", "--nodes", "2", "--folder", "{}"],
)


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("a file\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.toml").write_text("theirs = 1\n")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize("folder", BAD, ids=lambda name: name[:12])
@pytest.mark.parametrize("words", READ, ids=" ".join)
def test_a_folder_that_holds_nothing_of_ours_is_named(
    words: list[str], folder: str, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(folders / "good", accuracies(0.5))
    assert main([word.format(folder) for word in words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"winnow {words[0]}: ")
    assert folder in error or words[-1] == "a"
    assert not (folders / "other/report.html").exists()


@pytest.mark.parametrize("folder", UNWRITABLE, ids=lambda name: name[:12])
@pytest.mark.parametrize("words", WRITE, ids=" ".join)
def test_a_folder_that_cannot_be_written_is_named(
    words: list[str], folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.format(folder) for word in words]) == 2
    assert folder in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_said(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (write_run(folders / "good", accuracies(0.5)) / "report.html").mkdir()
    assert main(["report", "good"]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_working_directory_that_is_gone_is_said(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folders / "gone").mkdir()
    monkeypatch.chdir(folders / "gone")
    (folders / "gone").rmdir()
    assert main(["report", "x"]) == 2
    assert "the working directory is gone" in capsys.readouterr().err


@pytest.mark.parametrize("folder", UNWRITABLE, ids=lambda name: name[:12])
def test_where_a_run_is_recorded_is_checked_with_all_else(folder: str, folders: Path) -> None:
    plan = make_plan([f"run.output-dir={folder}", "federation.min-replies=30"], None, folders)
    with pytest.raises(ConfigError) as caught:
        check_plan(plan)
    assert [issue.key for issue in caught.value.issues] == ["federation.min-replies", "run.output-dir"]
    assert "a run cannot be recorded there" in caught.value.errors[1]


def test_a_folder_that_can_be_made_is_fine_and_is_not_made_yet(folders: Path) -> None:
    assert write_problem(folders / "a/b/c") == write_problem(folders / "empty") == ""
    assert output_issues(make_plan(["run.output-dir=a/b"], None, folders)) == []
    assert sorted(os.listdir(folders)) == ["empty", "file", "loop", "other"]
    assert os.listdir(folders / "empty") == []


def test_a_full_disk_is_seen_before_the_start(folders: Path) -> None:
    with small_disk(folders / "disk", 2**20) as disk:
        assert write_problem(disk / "runs") == ""
        fill(disk, leave=0)
        assert write_problem(disk / "runs") == f"{disk}: No space left on device"
        [issue] = output_issues(make_plan(["run.output-dir=disk/runs"], None, folders))
        assert issue.key == "run.output-dir"
        with pytest.raises(SuperLinkError, match=r"cannot write into .*disk: No space left.*set TMPDIR"), writing(disk):
            (disk / "overrides.toml").write_text("a" * 9000)


def test_another_flower_app_is_not_taken_for_winnow(folders: Path) -> None:
    app = '[tool.flwr.app.components]\nserverapp = "theirs.server:app"\nclientapp = "theirs.client:app"\n'
    (folders / "pyproject.toml").write_text(app)
    for given, cwd in ((None, folders), (folders, folders / "empty")):
        with pytest.raises(CommandError, match=r"another Flower app, not Winnow .*theirs\.server:app.*--app"):
            app_folder(given, cwd)
    for text in ('tool = "x"', "[tool]\nflwr = 1", '[tool.flwr]\napp = "x"'):
        (folders / "pyproject.toml").write_text(text)
        assert (app_folder(None, folders) / "server_app").is_dir(), "as in any other folder"


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("host", "the port is missing"),
        ("10.0.0.1", "the port is missing"),
        ("https://host:8000", "no https://"),
        ("https://host", "no https://"),
        ("host:8000/", "no https:// and no path"),
        ("host:", "its port is not a number"),
        ("host:http", "its port is not a number"),
        ("host:0", "its port is not a number"),
        ("host:65536", "its port is not a number"),
        (":8000", "the host is missing"),
        ("::1:8000", "IPv6 in brackets"),
        ("my host:8000", "neither a name nor an address"),
    ],
)
@pytest.mark.parametrize("words", [["doctor"], ["federation", "follow", "17"]], ids=" ".join)
def test_an_address_says_what_is_missing(
    words: list[str], address: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*words, "--superlink", address])
    assert problem in (error := capsys.readouterr().err)
    assert "expected HOST:PORT" in error
