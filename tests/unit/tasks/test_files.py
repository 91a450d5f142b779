"""Writing to a disk that has no room, as the operating system tells it: here a limit of the size of files."""

import errno
import os
from pathlib import Path

import pytest

from tasks.files import WriteError, append_text, replace_file, user_path
from tests.full_disk import room_for


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/o'brien")
    assert user_path("~/a b") == "/home/o'brien/a b"
    assert user_path("~") == "/home/o'brien"
    assert user_path("~root/x").endswith("/x")
    assert [user_path(path) for path in ("", "./~", "a~", "a/~/b")] == ["", "./~", "a~", "a/~/b"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("~nobody2/x", r"no home folder ~nobody2 .*\./~nobody2/x"),
        ("a\nb", r"\\n"),
        ("a\0", "x00"),
        ("a\udc80", "udc80"),
    ],
)
def test_what_is_no_path_is_said_to_be(path: str, message: str):
    with pytest.raises(ValueError, match=message):
        user_path(path)


def test_a_file_is_replaced_and_the_old_one_is_kept_when_asked(tmp_path: Path):
    path, kept = tmp_path / "a", tmp_path / "b"
    for content in (b"1", b"2", b"3"):
        replace_file(path, content, keep=kept)
    assert (path.read_bytes(), kept.read_bytes()) == (b"3", b"2")
    replace_file(path, b"4")
    assert (path.read_bytes(), kept.read_bytes()) == (b"4", b"2")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_file_that_does_not_fit_leaves_the_old_one_and_nothing_else(tmp_path: Path):
    path, kept = tmp_path / "a", tmp_path / "b"
    replace_file(path, b"old", keep=kept)
    with room_for(1000), pytest.raises(WriteError, match=r"^cannot write .*/a: File too large$") as caught:
        replace_file(path, bytes(1001), keep=kept)
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_crash_between_the_two_renames_leaves_the_old_content_at_its_other_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, kept = tmp_path / "a", tmp_path / "b"
    replace_file(path, b"old")
    rename = os.replace

    def crash(source: Path, target: Path) -> None:
        if target == path:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        replace_file(path, b"new", keep=kept)
    assert not path.exists()
    assert kept.read_bytes() == b"old"


def test_lines_that_do_not_fit_are_not_there_at_all(tmp_path: Path):
    path = tmp_path / "lines"
    append_text(path, "one\n")
    with room_for(10), pytest.raises(WriteError, match="File too large"):
        append_text(path, "two\nthree\n")
    assert path.read_text() == "one\n"
    append_text(path, "two\n")
    assert path.read_text() == "one\ntwo\n"
    with pytest.raises(WriteError, match="No such file or directory"):
        append_text(tmp_path / "nowhere/lines", "one\n")


def test_a_private_file_is_private_whatever_a_crash_has_left(tmp_path: Path):
    path, left = tmp_path / "a", tmp_path / ".a.partial"
    left.write_bytes(b"half")
    left.chmod(0o644)
    replace_file(path, b"secret", private=True)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"secret", 0o600)


def test_a_line_that_cannot_be_taken_back_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "lines"
    append_text(path, "one\n")

    def refuse(path: Path, length: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "truncate", refuse)
    said = r"^cannot write .*/lines: File too large; a part may stand at its end \(Input/output error\)$"
    with room_for(10), pytest.raises(WriteError, match=said) as caught:
        append_text(path, "two\nthree\n")
    assert caught.value.errno == errno.EFBIG


def test_the_error_carries_advice():
    error = WriteError(errno.ENOSPC, "No space left on device", "/a")
    error.advice = "free space"
    assert str(error) == "cannot write /a: No space left on device; free space"
