"""Run from its settings to its report: registration, rounds, record. Resuming continues in the same directory."""

import json
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from logging import ERROR
from pathlib import Path
from typing import Any

from flwr.common.logger import log
from flwr.serverapp import Grid

from client_app.acceleration import decided
from client_app.attacks import refuse_attack
from client_app.trainer import pick_device
from server_app.attack_rule import rule_path
from server_app.callbacks.base import Callback, chosen_callbacks
from server_app.callbacks.checkpoints import BestModel, Checkpoints, restore
from server_app.callbacks.records import PrivacySpent, Progress, Records, Withhold
from server_app.evaluation import CentralEvaluation
from server_app.export.manifest import ManifestFile
from server_app.label_audit import audit_labels
from server_app.loop import RunLoop
from server_app.personal_results import make_personal_results
from server_app.preprocessing import Fitted, fit_preprocessing
from server_app.registration import FederationError, register_clients
from server_app.report import ReportError, read_run, results_table, write_page
from server_app.report.text import duration
from server_app.state import RunState
from server_app.storage.resume import how_to_go_on
from server_app.storage.run_directory import RunDirectory, tags_of, timestamp
from server_app.strategy import build_strategy, memory_of
from server_app.transport.client_grid import ClientGrid
from server_app.wrong_labels import wrong_labels_line
from tasks.base import FittedTask
from tasks.client_data import encode_examples, load_task, weights_folder
from tasks.config import DEFAULTS, REPEAT, defaults_of, overlay, to_flat
from tasks.files import WriteError
from tasks.fresh_model import fresh_model, model_digest
from tasks.initial_weights import file_digest
from tasks.protocol import MessageHeader, Mode
from tasks.settings import AUTO, Settings
from tasks.validation_split import monitored

ASKED_TO_END = "the ServerApp was asked to end"
SPEED = "speed"
"""Field of status.json: what ``auto`` stood for when the run began."""
NOT_REPEATED = ("variants", "run.output-dir", "run.resume")


@dataclass(frozen=True)
class Recording:
    """What a run leaves behind.

    Attributes
    ----------
    folder
        The new directory of the run; None = one named by time and label.
    checkpoints
        False leaves out what only a run that goes on later needs, and the best model.
    page
        Whether the report is written and the results are printed.
    callbacks
        What else happens around rounds.
    """

    folder: Path | None = None
    checkpoints: bool = True
    page: bool = True
    callbacks: tuple[Callback, ...] = ()


def run_training(
    grid: Grid,
    settings: Settings,
    mode: Mode,
    label: str = "",
    overrides: str = "{}",
    later_rounds: int = 0,
    recording: Recording = Recording(),
) -> Path:
    """Do one run and return its directory; whatever happens is recorded there first.

    ``overrides`` are the settings (JSON) in which this run differs from the run configuration that the clients see;
    ``later_rounds`` are those of the variants that come after this one.
    """
    directory = open_directory(settings, label, recording.folder)
    print(f"Run directory: {directory.path}", flush=True)
    acting: list[Callback] = []
    try:
        directory.hold_reserve()
        directory.update_status(
            status="running",
            reason="",
            finished=None,
            label=title(settings, label) or "winnow",
            name=settings.run.name,
            tags=tags_of(settings.run.tags),
            note=settings.run.note,
            command=command_line(settings, mode),
            simulation=mode is Mode.SIMULATION,
        )
        acting += callbacks(settings, label, later_rounds, recording)
        reason = _run(grid, settings, mode, directory, overrides, recording, acting)
        directory.finish("completed", reason)
    except BaseException as error:
        if isinstance(error, WriteError):
            error.advice = how_to_go_on(error, directory)
        close(directory, error)
        raise
    finally:
        if recording.page:
            publish(directory)
        for callback in acting:
            callback.on_run_closed(directory)
    return directory.path


