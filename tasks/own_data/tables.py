"""Tables of examples: CSV files with a row for each."""

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.base import DataError
from tasks.own_data.base import distinct
from tasks.own_data.files import UnusableError, inside, nfc
from tasks.plugins import did_you_mean

MOST_CHARACTERS = 1_000_000
DELIMITERS = (",", ";", "\t", "|")
LINE_BREAK = "\r\n|\r|\n"


@dataclass(frozen=True)
class TableFormat:
    """How a table is written.

    ``header`` names the columns of a file whose first line does not; empty: the first line names them. ``quote`` stands
    around cells that hold a delimiter or a line break, and twice within them for itself; empty: no cell is quoted.

    Raises
    ------
    DataError
        If ``delimiter`` or ``quote`` is not one character that can be told from the others.
    """

    file: str
    delimiter: str = ","
    header: tuple[str, ...] = ()
    quote: str = '"'

    def __post_init__(self) -> None:
        if len(self.delimiter) != 1 or self.delimiter in "\r\n\0":
            such = 'such as ",", ";", "|" or "\\t" (a tab, in double quotes)'
            raise DataError(f"delimiter = {self.delimiter!r}: one character is expected, {such}")
        if len(self.quote) > 1 or self.quote in (" ", "\r", "\n", "\0", self.delimiter):
            such = 'neither a blank nor the delimiter, or "" if no cell is quoted'
            raise DataError(f"quote = {self.quote!r}: one character is expected, {such}")

    def split(self, lines: Iterable[str], delimiter: str = "") -> Any:
        """Return a :func:`csv.reader` of ``lines``; stray quotes do not stop it."""
        csv.field_size_limit(MOST_CHARACTERS)
        return csv.reader(
            lines,
            delimiter=delimiter or self.delimiter,
            quotechar=self.quote or None,
            quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
        )

    def join(self, cells: Sequence[str | None], ending: str) -> str:
        """Return cells as a row that :meth:`split` takes apart again.

        Raises
        ------
        DataError
            If a cell holds a sign that nothing can stand around.
        """
        text, quoting = io.StringIO(), csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE
        form: Any = {"delimiter": self.delimiter, "quotechar": self.quote or None, "quoting": quoting}
        try:
            csv.writer(text, lineterminator=ending, **form).writerow(cells)
        except csv.Error as error:
            raise DataError(f"the table {self.file} without quotes cannot hold the cells {list(cells)}") from error
        return text.getvalue()

    def sound(self, row: str) -> str:
        """Return a row up to its first cell with a quote that is not closed, or with text after the closing one."""
        if self.quote not in row or not self.quote:
            return row
        quote, delimiter = re.escape(self.quote), re.escape(self.delimiter)
        plain = rf"[^{quote}{delimiter}\r\n][^{delimiter}\r\n]*+"
        quoted = rf"{quote}(?:[^{quote}]|{quote}{quote})*+{quote}(?:(?!{delimiter})[ \t])*+"
        cell = rf"(?:{plain}|{quoted})?+"
        found = re.match(rf"(?:{cell}{delimiter})*+(?:{cell}(?:{LINE_BREAK})?+\Z)?+", row)
        return found.group() if found else ""


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

    def group(self, column: str) -> str:
        """Return the name of the group in the Unicode form NFC; empty if there is none, or no such column."""
        return nfc(self.cells.get(column, ""))

    def label(self, column: str, group: str) -> str:
        """Return the label in the Unicode form NFC; neither it nor the cell of a ``group`` column may be empty.

        Raises
        ------
        UnusableError
            See :meth:`cell`.
        """
        label = nfc(self.cell(column))
        if group:  # examples without one would become a client of their own
            self.cell(group)
        return label


