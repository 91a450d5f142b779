"""The runs of the attack grid: what one gives, and the tables of all."""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from benchmarks.attack_cases import Case
from benchmarks.in_process import rounds
from benchmarks.ledger import spread
from server_app.validation.config import check
from tasks.settings import Settings

LAST = 5
"""A run's accuracy is that of its last round, and the mean of so many last rounds."""


@dataclass(frozen=True)
class Outcome:
    """What a run gave, in percent.

    ``accuracy`` on clean test data: last round, and mean of the last rounds; ``backdoor`` is NaN without a backdoor.
    ``quarantined`` is the share of replies that the server set aside.
    """

    accuracy: float
    mean_accuracy: float
    backdoor: float
    quarantined: float
    seconds: float


def run_case(case: Case) -> Outcome:
    """Play and measure one case."""
    start = time.perf_counter()
    settings: Settings = check(case.configuration())
    if settings.train.threads:
        torch.set_num_threads(settings.train.threads)  # with two threads a small network takes four times as long
    lines = list(rounds(settings, first_measured=max(1, case.rounds - LAST + 1)))
    accuracies = [100 * line["accuracy"] for line in lines if "accuracy" in line]
    replies = case.rounds * settings.federation.num_clients * settings.federation.fraction_train
    return Outcome(
        accuracy=accuracies[-1],
        mean_accuracy=statistics.fmean(accuracies),
        backdoor=100 * lines[-1].get("backdoor_success", math.nan),
        quarantined=100 * sum(line["quarantined"] for line in lines) / replies,
        seconds=time.perf_counter() - start,
    )


def tables(runs: Mapping[Case, Outcome], cases: Sequence[Case]) -> str:
    """Return one Markdown table for each kind of client and share: rules in rows, attacks in columns.

    A cell is the mean accuracy of the last rounds, for a backdoor followed by its success: mean over seeds, ± standard
    deviation, in percent; a dash where rule or attack needs more clients.
    """
    parts = []
    for client, share in dict.fromkeys((case.client, case.share) for case in cases):
        shown = [case for case in cases if (case.client, case.share) == (client, share)]
        attacks = list(dict.fromkeys(case.attack for case in shown))
        parts += [
            f"### Client {client}, {shown[0].hostile} of {shown[0].flat()['federation.num-clients']} clients hostile\n",
            f"| rule | {' | '.join(attacks)} |",
            "|---|" + "---|" * len(attacks),
        ]
        for rule in dict.fromkeys(case.rule for case in shown):
            cells = [_cell([runs[c] for c in shown if (c.rule, c.attack) == (rule, a) and c in runs]) for a in attacks]
            parts.append(f"| {rule} | {' | '.join(cells)} |")
        parts.append("")
    return "\n".join(parts)


def _cell(found: Sequence[Outcome]) -> str:
    accuracy = spread([run.mean_accuracy for run in found])
    backdoor = [run.backdoor for run in found if not math.isnan(run.backdoor)]
    return f"{accuracy} (backdoor {spread(backdoor)})" if backdoor else accuracy
