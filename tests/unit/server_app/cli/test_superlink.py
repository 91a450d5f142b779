"""The parts of a SuperLink's life that need no Flower process; tests/simulation has the others."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from flwr.cli.constant import ACCESS_TOKEN_STORE_KEY, AUTHN_TYPE_STORE_KEY, REFRESH_TOKEN_STORE_KEY
from flwr.supercore.credential_store.file_credential_store import FileCredentialStore

from server_app.cli import access, guarded, superlink
from server_app.cli.config import CommandError
from server_app.cli.keys import KeyFolder
from server_app.cli.processes import ProcessGroup
from server_app.cli.superlink import (
    Connection,
    SuperLinkError,
    free_port,
    local_superlink,
    program_path,
    remote_superlink,
)


@pytest.fixture
def connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Connection:
    """A connection without a server, whose Flower programs are shell scripts in ``tmp_path``."""
    monkeypatch.setattr(superlink, "program_path", lambda name: str(tmp_path / name))
    (tmp_path / "cwd").mkdir()
    return Connection(tmp_path, f"127.0.0.1:{free_port()}", dict(os.environ), ProcessGroup())


def script(connection: Connection, name: str, body: str) -> None:
    path = connection.home / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_a_json_reply_is_returned_whatever_is_on_stderr(connection: Connection) -> None:
    script(
        connection, "flwr", 'echo noise >&2; echo "{\\"success\\": true, \\"run-id\\": \\"$2\\", \\"last\\": \\"$4\\"}"'
    )
    assert connection.ask("run", "17") == {"success": True, "run-id": "17", "last": "json"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('echo "{\\"success\\": false, \\"error-message\\": \\"no such key\\"}"', "flwr run: no such key"),
        ("echo broken >&2; exit 1", "flwr run: broken"),
        ('echo "{}"', "flwr run: {}"),
    ],
)
def test_any_other_reply_is_an_error_with_its_text(connection: Connection, body: str, message: str) -> None:
    script(connection, "flwr", body)
    with pytest.raises(SuperLinkError, match=message):
        connection.ask("run")


def test_a_server_that_ends_is_an_error_with_its_last_words(connection: Connection) -> None:
    script(connection, "flower-superlink", "for i in $(seq 30); do echo line $i; done; exit 3")
    with (connection.home / "flower-superlink.log").open("w") as log:
        command = [str(connection.home / "flower-superlink")]
        connection.processes.start(command, connection.environment, connection.folder, log).wait(5)
    with pytest.raises(SuperLinkError, match="flower-superlink ended with exit code 3") as caught:
        connection.wait_until_ready()
    assert "line 30" in str(caught.value)
    assert "line 15\n" not in str(caught.value)


def test_a_server_that_never_answers_is_an_error(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superlink, "START_SECONDS", 0.1)
    (connection.home / "flower-superlink.log").write_text("still thinking\n")
    with pytest.raises(SuperLinkError, match=r"did not answer within 0\.1 s:\nstill thinking"):
        connection.wait_until_ready()


def test_programs_are_those_of_this_installation() -> None:
    assert os.access(program_path("flwr"), os.X_OK)
    with pytest.raises(SuperLinkError, match="flower-nothing is missing: reinstall"):
        program_path("flower-nothing")


def test_a_free_port_can_be_bound() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
        assert server.getsockname()[1] > 1023


def test_everything_ends_and_is_removed_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superlink, "program_path", lambda _name: shutil.which("sleep"))
    monkeypatch.setattr(superlink, "start_servers", lambda link, *_: (link.folder.mkdir(), link.start("sleep", "60")))
    links: list[Connection] = []

    def work() -> None:
        with local_superlink() as link:
            links.append(link)
            assert len(link.processes.members()) == 1
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert links[0].processes.members() == []
    assert not links[0].home.exists()


def test_the_environment_is_neutral_and_ours_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.setenv("FLWR_HOME", "/somewhere")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(superlink, "start_servers", lambda link, *_: link.folder.mkdir())
    with local_superlink({"WINNOW_DATA": "/data"}) as link:
        found = link.environment
        assert list(link.folder.iterdir()) == []
    assert found["FLWR_HOME"] == found["RAY_TMPDIR"] == str(link.home)
    assert found["WINNOW_DATA"] == "/data"
    assert found["NO_PROXY"] == "example.org,127.0.0.1,localhost,::1"
    assert found["FLWR_TELEMETRY_ENABLED"] == "0"
    assert "RAY_ADDRESS" not in found
    assert shutil.which("flwr", path=found["PATH"]) == program_path("flwr")


def test_the_log_of_a_program_that_prints_nothing_is_empty(connection: Connection) -> None:
    script(connection, "flwr", "exit 0")
    program = connection.start("flwr", "log", errors=subprocess.STDOUT)
    assert program.communicate()[0] == ""


def test_only_flower_s_own_programs_of_a_run_know_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    started: list[list[str]] = []
    monkeypatch.setattr(ProcessGroup, "start", lambda _self, command, *_: started.append(command))
    with local_superlink() as link:
        assert link.home.stat().st_mode & 0o077 == 0
        private = [link.home / name for name in ("superlink.token", "keys/superlink.secret", "ray.token")]
        assert [path.stat().st_mode & 0o777 for path in private] == [0o600] * 3
        assert len({path.read_bytes() for path in private}) == 3
        known = json.loads((link.home / "credentials.yaml").read_text())
        read = FileCredentialStore(link.home / "credentials.yaml").get
        assert read(ACCESS_TOKEN_STORE_KEY % link.address) == private[0].read_bytes()
        assert known.keys() == {
            key % link.address for key in (AUTHN_TYPE_STORE_KEY, ACCESS_TOKEN_STORE_KEY, REFRESH_TOKEN_STORE_KEY)
        }
        secrets = [path.read_text() for path in (private[0], private[2])]
    assert (link.environment["RAY_AUTH_MODE"], link.environment["RAY_AUTH_TOKEN_PATH"]) == ("token", str(private[2]))
    assert "RAY_AUTH_TOKEN" not in link.environment
    superlink_command, executor_command = started
    guard = [sys.executable, "-P", guarded.__file__]
    assert superlink_command[:5] == [*guard, "flower-superlink", str(private[0])]
    assert executor_command[:4] == [*guard, "flower-superexec"]
    assert all(f"--superexec-auth-secret-file {private[1]}" in " ".join(command) for command in started)
    assert "--insecure" not in [*superlink_command, *executor_command], (
        "a stranger at the port could not prove to be it"
    )
    assert not [word for command in started for word in command if word in secrets]


def test_a_superlink_that_would_serve_everybody_is_not_used(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(superlink, "trouble", lambda *_: "")
    monkeypatch.setattr(superlink, "admits", lambda *_: True)
    with pytest.raises(SuperLinkError, match="would serve every user of this machine"):
        connection.wait_until_ready()
    monkeypatch.setattr(superlink, "admits", lambda *_: False)
    connection.wait_until_ready()


@pytest.fixture
def remote_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyFolder:
    """Keys of a SuperLink that others run, at an address where every question would be answered."""
    monkeypatch.setattr(superlink, "trouble", lambda *_: "")
    monkeypatch.setattr(superlink, "why_refused", lambda *_: "")
    monkeypatch.delenv("WINNOW_SUPERLINK_TOKEN", raising=False)
    keys = KeyFolder(tmp_path / "keys")
    keys.create([], [])
    return keys


def shown(link: Connection) -> bytes | None:
    return FileCredentialStore(link.home / "credentials.yaml").get(ACCESS_TOKEN_STORE_KEY % link.address)


def test_a_token_of_a_superlink_that_others_run_is_shown(
    remote_keys: KeyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, authority = tmp_path / "token", remote_keys.authority
    monkeypatch.setenv("WINNOW_SUPERLINK_TOKEN", str(token))
    with pytest.raises(CommandError, match="WINNOW_SUPERLINK_TOKEN: no such file"), remote_superlink("a:1", authority):
        pass
    token.write_text("5ecret")
    with remote_superlink("a:1", authority) as link:
        assert shown(link) == b"5ecret"
    monkeypatch.delenv("WINNOW_SUPERLINK_TOKEN")
    with remote_superlink("a:1", authority) as link:
        assert shown(link) == remote_keys.operator.read_bytes(), "the one beside the certificate"
    remote_keys.operator.unlink()
    with remote_superlink("a:1", authority) as link:
        assert not (link.home / "credentials.yaml").exists()


def test_who_may_not_ask_a_superlink_is_told_before_anything_is_tried(
    remote_keys: KeyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(superlink, "why_refused", access.why_refused)
    monkeypatch.setattr(access, "admits", lambda *given: given[-1] == "right")
    remote_keys.operator.write_text("right")
    with remote_superlink("a:1", remote_keys.authority):
        pass
    remote_keys.operator.write_text("wrong")
    refused = pytest.raises(SuperLinkError, match=r"serves its operators only, and the token in \S+ is not theirs: ")
    with refused, remote_superlink("a:1", remote_keys.authority):
        pass
    remote_keys.operator.unlink()
    refused = pytest.raises(
        SuperLinkError, match=r"and no token was given: name their file with WINNOW_SUPERLINK_TOKEN"
    )
    with refused, remote_superlink("a:1", remote_keys.authority):
        pass


def test_a_folder_that_cannot_be_locked_is_an_error_and_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(home: Path) -> None:
        homes.append(home)
        raise OSError(37, "No locks available: this disk has no file locks", str(home))

    homes: list[Path] = []
    monkeypatch.setattr(superlink, "watched", refuse)
    with pytest.raises(SuperLinkError, match="this disk has no file locks"), local_superlink():
        pass
    assert not homes[0].exists()
