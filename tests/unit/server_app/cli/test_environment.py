"""What the shell or a batch system sets does not change what we run, read and reach."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from server_app.cli import environment as ours
from server_app.cli import superlink
from server_app.cli.config import CommandError
from server_app.cli.environment import LONGEST_HOME, PROXIES, check_proxies, no_proxy, probe, short_temporary_folder
from server_app.cli.processes import ProcessGroup
from server_app.cli.superlink import Connection

# as Flower prints its replies
REPLY = """import sys
from rich.console import Console
Console(file=sys.__stdout__).print_json(data={"success": True, "text": "na\\u00efve " + "x" * 200})"""


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_what_flower_replies_is_read_whatever_the_terminal_s_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flwr").write_text(f"#!{sys.executable}\n{REPLY}\n")
    (tmp_path / "flwr").chmod(0o755)
    (tmp_path / "cwd").mkdir()
    monkeypatch.setattr(superlink, "program_path", lambda name: str(tmp_path / name))
    unusual = {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "CLICOLOR_FORCE": "1", "COLUMNS": "10", "LANG": "C"}
    unusual |= {"PYTHONWARNINGS": "error", "PYTHONIOENCODING": "utf-16", "PYTHONUTF8": "0", "LC_ALL": "POSIX"}
    for name, value in unusual.items():
        monkeypatch.setenv(name, value)
    link = Connection(tmp_path, "127.0.0.1:1", superlink.environment(tmp_path, {}), ProcessGroup())
    assert link.ask("run")["text"] == "naïve " + "x" * 200


def test_the_command_starts_beside_foreign_modules(tmp_path: Path) -> None:
    for name in ("tasks", "strategies", "client_app"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not ours')\n")
    variables = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONWARNINGS": "error"}
    command = [sys.executable, "-m", "server_app.cli", "keys", "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("given", "merged"),
    [
        ({}, ""),
        ({"no_proxy": "a.org"}, "a.org,"),
        ({"NO_PROXY": "b.org"}, "b.org,"),
        ({"no_proxy": "a.org, ,b.org", "NO_PROXY": "b.org,127.0.0.1"}, "b.org,127.0.0.1,a.org,"),
        ({"no_proxy": "*", "NO_PROXY": ""}, "*,"),
    ],
)
def test_hosts_without_proxy_are_those_of_both_spellings_and_this_machine(given: dict[str, str], merged: str) -> None:
    found = no_proxy(given)
    assert found["NO_PROXY"] == found["no_proxy"]
    assert found["NO_PROXY"].startswith(merged)
    assert set(found["NO_PROXY"].split(",")) >= {"127.0.0.1", "localhost", "::1"}


class Proxy(BaseHTTPRequestHandler):
    """Answers every request itself and keeps what was asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    monkeypatch.setattr(Proxy, "asked", [], raising=False)
    server = HTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_superlink_elsewhere_is_asked_by_the_proxy_that_flower_takes(
    proxy: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
    assert superlink.trouble("superlink.example:8000", None) == ""
    assert Proxy.asked == ["http://superlink.example:8000/health"]
    monkeypatch.setenv("no_proxy", "example")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(socket.gaierror("unknown")))
    assert "unknown" in superlink.trouble("superlink.example:8000", None)


def test_this_machine_is_asked_without_a_proxy(proxy: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert superlink.trouble(f"127.0.0.1:{proxy.server_port}", None) == ""
    assert Proxy.asked == ["/health"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", "socks5://a:1"), ("https_proxy", "ftp://a:1"), ("no_proxy", "::1/128"), ("no_proxy", "[::1]")],
)
def test_proxies_that_flower_cannot_use_are_said_before_anything_starts(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(CommandError, match=rf"\({name}\).*expected http://host:port"):
        check_proxies()
    with pytest.raises(CommandError, match=name), superlink.local_superlink():
        pass
    with pytest.raises(CommandError, match=name), probe("elsewhere:8000", None):
        pass


def test_the_folder_is_short_enough_for_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("long" * 10)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    home = short_temporary_folder()
    try:
        assert len(str(home)) <= LONGEST_HOME
        assert list(long.iterdir()) == []
    finally:
        home.rmdir()


def test_another_short_folder_is_taken_where_tmp_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "temporary_folders", lambda: [str(tmp_path / ("long" * 10)), "/proc", "/dev/shm"])
    home = short_temporary_folder()
    home.rmdir()
    assert str(home.parent) == "/dev/shm"


def test_no_short_folder_is_an_error_that_says_what_was_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ours, "temporary_folders", lambda: ["/scratch/a/long/way/down", "/proc", "/nowhere"])
    with pytest.raises(CommandError) as caught:
        short_temporary_folder()
    for part in ("at most 14 characters", "set TMPDIR", "down: too long", "/proc: ", "/nowhere: No such file"):
        assert part in str(caught.value)


def test_candidates_are_named_even_where_python_finds_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(tempfile, "gettempdir", none)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert ours.temporary_folders() == ["/tmp", "/var/tmp", "/run/user/7", "/dev/shm"]
