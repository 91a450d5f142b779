"""The whole configuration, checked before any client starts; all errors at once."""

import warnings
from collections.abc import Callable, Mapping

from flwr.serverapp.strategy import Strategy

from client_app import losses
from client_app.attacks import check_attack, configured_attack
from client_app.audit_files import format_problem
from client_app.methods import METHODS, ClientMethod
from client_app.trainer import pick_device
from server_app.callbacks import chosen_callbacks
from server_app.dry_run import dry_run_errors
from server_app.privacy import accept_model, privacy_problems
from server_app.resume import resume_problems
from server_app.strategy import build_strategy, sampled
from server_app.task_check import check_data, check_declarations, check_test_data
from server_app.task_fit import fit_problems
from strategies.aggregators import AGGREGATORS, build_pre_steps
from strategies.fedcorr import FedCorr
from strategies.robust import RobustStrategy
from strategies.server_steps import build_server_step
from tasks.config import ConfigError, Flat, Value, arms, read
from tasks.noise import NoiseWarning
from tasks.partition import PARTITIONS
from tasks.plugin import explain
from tasks.settings import Settings
from tasks.shares import client_share, divide, federated_noise, load_task


def check(flat: Mapping[str, Value], simulated: bool = True) -> Settings:
    """Return the settings of one arm, after building every part once.

    Where the clients are real nodes with data of their own, not ``simulated``, the server has none to divide.

    Raises
    ------
    ConfigError
        With every error found: keys, types, ranges, names, arguments, missing data, impossible partitions.
    """
    settings, errors = read(flat)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoiseWarning)  # said once, by remarks()
        errors += _plugin_errors(settings, simulated)
    training = sampled(settings.federation)
    if settings.federation.min_replies > training:
        errors.append(
            f"federation.min-replies = {settings.federation.min_replies}: at most the number of clients "
            f"that train in a round, {training}"
        )
    errors += [problem for problem in [format_problem(settings.audit.format)] if problem]
    errors += privacy_problems(settings) + resume_problems(settings)
    if errors:
        raise ConfigError(list(dict.fromkeys(errors)))
    return settings


def _too_few_clients(strategy: Strategy, settings: Settings) -> str:
    """Return why the rule cannot withstand what it should among the clients of a round, or an empty string."""
    if not isinstance(strategy, RobustStrategy):  # it takes no rule, or only the mean
        return ""
    return strategy.aggregator.problem(sampled(settings.federation), "this run samples {}")


def _no_answers(strategy: Strategy, settings: Settings) -> list[str]:
    """Return that the strategy asks questions and the client method answers none, if so."""
    method = METHODS.build(settings.method.name, settings.method.args)
    silent = type(method).answer is ClientMethod.answer
    if not silent or not isinstance(strategy, FedCorr):
        return []
    return [
        f"strategy fedcorr asks what the method {settings.method.name} does not answer: set method.name = 'fedcorr'"
    ]


def check_arms(flat: Mapping[str, Value], simulated: bool = True) -> dict[str, Settings]:
    """Return the settings of every arm by name; errors name their arm. See :func:`check`.

    Raises
    ------
    ConfigError
        With the errors of all arms.
    """
    checked: dict[str, Settings] = {}
    overrides = arms(flat)
    found: dict[str, list[str]] = {}  # by error, the arms that have it
    for name, changes in overrides.items():
        try:
            checked[name] = check(arm_config(flat, changes), simulated)
        except ConfigError as error:
            for line in error.errors:
                found.setdefault(line, []).append(name)
    errors = [
        line if len(names) == len(overrides) else f"arm {', '.join(names)}: {line}" for line, names in found.items()
    ]
    if checked and len(overrides) > 1 and flat.get("run.resume"):
        errors.append("run.resume continues one run: leave out arms")
    if errors:
        raise ConfigError(errors)
    return checked


def arm_config(flat: Mapping[str, Value], changes: Mapping[str, Value]) -> Flat:
    """Return the configuration of one arm."""
    return {**flat, "arms": "", **changes}


def _stale_args(settings: Settings) -> str:
    """Return a hint if the partition was changed but not its arguments, which still belong to the default one."""
    chosen, default = settings.partition, Settings().partition
    stale = chosen.name != default.name and chosen.args == default.args
    return f" (partition.args still holds the arguments of {default.name}: set it too, '' for none)" if stale else ""


def _plugin_errors(settings: Settings, simulated: bool) -> list[str]:
    errors: list[str] = []

    def attempt(part: str, build: Callable[[], object]) -> bool:
        try:
            build()
        except Exception as error:  # a plug-in may raise anything; it must not hide the other errors
            errors.append(f"{part}: {explain(error)}")
            return False
        return True

    clients = settings.federation.num_clients
    attempt("run.callbacks", lambda: chosen_callbacks(settings.run.callbacks))
    attempt("train.device", lambda: pick_device(settings.train.device))
    method = attempt("method", lambda: METHODS.build(settings.method.name, settings.method.args))
    chosen = settings.strategy
    attempt("strategy", lambda: AGGREGATORS.build(chosen.aggregator, chosen.aggregator_args))
    attempt("strategy", lambda: build_pre_steps(chosen.pre_steps))
    attempt("strategy", lambda: build_server_step(chosen.server_step, chosen.server_step_args))
    if strategy := attempt("strategy", lambda: build_strategy(settings)):
        built_strategy = build_strategy(settings)
        errors += [f"strategy: {problem}" for problem in [_too_few_clients(built_strategy, settings)] if problem]
        errors += _no_answers(built_strategy, settings) if method else []
    attack = attempt("attack", lambda: configured_attack(settings.attack))
    part, choice = f"partition{_stale_args(settings)}", settings.partition
    partition = attempt(part, lambda: PARTITIONS.build(choice.name, choice.args))
    if attempt("task", lambda: check_declarations(settings.task)):
        task = load_task(settings.task)
        if attack:
            attempt("attack", lambda: check_attack(settings))
        loss, counts = settings.loss, [1] * task.num_classes
        attempt("model", lambda: accept_model(settings, task.build_model(settings.model.name, settings.model.args)))
        built = attempt("loss", lambda: losses.build(loss.name, task.num_classes, loss.args, loss.preset, counts))
        errors += fit_problems(settings) if built and method and strategy and attack else []
        if task.brings_own_data and not simulated:
            attempt("task", lambda: check_test_data(task))
            return errors
        noise = federated_noise(settings)
        if lawful := attempt("noise.law", noise.rates):
            attempt("noise", lambda: [noise.of(client) for client in range(clients)])
        ready = attempt("task", task.check) and attempt("task", lambda: check_data(settings.task)) and partition
        divided = ready and attempt("partition", lambda: divide(settings.task, choice, clients, settings.seed))
        if divided and lawful:
            attempt("noise", lambda: client_share(settings, 0))
    return errors or dry_run_errors(settings)
