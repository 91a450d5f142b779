"""No secret is printed: neither by the commands that make keys, nor by the one that describes this machine."""

import json
from pathlib import Path

import pytest

from server_app.cli import main
from server_app.cli.keys import KeyFolder
from tests.deployment.secrets import secret_texts


def test_the_commands_for_keys_show_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "keys"
    common = ["keys", "--folder", str(folder)]
    seen: set[str] = set()
    for words in (
        ["create", "--host", "fl.example.org", "--nodes", "2", "--env", str(tmp_path / "env")],
        ["create", "--nodes", "2"],
        ["node", "hospital-a"],
        ["renew-node", "hospital-a"],
        ["renew-server", "--host", "other.example.org"],
        ["show"],
    ):
        assert main([*common, *words]) == 0
        seen |= secret_texts(KeyFolder(folder))
    assert len(seen) > 15
    printed = "".join(capfd.readouterr()) + (tmp_path / "env").read_text()
    assert "hospital-a" in printed
    assert "PRIVATE KEY" not in printed
    assert not [text for text in seen if text in printed]


def test_an_error_about_a_key_does_not_show_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "keys"
    assert main(["keys", "--folder", str(folder), "create", "--nodes", "1"]) == 0
    seen = secret_texts(KeyFolder(folder))
    key = folder / "ca.key"
    key.write_text(key.read_text().replace("BEGIN", "BEGINNING"))
    assert main(["keys", "--folder", str(folder), "renew-server"]) != 0
    printed = "".join(capfd.readouterr())
    assert f"{key} or {folder / 'ca.crt'} is damaged" in printed
    assert not [text for text in seen if text in printed]


def test_the_doctor_shows_no_environment(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "WINNOW_SUPERLINK", "FLWR_TOKEN", "PIP_INDEX_URL"):
        monkeypatch.setenv(name, f"hush-{name}")
    main(["doctor"])
    printed = "".join(capfd.readouterr())
    assert "cores" in printed
    assert "hush-" not in printed


def test_what_a_run_records_of_its_machine_is_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from server_app.storage.run_directory import VERSIONS, RunDirectory

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    RunDirectory(tmp_path).write_versions("cpu")
    facts = json.loads((tmp_path / VERSIONS).read_text())
    assert "python" in facts
    assert "hush" not in (tmp_path / VERSIONS).read_text()
