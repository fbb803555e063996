"""What the lexicon has no name for: sentences to the recognisers, their answers to terms with a code or none.

Our own recogniser is asked only about sentences that hold a word which it may find something in: one that the
lexicon has not explained there, and that either ends mentions where the recogniser learnt or is known neither
from there nor to the lexicon. Most sentences of most reports hold none, and asking costs ten times the rest.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from medsearch_desktop.records import Category, Code
from medsearch_desktop.report.assertion import Mention
from medsearch_desktop.report.lexicon import Term, load_lexicon
from medsearch_desktop.report.linking import Linker
from medsearch_desktop.report.merge import Candidate, Source
from medsearch_desktop.report.ner import Found
from medsearch_desktop.report.words import Words

# By the labels of our own recogniser and of scispaCy's models.
_CATEGORIES = {
    "DISEASE": Category.DIAGNOSIS,
    "CANCER": Category.DIAGNOSIS,
    "PATHOLOGICAL_FORMATION": Category.DIAGNOSIS,
    "CHEMICAL": Category.DRUG,
    "CHEBI": Category.DRUG,
    "SIMPLE_CHEMICAL": Category.DRUG,
}
# Says that something is a concept, not of which sort: what it is, its code tells, and without one it is left out.
_ANY = "ENTITY"
_SHORTEST = 3
# What a mention may be, as its code has it: R90 to R94 are what pictures show, the others of R what patients feel.
_SIGNS = ("R90", "R91", "R92", "R93", "R94")


@dataclass(frozen=True, slots=True)
class Recognised(Term):
    """A term that no table has: what was found, named by its text, and how well its code fits."""

    score: float = 0.0
    alternatives: tuple[Code, ...] = ()


class AnyRecogniser(Protocol):
    """What finds mentions: our own recogniser or a pipeline of the user's.

    `heads` are words, in small letters, with which mentions end, `plain` others that it knows; None where
    nobody knows which.
    """

    name: str
    heads: frozenset[str] | None
    plain: frozenset[str]

    def find(self, texts: Sequence[str]) -> list[tuple[Found, ...]]:
        """Return the mentions of each text, offsets counted in it."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """One sentence, words `[start, end)`; `explained` holds the words in which the lexicon has found something."""

    words: Words
    start: int
    end: int
    explained: frozenset[int]


class Recognition:
    """Asks recognisers, those of the user before our own, and gives what they find its code."""

    def __init__(self, own: AnyRecogniser | None, imported: Sequence[AnyRecogniser], linker: Linker) -> None:
        self._ranked = [*((each, Source.IMPORTED) for each in imported), *([(own, Source.OWN)] if own else [])]
        self._linker = linker
        self._vocabulary = frozenset(word for phrase in load_lexicon().entries for word in phrase)
        self._linked = lru_cache(maxsize=10_000)(self._link)

    @property
    def names(self) -> tuple[str, ...]:
        """The recognisers, in the order in which they are believed."""
        return tuple(recogniser.name for recogniser, _ in self._ranked)

    def candidates(self, text: str, stretches: Sequence[Stretch]) -> list[list[Candidate]]:
        """Return what the recognisers find in each stretch of a report."""
        found: list[list[Candidate]] = [[] for _ in stretches]
        for recogniser, source in self._ranked:
            asked = [
                number
                for number, stretch in enumerate(stretches)
                if self._asks(recogniser, stretch, stretch.start, stretch.end)
            ]
            if not asked:
                continue
            bounds = [
                (
                    stretches[number].words.starts[stretches[number].start],
                    stretches[number].words.ends[stretches[number].end - 1],
                )
                for number in asked
            ]
            answers = recogniser.find([text[first:last] for first, last in bounds])
            for number, (first, _), answer in zip(asked, bounds, answers, strict=True):
                for each in answer:
                    mention = self._mention(text, stretches[number], each, first, recogniser)
                    if mention is not None:
                        found[number].append(Candidate(mention, source))
        return found

    def _asks(self, recogniser: AnyRecogniser, stretch: Stretch, start: int, end: int) -> bool:
        """Return whether words `[start, end)` hold one that a recogniser may find something in."""
        for index in range(start, end):
            word = stretch.words.normal[index]
            if index in stretch.explained or not _tells(word):
                continue
            if (
                recogniser.heads is None
                or word in recogniser.heads
                or not (word in recogniser.plain or word in self._vocabulary)
            ):
                return True
        return False

    def _mention(
        self, text: str, stretch: Stretch, found: Found, offset: int, recogniser: AnyRecogniser
    ) -> Mention | None:
        words = stretch.words
        # Whole words: a recogniser may cut "Crohn" out of "Crohn's".
        start = bisect_right(words.ends, offset + found.start, stretch.start, stretch.end)
        end = bisect_left(words.starts, offset + found.end, stretch.start, stretch.end)
        while start < end and not words.normal[start][0].isalnum():
            start += 1
        while start < end and not words.normal[end - 1][0].isalnum():
            end -= 1
        if not self._asks(recogniser, stretch, start, end):
            return None
        said = " ".join(text[words.starts[start] : words.ends[end - 1]].split())
        term = self._linked(said, found.label, recogniser.name)
        return None if term is None else Mention(start, end, term)

    def _link(self, text: str, label: str, name: str) -> Recognised | None:
        category = _CATEGORIES.get(label)
        rule = f"ner/{name}"
        if category is Category.DRUG:
            # A code of ICD-10-CM for a drug is one for being poisoned by it.
            return Recognised(text, (text,), category, (), "", "", "", rule)
        if category is None and label != _ANY:
            return None
        link = self._linker.link(text, alternatives=3)
        code = link.code
        if category is None and not code.icd10cm:
            return None
        if code.icd10cm.startswith("R"):
            category = Category.SIGN if code.icd10cm.startswith(_SIGNS) else Category.SYMPTOM
        return Recognised(
            text,
            (text,),
            category or Category.DIAGNOSIS,
            (),
            code.icd10cm,
            code.title,
            code.cui,
            rule,
            score=code.score,
            alternatives=link.alternatives,
        )


def _tells(word: str) -> bool:
    # A run of one letter masks a word that is not to be known.
    return len(word) >= _SHORTEST and any(letter.isalpha() for letter in word) and len(set(word)) > 1
