"""Error rates of a sweep's tests: how often tables without any difference claim one, and how often a true one is found.

Tables of options x settings x seeds are simulated with normal values whose differences within a seed go together to a
chosen degree, because the settings of a seed share the division of the data and the initial weights. Each is compared
as ``winnow results`` does it. Counted are tables with at least one wrong claim (familywise error).
"""

import argparse
from collections import Counter
from itertools import product

import numpy as np

from server_app.sweep.comparison import compare
from server_app.sweep.database import COMPLETED, SweepDesign, SweepRun
from server_app.sweep.results import BETTER, WORSE, Comparison
from tasks.seeds import rng

CLAIMS = ("over all, against the baseline", "in a setting, against the baseline", "over all, against the best", "any")


def simulated(options: int, settings: int, seeds: int, correlation: float, effect: float, number: int) -> Comparison:
    """Return one table; ``effect`` is what the last option has more than all others, in deviations of a run.

    ``correlation`` is that of an option's values with one seed in two settings, without what the seed does to all.
    """
    random = rng(number, "sweep-error-rates", options, settings, seeds, str(correlation))
    shape = (options, settings, seeds)
    shared = (
        random.standard_normal((1, settings, seeds)) + random.standard_normal((options, 1, seeds)) * correlation**0.5
    )
    values = shared + random.standard_normal(shape) * (1 - correlation) ** 0.5
    values[-1] += effect
    axes = {name: tuple(map(str, range(count))) for name, count in zip(("method", "noise", "seed"), shape, strict=True)}
    points = product(*axes.values())
    runs = [
        SweepRun(
            f"{place}",
            place,
            dict(zip(axes, point, strict=True)),
            {},
            state=COMPLETED,
            series={"accuracy": ((1, float(value)),)},
        )
        for place, (point, value) in enumerate(zip(points, values.ravel(), strict=True))
    ]
    return compare(SweepDesign("simulated", axes, "method", "0"), runs)


def claims(found: Comparison) -> set[str]:
    """Return which kinds of claims a table makes."""
    overall, cells = found.overall.values(), found.cells.values()
    said = {
        CLAIMS[0]: any(each.against_baseline and each.against_baseline.verdict for each in overall),
        CLAIMS[1]: any(each.against_baseline and each.against_baseline.verdict for each in cells),
        CLAIMS[2]: any(each.against_best and each.against_best.verdict == WORSE for each in overall),
    }
    made = {name for name, is_made in said.items() if is_made}
    return made | ({CLAIMS[3]} if made else set())


def main() -> None:
    """Print the rates of wrong claims, and how often a true difference from the baseline is found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=1000, help="simulated for each line")
    parser.add_argument("--options", type=int, default=8)
    parser.add_argument("--settings", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 10])
    parser.add_argument("--correlations", type=float, nargs="+", default=[0.0, 0.3, 0.6])
    parser.add_argument("--effect", type=float, default=3.0, help="a true difference, in deviations of a run")
    args = parser.parse_args()
    print(f"{args.options} options, {args.settings} settings, {args.tables} tables a line; share of tables in %")
    print("seeds  correlation  " + "  ".join(CLAIMS) + f"  true effect of {args.effect:g} found")
    for seeds, correlation in product(args.seeds, args.correlations):
        size = (args.options, args.settings, seeds, correlation)
        counts = Counter(kind for number in range(args.tables) for kind in claims(simulated(*size, 0.0, number)))
        tables = (simulated(*size, args.effect, -1 - number) for number in range(args.tables // 5))
        last = f"{args.options - 1}"
        power = np.mean([_is_better(found, last) for found in tables])
        rates = "  ".join(f"{100 * counts[kind] / args.tables:>{len(kind)}.1f}" for kind in CLAIMS)
        print(f"{seeds:>5}  {correlation:>11g}  {rates}  {100 * power:>10.1f}", flush=True)


def _is_better(found: Comparison, option: str) -> bool:
    difference = found.overall[option].against_baseline
    return difference is not None and difference.verdict == BETTER


if __name__ == "__main__":
    main()
