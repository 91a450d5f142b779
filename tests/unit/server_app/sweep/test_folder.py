"""Folder of a sweep: one sweep at a time, and an error where it cannot be written."""

from pathlib import Path

import pytest

from server_app.sweep.database import SweepError
from server_app.sweep.folder import COPY, claimed, keep_copy


def test_a_folder_is_one_sweep_s_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with claimed(folder):
        with pytest.raises(SweepError, match=f"another sweep is at work in {folder}"), claimed(folder):
            pass
        with claimed(tmp_path / "other"):
            pass
    with claimed(folder):
        keep_copy(folder, Path(__file__))
    assert (folder / COPY).read_bytes() == Path(__file__).read_bytes()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(SweepError, match=r"the sweep cannot be recorded in .*file/sweep"),
        claimed(tmp_path / "file" / "sweep"),
    ):
        pass