def close(directory: RunDirectory, error: BaseException) -> None:
    """Record why the run ended early; where even that cannot be written, the log has to do."""
    ending = "failed" if isinstance(error, Exception) else "stopped"  # Flower stops a ServerApp by SystemExit
    reason = f"{type(error).__name__}: {error}" if ending == "failed" else getattr(error, "reason", ASKED_TO_END)
    try:
        directory.finish(ending, reason)
    except OSError as unwritten:
        log(ERROR, "The run has %s: %s, and its record could not be completed: %s", ending, error, unwritten)


def publish(directory: RunDirectory) -> None:
    """Write the report and print the results; if that fails the run still ends the way it ended, and it is logged."""
    try:
        record = read_run(directory.path)
        path = write_page(record)
        if table := results_table(record):
            print(f"\n{table}\n", flush=True)
        print(f"Report: {path}", flush=True)
    except (OSError, ReportError) as error:
        again = shlex.quote(str(directory.path))
        log(ERROR, "No report for %s: %s (try again: winnow report %s)", directory.path, error, again)


def _run(
    grid: Grid,
    settings: Settings,
    mode: Mode,
    directory: RunDirectory,
    overrides: str,
    recording: Recording,
    acting: Sequence[Callback],
) -> str:
    started = time.monotonic()
    refuse_attack(settings, mode, FederationError)
    encoder = load_task(settings.task).encoder_digest
    device, frozen = pick_device(settings.train.device), known_digest(settings)
    directory.write_versions(str(device), f"{settings.task.encoder} {encoder}".strip(), initial_facts(settings, frozen))
    if mode is Mode.SIMULATION:
        encode_examples(settings.task)
    writes_at_clients = recording.checkpoints or settings.audit.enabled
    header = MessageHeader(
        client=-1,
        num_rounds=settings.num_server_rounds,
        overrides=overrides,
        run_name=directory.path.name,
        # a real node need not know the server's folders
        run_dir=str(directory.path) if mode is Mode.SIMULATION and writes_at_clients else "",
        encoder=encoder,
        frozen=frozen,
        rule=rule_path(settings, mode),
    )
    registration = register_clients(grid, settings.federation, header, mode)
    wrong_labels = wrong_labels_line(settings, mode, registration)
    print(wrong_labels, flush=True)
    fitted = fit_preprocessing(grid, Fitted(settings, registration, header), directory, mode)
    settings, registration, header = fitted.settings, fitted.registration, fitted.header
    settings, header = with_speed(settings, replace(header, frozen=model_digest(settings)), directory, mode)
    evaluation = CentralEvaluation(settings, mode)
    strategy = build_strategy(
        settings, registration, evaluation.buffers(), mode, directory.path, evaluation.extra_arrays()
    )
    arrays, extras = evaluation.initial_arrays(), evaluation.initial_extras()
    state = RunState(settings, directory, registration, strategy, arrays, mode, evaluation.frozen(), extras)
    if settings.run.resume:
        restore(state)
        print(f"Resuming after round {state.server_round}", flush=True)
    wire, buffers = settings.federation.wire, evaluation.buffers()
    memory = memory_of(settings.federation)
    clients = ClientGrid(grid, registration.nodes(), header, mode, wire, exact=buffers, memory=memory)
    loop = RunLoop(state, clients, evaluation, acting)
    took = time.monotonic() - started
    directory.update_status(
        start_seconds=round(took, 3),
        test_examples=evaluation.test_examples,
        model=evaluation.model_in_words(),
        wrong_labels=wrong_labels,
    )
    print(f"{len(registration.clients)} clients are ready after {duration(took)}", flush=True)
    reason = loop.run()
    audit_labels(state, clients)
    make_personal_results(state, clients)
    return reason


