"""Notes of a table of results: what its numbers are, what was found, what cannot be told, and what is missing.

Nothing is called better without a test.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from server_app.report.text import counted, is_share, measure_title, unbroken
from server_app.sweep.database import BEST, LAST, LAST_TEN, PENDING, RUNNING
from server_app.sweep.results import BEST_MARK, BETTER, WORSE, Comparison, Family
from server_app.sweep.selection import name_of
from server_app.sweep.statistics import FLIPPED_PAIRS, LEVEL, pairs_needed

SUMMARIES = {
    LAST: "the value of the last evaluated round",
    LAST_TEN: "the mean of the last ten evaluated rounds",
    BEST: "the test value of the round that is best on validation data",
}
CODE = ("git", "winnow", "torch", "flwr")
"""Which facts of versions.json say what code ran."""
SHOWN_RUNS = 5


@dataclass(frozen=True)
class Figures:
    """How a measure's values are written: shares in percent, with as many decimals as the deviations call for."""

    is_share: bool
    decimals: int

    @classmethod
    def of(cls, found: Comparison) -> "Figures":
        """Return those of a table: the usual deviation has at least one digit that is not 0."""
        share = is_share(found.measure)
        deviations = [score.deviation for score in found.cells.values() if score.deviation]
        usual = float(np.median(deviations)) * (100 if share else 1) if deviations else 1.0
        fewest = 1 if share else 3
        return cls(share, int(min(6, max(fewest, -np.floor(np.log10(usual)))))) if usual else cls(share, fewest)

    def value(self, amount: float) -> str:
        """Write a value or a deviation, without its unit."""
        return f"{amount * (100 if self.is_share else 1):.{self.decimals}f}"

    def difference(self, amount: float) -> str:
        """Write a difference with its sign, without its unit."""
        return f"{amount * (100 if self.is_share else 1):+.{self.decimals}f}"

    @property
    def unit(self) -> str:
        """The unit of values, with the space before it; that of differences is ``points``."""
        return " %" if self.is_share else ""


def p_text(p: float) -> str:
    """Write a probability with two digits, close to the level with enough to tell on which side it is.

    >>> p_text(0.0625), p_text(0.00004), p_text(1.0), p_text(0.0504)
    ('p = 0.062', 'p < 0.0001', 'p = 1', 'p = 0.0504')
    """
    digits = next((digits for digits in range(2, 9) if (float(f"{p:.{digits}g}") <= LEVEL) == (p <= LEVEL)), 9)
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.{digits}g}"


def notes(found: Comparison) -> tuple[str, ...]:
    """Return what must be read with the table, a sentence or two each."""
    parts = [_numbers(found), _tests(found), _limits(found), _baseline(found), _missing(found), _not_run(found)]
    return tuple(unbroken(part) for part in [*parts, _versions(found)] if part)


def findings(found: Comparison) -> tuple[str, ...]:
    """Return what the table says over all settings: which option is best, what the tests say, how firm its rank is."""
    best = next((option for option in found.options if found.overall[option].mark == BEST_MARK), "")
    if not best or len(found.options) < 2:
        return ()
    mean, figures = found.overall[best].mean, Figures.of(found)
    assert mean is not None, "the best one has a mean"
    where = "over all settings" if len(found.settings) > 1 else "of all"
    first = f"{best} has the best mean {where}: {figures.value(mean)}{figures.unit}."
    parts = [f"{first} {_against_best(found, best)}", _against_baseline(found), _ranks(found)]
    return tuple(unbroken(part) for part in parts if part)


def _against_best(found: Comparison, best: str) -> str:
    others = {name: found.overall[name].against_best for name in found.options if name != best}
    worse = [name for name, each in others.items() if each and each.verdict == WORSE]
    untold = [name for name, each in others.items() if each is None or each.p is None]
    alike = [name for name in others if name not in worse and name not in untold]
    parts = []
    if worse:
        parts.append(f"Among all pairs it is significantly better than {_listed(worse)}.")
    if alike:
        parts.append(f"Among all pairs its difference from {_listed(alike)} is not significant.")
    if untold:
        parts.append(f"Not tested for lack of pairs: {_listed(untold)}.")
    return " ".join(parts)


def _against_baseline(found: Comparison) -> str:
    figures = Figures.of(found)
    told: dict[str, list[str]] = {BETTER: [], WORSE: []}
    for option in found.options:
        each = found.overall[option].against_baseline
        if each and each.verdict and each.mean is not None and each.adjusted is not None:
            told[each.verdict].append(f"{option} ({figures.difference(each.mean)}, {p_text(each.adjusted)})")
    words = [f"significantly {verdict}: {_listed(names)}" for verdict, names in told.items() if names]
    if not found.families.overall_baseline.comparisons:
        return ""
    return f"Compared with {found.baseline}, {'; '.join(words) or 'no difference is significant'}."


def _ranks(found: Comparison) -> str:
    ranked = {option: score.rank for option, score in found.overall.items() if score.rank is not None}
    if len(ranked) < 2 or not found.stability:
        return ""
    first = min(ranked, key=lambda option: ranked[option])
    stable = found.stability[first]
    words = f"{first} has the best mean rank ({ranked[first]:.1f}); it keeps it in {_share(stable.seeds)} of the tables"
    words += " drawn again from the same seeds"
    if len(found.settings) > 1:
        words += f", in {_share(stable.seeds_and_settings)} with the settings drawn again too"
    if found.agreement is not None:
        words += f"; the settings agree on the order with Kendall's W = {found.agreement:.2f} (1 = the same everywhere)"
    return f"{words}."


