"""Another user of the machine reaches the ports of a run and gets nothing there; a killed run leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server_app.cli.federation import LocalNode, local_federation
from server_app.cli.superlink import Connection, local_superlink
from tests.deployment.followed import wait_for
from tests.marked import marked, processes_with

pytestmark = pytest.mark.slow
__all__ = ["marked"]  # a fixture
OTHER = 12345
ANOTHER = f"os.setgroups([]); os.setgid({OTHER}); os.setuid({OTHER})\n"
ASKS = f"""
import encodings.idna, http.client, json, os, ssl, sys
address, authority, *paths = sys.argv[1:]
trust = ssl.create_default_context(cafile=authority)
{ANOTHER}
for path in paths:
    server = http.client.HTTPSConnection(address, context=trust)
    server.request("POST", path, body=b"", headers={{"content-type": "application/protobuf"}})
    print(path, server.getresponse().status)
    server.close()
"""
SUBMITS = f"""
import os, sys
from flwr.cli.app import app
import flwr.cli.run.run
{ANOTHER}
sys.argv = ["flwr", *sys.argv[1:]]
app()
"""
PROJECT = """[project]
name = "intruder"
version = "1.0.0"
[tool.flwr.app]
publisher = "intruder"
[tool.flwr.app.components]
serverapp = "intruder:app"
clientapp = "intruder:app"
"""
RAY = """
import ray, time
for _ in range(5):  # a busy machine is too slow for Ray's own limit
    try:
        ray.init(num_cpus=1, include_dashboard=False, logging_level="error")
        break
    except Exception:
        ray.shutdown()
print(ray.get_runtime_context().gcs_address, flush=True)
time.sleep(600)
"""
ASKS_RAY = f"""
import os, sys
from ray._raylet import GcsClient
{ANOTHER}
print(len(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=30)))
"""
STAYS = """
import sys, time
from pathlib import Path
from server_app.cli.federation import LocalNode, local_federation
from server_app.cli.superlink import local_superlink
with local_superlink() if sys.argv[1:] else local_federation(Path("logs"), [LocalNode(0)], {}) as link:
    link.wait_until_ready()
    print(link.home, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module", params=["simulation", "federation"])
def link(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """The SuperLink of ``winnow run``, then the one of ``winnow federation run``."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user here")
    folder = tmp_path_factory.mktemp("logs")
    with local_superlink() if request.param == "simulation" else local_federation(folder, [LocalNode(0)], {}) as found:
        found.wait_until_ready()
        yield found


@pytest.fixture
def theirs(link: Connection) -> Iterator[Path]:
    """Another user's folder: an app, and all that is needed to submit it but the token."""
    folder = Path("/tmp") / f"intruder-{os.getpid()}"
    (folder / "app").mkdir(parents=True)
    (folder / "app/pyproject.toml").write_text(PROJECT)
    (folder / "app/intruder.py").write_text("from flwr.serverapp import ServerApp\napp = ServerApp()\n")
    assert link.authority is not None
    (folder / "ca.crt").write_bytes(link.authority.read_bytes())
    trust = f'root-certificates = "{folder / "ca.crt"}"'
    (folder / "config.toml").write_text(
        f'[superlink]\ndefault = "it"\n[superlink.it]\naddress = "{link.address}"\n{trust}\n'
    )
    for path in (folder, *folder.rglob("*")):
        os.chown(path, OTHER, OTHER)
    yield folder
    subprocess.run(["rm", "-r", str(folder)], check=True)


def python(code: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run Python code, whose imports are made as root."""
    command, own = [sys.executable, "-c", code, *arguments], {**os.environ, **variables}
    return subprocess.run(command, env=own, capture_output=True, text=True, check=False, timeout=200)


@pytest.mark.timeout(600)
def test_another_user_can_submit_nothing(link: Connection, theirs: Path) -> None:
    own = {
        "FLWR_HOME": str(theirs),
        "HOME": str(theirs),
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
    }
    done = python(SUBMITS, "run", str(theirs / "app"), "it", "--format", "json", **own)
    assert json.loads(done.stdout)["success"] is False, done.stderr
    assert "uthentication failed" in done.stdout
    assert link.ask("ls") == {"success": True, "runs": []}, "the owner is served"


def test_another_user_gets_no_answer_from_any_of_its_interfaces(link: Connection) -> None:
    paths = [f"/v1/control/{name}" for name in ("start-run", "list-runs", "register-node", "get-login-details")]
    paths += [
        "/v1/responses",
        "/docs",
        "/v1/runtime/acquire-task",
        "/v1/runtime/push-messages",
        "/v1/fleet/pull-messages",
    ]
    done = python(ASKS, link.address, str(link.authority), *paths)
    assert done.stdout.split() == [word for path in paths for word in (path, "401")], done.stderr


@pytest.mark.timeout(600)
@pytest.mark.parametrize("link", ["simulation"], indirect=True)
def test_ray_serves_nobody_without_the_run_s_token(link: Connection) -> None:
    pytest.importorskip("ray")
    with link.log_file("ray").open("w") as errors:
        ray = link.processes.start([sys.executable, "-c", RAY], link.environment, link.folder, subprocess.PIPE, errors)
    assert ray.stdout is not None
    address = ray.stdout.readline().strip()
    token = {name: value for name, value in link.environment.items() if name.startswith("RAY_AUTH")}
    assert "InvalidAuthToken" in python(ASKS_RAY, address).stderr, link.last_lines("ray")
    assert python(ASKS_RAY.replace(ANOTHER, ""), address, **token).stdout == "1\n"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", [["simulation"], []])
def test_what_a_killed_command_has_started_ends_by_itself(
    kind: list[str], tmp_path: Path, marked: dict[str, str]
) -> None:
    command, pipe = [sys.executable, "-c", STAYS, *kind], subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env=marked, stdout=pipe, text=True) as program:
        assert program.stdout is not None
        home = Path(program.stdout.readline().strip())
        assert len(processes_with(marked["WINNOW_TEST_MARK"])) == 4, "it, its watchdog, SuperLink and SuperExec"
        program.send_signal(signal.SIGKILL)
    wait_for(lambda: not home.exists(), "the folder is gone", 30.0)
    wait_for(lambda: not processes_with(marked["WINNOW_TEST_MARK"]), "all processes are gone", 5.0)
