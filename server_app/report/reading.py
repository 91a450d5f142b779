"""Run directories read back: settings, versions, how the run ended, its rounds and its clients.

A run may end at any moment, so every file may be missing or empty, and a crash may have cut off the last line of a
.jsonl file. What is broken in any other way is an error that names the file and the line. Where a round occurs twice,
the later line counts: a resumed run does a round again.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from server_app.report.files import ReportError, as_count, as_number, as_text, read_config, read_json, read_lines
from server_app.storage.audit_scores import SCORES, Scores, read_scores
from server_app.storage.class_files import BEST, LAST, ClassTable, read_classes
from server_app.storage.doubted_labels import DOUBTS, Doubt, read_doubts
from server_app.storage.run_directory import CLIENTS, CONFIG, METRICS, STATUS, VERSIONS
from tasks.config import DEFAULTS
from tasks.validation_split import VALIDATION

LOWER_IS_BETTER = ("loss", "calibration-error", "backdoor-success")
ONLY_MEASURED = {"round", "client", "measured"}  # of a client that did not train in a round
FILES = (STATUS, CONFIG, VERSIONS, METRICS, CLIENTS)


def _read_audit(path: Path) -> Scores:
    """Read the scores of a run's label audits.

    Raises
    ------
    ReportError
        If the file holds something else.
    """
    content = read_json(path)
    try:
        return read_scores(content) if content else Scores(())
    except (KeyError, TypeError) as error:
        raise ReportError(f"{path} does not hold the scores of label audits: {error}; delete or restore it") from error


def _read_doubts(path: Path) -> tuple[Doubt, ...]:
    """Read the examples of doubted labels.

    Raises
    ------
    ReportError
        If the file holds something else.
    """
    try:
        return read_doubts(read_json(path / DOUBTS))
    except (KeyError, TypeError, ValueError) as error:
        raise ReportError(f"{path / DOUBTS} does not hold doubted labels: {error}; delete or restore it") from error


def _read_classes(path: Path, model: str) -> ClassTable | None:
    """Read the tables of classes of a model.

    Raises
    ------
    ReportError
        If they hold something else.
    """
    try:
        return read_classes(path, model)
    except ValueError as error:
        raise ReportError(str(error)) from error


@dataclass(frozen=True)
class Round:
    """One line of metrics.jsonl: ``values`` holds every measure that was recorded and is finite, by its name."""

    number: int
    skipped: bool
    values: Mapping[str, float]


@dataclass(frozen=True)
class RegisteredClient:
    """One participant: its number of examples, the share of its labels that are wrong and its count per class.

    Both of the latter are known in a simulation only. ``attacker`` tells whether it is hostile, None without an attack.
    ``same_data`` are the clients with exactly the same data, this one among them, if there are others. ``name`` is what
    a site wants to be called.
    """

    client: int
    examples: int | None
    noise_rate: float | None
    class_counts: tuple[int, ...] | None
    attacker: bool | None = None
    same_data: tuple[int, ...] = ()
    name: str = ""


@dataclass(frozen=True)
class ClientRound:
    """What became of one client in one round; ``quarantine`` is why its reply was set aside, empty if it was not.

    ``role`` is what the strategy took it for (clean, noisy or unknown), and ``posterior`` the probability that it is
    noisy; empty and None under a strategy without roles.
    """

    round: int
    client: int
    examples: int | None
    weight: float | None
    distance: float | None
    quarantine: str
    train_loss: float | None
    role: str = ""
    posterior: float | None = None
    noise_level: float | None = None


@dataclass(frozen=True)
class RunRecord:
    """Everything a run directory says, in order of rounds and client ids. Round 0 is the initial model.

    ``best_round`` is the one whose model is best on validation data; None if there was none, also of a run from before
    there was any, whose best model was chosen on test data. ``measured`` is by (round, client) what a site measured on
    its own examples, of those that agree; ``audits`` how many real sites have made a label audit. ``tested`` is the
    number of test examples, ``labels_in_words`` which labels were made wrong on purpose, ``model_in_words`` what model
    ``auto`` stood for, and ``doubts`` some labels that the audits of a simulation doubt.
    """

    path: Path
    label: str
    status: str
    reason: str
    started: str
    finished: str
    rounds_done: int
    best_round: int | None
    command: str
    simulation: bool | None
    config: Mapping[str, Any]
    versions: Mapping[str, str]
    rounds: tuple[Round, ...]
    registration: tuple[RegisteredClient, ...]
    client_rounds: tuple[ClientRound, ...]
    audit: Scores
    last_classes: ClassTable | None = None
    best_classes: ClassTable | None = None
    start_seconds: float | None = None
    tags: tuple[str, ...] = ()
    note: str = ""
    measured: Mapping[tuple[int, int], Mapping[str, float]] = field(default_factory=dict)
    audits: int | None = None
    tested: int | None = None
    labels_in_words: str = ""
    model_in_words: str = ""
    doubts: tuple[Doubt, ...] = ()

    @property
    def planned_rounds(self) -> int | None:
        """Number of rounds that the settings ask for."""
        return as_count(self.config.get("num-server-rounds"))

    def series(self, name: str) -> list[tuple[int, float]]:
        """Return (round, value) of every round in which the measure ``name`` was recorded."""
        return [(entry.number, entry.values[name]) for entry in self.rounds if name in entry.values]

    def final(self, name: str) -> float | None:
        """Return the last recorded value of a measure."""
        series = self.series(name)
        return series[-1][1] if series else None

    def at_best(self, name: str) -> float | None:
        """Return a measure after the round that is best on validation data; None if there is none or it is missing."""
        return dict(self.series(name)).get(self.best_round) if self.best_round is not None else None

    def total(self, name: str) -> float:
        """Return the sum of a measure over the rounds, 0 if it was never recorded."""
        return math.fsum(value for _, value in self.series(name))

    def usual_seconds(self) -> float | None:
        """Return the median time of a round from round 1 on, on which the warm-up of the first has no influence."""
        times = [seconds for number, seconds in self.series("seconds") if number]
        return median(times) if times else None


def lower_is_better(name: str) -> bool:
    """Tell whether a measure, at the server or at the clients, is one of which less is better.

    >>> lower_is_better("loss"), lower_is_better("clients_loss"), lower_is_better("accuracy")
    (True, True, False)
    """
    return name.removeprefix("clients_").removeprefix(VALIDATION).replace("_", "-") in LOWER_IS_BETTER


def read_run(run_dir: str | Path) -> RunRecord:
    """Read a run directory.

    Raises
    ------
    ReportError
        If there is no such directory, it holds none of a run's files, or one of them is broken or cannot be read.
    """
    path = Path(run_dir).absolute()
    try:
        return _read(path)
    except OSError as error:
        raise ReportError(f"{path}: cannot read {error.filename or 'it'}: {error.strerror}") from error


def _read(path: Path) -> RunRecord:
    config, status = read_config(path), read_json(path / STATUS)
    others = config and not status and not config.keys() & DEFAULTS.keys()
    if others or not any((path / name).is_file() for name in FILES):
        raise ReportError(f"{path} is not a run directory: expected a folder with {', '.join(FILES)}")
    simulation = status.get("simulation")
    rounds = {line["round"]: _round(line) for line in read_lines(path / METRICS, "round")}
    withheld = config.get("evaluate.report") == "none"  # then there may be a best round without a value
    validated = withheld or any(name.startswith(VALIDATION) for entry in rounds.values() for name in entry.values)
    clients = read_lines(path / CLIENTS, "round", "client")
    registration = {line["client"]: _registered_client(line) for line in clients if line["round"] == 0}
    asked = {(line["round"], line["client"]): line for line in clients if line["round"] > 0}
    trained = {key: _client_round(line) for key, line in asked.items() if line.keys() != ONLY_MEASURED}
    last_classes = _read_classes(path, LAST)
    counted = sum(row.support for row in last_classes.rows) if last_classes else None
    return RunRecord(
        path=path,
        label=as_text(status.get("label")) or path.name,
        status=as_text(status.get("status")) or "unknown",
        reason=as_text(status.get("reason")),
        started=as_text(status.get("started")),
        finished=as_text(status.get("finished")),
        rounds_done=max([as_count(status.get("rounds_done")) or 0, *rounds]),
        best_round=as_count(status.get("best_round")) if validated else None,
        command=as_text(status.get("command")),
        simulation=simulation if isinstance(simulation, bool) else None,
        config=config,
        versions={key: as_text(value) for key, value in read_json(path / VERSIONS).items()},
        rounds=tuple(rounds[number] for number in sorted(rounds)),
        registration=tuple(registration[client] for client in sorted(registration)),
        client_rounds=tuple(trained[key] for key in sorted(trained)),
        audit=_read_audit(path / SCORES),
        last_classes=last_classes,
        best_classes=_read_classes(path, BEST) if validated else None,
        start_seconds=as_number(status.get("start_seconds")),
        tags=tuple(map(as_text, tags)) if isinstance(tags := status.get("tags"), list) else (),
        note=as_text(status.get("note")),
        measured={key: _numbers(line["measured"]) for key, line in asked.items() if "measured" in line},
        audits=as_count(status.get("audits")),
        tested=as_count(status.get("test_examples")) or counted,
        model_in_words=as_text(status.get("model")),
        labels_in_words=as_text(status.get("wrong_labels")),
        doubts=_read_doubts(path),
    )


def _round(line: dict[str, Any]) -> Round:
    numbers = _numbers({key: value for key, value in line.items() if key not in ("round", "skipped")})
    return Round(line["round"], bool(line.get("skipped")), numbers)


def _numbers(values: Any) -> dict[str, float]:
    """Return those of named values that are finite numbers."""
    numbers = {key: as_number(value) for key, value in values.items()} if isinstance(values, dict) else {}
    return {key: value for key, value in numbers.items() if value is not None}


def _registered_client(line: dict[str, Any]) -> RegisteredClient:
    counts = line.get("classes")
    class_counts = tuple(as_count(count) or 0 for count in counts) if isinstance(counts, list) else None
    attacker, twins = line.get("attacker"), line.get("same_data")
    return RegisteredClient(
        client=line["client"],
        examples=as_count(line.get("examples")),
        noise_rate=as_number(line.get("noise_rate")),
        class_counts=class_counts,
        attacker=attacker if isinstance(attacker, bool) else None,
        same_data=tuple(as_count(client) or 0 for client in twins) if isinstance(twins, list) else (),
        name=as_text(line.get("name")),
    )


def _client_round(line: dict[str, Any]) -> ClientRound:
    return ClientRound(
        round=line["round"],
        client=line["client"],
        examples=as_count(line.get("examples")),
        weight=as_number(line.get("weight")),
        distance=as_number(line.get("distance")),
        quarantine=as_text(line.get("quarantine")),
        train_loss=as_number(line.get("train_loss")),
        role=as_text(line.get("role")),
        posterior=as_number(line.get("posterior")),
        noise_level=as_number(line.get("noise_level")),
    )