def _share(share: float) -> str:
    return f"{100 * share:.0f} %"


def _numbers(found: Comparison) -> str:
    figures = Figures.of(found)
    title = measure_title(found.measure)
    unit = f" in{figures.unit}" if figures.unit else ""
    lower = " (lower is better)" if found.lower_is_better else ""
    seeds = (
        f"mean ± standard deviation over {counted(len(found.seeds), 'seed')}" if len(found.seeds) > 1 else "one seed"
    )
    return f"{title}{unit} on test data{lower}: {seeds}; of each run {SUMMARIES[found.summary]}."


def _tests(found: Comparison) -> str:
    """Say which tests were made, where there are any."""
    families = found.families
    if not families.overall_best.comparisons:
        return ""
    flips, many = "exact sign flips", "Wilcoxon's signed ranks"
    within = flips if families.cells_best.pairs <= FLIPPED_PAIRS else many
    over = flips if families.overall_best.pairs <= FLIPPED_PAIRS else many
    counts = f"{families.overall_best.comparisons} from the best, any pair of options"
    counts += f", and {families.overall_baseline.comparisons} from the baseline" if found.baseline else ""
    return (
        f"Two-sided tests of the differences between runs of one setting and seed, significant at {LEVEL} after Holm's "
        f"correction. In one setting: {within}. Over all: the larger p of {over} of all pairs and of Student's t over "
        f"the seeds' means; {counts}."
    )


def _limits(found: Comparison) -> str:
    """Say in words what so few seeds cannot show."""
    seeds, cells, overall = len(found.seeds), found.families.cells_best, found.families.overall_best
    if len(found.options) < 2:
        return ""
    if not overall.comparisons:
        return (
            "No difference was tested: that takes two seeds at least, with values in every setting; nothing here says "
            "that an option is better."
        )
    if not overall.can_be_significant:
        where = "in one setting or over all" if len(found.settings) > 1 else "here"
        return f"With {counted(seeds, 'seed')} no difference can be significant {where}: {_smallest(overall)}."
    if cells.can_be_significant:
        return ""
    whom = " from the best" if found.families.cells_baseline.can_be_significant else ""
    words = f"With {counted(seeds, 'seed')} no difference{whom} in one setting can be significant: {_smallest(cells)}."
    return f"{words} Over all settings it can." if len(found.settings) > 1 else words


def _smallest(family: Family) -> str:
    corrected = min(1.0, family.comparisons * family.smallest_p)
    return (
        f"the smallest p of {counted(family.pairs, 'pair')} is {family.smallest_p:.3g}, after correction for "
        f"{counted(family.comparisons, 'comparison')} {corrected:.3g}; {pairs_needed(family.comparisons)} pairs"
        " would do"
    )


def _baseline(found: Comparison) -> str:
    wanted = found.design.baseline
    if found.baseline or not wanted:
        return ""
    return f"The baseline {wanted} is not among the runs shown."


def _missing(found: Comparison) -> str:
    """Name the runs that ended without a value, and count those that are still to come."""
    if not found.missing:
        return ""
    states = Counter(each.run.state for each in found.missing)
    ended = [each for each in found.missing if each.run.state not in (PENDING, RUNNING)]
    words = [f"{name_of(each.run)} {each.why}" for each in ended[:SHOWN_RUNS]]
    words += [f"and {len(ended) - SHOWN_RUNS} more"] if len(ended) > SHOWN_RUNS else []
    words += [
        f"{states[state]} {word}" for state, word in ((RUNNING, "running"), (PENDING, "to come")) if states[state]
    ]
    number = f"{len(found.missing)} of {counted(len(found.runs), 'run')}"
    return f"{number} have no value, and their pairs are left out: {'; '.join(words)}."


def _not_run(found: Comparison) -> str:
    """Say which options have no mean over all settings because some were not asked for."""
    absent = {name: [each for each in found.settings if (name, each) not in found.cells] for name in found.options}
    words = [f"{name} (without {_listed(map(found.title, each))})" for name, each in absent.items() if each]
    return f"Not run everywhere, so without mean over all settings: {'; '.join(words)}." if words else ""


def _versions(found: Comparison) -> str:
    """Say so if the runs were not all made by the same code."""
    kinds = Counter(tuple((name, run.versions[name]) for name in CODE if name in run.versions) for run in found.runs)
    kinds.pop((), None)
    if len(kinds) < 2:
        return ""
    same = set.intersection(*(set(kind) for kind in kinds))
    own = [
        (" ".join(f"{name} {value[:12]}" for name, value in kind if (name, value) not in same), kind)
        for kind, _ in kinds.most_common()
    ]
    texts = [f"{said or 'of unknown commit'} ({counted(kinds[kind], 'run')})" for said, kind in own]
    return f"The runs are of {len(kinds)} versions of the code: {'; '.join(texts)}."


def _listed(names: Iterable[str]) -> str:
    """Write names as a person lists them.

    >>> _listed(["a"]), _listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    *firsts, last = names
    return f"{', '.join(firsts)} and {last}" if firsts else last
