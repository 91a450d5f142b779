"""Personal results at the end of a run: each site compares and tunes for itself; the server learns who has done it.

In a simulation, where all folders are on this machine, one line says how the comparisons came out.
"""

import json
from logging import WARNING
from pathlib import Path
from statistics import fmean

from flwr.common.logger import log

from client_app.personal.report import FACTS
from client_app.personal.results import ALONE, PERSONAL
from server_app.label_audit import kept_best, request_audits
from server_app.report.text import percent
from server_app.state import RunState
from server_app.transport.client_grid import ClientGrid
from tasks.protocol import Mode
from tasks.settings import YEAR

QUERY = "query.personal"


def make_personal_results(state: RunState, grid: ClientGrid) -> None:
    """Let every client do what ``personal.*`` asks for; who does not is named with its reason, and that ends no run."""
    personal = state.settings.personal
    if not personal.compare and personal.tune == "none":
        return
    done, problems = request_audits(state, grid, QUERY, patience(state), kept_best(state))
    for reason, clients in problems.items():
        log(WARNING, "No personal results of client %s: %s", ", ".join(map(str, clients)), reason)
    total = len(state.registration.clients)
    simulated = state.mode is Mode.SIMULATION
    where = state.directory.path / "clients" / "<client>" if simulated else f"<state-dir>/{state.directory.path.name}/"
    print(f"Personal results: {len(done)} of {total} clients have a site report, each in {where}", flush=True)
    if simulated and done:
        print(summary(state.directory.path, done), flush=True)


def patience(state: RunState) -> float:
    """Return how many seconds to wait: a site that trains alone does all rounds of the run again."""
    rounds = state.server_round + 1 if state.settings.personal.compare else 1
    return min(YEAR, state.settings.federation.round_timeout * rounds)


def summary(run: Path, clients: list[int]) -> str:
    """Say how the models compare on what the simulated clients hold out, on average over them."""
    found = [json.loads((run / "clients" / str(client) / FACTS).read_text()) for client in clients]
    measured = [one for one in found if one["held_out"]]
    if not measured:
        return "Personal results: no client could hold out examples to measure on"
    rounds = {one["model_round"] for one in measured}
    parts = [f"model of all sites after round {max(rounds)} {percent(fmean(one['accuracy'] for one in measured))}"]
    for name in (ALONE, PERSONAL):
        each = [one["models"][name] for one in measured if name in one["models"]]
        if each:
            better = sum(one["models"][name]["accuracy"] > one["accuracy"] for one in measured if name in one["models"])
            parts.append(
                f"{name} {percent(fmean(one['accuracy'] for one in each))} (better for {better} of {len(each)})"
            )
    return f"Personal results, right on what clients hold out (mean over clients): {', '.join(parts)}"
