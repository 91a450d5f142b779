"""The documented way with containers, from a fresh copy to a finished run; skipped where no engine runs."""

import json
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from server_app.cli import main
from tests.conftest import ROOT
from tests.deployment.compose import Compose, wait_for
from tests.deployment.conftest import words
from tests.deployment.submitted import submitted
from tests.integration.conftest import Play, Played

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the first test waits for the image
THREE = {"num_server_rounds": 2, "federation__num_clients": 3}
TOOL = ("run", "--rm", "-T", "--no-deps", "--entrypoint")
SHELL = (*TOOL, "sh", "winnow", "-c")
LEFT_OVER = {
    "programs that make their caller someone else": "/ -xdev -type f -perm /6000",
    "folders for everybody": "/ -xdev -type d -perm -0002 -not -path /tmp",
    "installers": "/ -xdev ( -name pip -o -name uv -o -name setuptools -o -name ensurepip )",
    "compilers": "/ -xdev -path */bin/* ( -name *gcc* -o -name *++* -o -name cc -o -name ld -o -name as )",
    "headers": "/ -xdev ( -name *.h -o -name *.a -o -name *.pxd )",
    "tests": "/ -xdev -type d -name tests",
    "keys and wheels": "/ -xdev ( -name *.key -o -name *.secret -o -name *.whl )",
    "lists, caches and data": "/var/lib/apt/lists /var/cache /winnow/runs /state /data -mindepth 1",
}


def inspect(compose: Compose) -> dict[str, dict[str, Any]]:
    """What compose tells of every running container, by service."""
    names = compose.run("ps", "--services").stdout.split()
    return {name: json.loads(compose.run("ps", "--format", "json", name).stdout) for name in names}


def paths(output: str) -> list[str]:
    """The lines that are absolute paths; compose's own messages are not."""
    return [line for line in output.splitlines() if line.startswith("/")]


def test_a_run_whose_superlink_was_killed_gives_the_same_result_as_the_simulation(
    federation: Compose, play: Play, tmp_path: Path
) -> None:
    with submitted(federation, *words(**THREE)) as run:
        run.wait_for_line(r"^round +1/")
        federation.run("kill", "superlink")
        assert federation.inspect("superlink")["State"]["Status"] == "exited", "an operator's kill is final"
        federation.run("start", "superlink")
        assert re.findall(r"^round (\d)/2 ", run.end(), re.MULTILINE) == ["0", "1", "2"]
        name = Path(run.folder).name
    simulated = play(**THREE).metrics
    federation.run("cp", "serverapp:/winnow/runs", str(tmp_path / "real"))
    for line, expected in zip(Played(tmp_path / "real" / name).metrics, simulated, strict=True):
        assert line == pytest.approx(expected, rel=1e-4), "another build of torch may round differently, and no more"
    for node in range(3):
        federation.run("cp", f"clientapp-{node}:/state", str(tmp_path / f"state-{node}"))
        assert len(list((tmp_path / f"state-{node}").glob(f"{name}/{node}/label-audit.csv"))) == 1


def test_only_the_superlink_opens_a_port(federation: Compose) -> None:
    published = {
        name: [port["PublishedPort"] for port in found["Publishers"] or [] if port["PublishedPort"]]
        for name, found in inspect(federation).items()
    }
    assert [name for name, ports in published.items() if ports] == ["superlink"]


def test_everybody_meets_at_the_superlink_and_a_site_s_code_at_its_supernode(federation: Compose) -> None:
    allowed = {"serverapp": {"superlink"}, "clientapp-0": {"supernode-0"}}
    allowed |= {f"supernode-{site}": {"superlink", f"supernode-{site}"} for site in range(2)}
    ports = {"superlink": 8000, **{f"supernode-{site}": 9094 for site in range(3)}}
    doors = {f"{address}:{ports[host]}": host for host in ports for address in federation.addresses(host)}

    def met(service: str) -> set[str]:
        return {doors[door] for door in federation.reached(service, *doors)}

    for service, hosts in allowed.items():
        wait_for(lambda at=service, them=hosts: them <= met(at), f"{service} reaches whom it may")
        assert met(service) == hosts, service


@pytest.mark.parametrize("service", ["serverapp", "supernode-0", "clientapp-0"])
def test_ports_of_the_machine_itself_are_out_of_reach(federation: Compose, service: str) -> None:
    gateways = [address.rpartition(".")[0] + ".1" for address in federation.addresses(service)]
    networks = federation.inspect("superlink")["NetworkSettings"]["Networks"]
    [public] = [network["Gateway"] for name, network in networks.items() if name.endswith("_public")]
    with socket.create_server(("0.0.0.0", 0)) as here:
        port = here.getsockname()[1]
        assert federation.reached("superlink", f"{public}:{port}"), (
            "where a network has a gateway, this machine answers"
        )
        assert not federation.reached(service, *(f"{gateway}:{port}" for gateway in [*gateways, public]))


