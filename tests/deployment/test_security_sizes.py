"""A real node that sends 200 MB for a small model: refused before it is read, on record, and nobody else is harmed."""

import re
from pathlib import Path

import pytest

from server_app.cli.keys import KeyFolder
from server_app.transport.replies import ALLOWANCE, PIECE
from tests.deployment.conftest import words
from tests.deployment.scene import SERVER_EXECUTOR, SharedScene
from tests.deployment.secrets import secret_texts

pytestmark = pytest.mark.slow
HONEST, HOSTILE, BYTES = 0, 1, 200_000_000
SETTINGS = {
    "num_server_rounds": 2,
    "federation__num_clients": 2,
    "federation__min_replies": 1,
    "federation__round_timeout": 240,
    "method__name": "oversized:Oversized",
    "audit__enabled": False,
}


def most_memory(process: int) -> int:
    """The largest amount of memory in bytes that a process has had so far."""
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())[0])


@pytest.mark.timeout(900)
def test_a_reply_of_200_mb_costs_its_sender_only(tmp_path: Path, app: Path, shared: SharedScene) -> None:
    with shared.with_nodes(2) as found:
        found.hold(HOSTILE, 1)
        found.hold(HONEST, 2)
        run = found.submit(tmp_path, app, *words(**SETTINGS))
        found.wait_until_training(HOSTILE, 1)
        server = found.worker(SERVER_EXECUTOR)
        assert server is not None
        before = most_memory(server)
        found.release(HOSTILE, 1)
        found.wait_until_training(HONEST, 2)  # the round with the large reply is over
        grown = most_memory(server) - before
        found.release(HONEST, 2)
        assert run.end() == ("finished:completed", "N/A")
        sent = found.log("node-1-executor") + found.log("node-1")
        logs = "".join(found.log(name) for name in found.programs) + run.output
        shown = [text for text in secret_texts(KeyFolder(found.link.home / "keys")) if text in logs]
    assert shown == [], "keys and secrets are in no log"
    assert "model (200." in sent, "it did leave the node"
    assert grown < BYTES / 2, "the server has not held it"
    rounds = [line for line in run.record.lines("clients.jsonl") if line["round"]]
    reasons = {(line["round"], line["client"]): line["quarantine"] for line in rounds if line["quarantine"]}
    assert reasons.keys() == {(1, HOSTILE)}
    reason = re.fullmatch(
        r"error 100: the reply is too large: ([\d,]+) bytes or more, expected ([\d,]+) at most", reasons[1, HOSTILE]
    )
    assert reason, reasons
    counted, limit = (int(number.replace(",", "")) for number in reason.groups())
    assert ALLOWANCE < limit < 2 * ALLOWANCE
    assert counted < limit + 3 * PIECE, "two pieces at once are asked for, and not read"
    assert [line["replies"] for line in run.record.metrics] == [0, 1, 2]
