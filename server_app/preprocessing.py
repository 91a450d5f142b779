"""Preprocessing by statistics of all clients' examples: asked and merged before the first round, kept with the models.

Clients get the merged statistics with every message, as the setting ``task.statistics``. A resumed run takes those that
it was started with.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from logging import WARNING
from typing import Any

from flwr.app import ConfigRecord, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from server_app.registration import FederationError, Registration
from server_app.storage.checkpoints import CheckpointError, CheckpointFolder
from server_app.storage.run_directory import RunDirectory
from server_app.transport.client_grid import ClientGrid
from strategies.query import query
from tasks.base import FittedTask
from tasks.client_data import load_task
from tasks.files import replace_file
from tasks.protocol import MessageHeader, Mode
from tasks.settings import Settings

QUERY = "query.statistics"
FILE = "preprocessing.json"
"""Beside the checkpoints: a model means nothing without what its inputs are made by."""


@dataclass(frozen=True)
class Fitted:
    """What a run goes on with once statistics are known: settings, registered clients, and header of its messages."""

    settings: Settings
    registration: Registration
    header: MessageHeader


def fit_preprocessing(grid: Grid, found: Fitted, directory: RunDirectory, mode: Mode) -> Fitted:
    """Let the clients of a run say what its task must know of all their examples, if it must; write it down.

    A client whose answer cannot be used takes no part in the run.

    Raises
    ------
    FederationError
        If fewer clients are left than the run needs.
    CheckpointError
        If the run is resumed and what was written down is not there.
    """
    task = load_task(found.settings.task)
    if not isinstance(task, FittedTask):
        return found
    if found.settings.run.resume:
        fitted = _as_before(found, directory)
    else:
        fitted = found if task.statistics else _asked(grid, task, found, mode)
        _write(fitted, directory)
    task = load_task(fitted.settings.task)
    assert isinstance(task, FittedTask)
    directory.add_version("preprocessing", task.outline())
    return fitted


def with_statistics(settings: Settings, statistics: str) -> Settings:
    """Return the settings with merged statistics of the clients' examples."""
    return replace(settings, task=replace(settings.task, statistics=statistics))


def _asked(grid: Grid, task: FittedTask, found: Fitted, mode: Mode) -> Fitted:
    registration, timeout = found.registration, found.settings.federation.round_timeout
    examples = registration.examples()

    def read(client: int, metrics: MetricRecord) -> Any:
        return task.read_summary(metrics, examples[client])

    clients = ClientGrid(grid, registration.nodes(), found.header, mode)
    content = RecordDict({"config": ConfigRecord()})
    silence = f"no answer within {timeout:g} s"
    answers = query(clients, examples, QUERY, content, read, timeout=timeout, silence=silence, failure="{reason}")
    _check_enough(found, set(answers.found), answers.problems)
    merged = task.merge(answers.found)
    left = _check_enough(found, set(answers.found) - merged.problems.keys(), {**answers.problems, **merged.problems})
    for note in merged.notes:
        log(WARNING, "%s", note)
    return _with(found, merged.statistics, left)


def _check_enough(found: Fitted, left: set[int], problems: Mapping[int, str]) -> Registration:
    """Return the registration of the clients that are left, and log why the others are not.

    Raises
    ------
    FederationError
        If they are fewer than the run needs.
    """
    needed = found.settings.federation.min_replies
    if len(left) < needed:
        reasons = "\n".join(f"  - client {client}: {reason}" for client, reason in sorted(problems.items())[:5])
        raise FederationError(
            f"{len(left)} clients have said what the preprocessing must know of their examples, "
            f"federation.min-replies = {needed} are needed:\n{reasons}"
        )
    for client, reason in sorted(problems.items()):
        log(WARNING, "Left out: client %d, whose statistics cannot be used: %s", client, reason)
    return Registration(tuple(entry for entry in found.registration.clients if entry.client in left))


def _with(found: Fitted, statistics: str, registration: Registration) -> Fitted:
    overrides = {**found.header.changes(), "task.statistics": statistics}
    header = replace(found.header, overrides=json.dumps(overrides))
    return Fitted(with_statistics(found.settings, statistics), registration, header)


def _write(fitted: Fitted, directory: RunDirectory) -> None:
    """Write the statistics, and which clients they are of, beside the checkpoints."""
    path = CheckpointFolder(directory.path).path / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    clients = [entry.client for entry in fitted.registration.clients]
    content = {**json.loads(fitted.settings.task.statistics), "clients": clients}
    replace_file(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def _as_before(found: Fitted, directory: RunDirectory) -> Fitted:
    """Return what the run to resume was started with; a client that took no part then does not now either."""
    path = CheckpointFolder(directory.path).path / FILE
    try:
        content = json.loads(path.read_bytes())
        clients, statistics = set(content.pop("clients")), json.dumps(content, ensure_ascii=False)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise CheckpointError(f"{path}, by which the run made its inputs, cannot be read: {error}") from error
    if found.settings.task.statistics:
        return found
    left = {entry.client for entry in found.registration.clients} & clients
    return _with(found, statistics, _check_enough(found, left, {}))
