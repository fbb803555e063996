"""Mention to concept to ICD-10-CM code, with a score, the name that matched, the rule, and the runners-up.

A phrase is looked up among our own names and those of the base of concepts: as it stands, by its telling
words, inside the phrase, and by the likeness of its letters (TF-IDF weighted character trigrams, over all
names of the base: a hundred thousand are searched exactly in milliseconds, so that the approximate index
of scispaCy's candidate generator, nmslib, is not needed). What is found is ranked by what the phrase says:
organ, kind, acute or chronic, side.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from medsearch_desktop.records import Attribute, AttributeKind, Category, Code
from medsearch_desktop.report.crosswalk import Crosswalk
from medsearch_desktop.report.gist import (
    BOTH,
    LEFT,
    RIGHT,
    Gist,
    alternatives,
    gist,
    gist_of_name,
    gist_of_title_less_site,
    gist_of_words,
    light_words,
    place_words,
    side_of_words,
    weak_words,
)
from medsearch_desktop.report.letters import NameIndex
from medsearch_desktop.report.lexicon import Term, load_lexicon, phrase_of
from medsearch_desktop.report.ranking import (
    contradicts,
    ease,
    fit,
    kind_factor,
    never_implied,
    qualifiers,
    side_of_family,
    title_factor,
)
from medsearch_desktop.report.tables import read_table
from medsearch_desktop.report.terminology import HPO, HPO_SYNONYM, UMLS, Concept, KnowledgeBase, Name, load_shipped
from medsearch_desktop.report.umls_base import UmlsBase, open_umls

# Below this score no code is given: a blank is looked up again by a person, a wrong code is believed.
FLOOR = 0.62
# What is only alike, name by name, must be more so.
_BASE_FLOOR = 0.72
# Share of the telling words of a phrase that a name inside it must cover.
_MIN_COVERAGE = 0.7
_PLACE = 0.5
# What names of like letters must share in meaning too.
_MIN_SHARED = 0.5
_SAME_WORDS = 0.985
# A code that has finer ones below it yields to one of those that says the same.
_PARENT = 0.97
_CORRECTED = 0.95
# A code of the head of a phrase leaves out what it goes with; where a thing is must not be left out.
_HEAD = 0.75
_HEAD_ENDS = frozenset(
    {"with", "after", "following", "measuring", "causing", "due", "secondary", "containing", "extending", "showing"}
    | {"along", "complicated", "associated", "because", "status", "post", "without"}
)
_RUNNER_UP_FLOOR = 0.3
_MAX_WORDS = 40
_KEPT = 20_000
_RUNNERS_UP = 3
_SIDE_WORDS = {"": (), RIGHT: ("right",), LEFT: ("left",), BOTH: ("bilateral",)}
# Words that may stand between a word that tells the kind and what it is the kind of: "acute on chronic".
_BETWEEN = frozenset({"on", "and", ",", "left", "right", "bilateral"})
_RANK = {
    Category.DIAGNOSIS: 0,
    Category.SIGN: 1,
    Category.SYMPTOM: 2,
    Category.PROCEDURE: 3,
    Category.DEVICE: 4,
    Category.ANATOMY: 5,
}
# A phrase that begins so, or has a "no" or "not" anywhere, says that something is not there.
_RULED_OUT = frozenset({("without",), ("negative", "for"), ("absence", "of"), ("free", "of")})

EXACT, SAME_WORDS, INSIDE, LIKE = "exact", "same words", "inside", "alike"
OWN = "MedSearch"


@dataclass(frozen=True, slots=True)
class Match:
    """A candidate: its code, the name that matched, whose name it is, and by which rule."""

    code: Code
    name: str
    source: str
    rule: str
    billable: bool
    order: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """The concept of a phrase, all empty with score 0 when none is near enough, and the next best ones."""

    code: Code
    alternatives: tuple[Code, ...]
    best: Match | None = None
    others: tuple[Match, ...] = ()


NO_CODE = Code(cui="", icd10cm="", title="", score=0.0)
# Mentions that have no code unless their row of the lexicon says so: an examination is no disease.
_NEVER_LINKED = frozenset({Category.ANATOMY, Category.PROCEDURE})


class Linker:
    """Links phrases to concepts; it may be used from several threads.

    The base is loaded when a phrase is first linked. What a report's own terms need, `runners_up`, is not in it.
    """

    def __init__(self, *, base: KnowledgeBase | None = None) -> None:
        self._given = base
        self._crosswalk = Crosswalk(lambda: self.base)
        self._modifiers = frozenset(row["word"] for row in read_table("modifiers.tsv"))
        # A place alone is no answer to what a phrase means, unless the phrase is its very name.
        self._names = NameIndex([term for term in self._crosswalk.terms if term.category is not Category.ANATOMY])
        self._runners_up: dict[str, tuple[Code, ...]] = {}
        self._coded: dict[tuple[str, ...], tuple[Code, tuple[Code, ...]]] = {}
        self._lock = threading.Lock()

    @cached_property
    def base(self) -> KnowledgeBase:
        """The base of concepts, loaded. Raises TerminologyError."""
        return load_shipped() if self._given is None else self._given

    @cached_property
    def umls(self) -> UmlsBase | None:
        """The UMLS base that the user has imported, if any. Raises TerminologyError when it is damaged."""
        return open_umls(self.base)

    def link(self, mention: str, *, alternatives: int = 4, alike: bool = True) -> Link:
        """Return the concept of a phrase and up to `alternatives` runners-up, best first, each of another code.

        Without `alike` only names that say the same count, which takes microseconds. Scores run from 0 to 1; below
        `FLOOR` the concept is empty and the runners-up are still given.

        Raises TerminologyError when the base cannot be loaded.
        """
        words = phrase_of(mention)[:_MAX_WORDS]
        if not words:
            return Link(NO_CODE, ())
        said, factor = gist_of_words(words), 1.0
        if alike:
            said, factor = self._corrected(said)
        found = [*self._own(words, said, factor, alike), *self._of_base(words, said, factor, alike)]
        found.sort(key=lambda match: (-match.code.score, match.order))
        matches = _coded_first(_distinct_matches(found))
        ruled_out = not matches or (_ruled_out(words) and matches[0].rule != EXACT)
        if not ruled_out and matches[0].code.score >= FLOOR:
            others = tuple(match for match in matches[1 : alternatives + 1] if match.code.score >= _RUNNER_UP_FLOOR)
            return Link(matches[0].code, tuple(match.code for match in others), matches[0], others)
        others = tuple(match for match in matches[:alternatives] if match.code.score >= _RUNNER_UP_FLOOR)
        head = None if ruled_out or not alike else self._head(words)
        if head is not None:
            others = tuple(match for match in others if match.code.icd10cm != head.code.icd10cm)
            return Link(head.code, tuple(match.code for match in others), head, others)
        return Link(NO_CODE, tuple(match.code for match in others), None, others)

    def _head(self, words: Sequence[str]) -> Match | None:
        """Return the match of what stands before "with", "after" and the like, when a name says the same.

        "Pneumomediastinum after vomiting" is a pneumomediastinum: a code that says less than the phrase.
        """
        ends = [index for index, word in enumerate(words) if index and word in _HEAD_ENDS]
        for end in reversed(ends):
            best = self.link(" ".join(words[:end]), alike=False).best
            if best is not None and best.code.icd10cm and best.rule in (EXACT, SAME_WORDS):
                return replace(best, code=replace(best.code, score=_HEAD * best.code.score), rule=INSIDE)
        return None

    def runners_up(self, term: Term, *, limit: int = _RUNNERS_UP) -> tuple[Code, ...]:
        """Return the concepts of other codes whose names are nearest to that of a term."""
        found = self._runners_up.get(term.name)
        if found is None:
            own = (term.cui, term.icd10cm)
            near = _distinct((score, other) for score, other, _ in self._names.nearest(term.name))
            others = [code for code in near if (code.cui, code.icd10cm) != own]
            found = tuple(code for code in others if code.score >= _RUNNER_UP_FLOOR and code.icd10cm != term.icd10cm)[
                :limit
            ]
            with self._lock:
                self._runners_up[term.name] = found
        return found

    def code_mention(
        self,
        term: Term,
        words: Sequence[str],
        *,
        before: Sequence[str] = (),
        attributes: Sequence[Attribute] = (),
    ) -> tuple[Code, tuple[Code, ...]]:
        """Return the code of a mention of a term in a report, and the runners-up, best first.

        `words` are the mention's own, `before` those that stand before it in its sentence, `attributes` what the
        sentence says of it. The code is that of the term on the side that is said; of a kind or a place that is
        said too when a name says the same; and what the base of concepts has where the term has none, if a
        name there says the same. It never says more than the report.

        Raises TerminologyError when the base cannot be loaded.
        """
        if term.category in _NEVER_LINKED and not term.icd10cm:
            return Code(term.cui, "", term.title, 1.0 if term.cui else 0.0), self.runners_up(term)
        told = self._kind_before(before)
        places = tuple(dict.fromkeys(each.value for each in attributes if each.kind is AttributeKind.ANATOMY))
        side = side_of_words([each.value for each in attributes if each.kind is AttributeKind.LATERALITY])
        key = (term.rule or term.name, " ".join(words), " ".join(told), side, *places)
        found = self._coded.get(key)
        if found is None:
            found = self._code_mention(term, tuple(words), told, places, side)
            with self._lock:
                if len(self._coded) >= _KEPT:
                    self._coded.clear()
                self._coded[key] = found
        return found

    def code_phrases(self, phrases: Iterable[str]) -> list[dict[str, Any]]:
        """Return, for each phrase, the object that `medsearch code` prints. Raises TerminologyError."""
        return [self._phrase_json(phrase) for phrase in phrases]

    def _kind_before(self, before: Sequence[str]) -> tuple[str, ...]:
        """Return the words right before a mention that tell of what kind it is, past those that do not matter."""
        told: list[str] = []
        for word in reversed(before):
            if word in qualifiers():
                told.insert(0, word)
            elif word not in self._modifiers and word not in _BETWEEN:
                break
        return tuple(told)

    def _code_mention(
        self, term: Term, words: tuple[str, ...], told: tuple[str, ...], places: tuple[str, ...], side: str
    ) -> tuple[Code, tuple[Code, ...]]:
        own = self.base.concept_of_code(term.icd10cm) if term.icd10cm else None
        said = Gist(gist_of_words(words).words, side)
        sided = self._final(own, said) or own if own is not None else None
        code = Code(term.cui, term.icd10cm, term.title, 1.0 if term.icd10cm or term.cui else 0.0)
        if own is not None and sided is not None and sided.code != own.code:
            code = replace(code, icd10cm=sided.code, title=sided.title)
        name = phrase_of(term.name)
        known = {*said.words, *gist_of_words(name).words}
        further = [place for place in places if not known.issuperset(gist(place).words)]
        told = tuple(word for word in told if word not in words)
        for whole in self._wholes(told, words, name, further, bare=own is None):
            # What the lexicon says outright holds until the sentence adds something to it.
            if own is not None and whole in (words, name):
                continue
            # What is only alike is for a person to choose from: here nobody looks before it is counted.
            best = self.link(" ".join((*_SIDE_WORDS[side], *whole)), alike=False).best
            if best is None or not best.code.icd10cm or best.rule not in (EXACT, SAME_WORDS):
                continue
            # A finding of the chest stays what it is wherever in the chest: only another organ makes it another thing.
            if term.findings and not told and best.code.icd10cm[:3] == term.icd10cm[:3]:
                continue
            if best.code.icd10cm != code.icd10cm:
                code = replace(best.code, cui=best.code.cui or term.cui)
            break
        others = [other for other in self.runners_up(term) if other.icd10cm != code.icd10cm]
        if own is not None and code.icd10cm != own.code:
            others.insert(0, Code(term.cui, own.code, own.title, 0.99 * code.score))
        return code, tuple(others[:_RUNNERS_UP])

    def _wholes(
        self,
        told: tuple[str, ...],
        words: tuple[str, ...],
        name: tuple[str, ...],
        places: Sequence[str],
        *,
        bare: bool,
    ) -> list[tuple[str, ...]]:
        """Return what a mention says with its kind and places, most first; `bare`, then without how much and when."""
        said = [(*kind, *own, *at) for kind in (told, ()) for at in _places_said(places) for own in (words, name)]
        stripped = [tuple(word for word in whole if word not in weak_words()) for whole in said] if bare else []
        return [whole for whole in dict.fromkeys((*said, *stripped)) if whole]

    def _phrase_json(self, phrase: str) -> dict[str, Any]:
        link = self.link(phrase)
        best = _match_json(link.best) if link.best else {**_code_json(NO_CODE), **_NO_MATCH}
        others = [_match_json(match) for match in link.others]
        return {"phrase": phrase, **best, "alternatives": others, "release": self.base.release, "floor": FLOOR}

    def _corrected(self, said: Gist) -> tuple[Gist, float]:
        """Return what a phrase says with its misspelt words put right, and by how much that lowers its scores."""
        words, factor = [], 1.0
        for word in said.words:
            if len(word) > 4 and not self.base.knows_word(word) and word not in self._own_words:
                right = self.base.nearest_word(word)
                factor *= _CORRECTED if right else 1.0
                word = right or word
            words.append(word)
        return Gist(tuple(sorted(set(words))), said.side), factor

    def _implied(self, words: Collection[str]) -> dict[str, float]:
        brought = self.base.implied(words)
        return {word: share for word, share in brought.items() if word not in never_implied()}

    @cached_property
    def _places(self) -> frozenset[str]:
        """The telling words of places, and those that only say where in them."""
        terms = (term for term in load_lexicon().terms if term.category is Category.ANATOMY)
        return weak_words().union(place_words(), *(gist(name).words for term in terms for name in term.names))

    def _is_place(self, word: str) -> bool:
        read = gist_of_words((word,)).words
        return bool(read) and self._places.issuperset(read)

    @cached_property
    def _own_words(self) -> frozenset[str]:
        return frozenset(word for key in self._crosswalk.by_gist for word in key.split())

    def _own(self, words: Sequence[str], said: Gist, factor: float, alike: bool) -> Iterator[Match]:
        """Yield the matches among our own names."""
        for score, term, name, rule in self._inside(words):
            yield self._match_of_term(score, term, name, rule, said)
        for told, name, term in self._crosswalk.by_gist.get(said.key, ()):
            if told.side in ("", said.side):
                yield self._match_of_term(_SAME_WORDS * factor, term, name, SAME_WORDS, said)
        if not alike or self._places.issuperset(said.words):
            return
        for score, term, name in self._names.nearest(" ".join(words)):
            named = gist(name).words
            shared = fit(said.words, named, self.base.weight)
            # A name that only adds to the phrase says more than it.
            if shared >= (_BASE_FLOOR if set(said.words) < set(named) else _MIN_SHARED):
                yield self._match_of_term(0.6 * score + 0.4 * shared, term, name, LIKE, said)
        for told, name, term in self._crosswalk.sharing(said):
            shared = fit(said.words, told.words, self.base.weight) * factor * _SAME_WORDS
            if shared >= _BASE_FLOOR and told.side in ("", said.side):
                yield self._match_of_term(shared, term, name, LIKE, said)

    def _inside(self, words: Sequence[str]) -> Iterator[tuple[float, Term, str, str]]:
        """Yield the terms whose names stand in the phrase, by the share of its telling words that they cover."""
        names = self._crosswalk.names
        exact = names.get(tuple(words))
        if exact is not None:
            yield 1.0, exact, " ".join(words), EXACT
        # A place that the name lacks leaves a code that says less; any other thing, a code of something else.
        telling = [0.0 if word in self._modifiers else _PLACE if self._is_place(word) else 1.0 for word in words]
        total = max(1.0, sum(telling))
        for start in range(len(words)):
            for end in range(start + 1, len(words) + 1):
                term = names.get(tuple(words[start:end]))
                if term is None or term.category is Category.ANATOMY:
                    continue
                coverage = min(1.0, sum(telling[start:end]) / total)
                if coverage >= _MIN_COVERAGE:
                    # Of names that cover alike, the longer one says more.
                    score = 0.4 + 0.5 * coverage + 0.04 * (end - start) / len(words)
                    yield score, term, " ".join(words[start:end]), INSIDE

    def _of_base(self, words: Sequence[str], said: Gist, factor: float, alike: bool) -> Iterator[Match]:
        """Yield the matches among the names of the base and of what the user has imported."""
        if not said.key or self._places.issuperset(said.words):
            return
        # "Acute disease" is as near to all diseases that have a name.
        near = alike and not weak_words().union(light_words()).issuperset(said.words)
        names = [*self.base.same(said.key), *(self.base.nearest(said.key) if near else ())]
        if self.umls is not None:
            names += [*self.umls.same(said.key), *(self.umls.nearest(said.key) if near else ())]
        seen: set[tuple[str, str, str]] = set()
        for name in names:
            own = (name.text, name.concept.code, name.concept.cui)
            if own not in seen:
                seen.add(own)
                yield from self._match_of_name(name, words, said, factor)

    def _match_of_name(self, name: Name, words: Sequence[str], said: Gist, factor: float) -> Iterator[Match]:
        own = tuple(name.key.split())
        if set(own).isdisjoint(said.words):
            return
        score = fit(said.words, own, self.base.weight, alternatives(name.text), self._implied) * factor
        rule = SAME_WORDS if own == said.words else LIKE
        titled = name.text == name.concept.title
        score *= kind_factor(name.kind) * (title_factor(name.text) if titled else 1.0) * _SAME_WORDS
        if phrase_of(name.text) == tuple(words):
            score, rule = kind_factor(name.kind), EXACT
        side = gist(name.text).side
        if side and side != said.side and not titled:
            return
        concept = self._final(name.concept, said)
        if concept is None:
            return
        score *= _PARENT if concept.parent else 1.0
        if rule == LIKE and score < _BASE_FLOOR:
            # It stays a runner-up.
            score = min(score, FLOOR - 0.01)
        source = self._source(name.kind)
        code = Code(name.concept.cui, concept.code, concept.title, min(1.0, score))
        yield Match(code, name.text, source, rule, _billable(concept), (6, *ease(concept)))

    def _source(self, kind: str) -> str:
        if kind == UMLS and self.umls is not None:
            return self.umls.release
        return "HPO" if kind in (HPO, HPO_SYNONYM) else self.base.release

    def _final(self, concept: Concept, said: Gist) -> Concept | None:
        """Return the code on the side that a phrase says, or the code below it that says the same and no more."""
        found = side_of_family(concept, self.base.family(concept), said)
        while found is not None and found.parent:
            own = set(gist_of_name(found.title).words)
            finer = [
                below
                for below in self.base.below(found)
                # "Without" mostly names the plain form of a thing, but nobody is known to have stayed conscious.
                if "loss of consciousness" not in below.title
                and own.issuperset(gist_of_title_less_site(below.title).words)
            ]
            if not finer:
                break
            finest = min(finer, key=ease)
            sided = side_of_family(finest, self.base.family(finest), said)
            if sided is None:
                break
            found = sided
        return found

    def _match_of_term(self, score: float, term: Term, name: str, rule: str, said: Gist) -> Match:
        concept = self.base.concept_of_code(term.icd10cm) if term.icd10cm else None
        if concept is not None:
            concept = self._final(concept, said) or concept
            if contradicts(said.words, gist_of_name(concept.title).words) and rule != EXACT:
                score *= 0.5
            code = Code(term.cui, concept.code, concept.title, min(1.0, score))
        else:
            code = Code(term.cui, "", term.title, min(1.0, score))
        billable = concept is not None and _billable(concept)
        return Match(code, name, OWN, rule, billable, (_RANK[term.category], 0, 0))


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


def _distinct_matches(ranked: Iterable[Match]) -> list[Match]:
    """Return the matches of each code once, at its best; of one that has no CUI, with that of the next that has."""
    kept: dict[tuple[str, str], Match] = {}
    for match in ranked:
        code = match.code
        key = (code.icd10cm, "" if code.icd10cm else code.cui)
        first = kept.setdefault(key, match)
        if code.cui and not first.code.cui and match.rule == first.rule:
            kept[key] = replace(first, code=replace(first.code, cui=code.cui))
    return list(kept.values())


def _coded_first(matches: list[Match]) -> list[Match]:
    """Return the matches with the best code first, if it is good enough; a name without a code lends it its CUI.

    What our own names leave without a code, a place or a word that says too little, stays without.
    """
    if not matches or matches[0].source == OWN:
        return matches
    coded = next((match for match in matches if match.code.icd10cm and match.code.score >= FLOOR), None)
    if coded is None or coded is matches[0]:
        return matches
    rest = [match for match in matches if match is not coded]
    if not coded.code.cui and matches[0].rule in (EXACT, SAME_WORDS):
        coded = replace(coded, code=replace(coded.code, cui=matches[0].code.cui))
    return [coded, *rest]


def _places_said(places: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the words of all places together, of each alone, and of none."""
    said = [phrase_of(place) for place in places]
    together = tuple(word for place in said for word in place)
    return list(dict.fromkeys((together, *said, ())))


def _ruled_out(words: Sequence[str]) -> bool:
    return not {"no", "not"}.isdisjoint(words) or any(tuple(words[: len(cue)]) == cue for cue in _RULED_OUT)


def _billable(concept: Concept) -> bool:
    return bool(concept.code) and not concept.parent and not concept.seventh


_NO_MATCH = {"name": "", "source": "", "rule": "", "billable": False}


def _match_json(match: Match) -> dict[str, Any]:
    return {
        **_code_json(match.code),
        "name": match.name,
        "source": match.source,
        "rule": match.rule,
        "billable": match.billable,
    }


def _code_json(code: Code) -> dict[str, Any]:
    return {"cui": code.cui, "icd10cm": code.icd10cm, "title": code.title, "score": round(code.score, 4)}
