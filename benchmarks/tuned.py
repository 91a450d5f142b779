"""Comparison of methods that are tuned alike: each gets the learning rate that is best on held-out training examples.

A rate is chosen per method and noise, from the same rates and with one seed; then each method is run on the test data
once per seed with its own rate. A site that trains alone does the same local work as in the federation.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from benchmarks.in_process import Federation
from benchmarks.ledger import Ledger, spread
from client_app.attacks import run_client
from client_app.label_quality import suspicion
from client_app.methods import RoundConfig
from server_app.validation.config import check
from tasks.base import predict
from tasks.client_data import ClientDataset, client_dataset
from tasks.config import Flat, overlay
from tasks.fresh_model import fresh_model
from tasks.settings import Settings
from tasks.weights import load_arrays

LAST = 10
"""Rounds at the end over which accuracy is averaged, as papers on noisy labels do."""
ALONE = 10
"""Clients of which each also trains by itself, to compare its audit."""


SYMMETRIC: Mapping[str, Flat] = {
    "0-0.4": {"noise.name": "symmetric", "noise.rates-args": "max = 0.4"},
    "0-0.8": {"noise.name": "symmetric", "noise.rates-args": "max = 0.8"},
}
FEDAVG: Flat = {"loss.name": "ce", "strategy.aggregator": "mean"}
FSANL: Flat = {"strategy.aggregator": "mean"}
MASKED_OPTIM: Flat = {"loss.name": "la-ce", "method.name": "masked-optim", "strategy.name": "noise-partition"}
PARTS: Mapping[str, Flat] = {"validation": {"evaluate.validation": 0.1}, "test": {"evaluate.validation": 0.0}}
"""A rate is chosen by the accuracy on held-out training examples; to be tested, a model is trained on all of them."""
MEASURES = {"validation": "validation_accuracy", "test": "accuracy"}


@dataclass(frozen=True)
class Case:
    """All that decides a run besides the comparison's own settings."""

    noise: str
    method: str
    rate: float
    seed: int
    part: str = "validation"


@dataclass(frozen=True)
class Outcome:
    """What a run gave, in percent and seconds; NaN where no label is wrong.

    ``accuracy`` is the mean of the last ten rounds. ``auc`` is that of the label audit, the mean over the clients;
    ``recall`` the share of the wrong labels that it doubts, ``precision`` that of wrong ones among those it doubts.
    Those that end in ``alone`` are of clients that trained by themselves.
    """

    accuracy: float
    last: float
    auc: float
    recall: float
    precision: float
    auc_alone: float
    recall_alone: float
    precision_alone: float
    cpu_seconds: float
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """What is compared: settings of all runs, of each noise, and of each method; ``rates`` are tried for each."""

    common: Flat
    noises: Mapping[str, Flat]
    methods: Mapping[str, Flat]
    rates: tuple[float, ...]
    audits: bool = True
    """Whether audits are measured too, which takes half as long again."""

    def settings(self, case: Case) -> Settings:
        """Return the checked settings of a run."""
        run: Flat = {"seed": case.seed, "train.learning-rate": case.rate}
        layers = (self.common, self.noises[case.noise], self.methods[case.method], PARTS[case.part], run)
        return check(overlay(*layers))

    def run(self, case: Case) -> Outcome:
        """Play one run and measure it; the audits only with the test data."""
        torch.set_num_threads(1)
        cpu, wall = time.process_time(), time.perf_counter()
        settings = self.settings(case)
        federation = Federation(settings)
        lines = list(federation.rounds(max(1, settings.num_server_rounds - LAST + 1)))
        measure = MEASURES[case.part]
        accuracies = [100 * line[measure] for line in lines if measure in line]
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        audits = _audits(federation) if self.audits and case.part == "test" else [math.nan] * 6
        return Outcome(statistics.fmean(accuracies), accuracies[-1], *audits, cpu, wall)

    def tuning(self, noises: Sequence[str], methods: Sequence[str], seed: int) -> list[Case]:
        """Return the runs that choose the rates."""
        return [Case(noise, method, rate, seed) for noise in noises for method in methods for rate in self.rates]


def chosen(runs: Mapping[Case, Outcome]) -> dict[tuple[str, str], float]:
    """Return the best rate by noise and method, of the runs on held-out examples."""
    best: dict[tuple[str, str], Case] = {}
    for case, outcome in runs.items():
        where = case.noise, case.method
        if case.part == "validation" and (where not in best or outcome.accuracy > runs[best[where]].accuracy):
            best[where] = case
    return {where: case.rate for where, case in best.items()}


