"""Faults of containers on their private networks, during a run: the run goes on, and who was away comes back.

A crash is a program that is killed inside its container: the restart policy starts it again. It does not after
`docker compose kill`, which is what an operator wanted.
"""

import re
import shutil
from pathlib import Path

import pytest

from tests.deployment import remembering
from tests.deployment.compose import Compose, wait_for
from tests.deployment.conftest import words
from tests.deployment.submitted import SubmittedRun, submitted

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the first test waits for the image
THREE = {"federation__num_clients": 3, "audit__enabled": False}
LONG = {**THREE, "num_server_rounds": 100, "federation__min_replies": 1}
KILL = """
import os, pathlib, sys
commands = {int(file.parent.name): file.read_bytes() for file in pathlib.Path("/proc").glob("[0-9]*/cmdline")}
[victim] = [pid for pid, line in commands.items() if sys.argv[1].encode() in line and pid not in (1, os.getpid())]
os.kill(victim, 9)
"""
REMEMBERED = """
import pathlib, safetensors.numpy, sys
states = pathlib.Path("/state", sys.argv[1]).glob("*/state-*.safetensors")
newest = max(states, key=lambda file: int(file.stem.partition("-")[2]))
print(*map(int, safetensors.numpy.load_file(newest)["rounds"]))
"""


def remembered(federation: Compose, site: int, run: SubmittedRun) -> list[int]:
    """The rounds in which a site was trained, as its state on its volume tells."""
    found = federation.python(f"clientapp-{site}", REMEMBERED, Path(run.folder).name)
    assert found.returncode == 0, found.stdout
    return [int(number) for number in found.stdout.split()]


def node_ids(federation: Compose, service: str) -> set[str]:
    """As which nodes a service has ever connected."""
    return wait_for(lambda: set(re.findall(r"SuperNode ID: (\d+)", federation.logs(service))), f"{service} connected")


def test_a_site_cut_off_and_a_node_that_crashes_come_back_with_what_they_knew(
    federation: Compose,
) -> None:
    shutil.copy(remembering.__file__, federation.folder / "examples")
    services = ("supernode-0", "supernode-1")
    ids = {service: node_ids(federation, service) for service in services}
    restarts = federation.inspect("supernode-1")["RestartCount"]
    with submitted(federation, *words(**LONG, method__name="examples.remembering:Remembering")) as run:
        run.wait_for_line(r"^round +1/")
        before = remembered(federation, 1, run)
        assert before
        federation.network("disconnect", "link-0", "supernode-0")
        assert federation.python("supernode-1", KILL, "flower-supernode").returncode == 0
        gone = {site: run.wait_for_round_without(site) for site in (0, 1)}
        assert all(run.updates()[missed] for missed in gone.values()), "site 2 goes on alone"
        federation.network("connect", "link-0", "supernode-0")
        for site, missed in gone.items():
            run.wait_for_return(site, missed)
        after = remembered(federation, 1, run)
        assert after[: len(before)] == before
        assert after[-1] > gone[1]
    assert federation.inspect("supernode-1")["RestartCount"] > restarts
    assert {service: node_ids(federation, service) for service in services} == ids
