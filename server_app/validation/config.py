"""Configuration checks before any client starts: every error at once, and what is odd but allowed."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from client_app import losses
from client_app.attacks import configured_attack
from client_app.label_audit_files import format_problem
from client_app.methods import METHODS
from client_app.personal.checks import personal_issues, tuning_issues
from client_app.trainer import pick_device
from server_app.callbacks import chosen_callbacks
from server_app.callbacks.checkpoints import unsaved_issues
from server_app.privacy import model_issues, privacy_issues
from server_app.storage.resume import resume_issues
from server_app.strategy import build_strategy, sampled
from server_app.validation.compatibility import (
    Parts,
    compatibility_issues,
    in_context,
    unused_on_nodes,
    validation_issues,
)
from server_app.validation.dry_run import check_data, check_test_data, declared_task, dry_run_issues
from server_app.validation.model import feature_issues, one_example_issues, weights_issues
from strategies.aggregators import AGGREGATORS, build_pre_aggregators
from strategies.server_optimizers import build_server_optimizer
from tasks.arguments import merge_args
from tasks.base import Task
from tasks.client_data import client_dataset, client_parts, federated_noise, server_places
from tasks.config import (
    DEFAULTS,
    OWNERS,
    ConfigError,
    each_once,
    read,
    to_flat,
    variant_config,
    variants,
    without_effect,
)
from tasks.fresh_model import built_model, fresh_model, initial_model
from tasks.issues import ERROR, WARNING, Issue, RunContext
from tasks.noise import NoiseWarning, rate_issues, unasked_issues
from tasks.partition import PARTITIONS
from tasks.plugins import explain
from tasks.protocol import Mode
from tasks.setting_values import Value
from tasks.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True)
class Validated:
    """A configuration without errors: the settings of each variant by name, and the warnings."""

    settings: dict[str, Settings]
    warnings: list[Issue]


def validate(flat: Mapping[str, Value], mode: Mode = Mode.SIMULATION, trials: bool = True) -> Validated:
    """Return the settings of every variant, after building every part of each once.

    Parameters
    ----------
    mode
        Where the clients are; a server of real nodes with data of their own has none to divide.
    trials
        False leaves out what takes long: to divide the data, and to try the user's own parts.

    Raises
    ------
    ConfigError
        With every error of any variant: keys, types, ranges, names, arguments, missing data, parts that do not fit.
    """
    overrides, settings, found = variants(flat), dict[str, Settings](), dict[str, list[Issue]]()
    for name, changes in overrides.items():
        settings[name], errors = read(variant_config(flat, changes))
        found[name] = errors + issues(settings[name], mode, trials)
    said = each_once(found)
    if len(overrides) > 1 and flat.get("run.resume"):
        said.append(Issue(ERROR, "run.resume", "run.resume continues one run: leave out variants"))
    if errors := [issue for issue in said if issue.level == ERROR]:
        raise ConfigError(errors)
    return Validated(settings, [issue for issue in said if issue.level == WARNING])


def check_variants(flat: Mapping[str, Value], mode: Mode = Mode.SIMULATION) -> dict[str, Settings]:
    """Return the settings of every variant by name; see :func:`validate`.

    Raises
    ------
    ConfigError
        With the errors of all variants.
    """
    return validate(flat, mode).settings


def check(flat: Mapping[str, Value], mode: Mode = Mode.SIMULATION) -> Settings:
    """Return the settings of a configuration without variants; see :func:`validate`.

    Raises
    ------
    ConfigError
        With every error found.
    """
    (settings,) = check_variants(variant_config(flat, {}), mode).values()
    return settings


def issues(settings: Settings, mode: Mode = Mode.SIMULATION, trials: bool = True) -> list[Issue]:
    """Return all that is wrong or odd about the settings of one variant; see :func:`validate`."""
    found = [*_run_issues(settings), *resume_issues(settings), *without_effect(settings), *privacy_issues(settings)]
    attempts = Attempts()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoiseWarning)  # said once, as an issue
        parts = build_parts(settings, attempts)
        run = RunContext(settings, sampled(settings.federation), mode)
        context = attempts.build("task", lambda: in_context(run, parts))
        if context is not None:
            attempts.take("parts", lambda: compatibility_issues(context, parts))
        sites_own_data = parts.task is not None and parts.task.brings_own_data and mode is Mode.DEPLOYMENT
        if context is not None and parts.task is not None:
            attempts.issues += validation_issues(context, sites_own_data) + personal_issues(context)
        if parts.task is not None and sites_own_data:
            _check_server_of_nodes(parts.task, settings, attempts)
        elif parts.task is not None:
            _check_simulation(parts.task, settings, attempts, trials)
    return list(dict.fromkeys(found + attempts.issues))


class Attempts:
    """Builds and tries the parts of a run: what one of them raises becomes an error and hides no other.

    ``issues`` are those found so far.
    """

    def __init__(self) -> None:
        self.issues: list[Issue] = []

    def build(self, part: str, build: Callable[[], T]) -> T | None:
        """Return what ``build`` returns, or None after an error."""
        try:
            return build()
        except Exception as error:  # a plug-in may raise anything
            self.issues.append(Issue(ERROR, part, f"{part}: {explain(error)}"))
            return None

    def succeeds(self, part: str, act: Callable[[], object]) -> bool:
        """Tell whether ``act`` raises nothing."""
        before = len(self.issues)
        self.build(part, act)
        return len(self.issues) == before

    def take(self, part: str, judge: Callable[[], list[Issue]]) -> None:
        """Add the issues that ``judge`` returns."""
        self.issues += self.build(part, judge) or []

    def failed(self) -> bool:
        """Tell whether there is an error so far."""
        return any(issue.level == ERROR for issue in self.issues)


def _run_issues(settings: Settings) -> list[Issue]:
    """Return what is missing whatever the parts are: clients, and packages of extras."""
    training, least = sampled(settings.federation), settings.federation.min_replies
    text = f"federation.min-replies = {least}: at most the number of clients that train in a round, {training}"
    found = [Issue(ERROR, "federation.min-replies", text)] if least > training else []
    if problem := format_problem(settings.audit.format):
        found.append(Issue(ERROR, "audit.format", problem))
    return found


def build_parts(settings: Settings, attempts: Attempts) -> Parts:
    """Build every part of a run once."""
    method, strategy, loss = settings.method, settings.strategy, settings.loss
    attempts.build("run.callbacks", lambda: chosen_callbacks(settings.run.callbacks))
    attempts.build("train.device", lambda: pick_device(settings.train.device))
    parts = Parts(
        method=attempts.build("method", lambda: METHODS.build(method.name, method.args)),
        aggregator=attempts.build("strategy", lambda: AGGREGATORS.build(strategy.aggregator, strategy.aggregator_args)),
        server_optimizer=attempts.build(
            "strategy", lambda: build_server_optimizer(strategy.server_optimizer, strategy.server_optimizer_args)
        ),
        attack=attempts.build("attack", lambda: configured_attack(settings.attack)),
        task=attempts.build("task", lambda: declared_task(settings.task)),
    )
    attempts.build("strategy", lambda: build_pre_aggregators(strategy.pre_aggregators))
    parts.strategy = attempts.build("strategy", lambda: build_strategy(settings))
    if parts.strategy is not None:
        attempts.take("strategy", lambda: unsaved_issues(settings.strategy.name, build_strategy(settings)))
    attempts.take("noise", lambda: rate_issues(settings.noise))
    task = parts.task
    if task is not None:
        attempts.take("model", lambda: _model_issues(settings) + tuning_issues(settings, fresh_model(settings), task))
        if wanted_by := _needs_features(settings, parts):
            attempts.take("model", lambda: feature_issues(task, fresh_model(settings), wanted_by))
        counts = [1] * task.num_classes
        build = lambda: losses.build(loss.name, task.num_classes, loss.args, loss.preset, counts)
        parts.loss = attempts.build("loss", build)
    return parts


def _needs_features(settings: Settings, parts: Parts) -> str:
    """Return which setting or method looks at what the last layer is given, empty if none does."""
    if settings.train.decorrelation:
        return "train.decorrelation"
    needs = parts.method is not None and parts.method.needs_features
    return f"method {settings.method.name}" if needs else ""


def _check_server_of_nodes(task: Task, settings: Settings, attempts: Attempts) -> None:
    """Check all that such a server has, its test data; whatever simulates data is without effect."""
    attempts.build("task", lambda: check_test_data(task.raw))
    attempts.issues += unused_on_nodes(settings)


def _check_simulation(task: Task, settings: Settings, attempts: Attempts, trials: bool) -> None:
    """Check noise, data and partition; without an error until then try the user's own parts."""
    noise = federated_noise(settings)
    part, chosen = f"partition{_stale_args(settings, 'partition.args')}", settings.partition
    partition = attempts.succeeds(part, lambda: PARTITIONS.build(chosen.name, chosen.args))
    rates_fit = attempts.succeeds(f"noise.rates{_stale_args(settings, 'noise.rates-args')}", noise.rates)
    if partition and rates_fit:
        attempts.issues += _dropped_args(settings)
    if rates_fit:
        attempts.take("noise", noise.issues)
    if task.keeps_labels:
        attempts.issues += unasked_issues(settings.noise)
    there = attempts.succeeds("task", task.check)
    if trials:
        ready = there and attempts.succeeds("task", lambda: check_data(settings.task)) and partition
        spared = ready and attempts.succeeds("evaluate.validation", lambda: server_places(settings))
        divided = spared and attempts.succeeds("partition", lambda: client_parts(settings))
        if divided and rates_fit and not settings.task.encoder:  # whose examples are encoded when the run is to start
            attempts.build("noise", lambda: client_dataset(settings, 0))
        if not attempts.failed():
            attempts.issues += dry_run_issues(settings)
        if not attempts.failed():
            attempts.take("model", lambda: _one_example_issues(task, settings))
    if not attempts.failed():
        attempts.take("task", task.data_issues)


