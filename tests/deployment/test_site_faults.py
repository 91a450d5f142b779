"""Sites that are set up wrongly, in one run with real nodes: shared folders, and clocks that are or go wrong."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from server_app.cli import doctor
from server_app.cli.federation import LocalNode
from tasks.issues import INFO
from tests.deployment import wrong_clock
from tests.deployment.conftest import words
from tests.deployment.followed import FollowedRun, wait_for
from tests.deployment.scene import CONNECTED, SUPERLINK, Scene, SharedScene
from tests.integration.test_site_data import settings_for
from tests.site_data import image_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
FAST, SLOW, JUMP = 20, -240, 3600


@dataclass(frozen=True)
class Site(LocalNode):
    """A node without a number; its folders are called as the operator likes."""

    state: Path = Path("state")

    @property
    def name(self) -> str:
        """See :class:`LocalNode`; the numbered nodes of other tests have names of their own."""
        return f"site-{self.number}"

    def config(self, state: Path) -> str:
        """See :class:`LocalNode`; ``state`` is not used."""
        return f"state-dir='{self.state}' data-path='{self.data}'"


@dataclass(frozen=True)
class Ended:
    """What is left when all has ended: the run, the logs by program, and the state directory that two nodes have."""

    run: FollowedRun
    ending: tuple[str, str]
    logs: dict[str, str]
    shared: Path


def clock(folder: Path, seconds: int) -> dict[str, str]:
    """Make a clock that is ahead by some seconds, and return the variables of processes that go by it."""
    folder.mkdir()
    shutil.copy(wrong_clock.__file__, folder / "sitecustomize.py")
    (folder / "ahead").write_text(str(seconds))
    return {"PYTHONPATH": str(folder), "WINNOW_TEST_CLOCK": str(folder / "ahead")}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, app: Path, shared: SharedScene) -> Ended:
    """Play a run: all nodes have the same data, 1 and 2 the same state directory; the clocks of 0 and 3 are wrong."""
    root = tmp_path_factory.mktemp("sites")
    data, common = image_folder(root / "data", count=12, seed=1), root / "shared"
    image_folder(root / "server" / "test", seed=2)
    with shared.with_nodes(0) as found:
        found.add(Site(1, data, common))
        found.add(Site(2, data, common))
        found.add(Site(0, data, root / "state"), **clock(root / "slow", SLOW))
        found.add(Site(3, data, root / "new"), **clock(root / "fast", FAST))
        names = [f"site-{number}" for number in range(3)]
        wait_for(lambda: all(CONNECTED in found.log(name) for name in names), "nodes are let in, a slow clock or not")
        wait_for(lambda: found.programs["site-3"].poll() is not None, "a node whose clock is ahead gives up")
        ended = play(found, app, root, common)
        for name in names:
            found.stop(name)
    return ended


def play(found: Scene, app: Path, root: Path, common: Path) -> Ended:
    """Play two rounds; in the second one the clock of node 0 jumps, and after the run it is set right again."""
    for client in range(3):
        found.hold(client, 2)
    settings = {"num-server-rounds": 2, "federation.num-clients": 3, "federation.min-replies": 1}
    settings |= {"federation.round-timeout": 600, "method.name": "gated:GatedSGD"}
    run = found.submit(root, app, *words(**settings_for("image-folder", root / "server"), **settings))
    wait_for(lambda: len(list(found.gate.glob("client-*-round-2"))) == 2, "both clients train in round 2")
    (root / "slow" / "ahead").write_text(str(JUMP))
    wait_for(lambda: found.programs["site-0"].poll() is not None, "the node whose clock has jumped ends")
    for client in range(3):
        found.release(client, 2)
    ending = run.end()
    (root / "slow" / "ahead").write_text("0")
    found.bring_back("site-0")  # after the run: a node that is back would only be waited for until the round's timeout
    assert found.link.authority is not None
    assert [finding.level for finding in doctor.superlink(found.link.address, found.link.authority)] == [INFO, INFO]
    return Ended(run, ending, {name: found.log(name) for name in found.programs}, common)


def test_the_run_goes_on(ended: Ended) -> None:
    assert ended.ending == ("finished:completed", "N/A")
    lines = ended.run.record.metrics
    assert [line["replies"] for line in lines] == [0, 2, 1]


def test_sites_with_the_same_data_are_named_in_log_record_and_report(ended: Ended) -> None:
    named = re.search(r"WARNING: Clients (\d), (\d) have exactly the same data, and each counts", ended.run.output)
    assert named
    twins = [int(client) for client in named.groups()]
    registration = [line for line in ended.run.record.lines("clients.jsonl") if line["round"] == 0]
    assert {line["client"]: line["same_data"] for line in registration} == dict.fromkeys(twins, twins)
    report = (ended.run.record.path / "report.html").read_text()
    assert "clients {} and {} with exactly the same data".format(*twins) in report


def test_of_two_nodes_with_one_state_directory_the_second_is_refused(ended: Ended) -> None:
    refusal = r"StateDirError: nodes (\d+) and (\d+) have the same state directory; give each a state-dir"
    told = re.search(rf"WARNING: Left out: node (\d+): {refusal}", ended.run.output)
    assert told
    ids = {name: re.search(r"SuperNode ID: (\d+)", ended.logs[name])[1] for name in ("site-1", "site-2")}  # type: ignore[index]
    assert {told[2], told[3]} == set(ids.values())
    assert told[1] == told[2]
    assert (ended.shared / ended.run.record.path.name / "site" / "owner").read_text() == told[3]


def test_a_clock_that_is_ahead_shows_at_the_superlink_only(ended: Ended) -> None:
    assert "SuperNode terminated gracefully." in ended.logs["site-3"]
    assert not re.search("ERROR|Exit Code|clock", ended.logs["site-3"])
    assert re.search(r'"POST /v1/fleet/activate-node HTTP/1.1" 401', ended.logs[SUPERLINK])


def test_a_clock_that_jumps_costs_the_node_the_round(ended: Ended) -> None:
    last = [line for line in ended.run.record.lines("clients.jsonl") if line["round"] == 2]
    [reason] = [line["quarantine"] for line in last if line["quarantine"]]
    assert reason.startswith(("error 5: Error: Node Unavailable", "no reply in time"))
    assert "SuperNode terminated gracefully." in ended.logs["site-0"]
    assert ended.logs["site-0"].count(CONNECTED) == 2, "with the right time it is let in again"
