"""Warm-up, ramp and history of methods that begin gently, and what is said where the run is too short for them.

Such a method learns from the given labels first, lets a weight grow with the rounds, or waits until it has seen enough.
Published lengths are for hundreds of rounds; in a short run it may never do what it is known for, and nobody would see.
"""

from tasks.issues import WARNING, Issue, RunContext

ENOUGH = 0.5
"""Share of its final value that a growing weight must reach, or the run says so."""


def warmup_issues(
    name: str,
    rounds: int,
    context: RunContext,
    *,
    argument: str = "warmup_rounds",
    begins: str = "learns from the given labels",
    instead: str = "it does what sgd does",
) -> list[Issue]:
    """Return that a method never does anything special, if the first ``rounds`` rounds are the whole run.

    ``begins`` says what it does in them, ``instead`` what the whole run comes to.
    """
    total = context.settings.num_server_rounds
    if rounds < total:
        return []
    text = f"method {name} {begins} in the first {rounds} rounds ({argument}), and the run has {total}: {instead}"
    remedy = f"set method.args = '{argument} = {max(total // 5, 1)}', a fifth of the run, or more rounds"
    return [Issue(WARNING, "method", text, remedy)]


def ramp_issues(name: str, argument: str, length: int, reached: float, context: RunContext, what: str) -> list[Issue]:
    """Return that a weight stays below half of what it grows to, if so.

    Parameters
    ----------
    argument, length
        The method's argument and its value, in rounds.
    reached
        Share of its final value that the weight has in the last round, 0 to 1.
    what
        The weight, in words.
    """
    if reached >= ENOUGH:
        return []
    total = context.settings.num_server_rounds
    text = f"method {name}: {what} grows for {length} rounds ({argument}), and in round {total}, the last, it is at "
    remedy = f"set method.args = '{argument} = {max(total // 5, 1)}', a fifth of the run, or more rounds"
    return [Issue(WARNING, "method", f"{text}{reached:.0%} of it", remedy)]


def history_issues(name: str, argument: str, length: int, context: RunContext, what: str) -> list[Issue]:
    """Return that no example is seen ``length`` times, if so; ``what`` is the consequence, in words.

    A client that is drawn in every round sees each of its examples once an epoch.
    """
    settings = context.settings
    most = settings.num_server_rounds * settings.train.epochs
    if length <= most:
        return []
    text = f"method {name} waits for {length} predictions of an example ({argument}), and no client makes more than "
    return [Issue(WARNING, "method", f"{text}{most}: {what}", "take more rounds, or a shorter history")]
