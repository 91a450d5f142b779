"""The documented way with containers, from a fresh copy to a finished run; skipped where no engine runs."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server_app.command import main
from tests.deployment.conftest import Compose, words
from tests.integration.conftest import Play, Played

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
THREE = {"num_server_rounds": 2, "federation__num_clients": 3}
REACH = "import socket,sys; socket.setdefaulttimeout(3); socket.create_connection((sys.argv[1], int(sys.argv[2])))"


@pytest.fixture(scope="module")
def federation(compose: Compose) -> Compose:
    """What the README's commands bring about: keys, image, and services that run."""
    keys, env = compose.folder / "deploy/keys", compose.folder / ".env"
    assert main(["keys", "--folder", str(keys), "create", "--env", str(env)]) == 0
    compose.run("build")
    compose.run("up", "--detach")
    return compose


def inspect(compose: Compose) -> dict[str, dict[str, Any]]:
    """What the engine knows of every running container, by service."""
    names = compose.run("ps", "--services").stdout.split()
    return {name: json.loads(compose.run("ps", "--format", "json", name).stdout) for name in names}


def until(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(1.0)


def reaches(compose: Compose, service: str, host: str, port: int) -> bool:
    command = ("exec", "-T", service, "python", "-c", REACH, host, str(port))
    return compose.run(*command, check=False).returncode == 0


def test_a_run_in_containers_gives_the_same_result_as_the_simulation(
    federation: Compose, play: Play, tmp_path: Path
) -> None:
    output = federation.run("run", "--rm", "-T", "winnow", "submit", *words(**THREE)).stdout
    assert re.findall(r"^round (\d)/2 ", output, re.MULTILINE) == ["0", "1", "2"]
    simulated = play(**THREE).metrics
    federation.run("cp", "serverapp:/winnow/runs", str(tmp_path / "real"))
    [run_dir] = (tmp_path / "real").iterdir()
    for line, expected in zip(Played(run_dir).metrics, simulated, strict=True):
        assert line == pytest.approx(expected, rel=1e-4), "another build of torch may round differently, and no more"
    for node in range(3):
        federation.run("cp", f"clientapp-{node}:/state", str(tmp_path / f"state-{node}"))
        assert len(list((tmp_path / f"state-{node}").glob(f"*/{node}/label-audit.csv"))) == 1


def test_only_the_superlink_opens_a_port(federation: Compose) -> None:
    published = {
        name: [port["PublishedPort"] for port in found["Publishers"] or [] if port["PublishedPort"]]
        for name, found in inspect(federation).items()
    }
    assert [name for name, ports in published.items() if ports] == ["superlink"]


def test_a_site_s_code_reaches_its_supernode_and_nothing_else(federation: Compose) -> None:
    assert reaches(federation, "clientapp-0", "supernode-0", 9094)
    assert not reaches(federation, "clientapp-0", "superlink", 8000)
    assert not reaches(federation, "clientapp-0", "supernode-1", 9094)
    assert reaches(federation, "supernode-0", "superlink", 8000)


@pytest.mark.parametrize("service", ["superlink", "serverapp", "supernode-0", "clientapp-0"])
def test_services_have_no_rights_and_see_their_own_keys_only(federation: Compose, service: str) -> None:
    script = "id -u; touch /x /opt/venv/x /winnow/x 2>&1; grep CapEff /proc/self/status; ls /run/secrets"
    output = federation.run("exec", "-T", service, "sh", "-c", script, check=False).stdout
    assert output.splitlines()[0] != "0"
    assert output.count("Read-only file system") == 3
    assert re.search(r"CapEff:\s+0+$", output, re.MULTILINE)
    known = {
        "superlink": ["ca.crt", "superlink.crt", "superlink.key", "superlink.secret"],
        "serverapp": ["ca.crt", "superlink.secret"],
        "supernode-0": ["ca.crt", "node.key", "node.secret"],
        "clientapp-0": ["node.secret"],
    }
    assert output.splitlines()[-len(known[service]) :] == known[service]


def test_the_coordinator_s_tool_cannot_see_the_keys(federation: Compose) -> None:
    tool = ("run", "--rm", "-T", "--entrypoint", "find /app/deploy/keys /run/secrets -type f", "winnow")
    found = [line for line in federation.run(*tool, check=False).stdout.splitlines() if line.startswith("/")]
    assert found == ["/run/secrets/ca.crt"]


def test_an_unknown_node_is_refused_until_it_is_registered(federation: Compose) -> None:
    assert main(["keys", "--folder", str(federation.folder / "deploy/keys"), "renew-node", "node-2"]) == 0
    federation.run("restart", "supernode-2", "clientapp-2")
    until(lambda: "Exit Code: 305" in federation.run("logs", "--no-log-prefix", "supernode-2").stdout)
    assert "public key" in federation.run("logs", "--no-log-prefix", "--tail", "20", "superlink").stdout
    assert "node-2: registered" in federation.run("run", "--rm", "-T", "register").stdout
    known = r"SuperNode ID: (\d+)"
    until(lambda: len(set(re.findall(known, federation.run("logs", "--no-log-prefix", "supernode-2").stdout))) == 2)


def test_the_image_holds_no_key_and_no_installer_of_packages(federation: Compose) -> None:
    search = "find / -xdev -name *.key -o -xdev -name *.secret -o -path /opt/venv/bin/pip"
    tool = ("run", "--rm", "-T", "--no-deps", "--entrypoint", search, "clientapp-0")
    found = [line for line in federation.run(*tool, check=False).stdout.splitlines() if line.startswith("/")]
    assert found in ([], ["/run/secrets/node.secret"])
