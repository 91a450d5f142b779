"""Which clients of a simulation are hostile: a function of the settings alone, the same at server and clients."""

from client_app.attacks.base import ATTACKS, Attack, Facts
from tasks.image import ImageTask
from tasks.issues import ERROR, WARNING, Issue, RunContext
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


def attack_issues(attack: Attack, context: RunContext) -> list[Issue]:
    """Return why an attack cannot be made in this federation, and what is odd about it."""
    settings, choice = context.settings, context.settings.attack
    known = facts(settings)
    if not known.num_hostile:
        text = (
            f"attack: attack.share = {choice.share}: none of {known.num_clients} clients would be hostile; "
            f"for one of them take {1 / known.num_clients:.4g}, or set attack.name = none"
        )
        return [Issue(ERROR, "attack.share", text)]
    found = attack.issues(context)
    if problem := attack.problem(known):
        found.append(Issue(ERROR, "attack", f"attack: attack {choice.name!r}: {problem}"))
    if known.num_hostile == known.num_clients:
        text = f"attack.share = {choice.share}: all {known.num_clients} clients are hostile"
        found.append(Issue(WARNING, "attack.share", text))
    if choice.start_round > settings.num_server_rounds:
        text = f"attack.start-round = {choice.start_round}: the run ends before the attack begins"
        found.append(Issue(WARNING, "attack.start-round", text))
    return found
