"""Whether a node on this machine can connect: the SuperLink's certificate, and its time."""

import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from server_app.cli import doctor, main
from server_app.cli.keys import KeyFolder
from tasks.issues import ERROR, INFO, WARNING


class Health(BaseHTTPRequestHandler):
    """Answers as a SuperLink does, in a time that is wrong by ``wrong`` seconds."""

    wrong = 0.0

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(time.time() + self.wrong)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    folder = KeyFolder(tmp_path / "keys")
    folder.create([], [])
    return folder


@pytest.fixture
def address(keys: KeyFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Health)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys.superlink("crt"), keys.superlink("key"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("wrong", "level", "text"),
    [
        (0.0, INFO, " s "),
        (-20.0, ERROR, "s ahead of the SuperLink's"),
        (250.0, WARNING, "s behind the SuperLink's"),
        (-86400.0, ERROR, "86,4"),
        (600.0, ERROR, "s behind the SuperLink's"),
    ],
)
def test_the_clock_is_compared_with_the_superlinks(
    address: str, keys: KeyFolder, monkeypatch: pytest.MonkeyPatch, wrong: float, level: str, text: str
) -> None:
    monkeypatch.setattr(Health, "wrong", wrong)
    answers, clock = doctor.superlink(address, keys.authority)
    assert (answers.level, answers.text) == (INFO, "answers and proves to be the right one")
    assert (clock.level, clock.key) == (level, "clock")
    assert text in clock.text


@pytest.mark.parametrize(
    ("ahead", "level"),
    [(-304.0, WARNING), (-306.0, ERROR), (4.9, WARNING), (5.1, ERROR), (2.0, INFO), (-2.0, INFO)],
)
def test_a_clock_may_be_five_seconds_ahead_and_five_minutes_behind(ahead: float, level: str) -> None:
    assert doctor.clock(ahead).level == level


def test_a_superlink_that_is_another_or_none_is_said_to_be(address: str, keys: KeyFolder, tmp_path: Path) -> None:
    others = KeyFolder(tmp_path / "others")
    others.create([], [])
    [stranger] = doctor.superlink(address, others.authority)
    assert "CERTIFICATE_VERIFY_FAILED" in stranger.text
    [nobody] = doctor.superlink("127.0.0.1:1", keys.authority)
    assert "Connection refused" in nobody.text
    [missing] = doctor.superlink(address, tmp_path / "ca.crt")
    assert missing.text == f"no certificate {tmp_path / 'ca.crt'}"
    assert {stranger.level, nobody.level, missing.level} == {ERROR}


def test_doctor_asks_the_superlink_that_is_named(
    address: str, keys: KeyFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("server_app.cli.doctor.CHECKS", ())
    monkeypatch.setattr(Health, "wrong", -20.0)
    assert main(["doctor", "--superlink", address, "--root-certificates", str(keys.authority)]) == 1
    assert "FAIL clock: " in capsys.readouterr().out
