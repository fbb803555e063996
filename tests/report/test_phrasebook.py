"""Phrases are found wherever they stand."""

from __future__ import annotations

import random
from typing import Any

import pytest

from medsearch_desktop.report.lexicon import load_lexicon
from medsearch_desktop.report.phrasebook import Phrasebook
from medsearch_desktop.report.spacy_only import import_spacy


def test_all_phrases_by_start_and_then_length() -> None:
    book = Phrasebook({("a",): 1, ("a", "b"): 2, ("a", "b", "c"): 3, ("b", "c"): 4, ("c", "d"): 5, (): 6})
    assert list(book.find(("x", "a", "b", "c", "a"))) == [(1, 2, 1), (1, 3, 2), (1, 4, 3), (2, 4, 4), (4, 5, 1)]
    assert list(book.find(("c",))) == []
    assert list(book.find(())) == []


def test_what_a_phrase_stands_for_may_be_nothing() -> None:
    assert list(Phrasebook({("a",): None}).find(("a", "a"))) == [(0, 1, None), (1, 2, None)]


def test_the_words_of_a_phrase_may_be_anything() -> None:
    assert list(Phrasebook({("", "None"): 1}).find(("", "None", "", ""))) == [(0, 2, 1)]


@pytest.mark.parametrize("seed", range(3))
def test_the_phrases_of_the_lexicon_are_those_that_spacy_finds(seed: int) -> None:
    entries = load_lexicon().entries
    drawn = random.Random(seed)
    known = drawn.sample(list(entries), 3000)
    book = Phrasebook({phrase: " ".join(phrase) for phrase in known})
    spacy: Any = import_spacy()
    from spacy.matcher import PhraseMatcher
    from spacy.tokens import Doc

    vocab = spacy.blank("xx").vocab
    matcher = PhraseMatcher(vocab)
    for phrase in known:
        matcher.add(" ".join(phrase), [Doc(vocab, words=list(phrase))])
    found = 0
    for _ in range(40):
        words = [word for _ in range(30) for word in drawn.choice((*known, ("neverseen",), *drawn.sample(known, 2)))]
        # The same words in another order: beginnings of phrases that go on otherwise.
        for said in (words, drawn.sample(words, len(words))):
            theirs = [(start, end, vocab.strings[key]) for key, start, end in matcher(Doc(vocab, words=said))]
            assert list(book.find(said)) == theirs
            found += len(theirs)
    assert found > 1000