@dataclass(frozen=True)
class Table:
    """The rows of a table, and what is odd about it."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Record:
    """The cells of one row as they are written, and its first and last line."""

    first: int
    last: int
    cells: list[str]


def column_name(name: str) -> str:
    """Return the name of a column as names are compared: without blanks around it, in the Unicode form NFC."""
    return nfc(name.strip())


def needed_column(key: str, name: str) -> str:
    """Return the declared name of a column as names are compared, or raise ``DataError`` if it is empty."""
    if not column_name(name):
        raise DataError(f"{key} = {name!r}: the name of a column is expected")
    return column_name(name)


def column_names(key: str, given: Sequence[str]) -> tuple[str, ...]:
    """Return declared names of columns as names are compared.

    Raises
    ------
    DataError
        If they are no list of texts, or two of them are the same but for blanks around them or their Unicode form.
    """
    return distinct(key, [column_name(name) for name in distinct(key, given, str)], str)


def read_table(root: Path, table: TableFormat, wanted: Sequence[str]) -> Table:
    """Return the rows of a table in UTF-8; blank lines are left out.

    Raises
    ------
    DataError
        If the file is missing, is no such table, or has one of the columns ``wanted`` not once.
    """
    try:
        path = inside(root, table.file)
    except UnusableError as problem:
        raise DataError(f"the table {table.file!r} {problem}: {root}") from problem
    try:
        lines = _lines(path.read_bytes())
        if not table.header:
            _check_delimiter(lines, table, wanted)
        records = list(_records(lines, table))
        names, body = (table.header, records) if table.header else (_header(records, wanted), records[1:])
        _check_columns(names, wanted)
        if table.header:
            _check_width(records, lines, table)
    except OSError as error:
        raise DataError(f"cannot read the table {path}: {error.strerror}") from error
    except csv.Error as error:
        raise DataError(f"the table {path} is damaged: {error}") from error
    except UnusableError as problem:
        raise DataError(f"the table {path} {problem}") from problem
    return Table(tuple(_row(record, names) for record in body), _notes(records, table))


def rewrite_table(root: Path, table: TableFormat, column: str, cells: Mapping[int, str | None]) -> bytes:
    """Return a table with other ``cells`` in a column, by the line in which their rows begin; None leaves a row out.

    All other rows stay as they are, to the byte.

    Raises
    ------
    DataError
        If a cell cannot be written in such a table.
    """
    content = inside(root, table.file).read_bytes()
    lines = _lines(content)
    records = list(_records(lines, table))
    names = table.header or _header(records, (column,))
    for record in records:
        if record.first in cells:
            cell, place = cells[record.first], names.index(column)
            ending = re.search(rf"(?:{LINE_BREAK})?\Z", lines[record.last - 1])
            row = [*record.cells[:place], cell, *record.cells[place + 1 :]]
            lines[record.first - 1 : record.last] = [""] * (record.last - record.first + 1)
            if cell is not None and ending is not None:
                lines[record.first - 1] = table.join(row, ending.group())
    return (codecs.BOM_UTF8 if content.startswith(codecs.BOM_UTF8) else b"") + "".join(lines).encode()


def _lines(content: bytes) -> list[str]:
    """Return the lines of a text in UTF-8 with their ends, which are those of any system."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UnusableError("is not UTF-8 but UTF-16 or UTF-32; save it as UTF-8 (in Excel: 'CSV UTF-8')")
    if b"\0" in content:
        line = _line_of(content[: content.index(b"\0")].decode(errors="replace"))
        raise UnusableError(f"is damaged or no text in UTF-8: line {line} holds a zero byte; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = _line_of(content[: error.start].decode(errors="replace"))
        raise UnusableError(f"is not UTF-8 (line {line}: {error.reason}); save it as UTF-8") from error
    return list(io.StringIO(text, newline=""))


def _line_of(before: str) -> int:
    """Return the number of the line in which a text goes on."""
    return 1 + len(re.findall(LINE_BREAK, before))


def _records(lines: Sequence[str], table: TableFormat) -> Iterator[_Record]:
    reader, first = table.split(lines), 1
    try:
        for cells in reader:
            _check_quotes(lines, first, reader.line_num, table)
            if any(cells):
                yield _Record(first, reader.line_num, cells)
            first = reader.line_num + 1
    except csv.Error as error:
        _check_quotes(lines, first, reader.line_num, table)
        raise UnusableError(f"is damaged: {error}, in the row of line {first}") from error


def _check_quotes(lines: Sequence[str], first: int, last: int, table: TableFormat) -> None:
    """Raise ``UnusableError`` if the row in these lines holds a stray quote: it would join rows."""
    row = "".join(lines[first - 1 : last])
    sound = table.sound(row)
    if sound == row:
        return
    line = first - 1 + _line_of(sound)
    what = f"is followed by text in line {last}" if table.quote in row[len(sound) + 1 :] else "is never closed"
    raise UnusableError(
        f"is damaged: the quoted cell that begins in line {line} {what}; where a quote belongs to the text, write it "
        'twice and quote the cell; declare quote = "" if no cell of the table is quoted'
    )


def _header(records: Sequence[_Record], wanted: Sequence[str]) -> tuple[str, ...]:
    if not records:
        columns = ", ".join(wanted)
        raise UnusableError(
            f"has no column {wanted[0]!r}: it is empty; expected are a line with the names of the columns ({columns}) "
            "and a line for each example"
        )
    return tuple(map(column_name, records[0].cells))


def _check_columns(names: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise ``UnusableError`` unless each wanted column is there once."""
    for name in wanted:
        if name not in names:
            raise UnusableError(f"has no column {name!r}{did_you_mean(name, names)}")
        if names.count(name) > 1:
            raise UnusableError(f"has {names.count(name)} columns {name!r}; rename or remove all but one")


def _check_delimiter(lines: Sequence[str], table: TableFormat, wanted: Sequence[str]) -> None:
    """Raise ``UnusableError`` if the first line has more of the wanted columns by another delimiter."""

    def names(cells: list[str]) -> list[str]:
        return [name for name in wanted if name in map(column_name, cells)]

    first = next((line for line in lines if line.strip()), "")
    hint = _delimiter_hint(first, table, lambda cells: len(names(cells)))
    if hint:
        found = names(next(table.split([first])))
        raise UnusableError(f"has no column {next(name for name in wanted if name not in found)!r}{hint}")


def _check_width(records: Sequence[_Record], lines: Sequence[str], table: TableFormat) -> None:
    """Raise ``UnusableError`` if no row has as many cells as there are declared columns."""
    width = len(table.header)
    if records and all(len(record.cells) != width for record in records):
        hint = _delimiter_hint(lines[records[0].first - 1], table, lambda cells: len(cells) == width)
        raise UnusableError(f"has no row of {width} cells, one for each column that header names{hint}")


def _delimiter_hint(line: str, table: TableFormat, score: Callable[[list[str]], int]) -> str:
    """Return which delimiter divides a line into cells of a higher score than the declared one."""
    delimiters = (table.delimiter, *DELIMITERS)
    best = max(delimiters, key=lambda delimiter: score(next(table.split([line], delimiter=delimiter))))
    name = json.dumps(best)
    return "" if best == table.delimiter else f"; it seems to be separated by {name}: declare delimiter = {name}"


def _row(record: _Record, names: Sequence[str]) -> Row:
    stripped = [cell.strip() for cell in record.cells]
    return Row(record.first, dict(zip(names, stripped, strict=False)), len(stripped) == len(names))


def _notes(records: Sequence[_Record], table: TableFormat) -> tuple[str, ...]:
    """Say which rows go over several lines: either texts do, or stray quotes have joined rows."""
    long = [record for record in records if record.last > record.first]
    if not long:
        return ()
    longest = max(long, key=lambda record: record.last - record.first)
    return (
        f"{table.file}: rows that go over several lines: {len(long)}, the longest over lines {longest.first} to "
        f"{longest.last}; if several rows were joined to one there, a quote is stray: write it twice and quote the "
        'cell, or declare quote = "" if no cell of the table is quoted',
    )
