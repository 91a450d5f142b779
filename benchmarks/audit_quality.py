"""Label audit quality: does the noise rate's 90 % interval hold the truth, and what finds a site by joining?

    python -m benchmarks.audit_quality --seeds 2 3 --pooled --output audit-quality.csv

Federations of ten sites whose labels are wrong at rates from 0 to 0.5, symmetric or pair-wise, or as people gave them,
are played in this process. Each site's audit is compared with cleanlab on the site's own data alone, and with
``--pooled`` on the data of all sites in one place; there beliefs are those of a logistic regression on the same
features (of digits: pixels), out of fold. Traces of the federations stay in the folder ``--traces`` and are not played
again. One line for each site goes to the CSV file; the tables are written beside it, as Markdown.
"""

import argparse
import csv
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from statistics import fmean

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.audit_traces import DATA, METHODS, NOISES, Case, SiteTrace, play, read
from client_app.label_audit_report import MOST
from client_app.label_quality import Beliefs, make_audit
from server_app.cli.config import path_argument
from tasks.base import ClientData, Labels

FOLDS = 5
PENALTY = 0.01
"""Inverse strength of the logistic regression's penalty: features are many and labels wrong."""
WAYS = ("federated", "suggested", "alone", "pooled")
READ = ("read", "read_recall")
BINS = ((0.0, 0.05), (0.05, 0.2), (0.2, 0.35), (0.35, 1.0))


@dataclass(frozen=True)
class Found:
    """What one way to audit finds at a site: AUC, and recall and precision of what it doubts, 0 to 1; NaN for none."""

    auc: float
    recall: float
    precision: float


@dataclass(frozen=True)
class Line:
    """One site: the truth, the estimates, and what the federation, the site alone and pooled data find.

    ``federated`` counts the labels to look at first, ``suggested`` those for which another one is suggested. ``read``
    is the share of lines that should hold 80 % of the wrong labels, and ``read_recall`` how many they do hold.
    """

    data: str
    noise: str
    method: str
    seed: int
    site: int
    examples: int
    rate: float
    estimate: float
    low: float
    high: float
    accuracy: float
    estimated_accuracy: float
    read: float
    read_recall: float
    federated: Found
    suggested: Found
    alone: Found
    pooled: Found | None

    @property
    def covered(self) -> bool:
        """Whether the interval holds the truth."""
        return self.low <= self.rate <= self.high


def measure(case: Case, folder: Path, pooled: bool) -> list[Line]:
    """Play a federation if need be, and return the line of each site."""
    play(case, folder)
    sites, _ = read(case, folder)
    rivals = _rivals(replace(case, method=next(iter(METHODS))), folder, pooled)
    return [_line(case, number, site, *rivals[number]) for number, site in enumerate(sites)]


@lru_cache(maxsize=64)
def _rivals(case: Case, folder: Path, pooled: bool) -> list[tuple[Found, Found | None]]:
    """Return what is found at each site alone, and on pooled data: the same whatever the federation's method."""
    play(case, folder)
    sites, _ = read(case, folder)
    alone = [
        confident_learning(out_of_fold(site.features, site.labels, case.seed), site.labels, site.wrong)
        for site in sites
    ]
    return list(zip(alone, pooled_audit(sites) if pooled else [None] * len(sites), strict=True))


