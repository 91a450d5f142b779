"""Warm-up of methods that learn from the given labels first, and what is wrong with its length."""

from tasks.issues import WARNING, Issue, RunContext


def warmup_issues(name: str, rounds: int, context: RunContext) -> list[Issue]:
    """Return that a method never does anything special, if the whole run is warm-up."""
    total = context.settings.num_server_rounds
    if rounds < total:
        return []
    text = (
        f"method {name} learns from the given labels in the first {rounds} rounds (warmup_rounds), "
        f"and the run has {total}: it does what sgd does"
    )
    remedy = f"set method.args = 'warmup_rounds = {max(total // 5, 1)}', a fifth of the run, or more rounds"
    return [Issue(WARNING, "method", text, remedy)]
