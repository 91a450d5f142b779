"""A federation of real processes to break: each can be found, killed, frozen, and started again as it was.

Programs go by the names of their log files: ``flower-superlink``, ``flower-superexec`` (it starts flwr-serverapp),
``node-K`` (the SuperNode), ``node-K-executor`` (it starts flwr-clientapp, one process a message). What an executor has
started is its worker. Tests wait for what they see, never for a time.

One federation serves many tests (:class:`SharedScene`), each of which says how many nodes it needs.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from server_app.cli.config import make_plan
from server_app.cli.federation import LocalNode, local_federation, start_node
from server_app.cli.keys import KeyFolder
from server_app.cli.processes import processes_in
from server_app.cli.run import submit
from server_app.cli.superlink import CONNECTION, RemoteConnection, free_port
from tests.conftest import ROOT
from tests.deployment.followed import PATIENCE, FollowedRun, wait_for
from tests.deployment.forking import SHOW_STACKS, fast_executors

SUPERLINK, SERVER_EXECUTOR = "flower-superlink", "flower-superexec"
CONNECTED = "SuperNode ID:"
POLL = "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"  # ten questions a second from each executor keep the SuperLink busy


def app_with(folder: Path, *modules: Path) -> Path:
    """Make a copy of the app with modules of plug-ins beside its pyproject.toml, and return its folder."""
    for name in ("server_app", "client_app", "strategies", "tasks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    project = (ROOT / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(re.sub(r"^fab-exclude = .*$", "", project, flags=re.MULTILINE))
    for module in modules:
        shutil.copy(module, folder)
    return folder


@dataclass
class Scene:
    """A running federation: its programs by name, with the environment each was started with, its runs.

    ``start_seconds`` is how long the start with the first test's nodes took, by which a test can tell how slow this
    machine is at the moment. ``started`` and ``seen`` are sizes of logs: when a program was started, when a test began.
    """

    link: RemoteConnection
    gate: Path
    programs: dict[str, "subprocess.Popen[str]"] = field(default_factory=dict)
    environments: dict[str, dict[str, str]] = field(default_factory=dict)
    runs: list[FollowedRun] = field(default_factory=list)
    start_seconds: float = 0.0
    started: dict[str, int] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)

    def begin(self) -> None:
        """Forget the gates and the runs of the test before, and what its programs have written."""
        for mark in self.gate.iterdir():
            mark.unlink()
        self.runs.clear()
        self.seen = {name: len(self._whole_log(name)) for name in self.programs}

    def connect(self, count: int) -> None:
        """Let the nodes 0 to ``count`` - 1 be connected, and no other."""
        nodes = [LocalNode(number) for number in range(count)]
        for name in [name for name in self.programs if re.fullmatch(r"node-\d+", name)]:
            if name not in [node.name for node in nodes]:
                self.stop(name)
        for node in nodes:
            if node.name not in self.programs:
                self.add(node)
            elif self.programs[node.name].poll() is not None:
                self.restart(node.name)
                self.restart(f"{node.name}-executor")
        wait_for(lambda: all(self.is_connected(node.name) for node in nodes), "all nodes are connected")

    def is_connected(self, node: str) -> bool:
        """Tell whether the SuperNode that runs now has been let in."""
        assert self.programs[node].poll() is None, f"{node} has ended:\n{self._whole_log(node)[-2000:]}"
        return CONNECTED in self._whole_log(node)[self.started[node] :]

    def adopt(self, name: str, program: "subprocess.Popen[str]") -> None:
        """Remember a program that has just been started; for a moment the system shows an empty environment of it."""
        environ = Path(f"/proc/{program.pid}/environ")
        entries = wait_for(environ.read_text, "the environment of a program").split("\0")
        self.programs[name], self.started[name] = program, 0
        self.environments[name] = dict(entry.split("=", 1) for entry in entries if entry)

    def add(self, node: LocalNode, **variables: str) -> None:
        """Register a node and start it, without waiting; ``variables`` are more of its environment."""
        keys = KeyFolder(self.link.home / "keys")
        if not keys.node(node.name, "pub").exists():
            keys.create_node(node.name)
        key = str(keys.node(node.name, "pub"))
        self.link.ask("supernode", "register", key, CONNECTION, "--name", node.name)
        own = replace(self.link, environment={**self.link.environment, **variables})
        start_node(own, keys, node, free_port())
        self.adopt(node.name, self.link.processes.programs[-2])
        self.adopt(f"{node.name}-executor", self.link.processes.programs[-1])

    @property
    def logs(self) -> Path:
        """The folder with the logs, and each node's state in a folder of its name."""
        assert self.link.logs is not None
        return self.link.logs

    def log(self, name: str) -> str:
        """Return all that a program has written in this test, over restarts."""
        return self._whole_log(name)[self.seen.get(name, 0) :]

    def _whole_log(self, name: str) -> str:
        return self.link.log_file(name).read_text(errors="replace")

    def worker(self, executor: str) -> int | None:
        """Return the process that an executor has started: flwr-serverapp or flwr-clientapp, None if there is none."""
        leader = self.programs[executor].pid
        return next((pid for pid in sorted(processes_in({leader})) if pid != leader), None)

    def stop(self, node: str) -> None:
        """Ask a node and its executor to end, as an operator does, and wait until they have."""
        for name in (node, f"{node}-executor"):
            self.programs[name].terminate()
        for name in (node, f"{node}-executor"):
            self.programs[name].wait()

    def kill(self, name: str) -> None:
        """Kill a program; what it has started is left to its fate."""
        self.programs[name].kill()
        self.programs[name].wait()

    def kill_machine(self, node: str) -> None:
        """Kill a node, its executor and what that has started, as when the machine under them is lost."""
        leaders = [self.programs[name] for name in (node, f"{node}-executor")]
        for pid in processes_in({leader.pid for leader in leaders}):
            os.kill(pid, signal.SIGKILL)
        for leader in leaders:
            leader.wait()

    def restart(self, name: str) -> "subprocess.Popen[str]":
        """Start a program that has ended again: same arguments, keys, folders and port."""
        command = self.programs[name].args
        assert isinstance(command, list)
        self.started[name] = len(self._whole_log(name))
        with self.link.log_file(name).open("a") as output:
            program = self.link.processes.start(command, self.environments[name], self.link.folder, output)
        self.programs[name] = program
        return program

    def bring_back(self, node: str, patience: float = PATIENCE) -> int:
        """Start a killed SuperNode as often as a restart policy does until it is let in; return how often it was."""
        deadline, tries = time.monotonic() + patience, 0
        while time.monotonic() < deadline:
            before, tries = len(self.log(node)), tries + 1
            program = self.restart(node)
            while program.poll() is None:
                if CONNECTED in self.log(node)[before:]:
                    return tries
                time.sleep(0.1)
        raise AssertionError(f"{node} was not let in within {patience:g} s:\n{self.log(node)[-2000:]}")

    def hold(self, client: int, server_round: int) -> None:
        """Let a method of gated.py wait in this round."""
        (self.gate / f"hold-client-{client}-round-{server_round}").touch()

    def release(self, client: int, server_round: int) -> None:
        """Let it go on."""
        (self.gate / f"hold-client-{client}-round-{server_round}").unlink()

    def wait_until_training(self, client: int, server_round: int, patience: float = PATIENCE) -> int:
        """Wait until a method of gated.py trains this client in this round; return its process."""
        mark, what = self.gate / f"client-{client}-round-{server_round}", f"client {client} in round {server_round}"
        return int(wait_for(lambda: mark.read_text() if mark.exists() else "", what, patience))

    def submit(self, folder: Path, app: Path, *words: str) -> FollowedRun:
        """Submit a run as from the working directory ``folder`` and follow it."""
        run = FollowedRun(self.link, submit(self.link, make_plan(words, str(app), folder)))
        self.runs.append(run)
        return run

    def show(self) -> None:
        """Print what the operator and the processes have said last and where they are, for a test that has failed."""
        for pid in processes_in({program.pid for program in self.programs.values()}):
            os.kill(pid, SHOW_STACKS)
        time.sleep(1)
        for run in self.runs:
            print(f"--- run {run.run_id}\n{run.output}")
        for name in self.programs:
            print(f"--- {name}\n{self.link.last_lines(name, 40)}")


