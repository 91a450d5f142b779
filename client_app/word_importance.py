"""Word importance by occlusion: which words of a doubted text speak for another label and against the one it has.

A word's influence is by how much the model is surer of the other label with the word than without it: the change of
log p(other) - log p(given) when that one word is left out of the text (Li, Monroe and Jurafsky, "Understanding neural
networks through representation erasure", arXiv 1612.08220, 2016). It needs nothing of the model but its predictions.

Where the model is linear on the mean of n word vectors and d_i is what the i-th says for the other label, the
influence of a word is (d_i - mean of the other d) / n: above 0 if it speaks more for that label than the rest does.
Words that say a thing twice hide each other: without one of them the other one still says it.
"""

import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from client_app.label_quality import Audit
from tasks.base import DataError, Task, predict
from tasks.encoders.task import EncodedTask
from tasks.files import private_folder, replace_file
from tasks.inference import raw_batch
from tasks.own_data.texts import TextTable, TextTask, word_spans

WORDS = "label-audit-words.json"
MOST_TEXTS = 200
"""Texts from the top of a list that are looked into."""
MOST_MARKED = 8
SMALLEST = 0.25
"""A word is marked if its influence is at least this part of the largest one in its text."""
LogOdds = Callable[[Sequence[str]], Tensor]
"""Log p(other) - log p(given) of n texts, (n,)."""
Logits = Callable[[Sequence[str]], Tensor]
"""Logits (n, K) of n texts."""


@dataclass(frozen=True)
class Word:
    """A word of a text: where it begins, how it is written, and its influence in nats."""

    start: int
    word: str
    influence: float


@dataclass(frozen=True)
class MarkedText:
    """The words of a text that speak most for ``other`` and against ``given`` (names of classes), as they stand."""

    given: str
    other: str
    words: tuple[Word, ...]


def mark_words(
    model: nn.Module, task: Task, audit: Audit, batch_size: int, device: torch.device
) -> dict[str, MarkedText] | None:
    """Return by name the marked words of the first ``MOST_TEXTS`` texts of an audit; None if these are no own texts.

    The other label is the suggested one; where nothing is suggested, the likeliest one but the given.

    Raises
    ------
    DataError
        If the texts can no longer be read.
    """
    raw = task.raw
    if not isinstance(raw, TextTable):
        return None
    texts, found = raw.texts(), dict[str, MarkedText]()
    logits = partial(_logits, model, task, batch_size, device)
    lines = zip(audit.names[:MOST_TEXTS], audit.given.tolist(), audit.suggested.tolist(), strict=False)
    for name, given, suggested in lines:
        text = texts.get(name, "")
        spans = _words_read(raw, text)
        if not spans:  # the row is gone since the data was read
            continue
        other = suggested if suggested != given else _likeliest(logits([text])[0], given)
        words = word_influence(text, spans, partial(_log_odds, logits, given, other))
        found[name] = MarkedText(task.class_names[given], task.class_names[other], strongest(words))
    return found


def word_influence(text: str, spans: Sequence[tuple[int, int]], log_odds: LogOdds) -> list[Word]:
    """Return the influence of each word of a text, in its order; nothing where there is a single word.

    Parameters
    ----------
    text
        The text.
    spans
        Where the words that the model reads begin and end; what comes behind the last one is cut off, so that no other
        word moves up when one is left out.
    log_odds
        Returns log p(other) - log p(given), (n,), of n texts.
    """
    if len(spans) < 2:
        return []
    end = spans[-1][1]
    without = [text[:start] + text[stop:end] for start, stop in spans]
    odds = log_odds([text[:end], *without]).double()
    influence = (odds[0] - odds[1:]).tolist()
    return [Word(start, text[start:stop], value) for (start, stop), value in zip(spans, influence, strict=True)]


def strongest(words: Sequence[Word]) -> tuple[Word, ...]:
    """Return the words that speak most for the other label, at most ``MOST_MARKED``, as they stand in the text."""
    ranked = sorted((word for word in words if word.influence > 0), key=lambda word: -word.influence)[:MOST_MARKED]
    kept = [word for word in ranked if word.influence >= SMALLEST * ranked[0].influence]
    return tuple(sorted(kept, key=lambda word: word.start))


def _likeliest(logits: Tensor, given: int) -> int:
    """Return the likeliest class but the given one, of logits (K,)."""
    others = logits.clone()
    others[given] = -torch.inf
    return int(others.argmax())


def _words_read(task: TextTask, text: str) -> list[tuple[int, int]]:
    """Return the words of a text, as far as the model reads it: the first ``words`` ones, or so many tokens of them."""
    spans = word_spans(text)
    return spans[: bisect_right(spans, task.words, key=lambda span: task.count_words(text[: span[1]]))]


def _log_odds(logits: Logits, given: int, other: int, texts: Sequence[str]) -> Tensor:
    """Return log p(other) - log p(given) of texts, (n,); the softmax cancels."""
    found = logits(texts)
    return found[:, other] - found[:, given]


def _logits(model: nn.Module, task: Task, batch_size: int, device: torch.device, texts: Sequence[str]) -> Tensor:
    """Return the logits (n, K) of texts."""
    raw = task.raw
    assert isinstance(raw, TextTask)
    features = raw_batch([raw.numbers(text) for text in texts])
    if isinstance(task, EncodedTask):
        features = task.encoded(features)
    return predict(model, task, features, batch_size, device)


def write_words(folder: Path, marked: Mapping[str, MarkedText]) -> None:
    """Write the marked words beside the list of an audit, for this user alone.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    texts = {
        name: {
            "given": text.given,
            "other": text.other,
            "words": [[word.start, word.word, round(word.influence, 4)] for word in text.words],
        }
        for name, text in marked.items()
    }
    content = json.dumps({"texts": texts}, ensure_ascii=False)
    private_folder(folder)
    replace_file(folder / WORDS, f"{content}\n".encode(errors="backslashreplace"), private=True)


def read_words(folder: Path) -> dict[str, MarkedText]:
    """Return the marked words of an audit by the name of the text; none where they were not looked for.

    Raises
    ------
    DataError
        If the file is damaged.
    """
    path = folder / WORDS
    if not path.is_file():
        return {}
    try:
        texts = json.loads(path.read_text(encoding="utf-8"))["texts"]
        return {name: _marked(found) for name, found in texts.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path} does not hold the marked words of an audit ({type(error).__name__}: {error}); without this file "
            "nothing is marked"
        ) from error


def _marked(found: Mapping[str, Any]) -> MarkedText:
    words = tuple(Word(int(start), str(word), float(influence)) for start, word, influence in found["words"])
    return MarkedText(str(found["given"]), str(found["other"]), words)