def _line(case: Case, number: int, site: SiteTrace, alone: Found, pooled: Found | None) -> Line:
    beliefs, places = site.beliefs[-1].astype(np.float64), np.arange(len(site.labels))
    data = ClientData(number, torch.empty(len(places), 0), site.labels, places, beliefs.shape[1])
    audit = make_audit(beliefs, site.labels, data, [str(place) for place in places])
    wrong = site.wrong[np.array([int(name) for name in audit.names])]
    lines = audit.lines_to_find(MOST)
    return Line(
        **asdict(case),
        site=number,
        examples=len(audit),
        rate=float(wrong.mean()),
        estimate=audit.estimate.rate,
        low=audit.estimate.low,
        high=audit.estimate.high,
        accuracy=float((beliefs.argmax(1) == site.truth).mean()),
        estimated_accuracy=audit.estimate.accuracy,
        read=lines / len(audit),
        read_recall=float(wrong[:lines].sum() / wrong.sum()) if wrong.any() else np.nan,
        federated=scored(audit.suspicion, audit.look, wrong),
        suggested=scored(audit.suspicion, audit.suggested != audit.given, wrong),
        alone=alone,
        pooled=pooled,
    )


def pooled_audit(sites: Sequence[SiteTrace]) -> list[Found]:
    """Return what cleanlab finds at each site if it has the data of all."""
    labels = np.concatenate([site.labels for site in sites])
    beliefs = out_of_fold(np.concatenate([site.features for site in sites]), labels, seed=0)
    quality, doubted = _cleanlab(beliefs, labels)
    ends = np.cumsum([len(site.labels) for site in sites])[:-1]
    parts = zip(np.split(-quality, ends), np.split(doubted, ends), sites, strict=True)
    return [scored(doubts, chosen, site.wrong) for doubts, chosen, site in parts]


def out_of_fold(features: npt.NDArray[np.float32], labels: Labels, seed: int) -> Beliefs:
    """Return probabilities of the classes that occur (n, C), of models that have not seen the example's label."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import KFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classes = np.unique(labels)
    beliefs = np.zeros((len(labels), len(classes)))
    for train, test in KFold(min(FOLDS, len(labels)), shuffle=True, random_state=seed).split(features):
        known = np.unique(labels[train])
        if len(known) == 1:
            beliefs[np.ix_(test, np.searchsorted(classes, known))] = 1.0
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY, tol=1e-3))
        model.fit(features[train], labels[train])
        beliefs[np.ix_(test, np.searchsorted(classes, model.classes_))] = model.predict_proba(features[test])
    return beliefs


def confident_learning(beliefs: Beliefs, labels: Labels, wrong: npt.NDArray[np.bool_]) -> Found:
    """Return what cleanlab finds with these beliefs of the classes that occur, (n, C)."""
    quality, doubted = _cleanlab(beliefs, labels)
    return scored(-quality, doubted, wrong)


def _cleanlab(beliefs: Beliefs, labels: Labels) -> tuple[Beliefs, npt.NDArray[np.bool_]]:
    """Return label quality, (n,), and which labels have issues, (n,), by cleanlab's defaults."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    classes, given = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        return np.ones(len(labels)), np.zeros(len(labels), bool)
    doubted = find_label_issues(given, beliefs, n_jobs=1)
    return get_label_quality_scores(given, beliefs, method="normalized_margin"), np.asarray(doubted)


def scored(doubts: Beliefs, chosen: npt.NDArray[np.bool_], wrong: npt.NDArray[np.bool_]) -> Found:
    """Compare ``doubts`` (n,) and what is ``chosen`` (n,) with the truth (n,)."""
    from sklearn.metrics import roc_auc_score

    hits, both = int((chosen & wrong).sum()), wrong.any() and not wrong.all()
    return Found(
        float(roc_auc_score(wrong, doubts)) if both else np.nan,
        hits / int(wrong.sum()) if wrong.any() else np.nan,
        hits / int(chosen.sum()) if chosen.any() else np.nan,
    )


