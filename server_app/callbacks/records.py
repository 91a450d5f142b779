"""Record callbacks: metrics.jsonl, clients.jsonl, a live line per round, spent epsilon.

Of a round there is one line in metrics.jsonl, and one of each client in clients.jsonl; of the last and the best model
there are tables of the classes.
"""

from collections import deque
from statistics import median
from typing import Any

from client_app.attacks import NO_ATTACK, attackers
from server_app.callbacks.base import Callback
from server_app.privacy import INSTALL, spent_epsilon
from server_app.state import RunState
from server_app.storage.class_files import BEST, LAST, class_table, write_classes
from server_app.storage.run_directory import CLIENTS, METRICS
from strategies.privacy import PrivateStrategy
from strategies.validation import RoundReport
from tasks.client_data import load_task
from tasks.protocol import Mode
from tasks.validation_split import NOWHERE, SITES, VALIDATION

PER_SITE = "per-site"
MEASURED = "measured"
"""Field of a line of clients.jsonl: what this site measured of the round's model on its own examples."""


class Records(Callback):
    """Writes all files as the run goes on. Round 0 of clients.jsonl is the registration."""

    def on_run_start(self, state: RunState) -> None:
        """Say of which sites there will be results."""
        say_who_agrees(state)

    def on_round_end(self, state: RunState, metrics: dict[str, Any]) -> str:
        """Append this round's lines."""
        remarks = {"remarks": state.report.remarks} if state.report.remarks else {}
        state.directory.append(METRICS, [{**metrics, **remarks}])
        lines = _registration_lines(state) if state.server_round == 0 else _client_lines(state)
        state.directory.append(CLIENTS, lines)
        _write_classes(state)
        state.directory.update_status(rounds_done=state.server_round, best_round=state.best_round)
        return ""


def _write_classes(state: RunState) -> None:
    if state.classes is None:
        return
    names = load_task(state.settings.task).class_names
    table = class_table(state.server_round, names, state.classes)
    for model in (LAST, BEST) if state.best_round == state.server_round else (LAST,):
        write_classes(state.directory.path, model, table)


def _registration_lines(state: RunState) -> list[dict[str, Any]]:
    """Return the registration; what it says about labels is the truth before an attack."""
    hostile, attacked = attackers(state.settings), state.settings.attack.name != NO_ATTACK
    twins = {client: group for group in state.registration.same_data() for client in group}
    return [
        {
            "round": 0,
            "client": entry.client,
            "examples": entry.examples,
            "noise_rate": entry.noise_rate,
            "classes": entry.classes,
            **({"attacker": entry.client in hostile} if attacked else {}),
            **({"same_data": twins[entry.client]} if entry.client in twins else {}),
            **({"name": entry.name} if entry.name else {}),
        }
        for entry in state.registration.clients
    ]


def _client_lines(state: RunState) -> list[dict[str, Any]]:
    report = state.report
    examples = state.registration.examples()
    kept = kept_measures(state)
    trained = report.examples.keys() | report.quarantined.keys()
    lines = [
        {
            "round": state.server_round,
            "client": client,
            "examples": report.examples.get(client, examples.get(client)),
            "weight": report.weights.get(client),
            "distance": report.distances.get(client),
            "quarantine": report.quarantined.get(client),
            "train_loss": report.metrics.get(client, {}).get("train-loss"),
            **_judgement(report, client),
            **kept.get(client, {}),
        }
        for client in sorted(trained)
    ]
    only_measured = sorted(kept.keys() - trained)
    return lines + [{"round": state.server_round, "client": client, **kept[client]} for client in only_measured]


def kept_measures(state: RunState) -> dict[int, dict[str, Any]]:
    """Return what single sites measured, of those that agree to have it recorded and if the run does."""
    if state.settings.evaluate.report != PER_SITE:
        return {}
    simulated = state.mode is Mode.SIMULATION  # whose clients are nobody who could mind
    agree = {entry.client for entry in state.registration.clients if simulated or entry.shares_results}
    return {client: {MEASURED: dict(values)} for client, values in state.measured.items() if client in agree}


class Withhold(Callback):
    """Takes the measures of the sites out of a round's line, once the best model is chosen by them.

    Comes after the callback that chooses, and before all that write or print.
    """

    def on_round_end(self, state: RunState, metrics: dict[str, Any]) -> str:
        """Drop them."""
        names = ("clients_", VALIDATION) if state.validation == SITES else ("clients_",)
        for name in [name for name in metrics if name.startswith(names)]:
            del metrics[name]
        return ""


