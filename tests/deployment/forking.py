"""Executors that fork: every message is still a process of its own, and all share the imports.

Flower's executor starts an interpreter for every message, which imports torch for three seconds and more. One whose
environment has :func:`fast_executors` imports it once, when it starts, and its children begin where the imports end:
they have the arguments, environment, streams and session of the process that Flower would have started, and can be
killed as that. It works where it is copied to, as ``sitecustomize.py``; other programs are Flower's own.

An executor has one thread when it forks: what another one holds at that moment, its child would wait for without end.
Hearts beat twice as fast as Flower's: who has died is missed after half a minute, and not after a minute. A process
that does not fork would have too little time for its imports before its first heartbeat.
Every program writes to its log where each of its threads is, when it gets ``SHOW_STACKS``.
"""

import faulthandler
import importlib
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

EXECUTOR = "flower-superexec"
SHOW_STACKS = signal.SIGUSR1
ONE_THREAD = {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}  # of BLAS, and of pyarrow
PARTS = {
    "flwr-clientapp": "flwr.supernode.cli:flwr_clientapp",
    "flwr-serverapp": "flwr.superlink.cli:flwr_serverapp",
}
HEARTBEAT, SECONDS = "HEARTBEAT_DEFAULT_INTERVAL", 15  # Flower's is 30; twice of it is a sign of death
HEAVY = (
    "torch.nn.functional",
    "torch._dynamo",  # the first optimizer of a process imports it
    "safetensors.numpy",
    "sklearn.mixture",
    "flwr.clientapp",
    "flwr.serverapp",
)


def fast_executors(folder: Path) -> dict[str, str]:
    """Return the variables of programs whose executors fork; ``folder`` is made for that."""
    folder.mkdir(parents=True)
    shutil.copy(__file__, folder / "sitecustomize.py")
    return {"PYTHONPATH": str(folder), **ONE_THREAD}


class Forked:
    """A child, of which only is asked whether it has ended."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def poll(self) -> int | None:
        """Return None as long as it runs, else 0."""
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return 0
        return None


def started_by_fork(command: Sequence[str], **_: object) -> Forked | None:
    """Do what ``subprocess.Popen`` would, without a new interpreter; only the parent gets something to ask."""
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, f"an executor with {len(threads)} threads must not fork"
    if child := os.fork():
        return Forked(child)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    program = next(word for word in command if word in mains)  # an interpreter may stand before it
    sys.argv = list(command[command.index(program) :])
    status = 1
    try:
        status = mains[program]() or 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException:
        traceback.print_exc()
    finally:  # not the executor's own way out: its connection stays as it is
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


mains: dict[str, Callable[[], int | None]] = {}

if __name__ == "sitecustomize":
    faulthandler.register(SHOW_STACKS, all_threads=True)
    importlib.import_module("flwr.common.constant")
    for module in list(sys.modules.values()):  # also those that have imported it by now
        if hasattr(module, HEARTBEAT):
            setattr(module, HEARTBEAT, SECONDS)

if __name__ == "sitecustomize" and EXECUTOR in sys.orig_argv:
    from flwr.supercore.superexec.executor import subprocess_executor

    for name in HEAVY:
        importlib.import_module(name)
    for program, place in PARTS.items():
        name, _, function = place.partition(":")
        mains[program] = getattr(importlib.import_module(name), function)
    vars(subprocess_executor)["subprocess"] = SimpleNamespace(Popen=started_by_fork, DEVNULL=None)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel forgets those that have ended
