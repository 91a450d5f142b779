"""Word importance: influences that can be worked out by hand, what is marked, and the file beside the list."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from client_app.label_quality import Audit
from client_app.noise_rate import NoiseEstimate
from client_app.word_importance import (
    MOST_MARKED,
    WORDS,
    MarkedText,
    Word,
    mark_words,
    read_words,
    strongest,
    word_influence,
    write_words,
)
from tasks.base import DataError, Task
from tasks.client_data import load_task
from tasks.models.small import TextBag
from tasks.own_data.texts import TextTable, hashed, word_spans
from tasks.settings import TaskSettings

CPU = torch.device("cpu")
CLASSES = ("calm", "storm", "fog")
SAYS = {"gale": 6.0, "sea": 1.0, "quiet": -4.0, "über": 2.0, "later": 50.0}
"""What each word says for storm against calm."""
TEXTS = ("Gale, sea: QUIET?", "U\u0308ber sea gale sea later later", "sea", "quiet quiet sea")
VOCABULARY = 5000


def texts_task(folder: Path, encoder: str = "") -> Task:
    folder.mkdir()
    with (folder / "texts.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *zip(TEXTS, ("calm", "storm", "fog", "calm"), strict=True)])
    args = f"classes = {list(CLASSES)}, words = 4, vocabulary = {VOCABULARY}, pairs = false".replace("'", '"')
    return load_task(TaskSettings("text-csv", args, str(folder), cache_path=str(folder / "cache"), encoder=encoder))


def bag() -> TextBag:
    """Return a linear model of the mean of words, whose logits are 0, what :data:`SAYS`, and -9."""
    model = TextBag(3, (4,), VOCABULARY, width=1)
    with torch.no_grad():
        model.words.weight.zero_()
        for word, says in SAYS.items():
            model.words.weight[int(hashed(word, 1, VOCABULARY, pairs=False)[0])] = says
        model.classifier.weight.copy_(torch.tensor([[0.0], [1.0], [0.0]]))
        model.classifier.bias.copy_(torch.tensor([0.0, 0.0, -9.0]))
    return model


def audit_of(task: Task, given: list[int], suggested: list[int]) -> Audit:
    names, count = tuple(task.example_names(np.arange(len(given)))), len(given)
    estimate = NoiseEstimate(0.1, 0.05, 0.15, 0.9, np.zeros((count, 3)))
    labels, other = np.array(given), np.array(suggested)
    some = np.full(count, 0.9)
    return Audit(names, labels, other, some, some, labels, estimate, 0.1, np.full(3, 0.9))


def of_linear(says: list[float]) -> list[float]:
    """Return (d_i - mean of the others) / n, worked out from means apart from the code."""
    mean = np.mean(says)
    return [float(mean - np.mean(np.delete(says, at))) for at in range(len(says))]


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return texts_task(tmp_path / "data")


def test_of_a_linear_bag_of_words_the_influences_are_what_pen_and_paper_say(task: Task):
    found = mark_words(bag(), task, audit_of(task, [0, 0, 0], [1, 1, 1]), 2, CPU)
    assert found is not None
    first, second, third = found.values()
    # means: 1 of (6, 1, -4); without gale -1.5, without sea 1, without quiet 3.5
    assert [(word.start, word.word, round(word.influence, 5)) for word in first.words] == [(0, "Gale", 2.5)]
    assert (first.given, first.other) == ("calm", "storm")
    # four words are read, so "later" neither counts nor moves up: (2, 1, 6, 1) has the mean 2.5
    assert second.words == (Word(10, "gale", pytest.approx(2.5 - 4 / 3, abs=1e-6)),)
    assert third.words == (), "nothing is left of a single word"


def test_each_word_is_left_out_alone_and_none_moves_up(task: Task):
    model, text = bag(), TEXTS[1]
    spans = word_spans(text)[:4]
    assert isinstance(task, TextTable)

    def odds(texts: list[str]) -> torch.Tensor:
        inputs = torch.from_numpy(np.stack([task.numbers(each) for each in texts])).long()
        found: torch.Tensor = model(inputs)[:, 1] - model(inputs)[:, 0]
        return found.detach()

    words = word_influence(text, spans, odds)
    assert [word.word for word in words] == ["U\u0308ber", "sea", "gale", "sea"]
    assert [word.influence for word in words] == pytest.approx(of_linear([2, 1, 6, 1]), abs=1e-6)


def test_without_a_suggestion_words_speak_for_the_likeliest_other_class(task: Task):
    found = mark_words(bag(), task, audit_of(task, [1, 0], [1, 0]), 8, CPU)
    assert found is not None
    assert [(text.given, text.other) for text in found.values()] == [("storm", "calm"), ("calm", "storm")]
    # against storm and for calm: the signs turn
    assert [(word.word, round(word.influence, 5)) for word in next(iter(found.values())).words] == [("QUIET", 2.5)]


def test_features_of_an_encoder_are_made_of_the_shorter_texts(tmp_path: Path):
    pytest.importorskip("tokenizers")
    task = texts_task(tmp_path / "data", "wordllama")
    torch.manual_seed(1)
    head = nn.Linear(256, 3)
    found = mark_words(head, task, audit_of(task, [0, 0, 0, 0], [1, 1, 1, 1]), 8, CPU)
    assert found is not None
    raw = task.raw
    assert isinstance(raw, TextTable)

    def odds(text: str) -> float:
        features = task.prepare(task.encoded(torch.from_numpy(raw.numbers(text)[None])))  # type: ignore[attr-defined]
        logits = head(features)[0]
        return float((logits[1] - logits[0]).detach())

    (marked,) = [text for name, text in found.items() if name == "texts.csv line 5"]
    assert marked.words
    for word in marked.words:
        shorter = TEXTS[3][: word.start] + TEXTS[3][word.start + len(word.word) :]
        assert word.influence == pytest.approx(odds(TEXTS[3]) - odds(shorter), abs=1e-4)


def test_words_that_are_not_read_are_seen_as_such(tmp_path: Path, task: Task):
    pytest.importorskip("tokenizers")
    for one in (task, texts_task(tmp_path / "encoded", "wordllama")):
        raw = one.raw
        assert isinstance(raw, TextTable)
        assert raw.count_words("sea") <= 4 < raw.count_words(TEXTS[1])


def test_only_the_strongest_words_are_marked_in_their_order():
    words = [Word(at, "x", value) for at, value in enumerate([1.0, -9.0, 4.0, 0.9, *[2.0] * MOST_MARKED])]
    assert [word.start for word in strongest(words)] == [2, *range(4, 4 + MOST_MARKED - 1)]
    assert [word.start for word in strongest(words[:4])] == [0, 2], "a quarter of the largest at least"
    assert strongest(words[1:2]) == ()


def test_other_tasks_have_no_words():
    digits = load_task(TaskSettings("digits"))
    assert mark_words(nn.Linear(64, 10), digits, replace(audit_of(digits, [0], [1])), 8, CPU) is None


def test_the_file_gives_back_what_was_written_and_is_for_this_user_alone(tmp_path: Path):
    marked = {"a.csv line 2": MarkedText("calm", "storm", (Word(3, "\u00fcber", 1.25),))}
    assert read_words(tmp_path) == {}
    write_words(tmp_path, marked)
    assert read_words(tmp_path) == marked
    assert (tmp_path / WORDS).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"texts": {"a": {}}}', '{"texts": {"a": 1}}'])
def test_a_damaged_file_is_named(tmp_path: Path, content: str):
    (tmp_path / WORDS).write_text(content)
    with pytest.raises(DataError, match=f"{WORDS} does not hold the marked words"):
        read_words(tmp_path)
