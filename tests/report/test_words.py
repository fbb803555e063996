"""The short ways of cutting phrases into words give what the long one gives."""

from __future__ import annotations

import random

import pytest

from medsearch_desktop.report.words import normal_words, plain_words, split_words

PIECES = (
    "a",
    "No",
    "haemo",
    "x-ray",
    "Crohn's",
    " ",
    "  ",
    "-",
    "–",
    "\n",
    ".",
    "?",
    "3.5",
    "'s",
    "é",
    " • ",
    "•",
    "\t",
)
ODDER = ("a.m.", "_", "\x0b", "ß", "ﬁ")


@pytest.mark.parametrize("seed", range(5))
def test_phrases_are_cut_like_texts(seed: int) -> None:
    drawn = random.Random(seed)
    for _ in range(4000):
        text = "".join(drawn.choice(PIECES + ODDER) for _ in range(drawn.randint(0, 7)))
        normal = split_words(text).normal
        assert normal_words(text) == normal, ascii(text)
        if not set("-–•\n") & set(text):
            assert plain_words(text) == tuple(word for word in normal if word[0].isalnum()), ascii(text)


def test_words_of_plain_letters_are_spelt_normally_too() -> None:
    assert (
        plain_words(" Haemothorax  and OEDEMA ")
        == normal_words("Haemothorax and OEDEMA")
        == (
            "hemothorax",
            "and",
            "edema",
        )
    )
