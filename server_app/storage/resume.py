"""Resume of a run: which settings must be the same as before, and how to go on after a failed write."""

import shlex
import tomllib
from errno import EDQUOT, EFBIG, ENOSPC
from pathlib import Path

from server_app.storage.checkpoints import CheckpointFolder
from server_app.storage.run_directory import CONFIG, RunDirectory
from tasks.config import flatten, to_flat
from tasks.files import WriteError
from tasks.issues import ERROR, Issue
from tasks.settings import Settings

# A resumed run may change these and still be the same run.
FREE = (
    "num-server-rounds",
    "variants",
    "run.output-dir",
    "run.resume",
    "run.checkpoint-every",
    "run.early-stopping",
    "run.callbacks",
    "audit.enabled",
    "audit.format",
    "federation.round-timeout",
    "federation.wait-for-clients",
    "federation.client-cpus",
    "federation.client-gpus",
    "task.data-path",
    "task.cache-path",
    "train.device",
    "train.threads",
)


def resume_issues(settings: Settings) -> list[Issue]:
    """Return why ``run.resume`` cannot be continued under these settings; empty if it can, or is not asked for."""
    if not settings.run.resume:
        return []
    path = Path(settings.run.resume) / CONFIG
    try:
        saved = flatten(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        text = f"run.resume = {settings.run.resume!r}: expected a run directory, but {path}: {error}"
        return [Issue(ERROR, "run.resume", text)]
    now = to_flat(settings)
    changed = [key for key in now if key not in FREE and now[key] != saved.get(key)]
    started = "but the run to resume was started with"
    issues = [
        Issue(ERROR, key, f"{key} = {now[key]!r}, {started} {saved.get(key)!r}; a resumed run keeps it")
        for key in changed
    ]
    horizon_moves = settings.train.schedule == "cosine" and not settings.train.schedule_rounds
    if horizon_moves and saved.get("num-server-rounds") != settings.num_server_rounds:
        text = (
            "num-server-rounds: the cosine schedule ends with the last round, so another number of rounds "
            "is another run"
        )
        issues.append(
            Issue(ERROR, "num-server-rounds", text, "start with train.schedule-rounds set to be able to go on")
        )
    return issues


def how_to_go_on(error: WriteError, directory: RunDirectory) -> str:
    """Return what to do after a run's file could not be written."""
    repair = "free space" if error.errno in (ENOSPC, EDQUOT, EFBIG) else "put that right"
    if CheckpointFolder(directory.path).holds_any():
        return f"{repair}, then go on with {shlex.quote(f'run.resume={directory.path}')}"
    return f"{repair}, then start again: there is no checkpoint yet"