@pytest.mark.parametrize("service", ["superlink", "serverapp", "supernode-0", "clientapp-0"])
def test_services_have_no_rights_and_see_their_own_keys_only(federation: Compose, service: str) -> None:
    script = "id -u; touch /x /opt/venv/x /winnow/x 2>&1; grep CapEff /proc/self/status; ls /run/secrets"
    output = federation.run("exec", "-T", service, "sh", "-c", script, check=False).stdout
    assert output.splitlines()[0] != "0"
    assert output.count("Read-only file system") == 3
    assert re.search(r"CapEff:\s+0+$", output, re.MULTILINE)
    known = {
        "superlink": ["ca.crt", "operator.token", "superlink.crt", "superlink.key", "superlink.secret"],
        "serverapp": ["ca.crt", "superlink.secret"],
        "supernode-0": ["ca.crt", "node.key", "node.secret"],
        "clientapp-0": ["node.secret"],
    }
    assert output.splitlines()[-len(known[service]) :] == known[service]


def test_the_coordinator_s_tool_sees_the_app_and_the_operators_token_and_no_key(federation: Compose) -> None:
    found = paths(federation.run(*TOOL, "find /app /run/secrets -type f -not -name *.pyc", "winnow").stdout)
    outside = [path for path in found if not re.match(r"/app/(server_app|client_app|strategies|tasks|examples)/", path)]
    assert len(found) > 100
    excluded = ["/app/benchmarks/README.md", "/app/tests/__init__.py"]
    assert sorted(outside) == sorted(
        [*excluded, "/app/pyproject.toml", "/run/secrets/ca.crt", "/run/secrets/operator.token"]
    )


def test_the_superlink_serves_those_who_show_the_operators_token(federation: Compose) -> None:
    ask = "python -m server_app.cli federation flwr supernode list"
    without = "cp /run/secrets/ca.crt /tmp && WINNOW_SUPERLINK_TOKEN= WINNOW_ROOT_CERTIFICATES=/tmp/ca.crt"
    assert federation.run(*SHELL, ask).returncode == 0
    nobody = federation.run(*SHELL, f"{without} {ask}", check=False)  # beside the authority a token would be found
    assert nobody.returncode == 1, nobody.stdout
    assert "serves its operators only, and no token was given" in nobody.stdout


def test_an_unknown_node_is_refused_until_it_is_registered(federation: Compose) -> None:
    ids = r"SuperNode ID: (\d+)"
    wait_for(lambda: re.search(ids, federation.logs("supernode-2")), "node-2 with its first key")
    assert main(["keys", "--folder", str(federation.folder / "deploy/keys"), "renew-node", "node-2"]) == 0
    federation.run("restart", "supernode-2", "clientapp-2")
    wait_for(lambda: "Exit Code: 305" in federation.logs("supernode-2"), "the new key to be refused")
    assert "No SuperNode found with the given public key" in federation.logs("superlink")
    assert "node-2: registered" in federation.run("run", "--rm", "-T", "register").stdout
    wait_for(lambda: len(set(re.findall(ids, federation.logs("supernode-2")))) == 2, "node-2 as another node")


@pytest.mark.parametrize("what", LEFT_OVER)
def test_the_image_holds_nothing_that_a_run_does_not_need(federation: Compose, what: str) -> None:
    command = ["docker", "run", "--rm", "--user", "0", "--network", "none", "--entrypoint", "find"]
    command += [federation.environment["WINNOW_IMAGE"], *LEFT_OVER[what].split()]
    assert subprocess.check_output(command, text=True) == ""


def test_a_packed_site_s_own_command_runs_in_its_image(federation: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(federation.folder)
    keys = str(federation.folder / "deploy/keys")  # the SuperLink goes on with the certificate that it has read
    assert main(["keys", "--folder", keys, "renew-server", "--host", "fl.example.org"]) == 0
    site = Compose(federation.folder / "deploy/packed/a", {**federation.environment, "COMPOSE_PROJECT_NAME": "packed"})
    pack = ["site", "pack", "a", "--superlink", "fl.example.org:8000", "--number", "7"]
    assert main([*pack, "--image", federation.environment["WINNOW_IMAGE"], "--with-key"]) == 0
    try:
        said = site.run("run", "--rm", "-T", "winnow", "audit", "open", "/state/no-run/7", check=False)
    finally:
        site.run("down", "--volumes", check=False)
    assert said.returncode == 2, said.stdout
    assert "winnow audit: " in said.stdout
    assert "/state/no-run/7" in said.stdout


def test_one_more_site_is_the_documented_file(federation: Compose) -> None:
    text = (ROOT / "docs/deployment.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    [stanza] = [block for block in blocks if "supernode-3" in block]
    assert main(["keys", "--folder", str(federation.folder / "deploy/keys"), "create", "--nodes", "4"]) == 0
    (federation.folder / "docker-compose.override.yml").write_text(stanza)
    try:
        federation.run("up", "--detach")
        wait_for(lambda: "SuperNode ID:" in federation.logs("supernode-3"), "the new site")
        assert federation.reached("clientapp-3", "supernode-3:9094")
        assert not federation.reached("supernode-3", *(f"{host}:9094" for host in federation.addresses("supernode-0")))
    finally:
        federation.run("stop", "supernode-3", "clientapp-3")
