"""Resume of a run: which settings must be the same as before, and how to go on after a failed write."""

import json
import shlex
import tomllib
from errno import EDQUOT, EFBIG, ENOSPC
from pathlib import Path

from server_app.storage.checkpoints import CheckpointError, CheckpointFolder
from server_app.storage.run_directory import CONFIG, VERSIONS, RunDirectory
from tasks.config import DEFAULTS, flatten, to_flat
from tasks.files import WriteError
from tasks.issues import ERROR, WARNING, Issue
from tasks.settings import OLDER_RUNS, Settings

# A resumed run may change these and still be the same run.
FREE = (
    "num-server-rounds",
    "variants",
    "run.name",
    "run.tags",
    "run.note",
    "run.output-dir",
    "run.resume",
    "run.checkpoint-every",
    "run.early-stopping",
    "run.callbacks",
    "audit.enabled",
    "audit.format",
    "audit.embeddings",
    "federation.round-timeout",
    "federation.wait-for-clients",
    "federation.client-cpus",
    "federation.client-gpus",
    "task.data-path",
    "task.weights-path",
    "task.cache-path",
    "train.device",
    "train.threads",
    "train.cohort",
)


def resume_issues(settings: Settings) -> list[Issue]:
    """Return why ``run.resume`` cannot be continued under these settings, and whether there is anything left to do.

    Empty if the run is not to be resumed. A setting that the run did not know yet counts as what it did without.
    """
    if not settings.run.resume:
        return []
    path = Path(settings.run.resume) / CONFIG
    try:
        saved = flatten(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        text = f"run.resume = {settings.run.resume!r}: expected a run directory, but {path}: {error}"
        return [Issue(ERROR, "run.resume", text)]
    now, then = to_flat(settings), DEFAULTS | OLDER_RUNS | saved
    changed = [key for key in now if key not in FREE and now[key] != then[key]]
    started = "but the run to resume was started with"
    issues = [
        Issue(ERROR, key, f"{key} = {now[key]!r}, {started} {then[key]!r}; a resumed run keeps it") for key in changed
    ]
    issues += [_gone(key, saved[key], path) for key in saved if key not in now]
    horizon_moves = settings.train.schedule == "cosine" and not settings.train.schedule_rounds
    if horizon_moves and then["num-server-rounds"] != settings.num_server_rounds:
        text = (
            "num-server-rounds: the cosine schedule ends with the last round, so another number of rounds "
            "is another run"
        )
        issues.append(
            Issue(ERROR, "num-server-rounds", text, "start with train.schedule-rounds set to be able to go on")
        )
    return issues + _rounds_issues(settings.num_server_rounds, path.parent)


def _gone(key: str, value: object, path: Path) -> Issue:
    """Return that a setting of the run to resume is none any more."""
    text = f"{key} = {value!r}: the run to resume was started with this setting, which this version does not have"
    remedy = f"go on with the version that started it ({VERSIONS}), or take it out of {path} to go on without it"
    return Issue(ERROR, key, text, remedy)


def _rounds_issues(wanted: int, run: Path) -> list[Issue]:
    """Return that the run to resume has no checkpoint, or has played as many rounds as are wanted, or more."""
    try:
        kept = int(CheckpointFolder(run).newest()[0].progress["server_round"])
        played = max(kept, int(RunDirectory(run).status().get("rounds_done") or 0))
    except (CheckpointError, json.JSONDecodeError) as error:
        return [Issue(ERROR, "run.resume", f"run.resume = {str(run)!r}: {error}")]
    text = f"num-server-rounds = {wanted}: the run to resume has played {played} rounds already"
    if wanted < played:
        return [Issue(ERROR, "num-server-rounds", text, f"take at least {played}, or start a new run")]
    if wanted == kept:
        nothing = "nothing is left to do but the label audit and the report; to train on, take a larger number"
        return [Issue(WARNING, "num-server-rounds", text, nothing)]
    return []


def how_to_go_on(error: WriteError, directory: RunDirectory) -> str:
    """Return what to do after a run's file could not be written."""
    repair = "free space" if error.errno in (ENOSPC, EDQUOT, EFBIG) else "put that right"
    if CheckpointFolder(directory.path).holds_any():
        return f"{repair}, then go on with {shlex.quote(f'run.resume={directory.path}')}"
    return f"{repair}, then start again: there is no checkpoint yet"
