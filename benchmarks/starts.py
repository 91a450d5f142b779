"""What a start costs: CPU seconds and imported modules of commands, and of a client's process with its first round.

    python -m benchmarks.starts --runs 3 --python /other/checkout/.venv/bin/python

Each is a process of its own, in turn for every Python that is named, so that both see the same machine; the least of
the runs counts. CPU seconds of all threads: a busy machine changes them little.
"""

import argparse
import json
import os
import resource
import subprocess
import sys

COMMAND = "import sys; sys.argv = ['winnow', *{words}]; from server_app.cli import main; sys.exit(main())"
COUNT = "import atexit, sys; atexit.register(lambda: print(len(sys.modules), file=sys.stderr)); "
CLIENT = """
import torch, client_app.app
from client_app.attacks import run_client
from client_app.methods import RoundConfig
from tasks.client_data import client_dataset
from tasks.fresh_model import fresh_model
from tasks.settings import Settings
settings = Settings()
model, data = fresh_model(settings), client_dataset(settings, 0).data
run_client(model, data, settings, RoundConfig(1, 0.1, (1, 0, 1)), None, torch.device("cpu"))
"""
WRONG = ("run learning=1", "run train.epochs=0", "run demo loss.name=nope", "run no-such-recipe")
WORDS = ("--help", "list", "doctor", *WRONG, "run --dry-run")
STARTS = {
    "import torch": "import torch",
    "import flwr.app": "import flwr.app",
    **{f"winnow {words}": COMMAND.format(words=words.split()) for words in WORDS},
    "client's process, first round": CLIENT,
    "server's process": "import server_app.app",
}


def cost(python: str, code: str) -> tuple[float, int]:
    """Return CPU seconds and imported modules of a process; it may end as it likes."""
    before = _children()
    run = [python, "-P", "-c", COUNT + code]  # its own checkout, not the one that we are in
    done = subprocess.run(run, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    return _children() - before, int(done.stderr.split()[-1])


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="processes for each cell, after one that does not count")
    parser.add_argument("--python", action="append", default=[], help="of another checkout, to compare with")
    options = parser.parse_args()
    pythons = [sys.executable, *options.python]
    print(json.dumps(pythons))
    print(f"{'start':32}" + "".join(f"{'CPU s':>9}{'modules':>9}" for _ in pythons), flush=True)
    for name, code in STARTS.items():
        costs = [[cost(python, code) for python in pythons] for _ in range(options.runs + 1)][1:]
        best = [min(column) for column in zip(*costs, strict=True)]
        print(f"{name:32}" + "".join(f"{seconds:9.2f}{modules:9}" for seconds, modules in best), flush=True)


if __name__ == "__main__":
    main()
