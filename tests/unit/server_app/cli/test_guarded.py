"""Who may ask a guarded SuperLink for what, and that no command line shows the token of a task."""

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, MutableMapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from server_app.cli import guarded
from server_app.cli.access import admits, why_refused
from server_app.cli.guarded import FLEET, RUNTIME, Guard, PrivateStart, Receive, Scope, Send

TOKEN = "5ecret"


def asked(path: str, *headers: tuple[str, str], judged: tuple[str, ...] = (RUNTIME,), kind: str = "http") -> Any:
    """Return the status with which a request is answered, or the type of what is sent where that has none."""
    sent: list[MutableMapping[str, Any]] = []

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"status": 200})

    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError("nothing is read of a request that is refused")

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": kind, "path": path, "headers": [(name.encode(), value.encode()) for name, value in headers]}
    asyncio.run(Guard(behind, TOKEN, judged)(scope, receive, send))
    return sent[0].get("status", sent[0].get("type"))


BEARER = ("authorization", f"Bearer {TOKEN}")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/fleet/register-node",
        "/v1/responses",
        "/v1/new",
        "/docs",
        "//v1/runtime/x",
        "/",
        "",
    ],
)
def test_all_that_flower_does_not_judge_itself_needs_the_token(path: str) -> None:
    assert asked(path) == 401
    assert asked(path, BEARER) == 200
    assert asked(path, kind="websocket") == "websocket.close"


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", TOKEN)],
        [("authorization", "Bearer ")],
        [("authorization", f"Bearer {TOKEN}x")],
        [("authorization", f"Basic {TOKEN}")],
        [("authorization", "Bearer é")],
        [("cookie", f"Bearer {TOKEN}")],
        [BEARER, ("authorization", "Bearer x")],
    ],
)
def test_only_the_token_is_the_token(headers: list[tuple[str, str]]) -> None:
    assert asked("/v1/control/start-run", *headers) == 401


def test_flower_judges_tasks_and_where_nodes_have_keys_nodes() -> None:
    assert asked("/health") == asked("/v1/runtime/acquire-task") == 200
    assert asked("/v1/fleet/activate-node", judged=(RUNTIME, FLEET)) == 200
    assert asked("/healthy") == asked("/v1/runtime") == 401
    assert asked("", kind="lifespan") == 200
    assert asked("/v1/runtime/acquire-task", kind="websocket") == "websocket.close"


@pytest.mark.parametrize(("simulation", "fleet"), [(["--simulation"], 401), ([], 200)])
def test_flower_s_superlink_is_run_behind_the_guard(
    simulation: list[str], fleet: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import uvicorn
    from flwr.superlink import cli

    run: list[tuple[Any, dict[str, Any], list[str]]] = []
    monkeypatch.setattr(uvicorn, "run", lambda app, **options: run.append((app, options, sys.argv)))
    monkeypatch.setattr(cli, "flower_superlink", lambda: uvicorn.run(app="the application", port=1))  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "argv", ["before"])
    (tmp_path / "token").write_text(TOKEN)
    guarded.run_superlink(str(tmp_path / "token"), "--insecure", *simulation)
    [(guard, options, arguments)] = run
    assert isinstance(guard, Guard)
    assert (options, arguments) == ({"port": 1}, ["flower-superlink", "--insecure", *simulation])
    reached = guard.admits({"type": "http", "path": "/v1/fleet/pull-messages", "headers": []})
    assert reached == (fleet == 200)


def test_the_token_of_a_task_comes_from_a_file_without_a_name() -> None:
    code = "import sys; print(sys.argv[1:], open(sys.argv[sys.argv.index('--token-file') + 1]).read())"
    start = PrivateStart(subprocess).Popen
    program = start([sys.executable, "-c", code, "--token", "abc", "--insecure"], stdout=subprocess.PIPE, text=True)
    assert program.communicate()[0].startswith("['--token-file', '/dev/fd/")
    program = start([sys.executable, "-c", code, "--x", "--token", "abc"], stdout=subprocess.PIPE, text=True)
    output = program.communicate()[0]
    assert output.startswith("['--x', '--token-file', '/dev/fd/")
    assert output.endswith("] abc\n")


def test_flower_reads_such_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.common.args import try_obtain_flwr_app_token

    found = []

    def start(command: list[str], **_: Any) -> None:
        found.append(try_obtain_flwr_app_token(SimpleNamespace(token_file=command[-1])))  # type: ignore[arg-type]

    PrivateStart(SimpleNamespace(Popen=start, DEVNULL=None)).Popen(["flwr-simulation", "--token", "abc"])
    assert found == ["abc"]


def test_an_executor_asks_for_no_task_while_too_many_processes_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.supercore import cli
    from flwr.supercore.superexec.executor import subprocess_executor

    class Process:
        """One that has ended or not."""

        def __init__(self, *_: Any, **__: Any) -> None:
            self.status: int | None = None
            processes.append(self)

        def poll(self) -> int | None:
            return self.status

    processes: list[Process] = []
    executor = subprocess_executor.SubprocessExecutor
    monkeypatch.setattr(executor, "get_eligible_capacity", executor.get_eligible_capacity)  # put back after the test
    monkeypatch.setattr(subprocess_executor, "subprocess", SimpleNamespace(Popen=Process, DEVNULL=None))
    monkeypatch.setattr(cli, "flower_superexec", lambda: None)
    monkeypatch.setattr(sys, "argv", ["before"])
    guarded.run_executor("--insecure")
    flower, capacity = executor(), {"clientapp"}
    for _ in range(guarded.MOST_PROCESSES):
        assert flower.get_eligible_capacity(capacity, insecure=True) == (capacity, set())  # type: ignore[arg-type]
        subprocess_executor.subprocess.Popen(["flwr-clientapp", "--token", "abc"])
    assert flower.get_eligible_capacity(capacity, insecure=True) == (set(), set())  # type: ignore[arg-type]
    processes[1].status = 0
    assert flower.get_eligible_capacity(capacity, insecure=True) == (capacity, set())  # type: ignore[arg-type]


