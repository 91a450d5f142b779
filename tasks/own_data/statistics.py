"""Statistics of a table's columns: moments of numbers, values of categories, missing cells; of a site, and merged.

A site says how many numbers a column has, their mean and the sum of their squared deviations from it (M2). Merged,
these are what all rows together would give, and no row leaves its site. Of categories it says which values there are.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.base import DataError
from tasks.issues import listed
from tasks.plugins import did_you_mean

Floats = npt.NDArray[np.float64]
LARGEST = 1e100
"""Of a number in a table: sums of squares stay finite, and so does what any site can make of the merged ones."""
FARTHEST = 1e6
"""Of a standardised number, in deviations; only numbers that were not there when the mean was taken lie so far out."""
MOST_VALUES, LONGEST_VALUE = 1000, 100
APART = 1000.0
"""Deviations of the median site between its mean and that of a site which cannot measure the same thing."""


@dataclass(frozen=True)
class Columns:
    """The declared columns: names of those of numbers, and of categories the values, none where they are asked for."""

    numbers: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations from the mean of a column's numbers, and how many are missing."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    missing: int = 0

    @classmethod
    def of(cls, values: Floats) -> "Moments":
        """Return the moments of numbers (n,), NaN where one is missing."""
        there = values[~np.isnan(values)]
        if not len(there):
            return cls(missing=len(values))
        mean = float(there.mean())
        return cls(len(there), mean, float(np.square(there - mean).sum()), len(values) - len(there))

    def merged(self, other: "Moments") -> "Moments":
        """Return the moments of two groups together (Chan, Golub, LeVeque, The American Statistician 1983)."""
        count, missing = self.count + other.count, self.missing + other.missing
        if not count:
            return Moments(missing=missing)
        apart, share = other.mean - self.mean, other.count / count
        squares = self.squares + other.squares + apart * apart * self.count * share
        return Moments(count, self.mean + apart * share, squares, missing)

    @property
    def deviation(self) -> float:
        """Population standard deviation; 0 where it cannot be told from the rounding of the mean."""
        if not self.count:
            return 0.0
        variance, rounding = self.squares / self.count, self.count * np.finfo(np.float64).eps
        constant = variance <= rounding * variance + (rounding * self.mean) ** 2
        return 0.0 if constant else math.sqrt(variance)


@dataclass(frozen=True)
class Summary:
    """What one site says of its columns, each in the order of their declaration."""

    numbers: tuple[Moments, ...]
    values: tuple[tuple[str, ...], ...]
    missing: tuple[int, ...]

    def metrics(self) -> dict[str, list[int] | list[float]]:
        """Return the summary as it travels; metrics hold numbers only, so texts are their bytes in UTF-8."""
        return {
            "number-counts": [moments.count for moments in self.numbers],
            "number-missing": [moments.missing for moments in self.numbers],
            "number-means": [moments.mean for moments in self.numbers],
            "number-squares": [moments.squares for moments in self.numbers],
            "category-missing": list(self.missing),
            "category-values": list(json.dumps(self.values, ensure_ascii=False).encode()),
        }

    @classmethod
    def read(cls, metrics: Mapping[str, Any], columns: Columns, examples: int) -> "Summary":
        """Return the summary behind metrics that a site with so many examples has sent.

        Raises
        ------
        ValueError
            If it is none: another number of columns, counts that do not fit, numbers that are not finite or too large,
            too many or too long values.
        """
        wide, sorts = len(columns.numbers), len(columns.categories)
        counts = _numbers(metrics, "number-counts", wide, 0, examples, int)
        missing = _numbers(metrics, "number-missing", wide, 0, examples, int)
        means = _numbers(metrics, "number-means", wide, -LARGEST, LARGEST, float)
        squares = _numbers(metrics, "number-squares", wide, 0, 4 * LARGEST**2 * examples, float)
        if any(there + gone > examples for there, gone in zip(counts, missing, strict=True)):
            raise ValueError("its number-counts and number-missing are more than its examples")
        moments = tuple(map(Moments, counts, means, squares, missing))
        unasked = _numbers(metrics, "category-missing", sorts, 0, examples, int)
        return cls(moments, _values(metrics.get("category-values"), columns), unasked)


@dataclass(frozen=True)
class Statistics:
    """What the model's inputs are made by, the same at every site.

    ``means`` and ``deviations`` (0 of a constant) are those of numbers; ``gaps`` says which columns have missing cells,
    numbers first; ``values`` are those of categories. Columns are in the order of their declaration.
    """

    columns: Columns
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    gaps: tuple[bool, ...]
    values: tuple[tuple[str, ...], ...]

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.means) + sum(self.gaps) + sum(map(len, self.values))

    def transform(self, raw: Floats, vocabulary: Sequence[Sequence[str]]) -> Floats:
        """Return the features (n, width) of rows (n, columns): numbers, then places in the ``vocabulary`` of a column.

        A missing cell is NaN. Features are the standardised numbers (0 if missing), for each column of numbers with
        gaps 1 where it is missing, and for each column of categories one for each value and, with gaps, one for none.
        A value that is not listed has 0 in all of them.
        """
        wide = len(self.means)
        scale = np.array([deviation or 1.0 for deviation in self.deviations])
        standard = (raw[:, :wide] - np.array(self.means)) / scale
        missing = np.isnan(raw)
        blocks = [
            np.nan_to_num(standard, nan=0.0).clip(-FARTHEST, FARTHEST),
            missing[:, :wide][:, list(self.gaps[:wide])].astype(np.float64),
        ]
        for place, known in enumerate(self.values, start=wide):
            numbers = [known.index(value) if value in known else -1 for value in vocabulary[place - wide]]
            codes = np.append(numbers, -1).astype(np.int64)[np.nan_to_num(raw[:, place], nan=-1).astype(np.int64)]
            blocks.append((codes[:, None] == np.arange(len(known))).astype(np.float64))
            if self.gaps[place]:
                blocks.append(missing[:, [place]].astype(np.float64))
        return np.concatenate(blocks, axis=1)

    def unknown(self, vocabulary: Sequence[Sequence[str]]) -> dict[str, list[str]]:
        """Return the values of each column of categories that are not listed here, for columns that have any."""
        named = zip(self.columns.categories, vocabulary, self.values, strict=True)
        found = {name: sorted(set(found) - set(known)) for name, found, known in named}
        return {name: values for name, values in found.items() if values}

    def content(self) -> dict[str, Any]:
        """Return the statistics by column, as they are written down."""
        wide, sorts = len(self.means), self.columns.categories
        facts = zip(self.columns.numbers, self.means, self.deviations, self.gaps[:wide], strict=True)
        return {
            "numbers": {name: {"mean": mean, "deviation": spread, "gaps": gaps} for name, mean, spread, gaps in facts},
            "categories": {
                name: {"values": list(values), "gaps": gaps}
                for name, values, gaps in zip(sorts, self.values, self.gaps[wide:], strict=True)
            },
        }

    def text(self) -> str:
        """Return the statistics as JSON on one line, from which :meth:`read` makes the same ones bit for bit."""
        return json.dumps(self.content(), ensure_ascii=False)

    @classmethod
    def read(cls, text: str, columns: Columns) -> "Statistics":
        """Return the statistics behind a text, for these columns; whatever else it holds does not count.

        Raises
        ------
        DataError
            If it is not JSON as :meth:`text` writes it, or describes other columns.
        """
        try:
            found = json.loads(text)
            numbers, sorts = (dict(found.get(kind, {})) for kind in ("numbers", "categories"))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"statistics are no JSON object with numbers and categories: {error}") from error
        _check_names("numbers", numbers, columns.numbers)
        _check_names("categories", sorts, columns.categories)
        moments = [_moments(name, numbers[name]) for name in columns.numbers]
        listed_values = [_category(name, sorts[name]) for name in columns.categories]
        return cls(
            columns,
            tuple(mean for mean, _, _ in moments),
            tuple(spread for _, spread, _ in moments),
            (*(gaps for _, _, gaps in moments), *(gaps for _, gaps in listed_values)),
            tuple(values for values, _ in listed_values),
        )


def merge(summaries: Sequence[Summary], columns: Columns, min_sites: int = 1) -> Statistics:
    """Return the statistics of all sites together.

    Values of categories that are not declared are those that ``min_sites`` sites hold, in alphabetical order; of more
    than ``MOST_VALUES`` those that most sites hold.
    """
    moments = [reduce(Moments.merged, column) for column in zip(*(one.numbers for one in summaries), strict=True)]
    gaps = [any(column) for column in zip(*(one.missing for one in summaries), strict=True)]
    values = []
    for place, declared in enumerate(columns.categories.values()):
        held = Counter(value for one in summaries for value in one.values[place])
        common = sorted((value for value in held if held[value] >= min_sites), key=lambda value: (-held[value], value))
        values.append(declared or tuple(sorted(common[:MOST_VALUES])))
    return Statistics(
        columns,
        tuple(one.mean for one in moments),
        tuple(one.deviation for one in moments),
        (*(one.missing > 0 for one in moments), *gaps),
        tuple(values),
    )


def apart(summaries: Mapping[int, Summary], columns: Columns) -> dict[int, str]:
    """Return the sites whose numbers cannot be those of the others, with the reason: another unit, or an attack.

    A site is one if in some column its mean lies ``APART`` deviations from the median of all sites' means, or its
    deviation is that many times the median one. Below three sites nobody can tell who is right.
    """
    found: dict[int, str] = {}
    for place, name in enumerate(columns.numbers):
        sites = {site: one.numbers[place] for site, one in summaries.items() if one.numbers[place].count}
        middle = float(np.median([one.mean for one in sites.values()])) if sites else 0.0
        spread = float(np.median([one.deviation for one in sites.values()])) if sites else 0.0
        for site, one in sites.items() if len(sites) > 2 and spread > 0 else ():
            if max(abs(one.mean - middle), one.deviation) > APART * spread:
                found.setdefault(
                    site,
                    f"its numbers in the column {name!r}, {one.mean:.3g} with deviation {one.deviation:.3g}, cannot be "
                    f"those of the other sites, about {middle:.3g} with {spread:.3g}; is it another unit?",
                )
    return found


def _numbers(metrics: Mapping[str, Any], key: str, size: int, low: float, high: float, kind: type) -> tuple[Any, ...]:
    given = metrics.get(key)
    fits = isinstance(given, list) and len(given) == size and all(type(value) is kind for value in given)
    if not fits or not all(low <= value <= high for value in given or ()):  # NaN is not
        raise ValueError(f"its {key} must be {size} numbers from {low:.3g} to {high:.3g}, got {given!r:.100}")
    return tuple(given or ())


def _values(given: Any, columns: Columns) -> tuple[tuple[str, ...], ...]:
    """Return the values of each column of categories behind the bytes of their JSON."""
    try:
        found = tuple(tuple(column) for column in json.loads(bytes(given if isinstance(given, list) else ())))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError("its category-values must be the bytes of a JSON list of lists") from error
    if len(found) != len(columns.categories):
        raise ValueError(f"its category-values must be {len(columns.categories)} lists, got {len(found)}")
    for (name, declared), values in zip(columns.categories.items(), found, strict=True):
        if declared and values:
            raise ValueError(f"it names values of the column {name!r}, which are declared")
        _check_values(name, values)
    return found


def _check_values(name: str, values: Sequence[Any]) -> None:
    """Raise ``ValueError`` unless these are different texts that may be the values of a column of categories."""
    if not all(isinstance(value, str) and 0 < len(value) <= LONGEST_VALUE for value in values):
        raise ValueError(f"values of the column {name!r} must be texts of 1 to {LONGEST_VALUE} characters")
    "".join(values).encode()  # half a character, which no file takes, is a ValueError too
    if len(set(values)) < len(values) or len(values) > MOST_VALUES:
        raise ValueError(f"values of the column {name!r} must be different, and at most {MOST_VALUES}")


def _check_names(kind: str, found: Mapping[str, Any], wanted: Sequence[str] | Mapping[str, Any]) -> None:
    for name in wanted:
        if name not in found:
            raise DataError(f"statistics have no {kind} of the column {name!r}{did_you_mean(name, found)}")
    if others := [name for name in found if name not in wanted]:
        raise DataError(f"statistics have {kind} of columns that are not declared: {listed(others)}")


def _moments(name: str, facts: Any) -> tuple[float, float, bool]:
    """Return mean, deviation and whether there are gaps, as they were written down of a column of numbers."""
    given: dict[str, Any] = facts if isinstance(facts, dict) else {}
    mean, spread, gaps = (
        given.get(key, default) for key, default in (("mean", ""), ("deviation", ""), ("gaps", False))
    )
    sound = all(type(value) in (int, float) and abs(value) <= LARGEST for value in (mean, spread))
    if not sound or spread < 0 or type(gaps) is not bool:
        wanted = 'such as {"mean": 61.2, "deviation": 12.5, "gaps": true}'
        raise DataError(f"statistics of the column {name!r}: expected mean, deviation and gaps {wanted}, got {facts!r}")
    return float(mean), float(spread), gaps


def _category(name: str, facts: Any) -> tuple[tuple[str, ...], bool]:
    """Return the values and whether there are gaps, as they were written down of a column of categories."""
    given = facts if isinstance(facts, dict) else {}
    values, gaps = given.get("values"), given.get("gaps", False)
    if not isinstance(values, list) or type(gaps) is not bool:
        wanted = 'such as {"values": ["f", "m"], "gaps": false}'
        raise DataError(f"statistics of the column {name!r}: expected values and gaps {wanted}, got {facts!r:.100}")
    try:
        _check_values(name, values)
    except ValueError as error:
        raise DataError(f"statistics: {error}") from error
    return tuple(values), gaps
