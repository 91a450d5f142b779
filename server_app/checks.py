"""The whole configuration, checked before any client starts; all errors at once."""

import warnings
from collections.abc import Callable, Mapping

from client_app import losses
from client_app.attacks import NO_ATTACK, attackers, check_attack, configured_attack
from client_app.audit_files import format_problem
from client_app.methods import METHODS, ClientMethod
from client_app.trainer import pick_device
from server_app.callbacks.tracking import tracker_problem
from server_app.dry_run import dry_run_errors
from server_app.privacy import accept_model, privacy_problems, privacy_remarks
from server_app.resume import resume_problems
from server_app.strategy import build_strategy
from server_app.task_check import check_data, check_declarations
from strategies.fedcorr import FedCorr
from strategies.noise_partition import NoisePartition
from strategies.robust import RobustStrategy
from tasks.config import ConfigError, Flat, Value, arms, read, without_effect
from tasks.noise import NoiseWarning, obeys_law
from tasks.partition import PARTITIONS
from tasks.plugin import explain
from tasks.settings import FederationSettings, Settings
from tasks.shares import client_share, divide, federated_noise, load_task


def check(flat: Mapping[str, Value]) -> Settings:
    """Return the settings of one arm, after building every part once.

    Raises
    ------
    ConfigError
        With every error found: keys, types, ranges, names, arguments, missing data, impossible partitions.
    """
    settings, errors = read(flat)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoiseWarning)  # said once, by remarks()
        errors += _plugin_errors(settings)
    training = sampled(settings.federation)
    if settings.federation.min_replies > training:
        errors.append(
            f"federation.min-replies = {settings.federation.min_replies}: at most the number of clients "
            f"that train in a round, {training}"
        )
    missing = (tracker_problem(settings.run.tracker), format_problem(settings.audit.format))
    errors += [problem for problem in missing if problem]
    errors += privacy_problems(settings) + resume_problems(settings)
    if errors:
        raise ConfigError(list(dict.fromkeys(errors)))
    return settings


def sampled(federation: FederationSettings) -> int:
    """Return how many clients train in a round."""
    return max(1, round(federation.fraction_train * federation.num_clients))


def _too_few_clients(settings: Settings) -> str:
    """Return why the rule cannot withstand what it should among the clients of a round, or an empty string."""
    strategy = build_strategy(settings)
    if not isinstance(strategy, RobustStrategy):  # it takes no rule, or only the mean
        return ""
    return strategy.aggregator.problem(sampled(settings.federation), "this run samples {}")


def _no_answers(settings: Settings) -> list[str]:
    """Return that the strategy asks questions and the client method answers none, if so."""
    method = METHODS.build(settings.method.name, settings.method.args)
    silent = type(method).answer is ClientMethod.answer
    if not silent or not isinstance(build_strategy(settings), FedCorr):
        return []
    return [
        f"strategy fedcorr asks what the method {settings.method.name} does not answer: set method.name = 'fedcorr'"
    ]


def remarks(checked: Mapping[str, Settings]) -> list[str]:
    """Return what is odd but allowed about checked arms: keys without effect, noise that hides the true labels."""
    lines = [
        f"arm {name!r}: {line}" if name else line
        for name, settings in checked.items()
        for line in [
            *without_effect(settings),
            *_idle_law(settings),
            *privacy_remarks(settings),
            *_odd_attack(settings),
            *_idle_roles(settings),
        ]
    ]
    noises = dict.fromkeys(federated_noise(settings) for settings in checked.values())
    return lines + [line for noise in noises for line in noise.remarks()]


def _idle_law(settings: Settings) -> list[str]:
    noise, default = settings.noise, Settings().noise
    changed = (noise.law, noise.law_args) != (default.law, default.law_args)
    if noise.name == "none" or obeys_law(noise.name) or not changed:
        return []
    return [f"noise.law has no effect: {noise.name} noise has a rate of its own"]


def _idle_roles(settings: Settings) -> list[str]:
    strategy = build_strategy(settings)
    if not isinstance(strategy, NoisePartition | FedCorr):
        return []
    lines = strategy.remarks(settings.num_server_rounds, settings.federation.num_clients)
    if settings.privacy.mode != "none":
        told = "loss profiles" if isinstance(strategy, NoisePartition) else "scores and noise levels"
        lines.append(f"privacy.mode = {settings.privacy.mode!r}: {told} are sent without noise")
    return lines


def _odd_attack(settings: Settings) -> list[str]:
    attack, clients = settings.attack, settings.federation.num_clients
    if attack.name == NO_ATTACK:
        return []
    lines = [f"attack.share = {attack.share}: all {clients} clients are hostile"] * (
        len(attackers(settings)) == clients
    )
    late = attack.start_round > settings.num_server_rounds
    return lines + [f"attack.start-round = {attack.start_round}: the run ends before the attack begins"] * late


def check_arms(flat: Mapping[str, Value]) -> dict[str, Settings]:
    """Return the settings of every arm by name; errors name their arm.

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
            checked[name] = check(arm_config(flat, changes))
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


def _plugin_errors(settings: Settings) -> list[str]:
    errors: list[str] = []

    def attempt(part: str, build: Callable[[], object]) -> bool:
        try:
            build()
        except Exception as error:  # a plug-in may raise anything; it must not hide the other errors
            errors.append(f"{part}: {explain(error)}")
            return False
        return True

    clients = settings.federation.num_clients
    attempt("train.device", lambda: pick_device(settings.train.device))
    method = attempt("method", lambda: METHODS.build(settings.method.name, settings.method.args))
    if attempt("strategy", lambda: build_strategy(settings)):
        errors += [f"strategy: {problem}" for problem in [_too_few_clients(settings)] if problem]
        errors += _no_answers(settings) if method else []
    attack = attempt("attack", lambda: configured_attack(settings.attack))
    part, choice = f"partition{_stale_args(settings)}", settings.partition
    partition = attempt(part, lambda: PARTITIONS.build(choice.name, choice.args))
    if attempt("task", lambda: check_declarations(settings.task)):
        task = load_task(settings.task)
        if attack:
            attempt("attack", lambda: check_attack(settings))
        loss, counts = settings.loss, [1] * task.num_classes
        attempt("model", lambda: accept_model(settings, task.build_model(settings.model.name, settings.model.args)))
        attempt("loss", lambda: losses.build(loss.name, task.num_classes, loss.args, loss.preset, counts))
        noise = federated_noise(settings)
        if lawful := attempt("noise.law", noise.rates):
            attempt("noise", lambda: [noise.of(client) for client in range(clients)])
        ready = attempt("task", task.check) and attempt("task", lambda: check_data(settings.task)) and partition
        divided = ready and attempt("partition", lambda: divide(settings.task, choice, clients, settings.seed))
        if divided and lawful:
            attempt("noise", lambda: client_share(settings, 0))
    return errors or dry_run_errors(settings)
