"""Ray's start in a simulation: patience on a busy machine, and one line in place of Flower's tracebacks where it fails.

Flower starts Ray and the ServerApp at the same time. Where Ray does not start no client has been asked anything, so the
run can be submitted again, to a SuperLink and a Ray of its own: what the failed ones have left must be gone first.
"""

import os
import re
from collections.abc import Callable, Mapping

FAILURE = re.compile(r"^ERROR\s*:\s*An exception occured!! (?P<reason>.*)$")  # in Flower's words and spelling
START = "in init_ray"  # the function of Flower that starts Ray, in the traceback that follows
END = re.compile(r"^WARNING\s*:\s*Stopping Simulation Runtime")  # ends that traceback
PASSING = re.compile(r"tim(?:ed?|ing)[ -]?out|overload|unavailable|failed to (?:connect|start|get)|died", re.IGNORECASE)
DISK = re.compile(r"is over (?P<percent>\d+)% full, available space: (?P<free>[^;]+);")
PATIENCE = (120, 180, 240)  # seconds that Ray may take for each step of its start, by attempt
STEPS = (
    "RAY_raylet_start_wait_time_s",
    "RAY_gcs_server_request_timeout_seconds",
    "RAY_py_gcs_connect_timeout_s",
    "RAY_gcs_rpc_server_connect_timeout_s",
    "RAY_worker_register_timeout_seconds",
    "RAY_raylet_client_num_connect_attempts",  # one a second
)
ADVICE = {
    "exceeds /dev/shm size": (
        "/dev/shm is too small for Ray's object store; give a container more (docker run --shm-size=2g), or let Ray "
        "use the disk, which is slower: RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE=1"
    ),
    "No space left on device": "the disk of the temporary folder or /dev/shm is full; make room, or set TMPDIR",
}
BUSY = (
    "the machine is too busy, or short of memory: end other work, or start again later; more threads than cores do it "
    "too (OMP_NUM_THREADS=1). --verbose shows what Ray says"
)


def start_settings(seconds: int) -> dict[str, str]:
    """Return Ray's environment variables that let every step of its start take that long; the user's own are kept.

    The step that Ray itself gives 30 s whatever is set, until its node is known, asks for the node again as long as
    ``RAY_raylet_start_wait_time_s`` says, and looks at the clock only then.
    """
    wanted = dict.fromkeys(STEPS, str(seconds)) | {"RAY_agent_register_timeout_ms": str(1000 * seconds)}
    return {name: value for name, value in wanted.items() if name not in os.environ}


class StartWatch:
    """Looks in the log of a run for Ray's failure to start, line by line, and holds back what Flower writes of it.

    Attributes
    ----------
    failure : str
        Why Ray did not start, in its own words; empty if it did, or if nothing is known yet.
    """

    def __init__(self) -> None:
        self.failure = ""
        self._reason = ""
        self._held: list[str] | None = None
        self._disk_said = False

    def shown(self, line: str, shown: str | None) -> list[str]:
        """Return what to show now, for a plain line and what would be shown of it (None = nothing)."""
        match = FAILURE.match(line)
        if match and self._held is None:
            self._held, self._reason = [], match["reason"]
        if self._held is None:
            disk = DISK.search(line)
            return self._disk(disk) if disk else [] if shown is None else [shown]
        self._held += [] if shown is None else [shown]
        if START in line:
            self.failure = self._reason
        return self.released() if END.match(line) and not self.failure else []

    def released(self) -> list[str]:
        """Return the lines held back, at the end of the log; none if they are about Ray's start."""
        held, self._held = self._held or [], None
        return [] if self.failure else held

    def _disk(self, match: re.Match[str]) -> list[str]:
        """Return one line about a full disk the first time; Ray repeats its own every ten seconds."""
        said, self._disk_said = self._disk_said, True
        full = f"the disk of the temporary folder is over {match['percent']} % full, {match['free']} are free"
        return [] if said else [f"WARNING: {full}: make room, or set TMPDIR; Ray may fail without"]


def attempts(
    run: Callable[[Mapping[str, str]], tuple[str, str]], failure: Callable[[], str], retry: Callable[[str], None]
) -> tuple[str, str]:
    """Do a run, again with more patience if Ray did not start, and return Flower's status of the last try and details.

    Parameters
    ----------
    run
        Does it with these environment variables on a SuperLink of its own.
    failure
        Returns why Ray did not start in the last try, an empty text if it did.
    retry
        Is told, before the next try, what happened and what comes.
    """
    for number, seconds in enumerate(PATIENCE, 1):
        status, details = run(start_settings(seconds))
        reason = failure()
        if not reason:
            return status, details
        if not PASSING.search(reason) or number == len(PATIENCE):
            return status, explained(reason, number)
        retry(f"Ray has not started ({first_sentence(reason)}); trying again, {number + 1} of {len(PATIENCE)}")
    raise AssertionError("PATIENCE is empty")


def explained(reason: str, tries: int) -> str:
    """Return in one line that Ray did not start, why, and what to do.

    >>> explained("[Errno 28] No space left on device: '/tmp/x'", 1)[:75]
    "Ray has not started ([Errno 28] No space left on device: '/tmp/x'): the dis"
    """
    known = next((advice for words, advice in ADVICE.items() if words in reason), "")
    advice = known or (BUSY if PASSING.search(reason) else "--verbose shows what Ray says")
    again = f" in {tries} tries" if tries > 1 else ""
    return f"Ray has not started{again} ({first_sentence(reason)}): {advice}"


def first_sentence(text: str) -> str:
    """Return a text up to its first full stop.

    >>> first_sentence("The current node timed out during startup. This could happen because of 1.5 reasons.")
    'The current node timed out during startup'
    """
    return re.split(r"\.(?:\s|$)", text, maxsplit=1)[0]
