"""How well do the aggregation rules withstand hostile clients? A grid of attacks, rules and shares of attackers.

    python -m benchmarks.attack_grid --jobs 2 --output attack-grid.csv
    python -m benchmarks.attack_grid --attacks none "alie: z = 1.0" --rules mean nnm+krum --output few.csv
    python -m benchmarks.attack_grid --task cifar-10 --rounds 60 --output attack-grid-cifar10.csv

All clients run in this process, without Ray; labels have no noise beside that of the attackers. Rules that have to know
how many clients may be hostile are told the number of those that are. ``step+rule`` puts a step before a rule. Finished
runs stay in the CSV file and are not repeated; the tables are written beside it, as Markdown.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from benchmarks.attack_cases import TASKS, Case, impossible
from benchmarks.attack_runs import Outcome, run_case, tables
from benchmarks.ledger import Ledger, positive
from server_app.cli.config import path_argument
from strategies.aggregators import AGGREGATORS

ATTACKS = (
    "none",
    "label-flip",
    "backdoor: size = 3, share = 0.3",
    "sign-flip: scale = 4.0",
    "gaussian",
    "scaling",
    "alie: z = 1.5",
    "inner-product: epsilon = 0.5",
    "inner-product: epsilon = 10.0",
    "small-loss",
)
BEFORE = ("nnm+geometric-median", "nnm+trimmed-mean", "bucketing+geometric-median")
"""Steps before rules that are shown beside the rules on their own."""


def default_rules() -> list[str]:
    """Return the mean as the reference, all other built-in rules, and some steps before rules."""
    names = [entry.name for entry in AGGREGATORS.entries() if entry.name != "mean"]
    return ["mean", *names, *BEFORE]


def cases(args: argparse.Namespace) -> list[Case]:
    """Return the runs that are asked for, one seed after the other."""
    return [
        Case(args.task, args.rounds, *client, attack, rule, share, seed)
        for seed in args.seeds
        for client in args.client
        for share in args.shares
        for attack in args.attacks
        for rule in args.rules
    ]


def possible(wanted: Sequence[Case]) -> list[Case]:
    """Return the runs that can be made, and say why the others cannot."""
    kept = []
    for case in wanted:
        reason = impossible(case)
        if reason:
            print(f"left out: {case}: {reason}", flush=True)
        else:
            kept.append(case)
    return kept


def words(case: Case, outcome: Outcome) -> str:
    """Return the line about a finished run."""
    return f"{case}: accuracy {outcome.mean_accuracy:.1f} % after {outcome.seconds:.1f} s"


def client(text: str) -> tuple[str, str]:
    """Return name and settings of a kind of client given as ``name=inline TOML``.

    Raises
    ------
    ArgumentTypeError
        If there is no name.
    """
    name, equals, settings = text.partition("=")
    if not equals or not name.strip():
        raise argparse.ArgumentTypeError(f"expected NAME=settings as inline TOML, not {text!r}")
    return name.strip(), settings.strip()


def share(text: str) -> float:
    """Return a share above 0 and at most 1.

    Raises
    ------
    ArgumentTypeError
        If it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a share above 0 and at most 1, not {text!r}")
    return value


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=path_argument, required=True, help="CSV file; finished runs in it are not repeated"
    )
    parser.add_argument("--task", choices=list(TASKS), default="digits")
    parser.add_argument("--rounds", type=positive, default=30)
    parser.add_argument("--attacks", nargs="+", default=ATTACKS, help="names, with arguments as 'alie: z = 1.5'")
    parser.add_argument("--rules", nargs="+", default=default_rules(), help="names, with steps before as nnm+krum")
    parser.add_argument("--shares", nargs="+", type=share, default=[0.1, 0.2], help="of hostile clients")
    parser.add_argument(
        "--client",
        type=client,
        action="append",
        help='NAME=settings of the clients as inline TOML, again for more; default: ce=loss.name = "ce"',
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--jobs", type=positive, default=1, help="runs side by side, each in its own process")
    args = parser.parse_args(given)
    args.client = args.client or [(Case.client, Case.settings)]
    return args


def main() -> None:
    """Do the runs, print the tables and write them beside the CSV file."""
    args = arguments()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    try:
        wanted = cases(args)
        runs = Ledger(args.output, Case, Outcome).complete(possible(wanted), run_case, args.jobs, words)
    except ValueError as error:  # what the user can put right: settings, data, files, names
        sys.exit(f"error: {error}")
    text = f"{args.task}, test accuracy in percent, mean of the last rounds.\n\n{tables(runs, wanted)}"
    args.output.with_suffix(".md").write_text(text)
    print(f"\n{text}")


if __name__ == "__main__":
    main()
