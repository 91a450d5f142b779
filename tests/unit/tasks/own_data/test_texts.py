"""Words of a text: what belongs to one, that hashes stay as they were, and that all Unicode forms give the same."""

import re
import unicodedata

import numpy as np
import pytest

from tasks.own_data.texts import hashed, words_of

UMLAUT = "\u00fcber"
HINDI = ("\u0915\u0940", "\u0915\u0947")
PERSIAN = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" ".join(HINDI), [*HINDI]),
        ("u\u0308ber \u00dcBER", [UMLAUT, UMLAUT]),
        ("\u0130stanbul I\u0307STANBUL istanbul", ["istanbul"] * 3),
        (PERSIAN, [PERSIAN]),
        ("\u200cx\u200c y\u200d\u0308 z", ["x", "y\u200d\u0308", "z"]),
        ("1\u20e3 \u2764\ufe0f \u0301 a", ["1\u20e3", "a"]),
        ("\U0001f468\u200d\U0001f469", []),
        ("\u0b95\u0bca \u1112\u1161\u11ab", ["\u0b95\u0bca", "\ud55c"]),
        ("don't a_b, 1.5!", ["don", "t", "a_b", "1", "5"]),
    ],
)
def test_marks_and_joiners_belong_to_their_word(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_different_words_of_one_letter_with_marks_have_different_hashes() -> None:
    first, second = (hashed(word, 1, 20_000).tolist() for word in HINDI)
    assert first != second


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_each_unicode_form_of_a_text_gives_the_same_hashes(form: str) -> None:
    text = "\u00c5ngstr\u00f6m Vi\u1ec7t \u0130zmir \ud55c\uad6d\uc5b4 \u0928\u093c\u093f"
    written = unicodedata.normalize(form, text)  # type: ignore[arg-type]
    np.testing.assert_array_equal(hashed(written, 8, 20_000), hashed(text, 8, 20_000))


def test_plain_latin_text_is_divided_as_it_always_was() -> None:
    signs = [chr(number) for number in range(1, 0x250) if chr(number) != "\u0130"]
    for text in (f"a{sign}b {sign} {sign}C" for sign in signs):
        assert words_of(text) == re.findall(r"\w+", text.lower())
    assert hashed("\u00dcber allem, \u00fcberall", 3, 20_000).tolist() == [19027, 11103, 17372, 4974, 16303]
    assert hashed("Sun, sun! shine", 4, 20_000).tolist() == [12503, 12503, 6547, 1146, 12549, 0, 0]
