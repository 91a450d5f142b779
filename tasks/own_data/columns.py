"""Table of numbers and categories as a task: columns of a CSV file, standardised and one-hot encoded.

What the features are made by, such as the mean of a column, is the same at every site and known to none of them before:
it is merged from what each says of its rows (``tasks/own_data/statistics.py``).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tasks.base import TASKS, DataError, Examples, FittedTask, Merged
from tasks.files import content_digest
from tasks.inference import TABLE, Unlabelled
from tasks.issues import ERROR, WARNING, Issue, RunContext, listed
from tasks.models import MODELS
from tasks.own_data.base import ListedTask
from tasks.own_data.cells import CellFormat, declared_categories, texts
from tasks.own_data.files import UnusableError, nfc
from tasks.own_data.reading import Cache, Item, Pair, Reading, Shape, read_items
from tasks.own_data.statistics import (
    FARTHEST,
    MOST_VALUES,
    Columns,
    Floats,
    Moments,
    Statistics,
    Summary,
    apart,
    merge,
)
from tasks.own_data.tables import Row, Table, TableFormat, column_name, column_names, needed_column, read_table


@TASKS.register("table")
class ColumnTable(ListedTask, FittedTask):
    """A CSV file with a row for each example, columns of numbers and of categories.

    Numbers are standardised, a missing one becomes the mean and sets a feature of its own; each value of a category is
    a feature that is 0 or 1, and a value that no site has named sets none. Examples are held as float32 (n, features).

    Parameters
    ----------
    numbers
        Columns of numbers.
    categories
        Columns of categories; or, by column, its values in order, ``{ sex = ["f", "m"], unit = [] }``. Sites are asked
        for the values of a column for which none are declared.
    file
        The table, in the data folder.
    label, group, name
        Columns of the label, of where an example comes from (for the partition ``natural``), and of its name.
    missing
        What stands in a cell without a value.
    decimal
        Sign between a whole number and its fraction.
    min_count
        Rows of a site that must have a value of a category for its name to leave the site, and numbers that a column
        must have for their mean to.
    min_sites
        Sites that must name a value for it to become a feature.
    delimiter, header, quote
        How the table is written; see :class:`TableFormat`.
    statistics
        What the features are made by, JSON; the run sets it.
    **declared
        See :class:`OwnDataTask`.

    Raises
    ------
    DataError
        If a declaration does not fit.
    """

    default_model = "mlp"

    def __init__(
        self,
        numbers: Sequence[str] = (),
        categories: Sequence[str] | Mapping[str, Sequence[str]] = (),
        file: str = "table.csv",
        label: str = "label",
        group: str = "",
        name: str = "",
        missing: Sequence[str] = ("", "NA"),
        decimal: str = ".",
        min_count: int = 5,
        min_sites: int = 1,
        delimiter: str = ",",
        header: Sequence[str] = (),
        quote: str = '"',
        statistics: str = "",
        cache: Cache | None = None,
        **declared: Any,
    ) -> None:
        super().__init__(**declared, cache=cache if statistics else None)  # rows are asked for only while there is none
        if decimal not in (".", ",") or min_count < 1 or min_sites < 1:
            text = f"decimal = {decimal!r}, min_count = {min_count}, min_sites = {min_sites}"
            raise DataError(f'{text}: "." or ",", and whole numbers of at least 1 are expected')
        self._table = TableFormat(file, delimiter, column_names("header", header), quote)
        self._label, self._group, self._name = needed_column("label", label), column_name(group), column_name(name)
        self._cells = CellFormat(texts("missing", missing), decimal)
        self._min_count, self._min_sites = min_count, min_sites
        self.columns = Columns(column_names("numbers", numbers), declared_categories(categories))
        self._check_roles()
        self._given = Statistics.read(statistics, self.columns) if statistics else None
        self._raw: tuple[Floats, list[list[str]]] | None = None
        self.statistics = statistics

    @property
    def input_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Number of features; before it is known, that of this folder, or where there is none a guess."""
        if self._given is not None:
            return (self._given.width,)
        try:
            return tuple(self.train_examples().features.shape[1:])
        except (DataError, OSError):  # it is said where data is read
            return (len(self.columns.numbers) + sum(max(1, len(found)) for found in self.columns.categories.values()),)

    def row_name(self, row: Row) -> str:
        """Return the name of the example in a row: its own, or the table and the line."""
        return row.cells.get(self._name, "") if self._name else f"{self._table.file} line {row.line}"

    def read(self, root: Path) -> Reading:
        """Read all rows; see :class:`OwnDataTask`."""
        wanted = (
            *self.columns.numbers,
            *self.columns.categories,
            *filter(None, (self._label, self._group, self._name)),
        )
        table = read_table(root, self._table, wanted)
        vocabulary: list[dict[str, int]] = [{} for _ in self.columns.categories]
        lines: dict[str, int] = {}
        items = [self._item(row, vocabulary, lines) for row in table.rows]
        width = len(self.columns.numbers) + len(self.columns.categories)
        reading = read_items(items, Shape((width,), np.float64))
        raw, found = reading.examples.features.numpy(), [list(values) for values in vocabulary]
        self._check_values(root, found)
        statistics = self._given or merge([self._summary(raw, found, 1)], self.columns)
        if root == self.root:
            self._raw = None if self._given else (raw, found)
        features = torch.from_numpy(statistics.transform(raw, found).astype(np.float32))
        notes = (*table.notes, *self._ignored(table, wanted), *_unknown(self._table.file, statistics.unknown(found)))
        return replace(reading, examples=Examples(features, reading.examples.labels), notes=notes)

    def preprocessing(self) -> dict[str, Any]:
        """Return how a row becomes an input, with the statistics of all sites; see :mod:`tasks.inference`."""
        rule = "(number - mean) / deviation, 0 if missing; then 1 for each missing one; then 1 for the value it has"
        return {
            "kind": TABLE,
            "missing": list(self._cells.missing),
            "decimal": self._cells.decimal,
            "delimiter": self._table.delimiter,
            "header": list(self._table.header),
            "farthest": FARTHEST,
            "statistics": json.loads(self.statistics) if self.statistics else None,
            "formula": rule,
        }

    def unlabelled(self, path: Path) -> Iterator[Unlabelled]:
        """Yield the rows of a table; it needs no label.

        Raises
        ------
        DataError
            If the file is no such table, or the statistics of the columns are not known.
        """
        if self._given is None:
            raise DataError("what the columns' inputs are made by is not known: task.statistics is empty")
        wanted = (*self.columns.numbers, *self.columns.categories)
        table = read_table(path.parent, replace(self._table, file=path.name), wanted)
        return (Unlabelled(row.line, partial(self._features, row, self._given)) for row in table.rows)

    def _features(self, row: Row, statistics: Statistics) -> npt.NDArray[np.float32]:
        if not row.complete:
            raise UnusableError("has more or fewer cells than there are columns; is a quote or a delimiter missing?")
        numbers = [self._cells.number(row, column) for column in self.columns.numbers]
        values = [self._cells.value(row, column) for column in self.columns.categories]
        raw = np.array([[*numbers, *(np.nan if value is None else 0 for value in values)]])
        vocabulary = [[] if value is None else [value] for value in values]
        return np.asarray(statistics.transform(raw, vocabulary)[0], dtype=np.float32)

    def expected(self) -> str:
        """Say how the data folder must be laid out."""
        columns = ", ".join((*self.columns.numbers, *self.columns.categories, self._label))
        return f"expected a table {self._table.file} with the columns {columns}, and a row for each example"

    def prepare(self, features: Tensor) -> Tensor:
        """Return the features (N, features), which are made when the table is read."""
        return features.float()

    def build_model(self, name: str, args: str) -> nn.Module:
        """Build the named model ("auto" = ``default_model``) for the features.

        Raises
        ------
        PluginError
            If the model is unknown, its arguments do not fit, or it cannot take one row of features.
        """
        chosen = self.default_model if name == "auto" else name
        return MODELS.build(chosen, args, num_classes=self.num_classes, input_shape=self.input_shape)

    def issues(self, context: RunContext) -> list[Issue]:
        """Return what such a run lacks or configures in vain because of its task."""
        found, mode = super().issues(context), context.settings.privacy.mode
        if mode != "none" and not self.statistics:
            text = f"privacy.mode = {mode!r}: means and deviations of the columns would leave the sites without noise"
            remedy = "say them in task.statistics, as docs/own-data.md shows"
            found.append(Issue(ERROR, "task.statistics", text, remedy))
        if self.statistics and self._min_sites > 1:
            text = "min_sites has no effect: with task.statistics no site is asked"
            found.append(Issue(WARNING, "task.args", text))
        return found

    def summary(self, ids: npt.NDArray[np.int64]) -> dict[str, list[int] | list[float]]:
        """Return count, mean, squared deviations and missing cells of the columns, and values of categories."""
        self.train_examples()
        assert self._raw is not None, "with statistics nobody asks for them"
        raw, vocabulary = self._raw
        return self._summary(raw[ids], vocabulary, self._min_count).metrics()

    def in_words(self, metrics: Mapping[str, Any]) -> str:
        """Return the moments of each column of numbers, and the values of each column of categories."""
        summary = Summary.read(metrics, self.columns, len(self.train_examples()))
        words = [
            f"{name!r}: {one.count} numbers, mean {one.mean:.6g}, deviation {one.deviation:.6g}, {one.missing} missing"
            for name, one in zip(self.columns.numbers, summary.numbers, strict=True)
        ]
        sorts = zip(self.columns.categories, summary.values, summary.missing, strict=True)
        return "; ".join([*words, *(f"{name!r}: {list(found)}, {missing} missing" for name, found, missing in sorts)])

    def read_summary(self, metrics: Mapping[str, Any], examples: int) -> Summary:
        """Return the summary behind the metrics of a client; see :meth:`Summary.read`."""
        return Summary.read(metrics, self.columns, examples)

    def merge(self, summaries: Mapping[int, Summary]) -> Merged:
        """Return the statistics of all clients but those whose numbers cannot be of the same kind."""
        problems = apart(summaries, self.columns)
        sound = [one for client, one in summaries.items() if client not in problems]
        statistics = merge(sound, self.columns, self._min_sites)
        counts = [sum(one.numbers[place].count for one in sound) for place in range(len(self.columns.numbers))]
        empty = [name for name, count in zip(self.columns.numbers, counts, strict=True) if not count]
        empty += [name for name, known in zip(self.columns.categories, statistics.values, strict=True) if not known]
        notes = (f"no site has enough values in the columns {listed(empty)}: they tell the model nothing",)
        return Merged(statistics.text(), problems, notes if empty else ())

    def outline(self) -> str:
        """Say how many columns become how many features, with a digest of the statistics."""
        statistics = self._given
        assert statistics is not None
        columns = f"{len(self.columns.numbers)} numbers and {len(self.columns.categories)} categories"
        return f"{columns}, {statistics.width} features, sha256 {content_digest(statistics.text(), {})[:12]}"

    def _summary(self, raw: Floats, vocabulary: Sequence[Sequence[str]], min_count: int) -> Summary:
        """Return what there is to say of rows (n, columns), without what fewer than ``min_count`` of them say."""
        wide = len(self.columns.numbers)
        moments = [Moments.of(column) for column in raw[:, :wide].T]
        values, missing = [], []
        named = zip(self.columns.categories.values(), vocabulary, raw[:, wide:].T, strict=True)
        for declared, known, column in named:
            places, counts = np.unique(column[~np.isnan(column)], return_counts=True)
            held = [known[int(place)] for place, count in zip(places, counts, strict=True) if count >= min_count]
            values.append(() if declared else tuple(sorted(held)))
            missing.append(int(np.isnan(column).sum()))
        told = tuple(one if one.count >= min_count else Moments(missing=one.missing) for one in moments)
        return Summary(told, tuple(values), tuple(missing))

    def _item(self, row: Row, vocabulary: list[dict[str, int]], lines: dict[str, int]) -> Item:
        place = f"{self._table.file} line {row.line}"
        read = partial(self._pair, row, vocabulary, lines)
        return Item(self.row_name(row), read, row.group(self._group), place, nfc(row.cells.get(self._label, "")))

    def _pair(self, row: Row, vocabulary: list[dict[str, int]], lines: dict[str, int]) -> Pair:
        label = self.label(row.label(self._label, self._group))
        numbers = [self._cells.number(row, column) for column in self.columns.numbers]
        values = [self._cells.value(row, column) for column in self.columns.categories]
        if self._name and lines.setdefault(row.cell(self._name), row.line) != row.line:
            raise UnusableError(f"the name {row.cell(self._name)!r} is that of line {lines[row.cell(self._name)]} too")
        places = [
            np.nan if value is None else known.setdefault(value, len(known))
            for value, known in zip(values, vocabulary, strict=True)
        ]
        return np.array([*numbers, *places]), label

    def _ignored(self, table: Table, wanted: Sequence[str]) -> list[str]:
        found = [name for name in table.rows[0].cells if name not in wanted] if table.rows else []
        return [f"{self._table.file}: columns that are not declared are ignored: {listed(found)}"] if found else []

    def _check_roles(self) -> None:
        """Raise ``DataError`` unless there are columns to learn from, each declared once."""
        declared = [*self.columns.numbers, *self.columns.categories, self._label]
        if len(declared) < 2:
            raise DataError('no columns to learn from: name them, numbers = ["age", "dose"], categories = ["sex"]')
        if twice := [name for name in dict.fromkeys(declared) if declared.count(name) > 1]:
            raise DataError(f"the column {twice[0]!r} is declared twice among numbers, categories and label")
        for name, values in self.columns.categories.items():
            if gone := [value for value in values if value in self._cells.missing]:
                raise DataError(f"the column {name!r} declares the value {gone[0]!r}, which stands for a missing one")

    def _check_values(self, root: Path, found: Sequence[Sequence[str]]) -> None:
        """Raise ``DataError`` if a column has more values than a column of categories has."""
        for name, values in zip(self.columns.categories, found, strict=True):
            if len(values) > MOST_VALUES:
                text = f"the column {name!r} of {root / self._table.file} has {len(values)} different values"
                raise DataError(
                    f"{text}, and categories have at most {MOST_VALUES}; is it one of numbers, or free text?"
                )


def _unknown(file: str, unknown: Mapping[str, Sequence[str]]) -> list[str]:
    """Say which values of categories are no feature."""
    return [
        f"{file}: values of the column {name!r} that set no feature: {listed(found)}" for name, found in unknown.items()
    ]
