"""Texts that a table lists with their labels, as hashed words.

The vocabulary is the same everywhere, and nothing of anybody's texts leaves its node.
"""

import re
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tasks.base import TASKS, DataError, Task
from tasks.inference import TEXTS, Unlabelled, one_file
from tasks.models import MODELS
from tasks.own_data.base import ListedTask
from tasks.own_data.files import UnusableError, nfc
from tasks.own_data.reading import Item, Pair, Reading, Shape, read_items
from tasks.own_data.tables import Row, TableFormat, column_name, column_names, needed_column, read_table

NO_TOKEN = 0
JOINERS = "\u200c\u200d"


class TextTask(Task):
    """What tasks of texts have in common: words as numbers, and models that take them.

    A text becomes the hashes of its first ``words`` words, in lower case, and of each pair of neighbours: two words in
    one place of the ``vocabulary`` cannot be told apart. Texts are held as int32 (n, 2 x words - 1).

    Parameters
    ----------
    words
        Words of a text that are read.
    vocabulary
        Number of hash values.
    pairs
        Whether pairs of neighbours are read too; without them texts are int32 (n, words), in the order of the words.
    tokens
        What cuts a text into numbers in place of the hashes; the run sets it for an encoder of texts.
    **declared
        For the next class.

    Raises
    ------
    DataError
        If a declaration is out of its range.
    """

    default_model = "text-bag"
    has_smooth_inputs = False

    def __init__(
        self,
        words: int = 64,
        vocabulary: int = 20_000,
        pairs: bool = True,
        tokens: Callable[[str, int], npt.NDArray[np.int32]] | None = None,
        **declared: Any,
    ) -> None:
        super().__init__(**declared)
        if words < 1 or vocabulary < 2:
            raise DataError(f"words = {words}, vocabulary = {vocabulary}: at least 1 and 2 are expected")
        self._tokens, self.encodes_as = tokens, "texts" if tokens else ""
        self.words, self.vocabulary, self.pairs = words, vocabulary, pairs and not tokens
        self.input_shape = (2 * words - 1 if self.pairs else words,)

    def numbers(self, text: str) -> npt.NDArray[np.int32]:
        """Return a text as the numbers of its words, padded with 0 to ``input_shape``.

        Raises
        ------
        UnusableError
            If there is no word in the text.
        """
        if self._tokens is None:
            return hashed(text, self.words, self.vocabulary, self.pairs)
        return padded(self._tokens(text, self.words), self.words)

    def count_words(self, text: str) -> int:
        """Return how many words of a text count against ``words``, or tokens of an encoder; beyond one more none do."""
        return len(words_of(text)) if self._tokens is None else len(self._tokens(text, self.words + 1))

    def preprocessing(self) -> dict[str, Any]:
        """Return how a text becomes an input, with all numbers; see :mod:`tasks.inference`."""
        found = {"kind": TEXTS, "words": self.words, "padding": NO_TOKEN}
        if self._tokens is not None:
            return {**found, "tokens": "those of the encoder"}
        rule = "number = 1 + crc32(utf-8 of a word, or of two neighbours with a blank between) mod (vocabulary - 1)"
        return {**found, "pairs": self.pairs, "vocabulary": self.vocabulary, "formula": rule}

    def unlabelled(self, path: Path) -> Iterator[Unlabelled]:
        """Yield the texts of a file: each row of a table (.csv), or the whole file.

        Raises
        ------
        DataError
            If the file cannot be read, or is a table without the column of the texts.
        """
        if path.suffix.lower() != ".csv":
            return one_file(lambda: self.numbers(_whole_text(path)))
        table, columns = self.text_columns()
        rows = read_table(path.parent, replace(table, file=path.name), columns).rows
        return (Unlabelled(row.line, partial(self._row_numbers, row, columns)) for row in rows)

    def text_columns(self) -> tuple[TableFormat, tuple[str, ...]]:
        """Return how a table of texts without labels is written, and its columns that are put together."""
        return TableFormat(""), ("text",)

    def _row_numbers(self, row: Row, columns: tuple[str, ...]) -> npt.NDArray[np.int32]:
        return self.numbers(" ".join(map(row.cell, columns)))

    def encoder_inputs(self, features: Tensor) -> Tensor:
        """Return the token numbers (N, words)."""
        return features

    def prepare(self, features: Tensor) -> Tensor:
        """Return the hashes (N, L) as int64; 0 is no word."""
        return features.long()

    def build_model(self, name: str, args: str) -> nn.Module:
        """Build the named model ("auto" = ``default_model``); it is offered ``vocabulary`` too.

        Raises
        ------
        PluginError
            If the model is unknown, or its arguments do not fit.
        DataError
            If it cannot take hashes.
        """
        chosen = self.default_model if name == "auto" else name
        context = {"num_classes": self.num_classes, "input_shape": self.input_shape, "vocabulary": self.vocabulary}
        model = MODELS.build(chosen, args, **context).eval()
        try:
            with torch.no_grad():
                model(torch.zeros(1, *self.input_shape, dtype=torch.int64))
        except Exception as error:  # a model may fail on whole numbers in any way
            fitting = "'text-bag' or 'text-transformer'"
            raise DataError(f"the model {chosen!r} cannot take texts as hashed words; choose {fitting}") from error
        return model.train()


