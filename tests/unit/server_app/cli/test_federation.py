"""The command ``winnow federation`` without Flower processes: what it refuses, asks, waits for and tells."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from flwr.common.config import parse_config_args

from client_app.label_audit_files import write_summary
from server_app.cli import federation, main, superlink
from server_app.cli.audit import audit_lines, audits
from server_app.cli.config import CommandError, RunPlan
from server_app.cli.federation import LocalNode, thread_share
from server_app.cli.keys import KeyFolder
from server_app.cli.processes import ProcessGroup, StopRequested
from server_app.cli.run_log import RunLog
from server_app.cli.superlink import Connection, RemoteConnection, SuperLinkError, remote_superlink
from tasks.config import REPEAT


def test_nodes_are_numbered_and_the_first_get_the_data(tmp_path: Path) -> None:
    assert federation.local_nodes(2, [tmp_path]) == [LocalNode(0, tmp_path), LocalNode(1)]
    assert LocalNode(1).config(Path("/s")) == 'partition-id=1 state-dir="/s" share-results=true'
    assert (
        LocalNode(0, Path("/d")).config(Path("/s")) == 'partition-id=0 state-dir="/s" data-path="/d" share-results=true'
    )


@pytest.mark.parametrize(
    "name", ["o'brien", 'a "b"', "a b=c #d", "back\\slash\\", "\u00e9\u2603\U0001f600", "two\nlines", "x.toml", "{a}'"]
)
def test_flower_reads_the_folders_of_a_node_as_they_are(name: str) -> None:
    state, data = Path("/home", name, "s"), Path("/home", name)
    found = parse_config_args([LocalNode(0, data).config(state)])
    assert found == {"partition-id": 0, "state-dir": str(state), "data-path": str(data), "share-results": True}


@pytest.mark.parametrize(("count", "data"), [(0, []), (10**12, []), (1, ["."] * 2), (2, ["nowhere"])])
def test_impossible_nodes_are_refused(count: int, data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for folder in data for word in ("--data", folder)]
    assert main(["federation", "run", "--nodes", str(count), *words]) == 2
    assert "expected at least 1" in (error := capsys.readouterr().err) or "no such folder: nowhere" in error


def test_all_nodes_together_use_the_machine_once() -> None:
    assert thread_share(10_000) == 1
    assert thread_share(1) == os.cpu_count()


def test_the_record_says_how_the_federation_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    @contextmanager
    def refused(folder: Path, nodes: list[LocalNode], variables: dict[str, str]) -> Iterator[Connection]:
        seen.append(variables[REPEAT])
        raise SuperLinkError("no more is wanted")
        yield

    monkeypatch.setattr(federation, "local_federation", refused)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own app").mkdir()
    (tmp_path / "own app/pyproject.toml").write_text("[tool.flwr.app]")
    (tmp_path / "scans").mkdir()
    assert main(["federation", "run", "--nodes", "2", "--data", "scans", "seed=3"]) == 1
    assert main(["federation", "run", "--app", "own app"]) == 1
    assert seen == [
        f"winnow federation run --nodes 2 --data {tmp_path}/scans",
        f"winnow federation run --nodes 3 --app '{tmp_path}/own app'",
    ]


def test_real_nodes_are_never_hostile() -> None:
    federation.check_for_nodes(RunPlan(Path(), {}, {"attack.name": "none"}))
    with pytest.raises(CommandError, match="simulation only"):
        federation.check_for_nodes(RunPlan(Path(), {}, {"attack.name": "sign-flip"}))


class Scripted:
    """Stands for Flower's answers: each is a reply, or an error to raise; afterwards the last one is repeated."""

    def __init__(self, *answers: dict[str, Any] | SuperLinkError) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, *arguments: str) -> dict[str, Any]:
        self.asked.append(arguments)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, SuperLinkError):
            raise answer
        return answer


