"""What ``winnow doctor`` says about good and bad machines, and whether a node here can connect to its SuperLink."""

import argparse
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from server_app.cli import doctor, main, packages
from server_app.cli.keys import KeyFolder
from tasks.issues import ERROR, INFO, WARNING, Issue


def test_this_environment_is_fine() -> None:
    checks = (packages.python, packages.requirements, packages.torch_works, doctor.devices, doctor.memory)
    findings = [finding for check in checks for finding in check()]
    assert {"python", "flwr", "flwr[simulation]", "torch", "cpu"} <= {finding.key for finding in findings}
    assert [finding.text for finding in findings if finding.level == ERROR] == []


@pytest.mark.parametrize(
    ("requirement", "extra", "level", "text"),
    [
        ("numpy>=1.26", "", INFO, ""),
        ("numpy<1", "", ERROR, "expected <1"),
        ("numpy<1", "report", WARNING, "expected <1 for charts"),
        ("no-such-package-here>=1", "", ERROR, "missing"),
        ("no-such-package-here", "simulation", WARNING, "missing, needed for winnow run"),
        ("flwr[simulation]>=1", "simulation", INFO, ""),
    ],
)
def test_packages_are_compared_with_their_ranges(requirement: str, extra: str, level: str, text: str) -> None:
    finding = packages.requirement_issue(Requirement(requirement), extra)
    assert finding.level == level
    assert text in finding.text
    assert ("pip install" in finding.remedy) == (level != INFO)


def test_an_extra_without_its_packages_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_installed", lambda name: name != "ray")
    finding = packages.requirement_issue(Requirement("flwr[simulation]"), "simulation")
    assert (finding.level, finding.text) == (WARNING, "ray missing, needed for winnow run")


def test_a_wrong_python_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.python_version", lambda: "3.9.1")
    [finding] = packages.python()
    assert finding.level == ERROR
    assert "3.9.1, expected" in finding.text


def test_builds_that_do_not_fit_each_other_are_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> Any:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(packages, "import_module", import_module)
    [finding] = packages.torch_works()
    assert finding.level == ERROR
    assert "different builds" in finding.remedy
    assert "different builds" in packages.torch_remedy("_C.so: undefined symbol: _ZN3c104impl")
    assert packages.torch_remedy("libcudart.so.12: cannot open") == "uv pip install --reinstall torch torchvision"


def test_flower_programs_must_be_there_and_should_be_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scripts = tmp_path / "bin"
    scripts.mkdir()
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(scripts))
    monkeypatch.setenv("PATH", str(tmp_path))
    [finding] = packages.flower_programs()
    assert finding.level == ERROR
    for name in packages.PROGRAMS:
        (scripts / name).touch(mode=0o755)
    [finding] = packages.flower_programs()
    assert finding.level == WARNING
    assert "source" in finding.remedy
    monkeypatch.setenv("PATH", str(scripts))
    [finding] = packages.flower_programs()
    assert finding.level == INFO


@pytest.mark.parametrize(("size", "level"), [(0.5, ERROR), (1.5, WARNING), (3.0, INFO)])
def test_sizes_are_judged_by_two_limits(size: float, level: str) -> None:
    finding = doctor.enough("memory", size * doctor.GIB, (1.0, 2.0), "buy more")
    assert (finding.level, finding.remedy) == (level, "" if level == INFO else "buy more")
    assert f"{size:.1f} GiB" in finding.text


def test_a_port_in_use_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        monkeypatch.setattr(doctor, "DEPLOYMENT_PORTS", {port: "SuperLink"})
        [finding] = doctor.ports()
    assert (finding.level, finding.key) == (WARNING, f"port {port}")
    [finding] = doctor.ports()
    assert finding.level == INFO


def test_missing_data_is_a_warning_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.client_data import load_task

    load_task.cache_clear()
    monkeypatch.setenv("WINNOW_DATA", str(tmp_path / "nowhere"))
    found = {finding.key: finding for finding in doctor.data()}
    load_task.cache_clear()
    assert found["data"].level == WARNING
    assert found["data of digits"].level == INFO
    assert found["data of cifar-10"].level == WARNING
    assert "CIFAR-10" in found["data of cifar-10"].remedy


def test_data_that_is_there_is_found(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.client_data import load_task

    load_task.cache_clear()
    monkeypatch.setenv("WINNOW_DATA", str(data_root))
    found = {finding.key: finding.level for finding in doctor.data()}
    load_task.cache_clear()
    assert found["data of cifar-10"] == INFO
    assert "data" not in found


def good() -> Iterator[Issue]:
    yield Issue(INFO, "one", "fine")
    yield Issue(WARNING, "two", "so-so", "look at it")


def bad() -> Iterator[Issue]:
    yield Issue(ERROR, "three", "broken", "repair it")


def test_only_a_failure_changes_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (good,))
    assert doctor.main(argparse.Namespace(superlink=None)) == 0
    assert capsys.readouterr().out == "OK   one: fine\nWARN two: so-so\n     -> look at it\nNothing needed is broken.\n"
    monkeypatch.setattr(doctor, "CHECKS", (good, bad))
    assert doctor.main(argparse.Namespace(superlink=None)) == 1
    assert "FAIL three: broken\n     -> repair it\n" in capsys.readouterr().out


def test_a_problem_without_a_remedy_is_our_mistake() -> None:
    with pytest.raises(AssertionError):
        doctor.shown(Issue(ERROR, "x", "y"))
    with pytest.raises(AssertionError):
        doctor.shown(Issue(INFO, "x", "y", "z"))


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
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
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


def test_what_killed_commands_have_left_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    left = {Path("/tmp/winnow-a"): [17, 18], Path("/tmp/winnow-b c"): []}
    monkeypatch.setattr(doctor.processes, "leftovers", lambda parents: left if parents else {})
    alive, dead = doctor.leftovers()
    assert (alive.level, alive.key, alive.remedy) == (
        WARNING,
        "left over (/tmp/winnow-a)",
        "kill 17 18; rm -r /tmp/winnow-a",
    )
    assert "still running: 17, 18" in alive.text
    assert (dead.text, dead.remedy) == ("of a winnow command that was killed", "rm -r '/tmp/winnow-b c'")
    assert doctor.leftovers in doctor.CHECKS
