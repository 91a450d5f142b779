"""Cells of a table: what stands for a number, a category or nothing, and which categories are declared."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.base import DataError
from tasks.own_data.base import distinct
from tasks.own_data.files import UnusableError, nfc
from tasks.own_data.statistics import LARGEST, LONGEST_VALUE, MOST_VALUES
from tasks.own_data.tables import Row, column_names


@dataclass(frozen=True)
class CellFormat:
    """How cells are written: what stands for a missing value, and the sign between a whole number and its fraction."""

    missing: tuple[str, ...]
    decimal: str

    def number(self, row: Row, column: str) -> float:
        """Return the number in a column, NaN if it is missing.

        Raises
        ------
        UnusableError
            If there is anything else.
        """
        text = row.cells[column]
        if text in self.missing:
            return np.nan
        try:
            odd = set(text) & ({"_", "."} - {self.decimal})  # Python's own, and what may stand between thousands
            number = np.nan if odd else float(text.replace(self.decimal, "."))
        except ValueError:
            number = np.nan
        if not abs(number) <= LARGEST:  # NaN is not either
            raise UnusableError(f"the column {column!r} holds {text!r:.40}, which is no number")
        return number

    def value(self, row: Row, column: str) -> str | None:
        """Return the value in a column of categories, None if it is missing.

        Raises
        ------
        UnusableError
            If it is too long to be one.
        """
        text = row.cells[column]
        if len(text) > LONGEST_VALUE:
            raise UnusableError(
                f"the column {column!r} holds more than {LONGEST_VALUE} characters, which is no category"
            )
        return None if text in self.missing else nfc(text)


def declared_categories(categories: Any) -> dict[str, tuple[str, ...]]:
    """Return the declared values of each column of categories, none for one that sites are asked for.

    Raises
    ------
    DataError
        If they are no lists of different texts, or too many or too long.
    """
    given = categories if isinstance(categories, Mapping) else dict.fromkeys(column_names("categories", categories), ())
    names = column_names("categories", list(given))
    found = {
        name: distinct(f"values of {name}", values, str) for name, values in zip(names, given.values(), strict=True)
    }
    for name, values in found.items():
        if len(values) > MOST_VALUES or any(len(value) > LONGEST_VALUE for value in values):
            text = f"at most {MOST_VALUES} values of at most {LONGEST_VALUE} characters"
            raise DataError(f"the column {name!r} declares more than {text}")
    return found


def texts(key: str, given: Any) -> tuple[str, ...]:
    """Return a declared list of texts without blanks around them, or raise ``DataError`` if it is none."""
    if not isinstance(given, list | tuple) or not all(isinstance(value, str) for value in given):
        raise DataError(f'{key} must be a list of texts, such as ["", "NA"], got {given!r}')
    return tuple(value.strip() for value in given)
