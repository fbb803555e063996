"""Mention to concept to ICD-10-CM code, with a score and the runners-up.

A phrase is looked up, in this order: as it stands, without the words that only say where, how much
or since when, and by the likeness of its letters (cosine of TF-IDF weighted character trigrams).
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from medsearch_desktop.records import Category, Code
from medsearch_desktop.report.lexicon import GAP, Term, load_lexicon, phrase_of
from medsearch_desktop.report.tables import read_table

# Below this score no code is given: a blank is looked up again by a person, a wrong code is believed.
FLOOR = 0.62
# Share of the telling words of a phrase that a name inside it must cover.
_MIN_COVERAGE = 0.6
_RUNNER_UP_FLOOR = 0.3
_MAX_WORDS = 40
_GRAM = 3
_RANK = {
    Category.DIAGNOSIS: 0,
    Category.SIGN: 1,
    Category.SYMPTOM: 2,
    Category.PROCEDURE: 3,
    Category.DEVICE: 4,
    Category.ANATOMY: 5,
}


@dataclass(frozen=True, slots=True)
class Link:
    """The concept of a phrase, all empty with score 0 when none is near enough, and the next best ones."""

    code: Code
    alternatives: tuple[Code, ...]


NO_CODE = Code(cui="", icd10cm="", title="", score=0.0)


class Linker:
    """Links phrases to the concepts of the shipped lexicon; it may be used from several threads."""

    def __init__(self) -> None:
        lexicon = load_lexicon()
        self._terms = [term for term in lexicon.terms if term.icd10cm or term.cui]
        self._exact: dict[tuple[str, ...], Term] = {}
        for term in self._terms:
            if term.title:
                self._exact.setdefault(phrase_of(term.title), term)
        for phrase, entry in lexicon.entries.items():
            if entry.term is not None and (entry.term.icd10cm or entry.term.cui):
                self._exact[phrase] = entry.term
        self._modifiers = frozenset(row["word"] for row in read_table("modifiers.tsv"))
        # A place alone is no answer to what a phrase means, unless the phrase is its very name.
        self._names = _NameIndex([term for term in self._terms if term.category is not Category.ANATOMY])
        self._runners_up: dict[str, tuple[Code, ...]] = {}
        self._lock = threading.Lock()

    def link(self, mention: str, *, alternatives: int = 4) -> Link:
        """Return the concept of a phrase and up to `alternatives` runners-up, best first, each of another code.

        Scores run from 0 to 1; below `FLOOR` the concept is empty and the runners-up are still given.
        """
        words = phrase_of(mention)[:_MAX_WORDS]
        scores: dict[int, tuple[float, Term]] = {}
        for score, term in (*self._inside(words), *self._names.nearest(" ".join(words))):
            if score > scores.get(id(term), (0.0, term))[0]:
                scores[id(term)] = (score, term)
        ranked = sorted(scores.values(), key=lambda item: (-item[0], _RANK[item[1].category]))
        codes = _distinct(ranked)
        if codes and codes[0].score >= FLOOR:
            return Link(codes[0], tuple(code for code in codes[1 : alternatives + 1] if code.score >= _RUNNER_UP_FLOOR))
        return Link(NO_CODE, tuple(code for code in codes[:alternatives] if code.score >= _RUNNER_UP_FLOOR))

    def runners_up(self, term: Term, *, limit: int = 3) -> tuple[Code, ...]:
        """Return the concepts of other codes whose names are nearest to that of a term."""
        found = self._runners_up.get(term.name)
        if found is None:
            own = (term.cui, term.icd10cm)
            others = [code for code in _distinct(self._names.nearest(term.name)) if (code.cui, code.icd10cm) != own]
            found = tuple(code for code in others if code.score >= _RUNNER_UP_FLOOR and code.icd10cm != term.icd10cm)[
                :limit
            ]
            with self._lock:
                self._runners_up[term.name] = found
        return found

    def code_phrases(self, phrases: Iterable[str]) -> list[dict[str, Any]]:
        """Return, for each phrase, the object that `medsearch code` prints."""
        return [self._phrase_json(phrase) for phrase in phrases]

    def _phrase_json(self, phrase: str) -> dict[str, Any]:
        link = self.link(phrase)
        return {
            "phrase": phrase,
            **_code_json(link.code),
            "alternatives": [_code_json(code) for code in link.alternatives],
        }

    def _inside(self, words: Sequence[str]) -> list[tuple[float, Term]]:
        """Return the terms whose names stand in the phrase, by the share of its telling words that they cover."""
        if not words:
            return []
        exact = self._exact.get(tuple(words))
        found: list[tuple[float, Term]] = [(1.0, exact)] if exact is not None else []
        telling = [word not in self._modifiers for word in words]
        total = max(1, sum(telling))
        for start in range(len(words)):
            for end in range(start + 1, len(words) + 1):
                term = self._exact.get(tuple(words[start:end]))
                if term is None or term.category is Category.ANATOMY:
                    continue
                coverage = min(1.0, sum(telling[start:end]) / total)
                if coverage >= _MIN_COVERAGE:
                    # Of names that cover alike, the longer one says more.
                    found.append((0.45 + 0.5 * coverage + 0.04 * (end - start) / len(words), term))
        return found


class _NameIndex:
    """Character trigrams of all names, as postings of unit vectors."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self._owners: list[Term] = []
        texts: list[str] = []
        for term in terms:
            names = {" ".join(phrase_of(name)) for name in (*term.names, term.title) if name and GAP not in name}
            for name in sorted(names):
                texts.append(name)
                self._owners.append(term)
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

    def nearest(self, text: str, *, limit: int = 12) -> list[tuple[float, Term]]:
        """Return (cosine, term) of the names nearest to `text`, best first, one a term."""
        scores = np.zeros(len(self._owners), np.float32)
        for gram, weight in self._weights(Counter(_grams(text))).items():
            if gram in self._postings:
                rows, weights = self._postings[gram]
                scores[rows] += weight * weights
        best: dict[int, tuple[float, Term]] = {}
        for row in np.argsort(-scores, kind="stable")[: limit * 8]:
            if scores[row] <= 0 or len(best) >= limit:
                break
            term = self._owners[row]
            best.setdefault(id(term), (min(1.0, float(scores[row])), term))
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


def _distinct(ranked: Iterable[tuple[float, Term]]) -> list[Code]:
    """Return the codes of ranked terms, each once, at its best score."""
    codes: list[Code] = []
    seen: set[tuple[str, str]] = set()
    for score, term in ranked:
        key = (term.icd10cm, "" if term.icd10cm else term.cui)
        if key not in seen:
            seen.add(key)
            codes.append(Code(cui=term.cui, icd10cm=term.icd10cm, title=term.title, score=min(1.0, score)))
    return codes


def _code_json(code: Code) -> dict[str, Any]:
    return {"cui": code.cui, "icd10cm": code.icd10cm, "title": code.title, "score": round(code.score, 4)}
