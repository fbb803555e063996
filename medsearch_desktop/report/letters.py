"""The likeness of letters between a phrase and our own names: cosine of TF-IDF weighted character trigrams."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from medsearch_desktop.report.lexicon import GAP, Term, phrase_of

_GRAM = 3


class NameIndex:
    """Character trigrams of all names, as postings of unit vectors."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self._owners: list[tuple[Term, str]] = []
        texts: list[str] = []
        for term in terms:
            names = {" ".join(phrase_of(name)) for name in (*term.names, term.title) if name and GAP not in name}
            for name in sorted(names):
                texts.append(name)
                self._owners.append((term, name))
        counts = [Counter(_grams(text)) for text in texts]
        documents = Counter(gram for count in counts for gram in count)
        self._idf = {gram: math.log((1 + len(texts)) / (1 + n)) + 1.0 for gram, n in documents.items()}
        self._unseen = max(self._idf.values(), default=1.0)
        rows: dict[str, list[int]] = {}
        weights: dict[str, list[float]] = {}
        for row, count in enumerate(counts):
            for gram, weight in self._weights(count).items():
                rows.setdefault(gram, []).append(row)
                weights.setdefault(gram, []).append(weight)
        self._postings = {gram: (np.array(rows[gram], np.int32), np.array(weights[gram], np.float32)) for gram in rows}

    def nearest(self, text: str, *, limit: int = 12) -> list[tuple[float, Term, str]]:
        """Return (cosine, term, name) of the names nearest to `text`, best first, one a term."""
        scores = np.zeros(len(self._owners), np.float32)
        for gram, weight in self._weights(Counter(_grams(text))).items():
            if gram in self._postings:
                rows, weights = self._postings[gram]
                scores[rows] += weight * weights
        best: dict[int, tuple[float, Term, str]] = {}
        for row in np.argsort(-scores, kind="stable")[: limit * 8]:
            if scores[row] <= 0 or len(best) >= limit:
                break
            term, name = self._owners[row]
            best.setdefault(id(term), (min(1.0, float(scores[row])), term, name))
        return list(best.values())

    def _weights(self, count: Counter[str]) -> dict[str, float]:
        # A gram that no name holds still lengthens the vector, so that a strange phrase stays far from all.
        unseen = self._unseen
        raw = {gram: (1.0 + math.log(n)) * self._idf.get(gram, unseen) for gram, n in count.items()}
        length = math.sqrt(sum(weight * weight for weight in raw.values())) or 1.0
        return {gram: weight / length for gram, weight in raw.items()}


@lru_cache(maxsize=4096)
def _grams(text: str) -> tuple[str, ...]:
    return tuple(
        padded[index : index + _GRAM]
        for word in text.split()
        for padded in (f" {word} ",)
        for index in range(len(padded) - _GRAM + 1)
    )
