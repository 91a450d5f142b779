"""Tables of examples: CSV files with a row for each."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.base import DataError
from tasks.own_data.files import UnusableError, inside
from tasks.plugins import did_you_mean

MOST_CHARACTERS = 1_000_000


@dataclass(frozen=True)
class TableFormat:
    """How a table is written.

    ``header`` names the columns of a file whose first line does not; empty: the first line names them.
    """

    file: str
    delimiter: str = ","
    header: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One row: the line where it begins, and its cells by column, without surrounding blanks."""

    line: int
    cells: dict[str, str]
    complete: bool

    def cell(self, column: str) -> str:
        """Return a cell that must not be empty.

        Raises
        ------
        UnusableError
            If it is, or the row has more or fewer cells than the table has columns.
        """
        if not self.complete:
            raise UnusableError("has more or fewer cells than there are columns; is a quote or a delimiter missing?")
        if not self.cells[column]:
            raise UnusableError(f"the column {column!r} is empty")
        return self.cells[column]


def read_rows(root: Path, table: TableFormat, wanted: Sequence[str]) -> list[Row]:
    """Return the rows of a table in UTF-8 that has at least the ``wanted`` columns; blank lines are left out.

    Raises
    ------
    DataError
        If the file is missing, is no such table, or lacks a column.
    """
    try:
        path = inside(root, table.file)
    except UnusableError as problem:
        raise DataError(f"the table {table.file!r} {problem}: {root}") from problem
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(_rows(path, file, table, wanted))
    except OSError as error:
        raise DataError(f"cannot read the table {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"the table {path} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"the table {path} is damaged: {error}") from error


def _rows(path: Path, lines: Iterator[str], table: TableFormat, wanted: Sequence[str]) -> Iterator[Row]:
    csv.field_size_limit(MOST_CHARACTERS)
    reader = csv.reader(lines, delimiter=table.delimiter)
    header = table.header or tuple(name.strip() for name in next(reader, []))
    for name in wanted:
        if name not in header:
            raise DataError(f"the table {path} has no column {name!r}{did_you_mean(name, header)}")
    line = reader.line_num
    for cells in reader:
        if any(cells):
            stripped = [cell.strip() for cell in cells]
            yield Row(line + 1, dict(zip(header, stripped, strict=False)), len(cells) == len(header))
        line = reader.line_num
