"""The likeness of letters between a phrase and our own names: cosine of TF-IDF weighted character trigrams."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

import numpy as np

from medsearch_desktop.report.lexicon import GAP, Term, phrase_of
from medsearch_desktop.report.tables import collector_held

_GRAM = 3


class NameIndex:
    """Character trigrams of all names, as postings of unit vectors."""

    @collector_held()
    def __init__(self, terms: Sequence[Term]) -> None:
        self._owners: list[tuple[Term, str]] = []
        texts: list[str] = []
        for term in terms:
            names = {" ".join(phrase_of(name)) for name in (*term.names, term.title) if name and GAP not in name}
            for name in sorted(names):
                texts.append(name)
                self._owners.append((term, name))
        grams = [_grams(text) for text in texts]
        self._numbers = {gram: number for number, gram in enumerate(dict.fromkeys(chain.from_iterable(grams)))}
        rows = np.repeat(np.arange(len(texts), dtype=np.int64), [len(own) for own in grams])
        numbers = np.fromiter(map(self._numbers.__getitem__, chain.from_iterable(grams)), np.int64, len(rows))
        # Each gram of a name once, by name and then where it first stands: in this order its length is summed.
        _, first, counts = np.unique(rows * len(self._numbers) + numbers, return_index=True, return_counts=True)
        order = np.argsort(first)
        rows, numbers, counts = rows[first[order]], numbers[first[order]], counts[order]
        documents = np.bincount(numbers, minlength=len(self._numbers))
        # Python's logarithm, which numpy's differs from in the last digit on some machines.
        self._idf = [math.log((1 + len(texts)) / (1 + n)) + 1.0 for n in documents.tolist()]
        self._unseen = max(self._idf, default=1.0)
        logarithms = np.array([0.0, *(1.0 + math.log(n) for n in range(1, int(counts.max(initial=0)) + 1))])
        weights = logarithms[counts] * np.array(self._idf)[numbers]
        weights /= np.sqrt(np.bincount(rows, weights=weights * weights, minlength=len(texts)))[rows]
        order = np.argsort(numbers, kind="stable")
        self._rows, self._weights = rows[order].astype(np.int32), weights[order].astype(np.float32)
        self._starts = np.concatenate([[0], np.cumsum(documents)]).tolist()

    def nearest(self, text: str, *, limit: int = 12) -> list[tuple[float, Term, str]]:
        """Return (cosine, term, name) of the names nearest to `text`, best first, one a term."""
        scores = np.zeros(len(self._owners), np.float32)
        for number, weight in self._weighted(Counter(_grams(text))):
            if number is not None:
                own = slice(self._starts[number], self._starts[number + 1])
                scores[self._rows[own]] += weight * self._weights[own]
        best: dict[int, tuple[float, Term, str]] = {}
        for row in np.argsort(-scores, kind="stable")[: limit * 8]:
            if scores[row] <= 0 or len(best) >= limit:
                break
            term, name = self._owners[row]
            best.setdefault(id(term), (min(1.0, float(scores[row])), term, name))
        return list(best.values())

    def _weighted(self, count: Counter[str]) -> list[tuple[int | None, float]]:
        """Return the number of each gram of a phrase, None when no name has it, and its weight."""
        numbers = [self._numbers.get(gram) for gram in count]
        # A gram that no name holds still lengthens the vector, so that a strange phrase stays far from all.
        idf = [self._unseen if number is None else self._idf[number] for number in numbers]
        raw = [(1.0 + math.log(n)) * each for n, each in zip(count.values(), idf, strict=True)]
        length = math.sqrt(sum(weight * weight for weight in raw)) or 1.0
        return [(number, weight / length) for number, weight in zip(numbers, raw, strict=True)]


@lru_cache(maxsize=4096)
def _grams(text: str) -> tuple[str, ...]:
    return tuple(
        padded[index : index + _GRAM]
        for word in text.split()
        for padded in (f" {word} ",)
        for index in range(len(padded) - _GRAM + 1)
    )
