"""Overhead of a sweep: its processor time beside that of the same runs, played plainly in one process.

    python -m benchmarks.sweep_overhead --seeds 8

Both are processes of their own, from their start to their end: a sweep imports twice, checks all settings, keeps a
database and draws a page. Processor seconds are compared, so other work on the machine hardly matters.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FILE = """
[common]
num-server-rounds = {rounds}
train.epochs = 2
train.cohort = "20"
train.threads = 1
[axes.method]
fedavg = {{ loss.name = "ce", strategy.aggregator = "mean" }}
winnow = {{}}
[axes]
seed = {seeds}
"""
PLAIN = """
import sys
from pathlib import Path
import torch
from server_app.engine.grid import RUN_ID, WorkerGrid
from server_app.engine.in_process import InProcessPool
from server_app.engine.worker import Start, begin
from server_app.run import Recording, run_training
from server_app.sweep.plan import SweepPlan
from tasks.config import parse
from tasks.protocol import Mode
torch.set_num_threads(1)
begin()
folder = Path(sys.argv[1])
for number, run in enumerate(SweepPlan.read(folder / "overhead.toml", folder).final_runs()):
    settings = parse(run.flat)
    grid = WorkerGrid(InProcessPool(Start(RUN_ID, run.flat)), settings.federation.num_clients)
    recording = Recording(folder / "plain" / str(number), checkpoints=False, page=False)
    run_training(grid, settings, Mode.SIMULATION, recording=recording)
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8, help="repetitions of two methods")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "overhead.toml").write_text(FILE.format(rounds=args.rounds, seeds=list(range(1, args.seeds + 1))))
        plain = cpu_seconds([sys.executable, "-c", PLAIN, str(folder)], folder)
        winnow = [sys.executable, "-m", "server_app.cli", "sweep", "overhead.toml", "--jobs", str(args.jobs)]
        sweep = cpu_seconds(winnow, folder)
    runs = 2 * args.seeds
    print(f"{runs} runs of {args.rounds} rounds: plainly {plain:.1f} s of processor time, as a sweep {sweep:.1f} s")
    print(
        f"overhead {sweep - plain:.1f} s, {100 * (sweep / plain - 1):.1f} % ({(sweep - plain) / runs:.2f} s for a run)"
    )


def cpu_seconds(command: list[str], folder: Path) -> float:
    """Return the processor seconds of a program and all that it has started.

    Raises
    ------
    RuntimeError
        If it fails.
    """
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    began = time.monotonic()
    with (folder / "log").open("w") as log:
        program = subprocess.Popen(command, cwd=folder, env=variables, stdout=log, stderr=log)
        _, status, usage = os.wait4(program.pid, 0)
    program.returncode = os.waitstatus_to_exitcode(status)
    if program.returncode:
        raise RuntimeError(f"{command[1]} failed:\n{(folder / 'log').read_text()[-2000:]}")
    print(f"{command[2][:20].strip()!r}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
