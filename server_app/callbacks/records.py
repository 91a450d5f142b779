"""metrics.jsonl and clients.jsonl: one line per round, and one per client and round."""

from typing import Any

from client_app.attacks import NO_ATTACK, attackers
from server_app.callbacks.base import Callback
from server_app.run_directory import CLIENTS, METRICS
from server_app.state import RunState
from strategies.updates import RoundReport


class Records(Callback):
    """Writes both files as the run goes on. Round 0 of clients.jsonl is the roster."""

    def on_round_end(self, state: RunState, metrics: dict[str, Any]) -> str:
        """Append this round's lines."""
        state.directory.append(METRICS, [metrics])
        lines = _roster_lines(state) if state.server_round == 0 else _client_lines(state)
        state.directory.append(CLIENTS, lines)
        state.directory.update_status(rounds_done=state.server_round, best_round=state.best_round)
        return ""


def _roster_lines(state: RunState) -> list[dict[str, Any]]:
    """Return the roster; what it says about labels is the truth before an attack."""
    hostile, attacked = attackers(state.settings), state.settings.attack.name != NO_ATTACK
    twins = {client: group for group in state.roster.same_data() for client in group}
    return [
        {
            "round": 0,
            "client": entry.client,
            "examples": entry.examples,
            "noise_rate": entry.noise_rate,
            "classes": entry.classes,
            **({"attacker": entry.client in hostile} if attacked else {}),
            **({"same_data": twins[entry.client]} if entry.client in twins else {}),
        }
        for entry in state.roster.clients
    ]


def _client_lines(state: RunState) -> list[dict[str, Any]]:
    report = state.report
    examples = state.roster.examples()
    return [
        {
            "round": state.server_round,
            "client": client,
            "examples": report.examples.get(client, examples.get(client)),
            "weight": report.weights.get(client),
            "distance": report.distances.get(client),
            "quarantine": report.quarantined.get(client),
            "train_loss": report.metrics.get(client, {}).get("train-loss"),
            **_judgement(report, client),
        }
        for client in sorted(report.examples.keys() | report.quarantined.keys())
    ]


def _judgement(report: RoundReport, client: int) -> dict[str, Any]:
    """Return how the strategy judged a client, if it judges at all."""
    if not report.roles:
        return {}
    levels = {"noise_level": report.noise_levels.get(client)} if report.noise_levels else {}
    return {"role": report.roles.get(client, "unknown"), "posterior": report.posteriors.get(client), **levels}
