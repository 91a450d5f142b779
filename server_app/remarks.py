"""What is odd but allowed about a checked configuration; said once, before the run starts."""

from collections.abc import Mapping

from client_app.attacks import NO_ATTACK, attackers
from client_app.methods import METHODS
from server_app.privacy import privacy_remarks
from server_app.strategy import build_strategy, sampled
from server_app.task_fit import fit_remarks
from strategies.fedcorr import FedCorr
from strategies.noise_partition import NoisePartition
from strategies.robust import RobustStrategy
from tasks.config import without_effect
from tasks.noise import obeys_law
from tasks.settings import Settings
from tasks.shares import federated_noise, load_task


def remarks(checked: Mapping[str, Settings], simulated: bool = True) -> list[str]:
    """Return what is odd but allowed about checked arms: keys without effect, noise that hides the true labels."""
    lines = [
        f"arm {name!r}: {line}" if name else line
        for name, settings in checked.items()
        for line in [
            *without_effect(settings),
            *_idle_law(settings),
            *privacy_remarks(settings),
            *_odd_attack(settings),
            *_idle_rule(settings),
            *_idle_roles(settings),
            *_unread_roles(settings),
            *_unasked_method(settings),
            *fit_remarks(settings, simulated),
        ]
    ]
    noisy = [one for one in checked.values() if simulated or not load_task(one.task).brings_own_data]
    noises = dict.fromkeys(federated_noise(settings) for settings in noisy)
    return lines + [line for noise in noises for line in noise.remarks()]


def _idle_law(settings: Settings) -> list[str]:
    noise, default = settings.noise, Settings().noise
    changed = (noise.law, noise.law_args) != (default.law, default.law_args)
    if noise.name == "none" or obeys_law(noise.name) or not changed:
        return []
    return [f"noise.law has no effect: {noise.name} noise has a rate of its own"]


def _idle_rule(settings: Settings) -> list[str]:
    """Return that the rule withstands nothing among the clients of a round, if so."""
    strategy = build_strategy(settings)
    if not isinstance(strategy, RobustStrategy):
        return []
    remark = strategy.aggregator.remark(sampled(settings.federation))
    return [remark] if remark else []


def _idle_roles(settings: Settings) -> list[str]:
    strategy = build_strategy(settings)
    if not isinstance(strategy, NoisePartition | FedCorr):
        return []
    lines = strategy.remarks(settings.num_server_rounds, settings.federation.num_clients)
    if settings.privacy.mode != "none":
        told = "loss profiles" if isinstance(strategy, NoisePartition) else "scores and noise levels"
        lines.append(f"privacy.mode = {settings.privacy.mode!r}: {told} are sent without noise")
    return lines


def _unread_roles(settings: Settings) -> list[str]:
    """Return that roles are needed and not given, or given and not needed, if so; plug-ins know best."""
    method, strategy, rule = settings.method.name, settings.strategy.name, settings.strategy.aggregator
    if ":" in method + strategy + rule:
        return []
    reads, weighs = METHODS.build(method, settings.method.args).reads_role, rule == "distance-aware"
    if strategy == "noise-partition" and not reads and not weighs:
        return [
            f"strategy noise-partition: neither the method {method} nor the rule {rule} treats noisy clients in "
            "another way; to correct labels set method.name = 'masked-optim', 'fedelc' or 'fednoro'"
        ]
    if strategy in ("noise-partition", "fedcorr"):
        return []
    missing = f"the strategy {strategy} calls no client noisy; set strategy.name = 'noise-partition'"
    lines = [f"method {method} trains all clients on their given labels: {missing}"] * reads
    return lines + [f"the rule distance-aware is the mean: {missing}"] * weighs


def _unasked_method(settings: Settings) -> list[str]:
    if settings.method.name != "fedcorr" or settings.strategy.name == "fedcorr" or ":" in settings.strategy.name:
        return []
    return ["method fedcorr corrects labels only where the strategy asks for it: set strategy.name = 'fedcorr'"]


def _odd_attack(settings: Settings) -> list[str]:
    attack, clients = settings.attack, settings.federation.num_clients
    if attack.name == NO_ATTACK:
        return []
    lines = [f"attack.share = {attack.share}: all {clients} clients are hostile"] * (
        len(attackers(settings)) == clients
    )
    late = attack.start_round > settings.num_server_rounds
    return lines + [f"attack.start-round = {attack.start_round}: the run ends before the attack begins"] * late
