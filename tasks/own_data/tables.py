"""Tables of examples: CSV files with a row for each."""

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
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

    def split(self, lines: Iterable[str], strict: bool = False, delimiter: str = "") -> Any:
        """Return a reader of the cells in ``lines``; ``strict`` refuses stray quotes."""
        csv.field_size_limit(MOST_CHARACTERS)
        return csv.reader(
            lines,
            delimiter=delimiter or self.delimiter,
            quotechar=self.quote or None,
            quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
            strict=strict,
        )


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


def column_names(key: str, given: Sequence[str]) -> tuple[str, ...]:
    """Return declared names of columns as they are compared.

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
        records = list(_records(lines, table, wanted))
        names, body = (table.header, records) if table.header else (_header(records, wanted), records[1:])
        _check_columns(names, lines, table, wanted)
        if table.header:
            _check_width(records, lines, table)
    except OSError as error:
        raise DataError(f"cannot read the table {path}: {error.strerror}") from error
    except UnusableError as problem:
        raise DataError(f"the table {path} {problem}") from problem
    return Table(tuple(_row(record, names) for record in body), _notes(records, table))


def _lines(content: bytes) -> list[str]:
    """Return the lines of a text in UTF-8 with their ends, which are those of any system."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UnusableError("is not UTF-8 but UTF-16; save it as UTF-8 (in Excel: 'CSV UTF-8')")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = _line_of(content[: error.start].decode(errors="replace"))
        raise UnusableError(f"is not UTF-8 (line {line}: {error.reason}); save it as UTF-8") from error
    if "\0" in text:
        line = _line_of(text[: text.index("\0")])
        raise UnusableError(f"is damaged or no text in UTF-8: line {line} holds a zero byte; save it as UTF-8")
    return list(io.StringIO(text, newline=""))


def _line_of(before: str) -> int:
    """Return the number of the line in which a text goes on."""
    return 1 + len(re.findall(LINE_BREAK, before))


def _records(lines: Sequence[str], table: TableFormat, wanted: Sequence[str]) -> Iterator[_Record]:
    reader, first, in_header = table.split(lines, strict=True), 1, not table.header
    try:
        for cells in reader:
            if any(cells):
                yield _Record(first, reader.line_num, cells)
                in_header = False
            first = reader.line_num + 1
    except csv.Error as error:
        hint = _header_hint(lines, table, wanted) if in_header else ""
        damage = _damage(str(error), first, lines[first - 1 : reader.line_num], table)
        raise UnusableError(f"cannot be divided into columns{hint}" if hint else damage) from error


def _damage(error: str, first: int, lines: Sequence[str], table: TableFormat) -> str:
    """Say where a row that cannot be read goes wrong; ``lines`` are those of the row, from number ``first`` on."""
    begin, last = first - 1 + _line_of(_sound_part("".join(lines), table)), first - 1 + len(lines)
    if error.startswith("field larger"):
        return f"is damaged: {error}, in the cell that begins in line {begin}; is a quote missing?"
    open_end = "unexpected end" in error
    what = "is never closed" if open_end else f"is followed by text after its closing quote, in line {last}"
    return (
        f"is damaged: the quoted cell that begins in line {begin} {what}; write a quote that belongs to the text twice "
        'and the cell in quotes, or declare quote = "" if no cell of the table is quoted'
    )


def _sound_part(row: str, table: TableFormat) -> str:
    """Return what comes before the first cell that is not closed properly."""
    quote, delimiter = re.escape(table.quote), re.escape(table.delimiter)
    plain = rf"[^{quote}{delimiter}\r\n][^{delimiter}\r\n]*+"
    quoted = rf"|{quote}(?:[^{quote}]|{quote}{quote})*+{quote}" if quote else ""
    sound = re.match(rf"(?:(?:{plain}{quoted})?{delimiter})*+", row)
    return sound.group() if sound else ""


def _header(records: Sequence[_Record], wanted: Sequence[str]) -> tuple[str, ...]:
    if not records:
        columns = ", ".join(wanted)
        raise UnusableError(
            f"has no column {wanted[0]!r}: it is empty; expected are a line with the names of the columns ({columns}) "
            "and a line for each example"
        )
    return tuple(map(column_name, records[0].cells))


def _check_columns(names: Sequence[str], lines: Sequence[str], table: TableFormat, wanted: Sequence[str]) -> None:
    """Raise ``UnusableError`` unless each wanted column is there once."""
    for name in wanted:
        if name not in names:
            hint = _header_hint(lines, table, wanted) or did_you_mean(name, names)
            raise UnusableError(f"has no column {name!r}{hint}")
        if names.count(name) > 1:
            raise UnusableError(f"has {names.count(name)} columns {name!r}; rename or remove all but one")


def _check_width(records: Sequence[_Record], lines: Sequence[str], table: TableFormat) -> None:
    """Raise ``UnusableError`` if no row has as many cells as there are declared columns."""
    width = len(table.header)
    if records and all(len(record.cells) != width for record in records):
        hint = _delimiter_hint(lines[records[0].first - 1], table, lambda cells: len(cells) == width)
        raise UnusableError(f"has no row of {width} cells, one for each column that header names{hint}")


def _header_hint(lines: Sequence[str], table: TableFormat, wanted: Sequence[str]) -> str:
    if table.header:
        return ""
    first = next((line for line in lines if line.strip()), "")
    return _delimiter_hint(first, table, lambda cells: len({*map(column_name, cells)} & {*wanted}))


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
        f"{table.file}: cells of {len(long)} of {len(records)} rows go over several lines, most in lines "
        f"{longest.first} to {longest.last}; where rows were joined, a quote is stray: write it twice and the cell in "
        'quotes, or declare quote = "" if no cell of the table is quoted',
    )