@pytest.mark.parametrize("command", [["flwr-serverapp"], ["flwr-serverapp", "--token=abc"], ["x", "--token"]])
def test_a_process_whose_token_is_given_in_another_way_is_not_started(command: list[str]) -> None:
    with pytest.raises(RuntimeError, match="this version of Flower starts"):
        PrivateStart(subprocess).Popen(command)


def test_flower_s_executor_starts_processes_in_private(monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.supercore import cli
    from flwr.supercore.constant import TaskType
    from flwr.supercore.superexec.executor import subprocess_executor
    from flwr.supercore.superexec.executor.types import ExecutionSpec

    commands: list[list[str]] = []
    fake = SimpleNamespace(Popen=lambda command, **_: commands.append(command), DEVNULL=None)
    monkeypatch.setattr(subprocess_executor, "subprocess", fake)
    monkeypatch.setattr(sys, "argv", ["before"])
    spec = ExecutionSpec(TaskType.SIMULATION, "127.0.0.1:1", "5ecret-token", True, None, False, None, False, 1)
    monkeypatch.setattr(cli, "flower_superexec", lambda: subprocess_executor.SubprocessExecutor().launch(spec))
    guarded.run_executor("--insecure")
    [command] = commands
    assert "--token-file" in command
    assert "5ecret-token" not in " ".join(command)


class Careless(BaseHTTPRequestHandler):
    """Serves everybody, or refuses for another reason than the guard's."""

    status = 200

    def do_POST(self) -> None:
        self.send_response(self.status)
        self.send_header("www-authenticate", "Bearer")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def careless() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Careless) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [200, 401, 404, 500])
def test_a_superlink_without_the_guard_is_recognised(
    careless: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Careless, "status", status)
    assert admits(careless, None)


class Guarding(Careless):
    """Refuses as the guard does who does not show the token."""

    def do_POST(self) -> None:
        self.send_response(200 if self.headers["authorization"] == f"Bearer {TOKEN}" else 401)
        self.send_header("www-authenticate", guarded.REALM)
        self.end_headers()


@pytest.mark.parametrize(("token", "said"), [(TOKEN, ""), ("another", "is not theirs"), (None, "no token was given")])
def test_an_operator_learns_whether_the_token_is_the_right_one(
    careless: str, token: str | None, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Careless, "do_POST", Guarding.do_POST)
    file = tmp_path / "operator.token"
    if token:
        file.write_text(token)
    reason = why_refused(careless, None, file if token else None)
    assert said in reason
    assert bool(reason) == bool(said)


def test_the_process_of_a_message_is_flowers_without_its_supernode(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if f"{name}.".startswith("flwr.supernode.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "argv", ["before"])
    with pytest.raises(SystemExit) as end:
        guarded.run_client_app("--help")
    loaded = [name for name in sys.modules if name.startswith("flwr.supernode.cli")]
    for name in loaded:
        del sys.modules[name]
    assert end.value.code == 0
    assert "usage: flwr-clientapp" in capsys.readouterr().out
    assert loaded == ["flwr.supernode.cli", "flwr.supernode.cli.flwr_clientapp"]
    started: list[list[str]] = []
    PrivateStart(SimpleNamespace(Popen=lambda command, **_: started.append(command), DEVNULL=None)).Popen(
        ["flwr-clientapp", "--token", "abc", "--insecure"]
    )
    assert started[0][:5] == [sys.executable, "-P", guarded.__file__, "flwr-clientapp", "--token-file"]


def test_a_handshake_that_the_other_end_closes_is_a_lost_connection_and_a_wrong_certificate_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def closed() -> str:
        """What a client says of a server that accepts and closes, as a published port may."""
        with socket.create_server(("127.0.0.1", 0)) as server:

            def accept() -> None:
                client = server.accept()[0]
                client.recv(2**14)
                client.close()

            threading.Thread(target=accept, daemon=True).start()
            with pytest.raises(httpx.ConnectError) as caught:
                httpx.Client(trust_env=False).get(f"https://127.0.0.1:{server.getsockname()[1]}")
        return str(caught.value).lower()

    fatal = ("certificate", "ssl", "tls")  # what Flower's retries look for
    assert any(word in closed() for word in fatal)
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", httpx.HTTPTransport.handle_request)
    guarded.retry_closed_handshakes()
    assert not any(word in closed() for word in fatal)

    def wrong(*_: object) -> None:
        raise httpx.ConnectError("certificate verify failed")

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", wrong)
    guarded.retry_closed_handshakes()
    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        httpx.Client(trust_env=False).get("https://127.0.0.1:1")


def test_guarded_is_a_script_that_imports_nothing_of_winnow() -> None:
    code = f"import sys; sys.argv = ['x']; import runpy; runpy.run_path({guarded.__file__!r}); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    assert "server_app" not in loaded.split()
