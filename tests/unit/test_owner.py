"""A folder of label state belongs to one node."""

from pathlib import Path

import pytest

from client_app.owner import OwnerError, claim
from strategies.updates import one_line

OLD, NEW = 13221729497652991868, 4800910847626579947


def test_a_node_gets_a_folder_and_keeps_it(tmp_path: Path) -> None:
    folder = tmp_path / "20260101-120000" / "site"
    for _ in range(2):
        claim(folder, OLD)
    assert [path.name for path in folder.iterdir()] == [f"owner-{OLD}"]


def test_another_node_is_refused_and_told_both_ids_and_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "20260101-120000-2" / "site"
    claim(folder, OLD)
    for _ in range(2):
        with pytest.raises(OwnerError) as refused:
            claim(folder, NEW)
    told = str(refused.value)
    assert f"nodes {NEW} and {OLD} have the same state directory" in told
    assert f"remove 20260101-120000-2/site/owner-{OLD} there" in told
    assert str(tmp_path) not in told
    assert not one_line(f"OwnerError: {told}").endswith("..."), "all of it is shown"
    claim(folder, OLD)  # which is not disturbed by the attempt


def test_a_node_with_a_new_key_goes_on_once_the_old_mark_is_removed(tmp_path: Path) -> None:
    claim(tmp_path, OLD)
    (tmp_path / "state-3.safetensors").touch()
    (tmp_path / f"owner-{OLD}").unlink()
    claim(tmp_path, NEW)
    assert (tmp_path / "state-3.safetensors").exists()