def say_who_agrees(state: RunState) -> None:
    """Print whose results will be recorded, where sites decide that."""
    if state.settings.evaluate.report != PER_SITE or state.mode is Mode.SIMULATION:
        return
    clients = state.registration.clients
    agree = [f"{entry.client} {entry.name}".strip() for entry in clients if entry.shares_results]
    who = f": {', '.join(agree)}" if agree else " (share-results=true in their node-config)"
    print(f"Results of single sites are kept of {len(agree)} of {len(clients)} that agree{who}", flush=True)


def _judgement(report: RoundReport, client: int) -> dict[str, Any]:
    """Return how the strategy judged a client, if it judges at all."""
    if not report.roles:
        return {}
    levels = {"noise_level": report.noise_levels.get(client)} if report.noise_levels else {}
    return {"role": report.roles.get(client, "unknown"), "posterior": report.posteriors.get(client), **levels}


class Progress(Callback):
    """Prints round, loss, accuracy, quarantined replies, time of the round and the estimated time left.

    Loss and accuracy are those on validation data, and on test data only where there is none: who watches a run must
    not choose by what it is judged by. Time left is that of this run and of ``later_rounds`` of other variants, by the
    median of the last five rounds.
    """

    def __init__(self, label: str, later_rounds: int = 0) -> None:
        self._label, self._later = label, later_rounds
        self._recent: deque[float] = deque(maxlen=5)  # the first round is slow: processes start, modules load

    def on_round_end(self, state: RunState, metrics: dict[str, Any]) -> str:
        """Print the line."""
        total = state.settings.num_server_rounds
        parts = [f"round {state.server_round:>{len(str(total))}}/{total}"]
        kind, prefix = ("test", "") if state.validation == NOWHERE else ("validation", VALIDATION)
        loss, accuracy = metrics.get(f"{prefix}loss"), metrics.get(f"{prefix}accuracy")
        parts += [] if loss is None else [f"{kind} loss {loss:.4f}"]
        parts += [] if accuracy is None else [f"{kind} accuracy {100 * accuracy:5.1f} %"]
        if "clients_accuracy" in metrics:
            parts.append(f"at the clients {100 * metrics['clients_accuracy']:5.1f} %")
        if state.server_round:
            self._recent.append(metrics["seconds"])
            parts += [f"quarantined {metrics['quarantined']}", f"{metrics['seconds']:.1f} s", f"ETA {self._eta(state)}"]
            parts += [f"epsilon {metrics['epsilon']:.3g}"] if "epsilon" in metrics else []
        if state.report.skipped:
            parts.append(f"skipped: {state.report.skipped}")
        print("  ".join([f"[{self._label}]", *parts] if self._label else parts), flush=True)
        for remark in state.report.remarks:
            print(f"    {remark}", flush=True)
        for client, reason in sorted(state.report.quarantined.items()):
            print(f"    client {client} set aside: {reason}", flush=True)
        return ""

    def _eta(self, state: RunState) -> str:
        rounds = state.settings.num_server_rounds - state.server_round + self._later
        left = median(self._recent) * rounds
        return f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"


class PrivacySpent(Callback):
    """Adds ``epsilon`` and the clipping norm to the round's measures, and prints the total at the end.

    Comes before the callbacks that write the measures down.
    """

    def __init__(self) -> None:
        self._accounted = True

    def on_run_start(self, state: RunState) -> None:
        """Say so if nothing can be accounted."""
        try:
            spent_epsilon(state.settings.privacy, 0)
        except ImportError:
            self._accounted = False
            print(f"Privacy: epsilon is not accounted, because dp-accounting is missing: {INSTALL}", flush=True)

    def on_round_end(self, state: RunState, metrics: dict[str, Any]) -> str:
        """Add the measures of privacy."""
        if isinstance(state.strategy, PrivateStrategy) and state.server_round:
            metrics["clipping_norm"] = state.strategy.mechanism.wrapper.clipping_norm
        epsilon = self._epsilon(state)
        if epsilon is not None:
            metrics["epsilon"] = epsilon
        return ""

    def on_run_end(self, state: RunState) -> None:
        """Print the total."""
        epsilon, privacy = self._epsilon(state), state.settings.privacy
        if epsilon is not None:
            against = "the server and everybody else" if privacy.mode == "local" else "whoever sees the models"
            print(
                f"Privacy spent: epsilon = {epsilon:.4g} at delta = {privacy.delta:g} after {_releases(state)} "
                f"releases, of one client's whole data, against {against}",
                flush=True,
            )

    def _epsilon(self, state: RunState) -> float | None:
        return spent_epsilon(state.settings.privacy, _releases(state)) if self._accounted else None


def _releases(state: RunState) -> int:
    """Return the noisy models so far; with local privacy the replies of a client that is asked in every round."""
    releases = state.strategy.mechanism.releases if isinstance(state.strategy, PrivateStrategy) else state.server_round
    return releases + state.rounds_again