def _model_issues(settings: Settings) -> list[Issue]:
    model = built_model(settings)
    if found := weights_issues(model) or model_issues(settings, model):
        return found
    initial_model(settings)  # whose weights may be those of another network
    return []


def _one_example_issues(task: Task, settings: Settings) -> list[Issue]:
    sizes = [len(part) for part in client_parts(settings)]
    return one_example_issues(task, fresh_model(settings), settings.train, sizes)


def _stale_args(settings: Settings, key: str) -> str:
    """Return a hint if a component was changed but not its arguments, which still belong to the default one.

    Only Flower's own ``flwr run`` leaves them so: it knows nothing of :func:`tasks.config.overlay`.
    """
    flat, owner = to_flat(settings), OWNERS[key]
    stale = flat[owner] != DEFAULTS[owner] and flat[key] == DEFAULTS[key]
    return f" ({key} still holds the arguments of {DEFAULTS[owner]}: set it too, '' for none)" if stale else ""


def _dropped_args(settings: Settings) -> list[Issue]:
    """Return a warning for each default argument that the arguments of the same component leave out."""
    flat, found = to_flat(settings), []
    for key in ("partition.args", "noise.rates-args"):
        owner, text = OWNERS[key], str(flat[key])
        kept = text and flat[owner] == DEFAULTS[owner] and merge_args(str(DEFAULTS[key]), text)
        if kept and kept != text:
            left_out = f"{key} = {text!r} leaves out a default argument, and {flat[owner]} takes its own value for it"
            found.append(Issue(WARNING, key, left_out, f"to keep it, write {key} = {kept!r}"))
    return found