@pytest.fixture
def link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteConnection:
    monkeypatch.setattr(superlink, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(superlink, "RECONNECT_SECONDS", 0.0)
    return RemoteConnection(tmp_path, "127.0.0.1:1", {}, ProcessGroup(), tmp_path / "ca.crt")


LOST = SuperLinkError("connection refused")


def test_an_outage_is_waited_for(
    link: RemoteConnection, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Scripted(LOST, LOST, {"success": True})
    monkeypatch.setattr(Connection, "ask", script)
    monkeypatch.setattr(superlink, "trouble", lambda *_: "connection refused")
    assert link.ask("ls") == {"success": True}
    assert len(script.asked) == 3
    assert capsys.readouterr().out.count("does not answer: connection refused. Waiting for it ...\n") == 1


@pytest.mark.parametrize(("request_", "reason", "times"), [("ls", "", 2), ("run", "connection refused", 1)])
def test_an_answer_that_is_an_error_is_asked_for_once_more_and_a_lost_order_is_not(
    request_: str, reason: str, times: int, link: RemoteConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Scripted(LOST)
    monkeypatch.setattr(Connection, "ask", script)
    monkeypatch.setattr(superlink, "trouble", lambda *_: reason)
    with pytest.raises(SuperLinkError, match="connection refused"):
        link.ask(request_)
    assert len(script.asked) == times


def test_an_outage_that_does_not_end_is_an_error(link: RemoteConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superlink, "PATIENCE", 0.05)
    monkeypatch.setattr(Connection, "ask", Scripted(LOST))
    monkeypatch.setattr(superlink, "trouble", lambda *_: "connection refused")
    with pytest.raises(SuperLinkError, match="connection refused"):
        link.ask("ls")


def test_known_keys_are_left_alone_and_other_errors_are_said(
    link: RemoteConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(superlink, "trouble", lambda *_: "")
    known = SuperLinkError("flwr supernode: [code: 23] Public key already in use.")
    script = Scripted({"node-id": 17}, known, SuperLinkError("no permission"))
    monkeypatch.setattr(Connection, "ask", script)
    assert link.register(Path("/keys/hospital-a.pub")) == "17"
    assert script.asked == [("supernode", "register", "/keys/hospital-a.pub", "winnow", "--name", "hospital-a")]
    assert link.register(Path("/keys/hospital-a.pub")) == ""
    with pytest.raises(SuperLinkError, match="no permission"):
        link.register(Path("/keys/hospital-a.pub"))


def test_without_certificate_or_superlink_nothing_is_tried(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no certificate"), remote_superlink("127.0.0.1:1", tmp_path / "ca.crt"):
        pass
    KeyFolder(tmp_path).create([], [])
    refused = pytest.raises(SuperLinkError, match=r"no connection to the SuperLink at 127\.0\.0\.1:1: .*refused")
    with refused, remote_superlink("127.0.0.1:1", tmp_path / "ca.crt"):
        pass


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        ("finished:completed", 0, ""),
        ("finished:failed", 1, "The run failed: why\nIt ended before"),
        ("finished:stopped", 1, "by flwr stop"),
        (None, 130, "goes on"),
    ],
)
def test_following_tells_how_the_run_ended(
    status: str | None,
    code: int,
    said: str,
    link: RemoteConnection,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    @contextmanager
    def connected(_address: str, _authority: Path) -> Iterator[RemoteConnection]:
        yield link

    def watched(_link: Connection, run_id: str, _log: object) -> tuple[str, str]:
        assert run_id == "17"
        if status is None:
            raise StopRequested(2)
        return status, "why"

    monkeypatch.setattr(federation, "remote_superlink", connected)
    monkeypatch.setattr(federation, "watch", watched)
    assert main(["federation", "follow", "17"]) == code
    error = capsys.readouterr().err
    assert said in error
    assert bool(error) == bool(said)


@pytest.mark.parametrize("command", [["follow", "17"], ["submit"]])
def test_a_run_elsewhere_goes_on_when_nobody_reads_what_is_shown_of_it(
    command: list[str], link: RemoteConnection, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def watched(_link: Connection, _run_id: str, log: RunLog) -> tuple[str, str]:
        while True:
            log.write("round 1/100000")

    monkeypatch.delenv("WINNOW_COMMAND", raising=False)
    monkeypatch.setattr(federation, "remote_superlink", lambda *_: nullcontext(link))
    monkeypatch.setattr(federation, "check_parts", lambda *_: None)
    monkeypatch.setattr(federation, "submit", lambda *_: "17")
    monkeypatch.setattr(federation, "watch", watched)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as broken, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", broken)
        assert main(["federation", *command]) == 141
    goes_on = "\nThe run goes on. Follow it:  winnow federation follow 17\nStop it:  winnow federation flwr stop 17\n"
    assert capsys.readouterr().err == goes_on


@pytest.mark.parametrize("prefix", ["", "docker compose run --rm winnow"])
@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (StopRequested(2), "Follow it:  {0} follow 17\nStop it:  {0} flwr stop 17\n"),
        (SuperLinkError("gone"), "follow it:  {0} follow 17\n"),
        ("finished:failed", "  {0} submit run.resume=/winnow/runs/elsewhere\n"),
        ("finished:stopped", "  {0} submit run.resume=/winnow/runs/elsewhere\n"),
    ],
)
def test_what_to_type_next_works_where_the_operator_sits(
    ending: str | BaseException,
    said: str,
    prefix: str,
    link: RemoteConnection,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def watched(_link: Connection, _run_id: str, log: RunLog) -> tuple[str, str]:
        log.write("Run directory: /winnow/runs/elsewhere")
        if isinstance(ending, BaseException):
            raise ending
        return ending, "why"

    monkeypatch.delenv("WINNOW_COMMAND", raising=False)
    if prefix:
        monkeypatch.setenv("WINNOW_COMMAND", prefix)
    monkeypatch.setattr(federation, "remote_superlink", lambda *_: nullcontext(link))
    monkeypatch.setattr(federation, "watch", watched)
    main(["federation", "follow", "17"])
    assert capsys.readouterr().err.endswith(said.format(prefix or "winnow federation"))


def test_the_audits_of_a_run_are_found_where_nodes_write_them(tmp_path: Path) -> None:
    for node, run in ((0, "first"), (1, "first"), (1, "second")):
        folder = tmp_path / f"node-{node}" / run / str(node)
        (folder / "alone").mkdir(parents=True)
        write_summary(folder, {})
        write_summary(folder / "alone", {})  # no list that a person works on
    assert audits(tmp_path / "nowhere") == []
    found = audits(tmp_path)
    assert [each.relative_to(tmp_path).as_posix() for each in found] == [
        "node-0/first/0",
        "node-1/first/1",
        "node-1/second/1",
    ]
    assert audit_lines(found[:1]).splitlines()[1:] == [f"  winnow audit open {tmp_path}/node-0/first/0"]
    assert audit_lines([]) == ""