def compare(
    ledger: Ledger[Case, Outcome],
    comparison: Comparison,
    wanted: tuple[Sequence[str], Sequence[str]],
    seeds: Sequence[int],
    jobs: int,
) -> dict[Case, Outcome]:
    """Choose the rates, then do the runs on the test data; ``wanted`` are noises and methods.

    Where there is one rate alone, nothing is chosen.
    """
    tuning = comparison.tuning(*wanted, seed=seeds[0])
    tried = ledger.complete(tuning, comparison.run, jobs, words) if len(comparison.rates) > 1 else {}
    rates = chosen(tried) or {(case.noise, case.method): case.rate for case in tuning}
    final = [Case(*where, rate, seed, "test") for seed in seeds for where, rate in rates.items()]
    return tried | ledger.complete(final, comparison.run, jobs, words)


def words(case: Case, outcome: Outcome) -> str:
    """Return the line about a finished run."""
    which = f"{case.noise}, {case.method}, rate {case.rate:g}, seed {case.seed}, {case.part}"
    return f"{which}: {outcome.accuracy:.2f} % in {outcome.cpu_seconds:.0f} CPU s"


def accuracy_table(runs: Mapping[Case, Outcome]) -> str:
    """Return test accuracy and chosen rate by noise (rows) and method (columns) as Markdown."""
    return _table(runs, lambda found: spread([run.accuracy for run in found.values()]) + _rate(found))


def audit_table(runs: Mapping[Case, Outcome], alone: bool) -> str:
    """Return AUC, recall and precision of the audits by noise (rows) and method (columns) as Markdown, in percent."""
    names = [f"{name}{'_alone' if alone else ''}" for name in ("auc", "recall", "precision")]
    return _table(
        runs, lambda found: " / ".join(spread([getattr(run, name) for run in found.values()]) for name in names)
    )


def _table(runs: Mapping[Case, Outcome], cell: Callable[[Mapping[Case, Outcome]], str]) -> str:
    final = {case: run for case, run in runs.items() if case.part == "test"}
    noises, methods = (list(dict.fromkeys(getattr(case, name) for case in final)) for name in ("noise", "method"))
    lines = [f"| labels | {' | '.join(methods)} |", "|---|" + "---|" * len(methods)]
    for noise in noises:
        found = [
            {case: run for case, run in final.items() if (case.noise, case.method) == (noise, method)}
            for method in methods
        ]
        lines.append(f"| {noise} | {' | '.join(cell(runs) if runs else '-' for runs in found)} |")
    return "\n".join(lines)


def _rate(found: Mapping[Case, Outcome]) -> str:
    return f" ({next(iter(found)).rate:g})"


def _audits(federation: Federation) -> list[float]:
    """Return AUC, recall and precision of the clients' audits, in the federation and alone."""
    shared = fresh_model(federation.settings)
    load_arrays(shared, federation.arrays)
    clients = federation.clients.get_node_ids()
    datasets = [client_dataset(federation.settings, client) for client in clients]
    some = datasets[:: max(1, len(datasets) // ALONE)]
    together = _scores(federation, ((shared, dataset) for dataset in datasets))
    return [*together, *_scores(federation, ((_alone(federation, dataset), dataset) for dataset in some))]


def _alone(federation: Federation, dataset: ClientDataset) -> nn.Module:
    """Return a model that one client has trained by itself, as often as a client trains in the federation."""
    settings, device = federation.settings, federation.evaluation.device
    model, state, client = fresh_model(settings), None, dataset.data.client
    turns = max(1, round(settings.num_server_rounds * settings.federation.fraction_train))
    for turn in range(1, turns + 1):
        config = RoundConfig(turn, settings.train.learning_rate, (settings.seed, client, turn), "unknown", {})
        state = run_client(model, dataset.data, settings, config, state, device).state
    return model


def _scores(federation: Federation, models: Iterable[tuple[nn.Module, ClientDataset]]) -> list[float]:
    """Return mean AUC over the clients, and recall and precision of all doubted labels together, in percent."""
    task, device = federation.evaluation.task, federation.evaluation.device
    areas, wrong, doubted, hits = [], 0, 0, 0
    for model, dataset in models:
        logits = predict(model, task, dataset.data.features, federation.settings.evaluate.batch_size, device)
        beliefs, labels, truth = torch.softmax(logits.double(), 1).numpy(), dataset.data.labels, dataset.wrong()
        doubts = beliefs.argmax(1) != labels
        wrong, doubted, hits = wrong + truth.sum(), doubted + doubts.sum(), hits + (doubts & truth).sum()
        if truth.any() and not truth.all():
            areas.append(roc_auc_score(truth, suspicion(beliefs, labels)))
    if not wrong:
        return [math.nan] * 3
    return [100 * float(np.mean(areas)), 100 * float(hits / wrong), 100 * float(hits / max(1, doubted))]
