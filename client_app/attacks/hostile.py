"""Which clients of a simulation are hostile: a function of the settings alone, the same at server and clients."""

from client_app.attacks.base import ATTACKS, Attack, Facts
from tasks.image import ImageTask
from tasks.seeds import rng
from tasks.settings import AttackSettings, Settings
from tasks.shares import load_task

NO_ATTACK = "none"


def attackers(settings: Settings) -> frozenset[int]:
    """Return the ids of the hostile clients: round(share x clients) of them, drawn; none without an attack."""
    attack, clients = settings.attack, settings.federation.num_clients
    if attack.name == NO_ATTACK:
        return frozenset()
    drawn = rng(settings.seed, "attackers").choice(clients, round(attack.share * clients), replace=False)
    return frozenset(drawn.tolist())


def configured_attack(attack: AttackSettings) -> Attack | None:
    """Build the configured attack; None if there is none.

    Raises
    ------
    PluginError
        If the attack is unknown, or an argument does not fit.
    """
    return None if attack.name == NO_ATTACK else ATTACKS.build(attack.name, attack.args)


def facts(settings: Settings) -> Facts:
    """Return what the attackers know about the federation."""
    task = load_task(settings.task)
    brightest = task.brightest if isinstance(task, ImageTask) else None
    return Facts(settings.federation.num_clients, len(attackers(settings)), task.num_classes, brightest)


def check_attack(settings: Settings) -> None:
    """Build the attack and ask whether it can be made in this federation.

    Raises
    ------
    ValueError
        If it cannot, or nobody would make it; the message says what to change.
    """
    attack, choice = configured_attack(settings.attack), settings.attack
    if attack is None:
        return
    known = facts(settings)
    if not known.num_hostile:
        raise ValueError(
            f"attack.share = {choice.share}: none of {known.num_clients} clients would be hostile; "
            f"for one of them take {1 / known.num_clients:.4g}, or set attack.name = none"
        )
    problem = attack.problem(known)
    if problem:
        raise ValueError(f"attack {choice.name!r}: {problem}")
