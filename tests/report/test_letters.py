"""The likeness of letters, held against its definition written out."""

from __future__ import annotations

import math
from collections import Counter

from medsearch_desktop.records import Category
from medsearch_desktop.report.letters import NameIndex
from medsearch_desktop.report.lexicon import Term, load_lexicon, phrase_of


def term(*names: str) -> Term:
    return Term(names[0], names, Category.DIAGNOSIS, (), "", "", "")


def grams(text: str) -> Counter[str]:
    return Counter(f" {word} "[index : index + 3] for word in text.split() for index in range(len(word)))


def likeness(one: str, other: str, names: list[str]) -> float:
    """Return the cosine of two texts' trigrams, each weighted by how often it stands and how few names have it."""
    documents = Counter(gram for name in names for gram in grams(name))
    idf = {gram: math.log((1 + len(names)) / (1 + n)) + 1.0 for gram, n in documents.items()}
    vectors = [
        {gram: (1.0 + math.log(n)) * idf.get(gram, max(idf.values())) for gram, n in grams(text).items()}
        for text in (one, other)
    ]
    lengths = [math.sqrt(sum(weight * weight for weight in vector.values())) for vector in vectors]
    return sum(weight * vectors[1].get(gram, 0.0) for gram, weight in vectors[0].items()) / math.prod(lengths)


def test_scores_are_the_cosine() -> None:
    terms = [term("pneumonia", "lung infection"), term("pneumothorax"), term("banana nana"), term("an infection")]
    names = [" ".join(phrase_of(name)) for each in terms for name in each.names]
    index = NameIndex(terms)
    for text in (*names, "pneumonias", "infected lungs", "nananana", "pneu qqq"):
        best = {each.name: max((likeness(text, name, names), name) for name in each.names) for each in terms}
        found = index.nearest(text)
        assert [(each.name, name) for _, each, name in found] == [
            (own, name) for own, (score, name) in sorted(best.items(), key=lambda item: -item[1][0]) if score > 0
        ]
        for score, each, _ in found:
            assert abs(score - best[each.name][0]) < 1e-6


def test_strange_words_keep_a_phrase_far_from_all_names() -> None:
    index = NameIndex(load_lexicon().terms)
    ((plain, found, _), *_) = index.nearest("pleural effusion", limit=1)
    ((strange, same, _), *_) = index.nearest("pleural effusion qxqxqx", limit=1)
    assert found is same
    assert strange < plain
    assert abs(plain - 1.0) < 1e-6


def test_without_names_or_letters_nothing_is_near() -> None:
    assert NameIndex([]).nearest("effusion") == []
    assert NameIndex([term("effusion")]).nearest("") == []