def coverage_table(lines: Sequence[Line]) -> str:
    """Return how often intervals hold the truth, and how wide they are, in percent, by data, noise and method."""
    groups = list(dict.fromkeys((line.data, line.noise, line.method) for line in lines))
    rows = [
        "| data | labels | method | sites | covered | width | mean error | deviation | right (estimated) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for group in [*groups, None]:
        some = [line for line in lines if group in (None, (line.data, line.noise, line.method))]
        error = [line.estimate - line.rate for line in some]
        numbers = (
            100 * fmean(line.covered for line in some),
            100 * fmean(line.high - line.low for line in some),
            100 * fmean(error),
            100 * float(np.sqrt(np.mean(np.square(error)))),
            100 * fmean(line.accuracy for line in some),
        )
        estimated = 100 * fmean(line.estimated_accuracy for line in some)
        names = " | ".join(group or ("all", "", ""))
        rows.append(f"| {names} | {len(some)} | {' | '.join(f'{n:.1f}' for n in numbers)} ({estimated:.1f}) |")
    return "\n".join(rows)


def audit_table(lines: Sequence[Line]) -> str:
    """Return AUC / recall / precision in percent by data and rate of wrong labels, and the lines for 80 % of them."""
    rows = [
        "| data | wrong labels | sites | first lines | suggested | alone | pooled | lines for 80 %: of all, hold |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for data in dict.fromkeys(line.data for line in lines):
        for low, high in BINS:
            some = [line for line in lines if line.data == data and low < line.rate <= high]
            if not some:
                continue
            cells = [_cell([found for line in some if (found := getattr(line, way))]) for way in WAYS]
            read = " / ".join(f"{100 * fmean(getattr(line, name) for line in some):.1f}" for name in READ)
            rows.append(f"| {data} | {100 * low:.0f}-{100 * high:.0f} % | {len(some)} | {' | '.join(cells)} | {read} |")
    return "\n".join(rows)


def _cell(found: Sequence[Found]) -> str:
    if not found:
        return "-"
    return " / ".join(
        f"{100 * np.nanmean([getattr(one, name) for one in found]):.1f}" for name in ("auc", "recall", "precision")
    )


def write_lines(path: Path, lines: Sequence[Line]) -> None:
    """Write a line for each site as CSV."""
    flat = [_flat(line) for line in lines]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(flat[0]))
        writer.writeheader()
        writer.writerows(flat)


def _flat(line: Line) -> dict[str, object]:
    simple = {field.name: getattr(line, field.name) for field in fields(line) if field.name not in WAYS}
    for way in WAYS:
        found = getattr(line, way) or Found(np.nan, np.nan, np.nan)
        simple |= {f"{name}_{way}": value for name, value in asdict(found).items()}
    return simple


def cases(args: argparse.Namespace) -> list[Case]:
    """Return the federations that are asked for; nobody has labelled the digits wrong by hand."""
    chosen = product(args.seeds, args.noises, args.data, args.methods)
    wanted = [Case(data, noise, method, seed) for seed, noise, data, method in chosen]
    return [case for case in wanted if (case.data, case.noise) != ("digits", "human")]


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, choices in (("data", DATA), ("noises", NOISES), ("methods", METHODS)):
        parser.add_argument(f"--{name}", nargs="+", choices=choices, default=list(choices))
    parser.add_argument("--seeds", nargs="+", type=int, default=[2, 3])
    parser.add_argument("--pooled", action="store_true", help="compare with the data of all sites in one place too")
    parser.add_argument(
        "--traces", type=path_argument, default=Path("audit-traces"), help="folder of played federations"
    )
    parser.add_argument("--output", type=path_argument, required=True, help="CSV file of sites")
    return parser.parse_args(given)


def main() -> None:
    """Measure, print the tables and write them beside the CSV file."""
    args = arguments()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    lines: list[Line] = []
    for case in cases(args):
        lines += measure(case, args.traces, args.pooled)
        covered = sum(line.covered for line in lines)
        print(f"{case}: {covered} of {len(lines)} intervals so far hold the truth", flush=True)
        text = f"{coverage_table(lines)}\n\nAUC / recall / precision:\n\n{audit_table(lines)}\n"
        write_lines(args.output, lines)
        args.output.with_suffix(".md").write_text(text)
    print(f"\n{text}")


if __name__ == "__main__":
    main()
