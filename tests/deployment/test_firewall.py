"""Firewall commands of the documentation, before a port that Docker publishes: who may come in does, others do not.

The sites are a network namespace behind a virtual cable, since packets from this machine itself pass other chains.
"""

import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from server_app.cli.superlink import free_port
from tests.conftest import ROOT
from tests.deployment.compose import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
HERE, SITE = "10.213.7.1", "10.213.7.2"
PORT = str(free_port())
CABLE = "winnow-test"  # this machine's end
LISTEN = "import socket, time; s = socket.create_server(('', 8000)); print('ready', flush=True); time.sleep(600)"
REACH = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)"


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=True)


@pytest.fixture
def reached(image: str) -> Iterator[str]:
    """A namespace outside, by its name, and a container of that name whose port 8000 is published as another one."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("iptables"):
        pytest.skip("needs root, ip (iproute2) and iptables")
    name = f"winnow-{uuid.uuid4().hex[:8]}"
    try:
        run("ip", "netns", "add", name)
        run("ip", "link", "add", CABLE, "type", "veth", "peer", "name", "outside", "netns", name)
    except subprocess.CalledProcessError as error:
        subprocess.run(["ip", "netns", "del", name], check=False)
        pytest.skip(f"no network namespaces here: {error.stderr}")
    try:
        run("ip", "addr", "add", f"{HERE}/30", "dev", CABLE)
        run("ip", "link", "set", CABLE, "up")
        run("ip", "-n", name, "addr", "add", f"{SITE}/30", "dev", "outside")
        run("ip", "-n", name, "link", "set", "outside", "up")
        publish = ["--name", name, "--publish", f"{HERE}:{PORT}:8000"]
        run("docker", "run", "--rm", "--detach", *publish, image, "python3", "-c", LISTEN)
        wait_for(lambda: "ready" in run("docker", "logs", name).stdout, "the container listens")
        yield name
    finally:
        for last in (["docker", "rm", "--force", name], ["ip", "link", "del", CABLE], ["ip", "netns", "del", name]):
            subprocess.run(last, capture_output=True, check=False)


def comes_in(site: str) -> bool:
    """Tell whether a connection from outside reaches the container."""
    command = ["ip", "netns", "exec", site, "python3", "-c", REACH, HERE, PORT]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def documented(address: str) -> list[list[str]]:
    """The iptables commands of the documentation, with the card and an address that are here."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs/deployment.md").read_text(), re.MULTILINE | re.DOTALL)
    [block] = [block for block in blocks if "DOCKER-USER" in block]
    block = re.sub(r" +#.*", "", block).replace(" 8000 ", f" {PORT} ")
    return [line.split() for line in block.replace("eth0", CABLE).replace("192.0.2.10", address).splitlines()]


@pytest.mark.parametrize(("address", "expected"), [(SITE, True), ("192.0.2.10", False)])
def test_docker_s_own_chain_lets_in_who_is_named(reached: str, address: str, expected: bool) -> None:
    assert comes_in(reached), "nothing is closed so far"
    commands = documented(address)
    try:
        for command in commands:
            run(*command)
        assert comes_in(reached) == expected
    finally:
        undo = [[word.replace("-I", "-D") for word in commands[-1]], ["iptables", "-F", "WINNOW"]]
        for command in [*undo, ["iptables", "-X", "WINNOW"]]:
            subprocess.run(command, capture_output=True, check=False)


@pytest.mark.parametrize(("address", "expected"), [(SITE, True), ("192.0.2.10", False)])
def test_the_nftables_file_lets_in_who_is_named(reached: str, address: str, expected: bool, tmp_path: Path) -> None:
    nft = shutil.which("nft")
    if nft is None:
        pytest.skip("nft is not installed (Debian: apt-get install nftables)")
    rules = tmp_path / "firewall.nft"
    rules.write_text((ROOT / "deploy/firewall.nft").read_text().replace("192.0.2.10", address).replace("8000", PORT))
    try:
        for _ in range(2):  # loading it again replaces it
            run(nft, "-f", str(rules))
        assert comes_in(reached) == expected
    finally:
        subprocess.run([nft, "delete", "table", "inet", "winnow"], capture_output=True, check=False)