@contextmanager
def scene(folder: Path) -> Iterator[Scene]:
    """Run a federation without nodes while the block runs; its logs and the nodes' state are in ``folder``."""
    gate = folder / "gate"
    gate.mkdir(parents=True)
    extra = {"WINNOW_TEST_GATE": str(gate), POLL: "0.5", **fast_executors(folder / "fast")}
    with local_federation(folder, [LocalNode(0)], extra) as local:
        link = RemoteConnection(**vars(local))
        found = Scene(link, gate)
        for name, program in zip((SUPERLINK, SERVER_EXECUTOR), link.processes.programs, strict=True):
            found.adopt(name, program)
        local.wait_until_ready()
        yield found


class SharedScene:
    """One federation for many tests. After a test that failed, the next one gets a new federation."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._scenes: list[Scene] = []
        self._count = 0

    @contextmanager
    def with_nodes(self, count: int) -> Iterator[Scene]:
        """Lend the federation with so many nodes connected; what it has said is shown if the block fails."""
        started = time.monotonic()
        if not self._scenes:
            self._count += 1
            self._scenes.append(self._stack.enter_context(scene(self._folder / f"scene-{self._count}")))
        [found] = self._scenes
        try:
            found.begin()
            found.connect(count)
            found.start_seconds = found.start_seconds or time.monotonic() - started
            yield found
        except BaseException:
            found.show()
            self.close()
            raise

    def close(self) -> None:
        """End the federation, if there is one."""
        self._scenes.clear()
        self._stack.close()