def with_speed(
    settings: Settings, header: MessageHeader, directory: RunDirectory, mode: Mode
) -> tuple[Settings, MessageHeader]:
    """Return settings and header with what ``auto`` stands for in train.precision and train.engine; it is recorded.

    All clients get the same, and a resumed run what it was started with.
    """
    keys = [key for key in ("precision", "engine") if getattr(settings.train, key) == AUTO]
    if not keys:
        return settings, header
    chosen: dict[str, str] = directory.status().get(SPEED, {})
    if not set(keys) <= chosen.keys():
        task, device = load_task(settings.task), pick_device(settings.train.device)
        train = decided(settings.train, task, fresh_model(settings), device, mode)
        chosen = {key: getattr(train, key) for key in keys}
        directory.update_status(**{SPEED: chosen})
    for key in keys:
        directory.add_version(f"train.{key}", f"{chosen[key]}, chosen by auto")
    overrides = {**header.changes(), **{f"train.{key}": chosen[key] for key in keys}}
    train = replace(settings.train, **chosen)  # type: ignore[arg-type]
    return replace(settings, train=train), replace(header, overrides=json.dumps(overrides))


def known_digest(settings: Settings) -> str:
    """Return the digest of all that is frozen; empty where the model depends on statistics that clients have to say."""
    return "" if isinstance(load_task(settings.task), FittedTask) else model_digest(settings)


def initial_facts(settings: Settings, frozen: str) -> dict[str, str]:
    """Return where the weights come from that a run starts from, and what is frozen, with digests; for its record."""
    model, facts = settings.model, dict[str, str]()
    if model.init:
        facts["model.init"] = f"{model.init} {file_digest(model, weights_folder(settings.task))}"
    if model.freeze:
        facts["model.freeze"] = f"{model.freeze} {frozen}".strip()
    return facts


def callbacks(settings: Settings, label: str, later_rounds: int, recording: Recording) -> list[Callback]:
    """Return the callbacks of a run, in the order in which they act after a round."""
    kept = [Checkpoints(settings.run.checkpoint_every), ManifestFile()] if recording.checkpoints else []
    private: list[Callback] = [PrivacySpent()] if settings.privacy.mode != "none" else []
    withheld: list[Callback] = [Withhold()] if settings.evaluate.report == "none" else []
    return [
        *private,
        BestModel(monitored(settings.run.monitor), settings.run.early_stopping),
        *withheld,
        Records(),
        *kept,  # after the records: a resumed run drops lines without a checkpoint
        Progress(label, later_rounds),
        *chosen_callbacks(settings.run.callbacks),  # last: when one of them fails, the round is written down
        *recording.callbacks,
    ]


def open_directory(settings: Settings, label: str, folder: Path | None = None) -> RunDirectory:
    """Return a new run directory, at ``folder`` if that is given, or the one to resume, which the check accepted."""
    if not settings.run.resume:
        root = Path(settings.run.output_dir or "runs")
        directory = RunDirectory.create(root, title(settings, label), settings, folder)
        directory.claim()
        directory.update_status(started=timestamp(), rounds_done=0, best_round=None)
        return directory
    directory = RunDirectory(Path(settings.run.resume))
    directory.claim()
    directory.write_config(settings)
    return directory


def title(settings: Settings, variant: str) -> str:
    """Return what a run is called: its name and that of its variant, as far as there are any."""
    return "-".join(part for part in (settings.run.name, variant) if part)


def command_line(settings: Settings, mode: Mode) -> str:
    """Return the command that repeats a run: the one that made it, with every setting that differs from its default.

    Of a run that was submitted from elsewhere, the ServerApp knows only whether the clients are simulated.
    """
    flat = {key: value for key, value in to_flat(settings).items() if key not in NOT_REPEATED}
    defaults = defaults_of(flat)
    changed = {key: value for key, value in flat.items() if value != defaults[key]}
    repeated = overlay(DEFAULTS, changed)
    words = []
    for key, value in changed.items():
        if repeated[key] != value:  # these arguments lack one that is there by default, so it is cleared first
            words.append(_argument(key, ""))
        words.append(_argument(key, value))
    submit = f"{os.environ.get('WINNOW_COMMAND', 'winnow federation')} submit"
    command = os.environ.get(REPEAT, "winnow run" if mode is Mode.SIMULATION else submit)
    return " ".join([command, *words])


def _argument(key: str, value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return shlex.quote(f"{key}={text}")