@TASKS.register("text-csv")
class TextTable(TextTask, ListedTask):
    """A CSV file with a row for each text.

    Parameters
    ----------
    file
        The table, in the data folder.
    text
        Column of the text, or a list of columns that are put together.
    label
        Column of the label.
    group
        Column that says where a text comes from, for the partition ``natural``.
    delimiter, header, quote
        How the table is written; see :class:`TableFormat`.
    **declared
        See :class:`TextTask` and :class:`OwnDataTask`.

    Raises
    ------
    DataError
        If a declaration is out of its range.
    """

    def __init__(
        self,
        file: str = "texts.csv",
        text: str | Sequence[str] = "text",
        label: str = "label",
        group: str = "",
        delimiter: str = ",",
        header: Sequence[str] = (),
        quote: str = '"',
        **declared: Any,
    ) -> None:
        super().__init__(**declared)
        self._table = TableFormat(file, delimiter, column_names("header", header), quote)
        self._texts = (needed_column("text", text),) if isinstance(text, str) else column_names("text", text)
        if not self._texts:
            raise DataError("text names no column; name the one with the text, or several in a list")
        self._label, self._group = needed_column("label", label), column_name(group)

    def row_name(self, row: Row) -> str:
        """Return the name of the text in a row: the table and the line."""
        return f"{self._table.file} line {row.line}"

    def row_text(self, row: Row) -> str:
        """Return the text of a row, its columns put together."""
        return " ".join(row.cells.get(column, "") for column in self._texts)

    def texts(self) -> dict[str, str]:
        """Return the text of each row of the data folder's table by the row's name.

        Raises
        ------
        DataError
            If the table cannot be read.
        """
        return {name: self.row_text(row) for name, row in self.rows_by_name(*self._texts).items()}

    def read(self, root: Path) -> Reading:
        """Read all rows; see :class:`OwnDataTask`."""
        table = read_table(root, self._table, tuple(filter(None, (*self._texts, self._label, self._group))))
        reading = read_items([self._item(row) for row in table.rows], Shape(self.input_shape, np.int32))
        return replace(reading, notes=table.notes)

    def text_columns(self) -> tuple[TableFormat, tuple[str, ...]]:
        """Return how the declared table is written, and its columns of the text."""
        return self._table, self._texts

    def expected(self) -> str:
        """Say how the data folder must be laid out."""
        columns = f"the columns {', '.join(self._texts)} and {self._label}"
        return f"expected a table {self._table.file} with {columns}, and a row for each text"

    def _item(self, row: Row) -> Item:
        place = self.row_name(row)
        return Item(place, partial(self._pair, row), row.group(self._group), value=nfc(row.cells.get(self._label, "")))

    def _pair(self, row: Row) -> Pair:
        label = self.label(row.label(self._label, self._group))
        return self.numbers(" ".join(map(row.cell, self._texts))), label


def _whole_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnusableError(f"is no text in UTF-8 ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise UnusableError(f"cannot be read: {error.strerror}") from error


def padded(tokens: npt.NDArray[np.int32], words: int) -> npt.NDArray[np.int32]:
    """Return token numbers (m,), m up to ``words``, padded with 0 to (words,).

    Raises
    ------
    UnusableError
        If there are none.
    """
    if not len(tokens):
        raise UnusableError("there is no word in the text")
    return np.pad(tokens, (0, words - len(tokens)))


def hashed(text: str, words: int, vocabulary: int, pairs: bool = True) -> npt.NDArray[np.int32]:
    """Return CRC-32 hashes 1 to ``vocabulary - 1`` of the first words and, if asked, of pairs of them, padded with 0.

    Raises
    ------
    UnusableError
        If there is no word in the text.
    """
    found = words_of(text)[:words]
    if not found:
        raise UnusableError("there is no word in the text")
    tokens = [*found, *(f"{first} {second}" for first, second in pairwise(found) if pairs)]
    hashes = np.full(2 * words - 1 if pairs else words, NO_TOKEN, np.int32)
    hashes[: len(tokens)] = [1 + zlib.crc32(token.encode()) % (vocabulary - 1) for token in tokens]
    return hashes


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, the same for every Unicode form in which it may be written.

    A word is of letters, digits and underscores, with the marks that belong to them (vowel signs, accents) and the
    joiners between them.

    >>> words_of("U\u0308ber-Ich: I\u0307stanbul, \u0915\u0940")
    ['\u00fcber', 'ich', 'istanbul', '\u0915\u0940']
    """
    if text.isascii():
        return re.findall(r"\w+", text.lower())
    lower = nfc(nfc(text).lower()).replace("i\u0307", "i")  # the Turkish capital I with a dot, which lower() keeps
    return re.findall(_word_pattern(lower), lower)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Return where the words of a text as it is written begin and end; the words are those of :func:`words_of`.

    >>> word_spans("U\u0308ber-Ich")
    [(0, 5), (6, 9)]
    """
    return [found.span() for found in re.finditer(_word_pattern(text), text)]


def _word_pattern(text: str) -> str:
    marks = "".join(sorted(sign for sign in {*text} if unicodedata.category(sign).startswith("M")))
    return rf"\w[\w{marks}]*+(?:[{JOINERS}]+[\w{marks}]++)*+"
