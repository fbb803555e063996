"""How well a name fits a phrase: what both say, what only one of them says, and what they say against each other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache

from medsearch_desktop.report.gist import BOTH, LEFT, RIGHT, UNSTATED, Gist, light_words, weak_words
from medsearch_desktop.report.tables import read_table
from medsearch_desktop.report.terminology import HPO, HPO_SYNONYM, INCLUDES, INCLUSION, SEE, TITLE, UMLS, Concept

# What a word of the phrase costs that the name lacks, if it only says how much, since when or where in the organ.
_WEAK = 0.12
# What a word of the name costs when the phrase has another of those of which any one will do.
_ALTERNATIVE = 0.15
_LIGHT = 0.25
_CONFLICT = 0.3
_MOST_TELLING = 8.0
_KINDS = {TITLE: 1.0, INCLUSION: 0.995, HPO: 0.99, HPO_SYNONYM: 0.98, UMLS: 0.98, SEE: 0.97, INCLUDES: 0.9}
# What a title may say of which a phrase of findings says nothing: who or what else, another time of life.
_ELSEWHERE = ("classified elsewhere", "complicating", "in pregnancy", "newborn", "fetus", "encounter for")


def fit(
    phrase: Collection[str],
    name: Collection[str],
    weight: Callable[[str], float],
    choices: Sequence[Sequence[frozenset[str]]] = (),
    implied: Callable[[Collection[str]], Mapping[str, float]] | None = None,
) -> float:
    """Return how much of what a phrase and a name say is said by both, from 0 to 1.

    Both are telling words; `weight` tells how much a word tells. Of each list in `choices` one part will do.
    `implied` tells how surely the words of both bring others with them, from 0 to 1.
    """
    said, named, weak = set(phrase), set(name), weak_words()
    both = said & named
    if not both:
        return 0.0
    shared = sum(_telling(word, weight) for word in both)
    missed = sum(_telling(word, weight) * (_WEAK if word in weak else 1.0) for word in said - named)
    brought = implied(both) if implied is not None and named - said else {}
    spared = {
        word for parts in choices if any(part and part <= both for part in parts) for part in parts for word in part
    }
    added = sum(
        _telling(word, weight) * (_ALTERNATIVE if word in spared else 1.0 - brought.get(word, 0.0))
        for word in named - said
    )
    score = shared / (shared + missed + added)
    return score * _CONFLICT if contradicts(said, named) else score


def contradicts(said: Collection[str], named: Collection[str]) -> bool:
    """Whether a name says the opposite of a phrase: acute and chronic, open and closed, upper and lower."""
    for group in _opposites():
        in_phrase, in_name = group.intersection(said), group.intersection(named)
        if in_phrase and in_name and in_phrase.isdisjoint(in_name):
            return True
    return False


def kind_factor(kind: str) -> float:
    """Return how far a kind of name can be trusted, from 0 to 1."""
    return _KINDS.get(kind, 1.0)


def title_factor(title: str) -> float:
    """Return how likely a title is meant by a phrase that does not say who the patient is or what else there is."""
    lower = title.lower()
    factor = 0.6 if any(words in lower for words in _ELSEWHERE) else 1.0
    return factor * 0.96 if lower.startswith("other ") or " other " in lower else factor


def side_of_family(concept: Concept, family: Collection[Concept], said: Gist) -> Concept | None:
    """Return the code of the side that the phrase says, the unspecified one when it says none or there is no such.

    None when the concept is of one side, the phrase does not say that side, and no other will do.
    """
    sides = {member.side: member for member in family}
    if sides.keys().isdisjoint((RIGHT, LEFT, BOTH)):
        return concept
    chosen = sides.get(said.side) if said.side else None
    return chosen or sides.get(UNSTATED) or sides.get("")


def ease(concept: Concept) -> tuple[int, int]:
    """Return how a code ranks among those that fit alike: final before parent codes, unspecified before other."""
    lower = concept.title.lower()
    vague = 0 if "unspecified" in lower or " nos" in lower else 2 if "other" in lower.split() else 1
    return (concept.parent, vague)


@lru_cache(maxsize=1)
def never_implied() -> frozenset[str]:
    """Return the words that a phrase must say itself, however often they go with others: acute, closed, upper."""
    return weak_words().union(*_opposites())


@lru_cache(maxsize=1)
def qualifiers() -> frozenset[str]:
    """Return the words that set one kind of a thing against another: acute, chronic, viral, congenital."""
    return frozenset().union(*_opposites())


@lru_cache(maxsize=1)
def _opposites() -> tuple[frozenset[str], ...]:
    return tuple(frozenset(row["words"].split()) for row in read_table("linking/opposites.tsv"))


def _telling(word: str, weight: Callable[[str], float]) -> float:
    return min(weight(word), _MOST_TELLING) * (_LIGHT if word in light_words() else 1.0)
