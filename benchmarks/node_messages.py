"""CPU seconds of a message at a real node: Flower's own start, a process for each message, a trainer that stays.

    python -m benchmarks.node_messages --rounds 5

Plays the node's part of rounds with the digits task, each in a new process as Flower starts it, without a network. The
ways take turns. What a trainer costs is read from the system when the message has been answered.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

SCRIPT, LIGHT = "Flower's program alone: its script", "as `winnow federation run` starts it"
PROCESS, TRAINER = "Flower's script, a process for each message", "Flower's script, a trainer"
CHILD = """
import sys
from pathlib import Path
if sys.argv.pop(1) == "light":  # as server_app/cli/guarded.py
    import types
    from flwr import supernode
    sys.modules["flwr.supernode.cli"] = package = types.ModuleType("flwr.supernode.cli")
    package.__path__ = [f"{folder}/cli" for folder in supernode.__path__]
import flwr.supernode.cli.flwr_clientapp
if len(sys.argv) > 1:
    from client_app.app import app
    from client_app.trainer_messages import IDENTITY, TaskIdentity, unpack
    for name in IDENTITY:
        setattr(TaskIdentity, name, 1)
    file, sys.argv[:] = Path(sys.argv[1]), ["flwr-clientapp"]
    message, context = unpack([(file / str(number)).read_bytes() for number in range(len(list(file.iterdir())))])
    reply = app(message, context)
    assert reply.has_content(), reply.error
"""


def training_message(folder: Path, state: Path, server_round: int, idle: float) -> Path:
    """Write what a node gets to train in a round, as files of a folder, and return that."""
    from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict

    from client_app.trainer_messages import IDENTITY, TaskIdentity, pack
    from tasks import protocol
    from tasks.config import DEFAULTS, parse
    from tasks.fresh_model import fresh_model
    from tasks.weights import model_arrays

    for name in IDENTITY:
        setattr(TaskIdentity, name, 1)
    settings = {**DEFAULTS, "federation.num-clients": 2, "train.threads": 1}
    flat, layout = protocol.pack(model_arrays(fresh_model(parse(settings))))
    header = protocol.MessageHeader(0, server_round, 20, layout=layout, run_name="measured")
    content = {"arrays": ArrayRecord({protocol.ARRAYS: Array(flat)}), protocol.RECORD: ConfigRecord(header.record())}
    message = Message(RecordDict({**content}), dst_node_id=1, message_type="train")
    context = Context(1, 1, {"partition-id": 0, "state-dir": str(state), "trainer-idle": idle}, RecordDict(), settings)
    found = folder / f"{idle:g}-{server_round}"
    found.mkdir()
    for number, part in enumerate(pack(message, context)):
        (found / str(number)).write_bytes(part)
    return found


def cpu_seconds(*arguments: str) -> float:
    """Return what a process takes that answers one message, or none."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = spent()
    subprocess.run([sys.executable, "-c", CHILD, *arguments], check=True, stdout=subprocess.DEVNULL)
    return spent() - before


def trainer_seconds(state: Path) -> tuple[str, float]:
    """Return the process of a node's trainer, and what it has taken until now."""
    [lock] = state.glob(".trainer-*/lock")
    process = lock.read_text()
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return process, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(rounds: int, folder: Path) -> dict[str, list[float]]:
    """Return the CPU seconds of each round, by the way it was played."""
    found: dict[str, list[float]] = {SCRIPT: [], LIGHT: [], PROCESS: [], TRAINER: []}
    before = ("", 0.0)
    for server_round in range(1, rounds + 1):
        found[SCRIPT].append(cpu_seconds("script"))
        found[LIGHT].append(cpu_seconds("light"))
        alone = training_message(folder, folder / "alone", server_round, 0)
        found[PROCESS].append(cpu_seconds("script", str(alone)))
        kept = training_message(folder, folder / "kept", server_round, 15)
        thin = cpu_seconds("script", str(kept))
        after = trainer_seconds(folder / "kept")
        found[TRAINER].append(thin + after[1] - (before[1] if before[0] == after[0] else 0.0))
        before = after
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="messages of each way (default: 5)")
    with TemporaryDirectory() as folder:
        found = measure(parser.parse_args().rounds, Path(folder))
    print("| CPU seconds of a message | first | median of the others |\n|---|---|---|")
    for way, seconds in found.items():
        print(f"| {way} | {seconds[0]:.2f} | {statistics.median(seconds[1:]):.2f} |")


if __name__ == "__main__":
    main()
