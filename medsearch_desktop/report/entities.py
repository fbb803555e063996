"""Text to mentions, each with what is said of it and its code.

The pipeline is a list of explicit steps: words, phrases of the shipped lexicon, abbreviations, what recognisers
add, sentences, assertions. What recognisers add (`merge` has the rule) is judged beside the lexicon's mentions and
never changes what is said of those.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from medsearch_desktop.records import Assertion, Attribute, AttributeKind, Category, Code, Entity, Section
from medsearch_desktop.report.abbreviations import Abbreviation, find_abbreviations, uses
from medsearch_desktop.report.assertion import FoundCue, FoundOrgan, Inference, Mention, Sentence, Verdict
from medsearch_desktop.report.attributes import FoundAttribute, Place, attach
from medsearch_desktop.report.lexicon import FINDINGS, GAP_WIDTH, Term, load_lexicon, phrase_of
from medsearch_desktop.report.linking import Linker
from medsearch_desktop.report.merge import Candidate, Source, merge
from medsearch_desktop.report.phrasebook import Phrasebook
from medsearch_desktop.report.recognise import Recognised, Recognition, Stretch
from medsearch_desktop.report.sections import NOT_READ, is_header_line
from medsearch_desktop.report.tables import tables_digest
from medsearch_desktop.report.words import Words, split_words

# Changes when the rules or any table does: a library then knows which reports to read again.
PIPELINE_VERSION = f"rules-3-{tables_digest()}"

_Span = TypeVar("_Span", Mention, FoundCue, FoundOrgan, FoundAttribute)

# As far before a mention as adjectives of it are looked for.
_WORDS_BEFORE = 4
_PUNCTUATION = frozenset(".,;:()[]!?")
# What a mention means where nothing was seen yet: the question that led to the examination, what was known before.
_SECTION_DEFAULTS = {
    "INDICATION": Assertion.HYPOTHETICAL,
    "HISTORY": Assertion.HISTORICAL,
    "COMPARISON": Assertion.HISTORICAL,
    "TECHNIQUE": Assertion.HYPOTHETICAL,
    "EXAMINATION": Assertion.HYPOTHETICAL,
    "RECOMMENDATION": Assertion.HYPOTHETICAL,
}


@dataclass(frozen=True, slots=True)
class _Phrases:
    """What the tables know of a stretch of text, each in the order of its words."""

    mentions: list[Mention]
    cues: list[FoundCue]
    organs: list[FoundOrgan]
    attributes: list[FoundAttribute]


@dataclass(slots=True)
class _Reading:
    """A section with what was found in it; `added` is what the lexicon did not find."""

    section: Section
    words: Words
    phrases: _Phrases
    added: list[Candidate]

    def explained(self) -> frozenset[int]:
        """Return the words in which the lexicon has found something."""
        found = self.phrases
        spans: Iterable[Mention | FoundCue | FoundOrgan | FoundAttribute] = (
            *found.mentions,
            *found.cues,
            *found.organs,
            *found.attributes,
        )
        return frozenset(index for span in spans for index in range(span.start, span.end))

    def sentences(self) -> Iterator[tuple[int, int]]:
        """Yield the words, half-open, of each sentence."""
        breaks = self.words.breaks
        return zip(breaks, (*breaks[1:], len(self.words.normal)), strict=True)

    def at(self, start: int, end: int) -> tuple[int, int] | None:
        """Return the words of which characters `[start, end)` of the report consist, if they do."""
        first = bisect_right(self.words.starts, start) - 1
        last = bisect_right(self.words.starts, end - 1)
        if first < 0 or self.words.starts[first] != start or self.words.ends[last - 1] != end:
            return None
        return first, last


class EntityExtractor:
    """The mentions of reports; built once, it may be used from several threads.

    Without `recognition` only the lexicon's terms are found.
    """

    def __init__(self, *, linker: Linker | None = None, recognition: Recognition | None = None) -> None:
        self.lexicon = load_lexicon()
        self.linker = Linker() if linker is None else linker
        self.recognition = recognition
        self._phrasebook = Phrasebook(self.lexicon.entries)
        self._gap_stops = _PUNCTUATION | {
            phrase[0]
            for phrase, entry in self.lexicon.entries.items()
            if len(phrase) == 1 and any(cue.kind in ("normal", "stop") for cue in entry.cues)
        }

    def extract(self, text: str, sections: Sequence[Section]) -> tuple[Entity, ...]:
        """Return the mentions of all sections in the order of the text; offsets are into `text`.

        Raises TerminologyError when a recogniser has found something and the base of concepts cannot be loaded.
        """
        readings = [
            reading
            for section in sections
            if section.name not in NOT_READ and (reading := self._read(text, section)) is not None
        ]
        if self.recognition is not None:
            self._recognise(text, readings, self.recognition)
        if "(" in text:
            _spell_out(text, readings)
        found = [entity for reading in readings for entity in self._judged(text, reading)]
        found.sort(key=lambda entity: (entity.start, entity.end, entity.finding))
        return tuple(found)

    def extract_many(self, texts: Iterable[tuple[str, Sequence[Section]]]) -> Iterator[tuple[Entity, ...]]:
        """Yield the mentions of each (text, sections), in order."""
        for text, sections in texts:
            yield self.extract(text, sections)

    def _read(self, text: str, section: Section) -> _Reading | None:
        words = split_words(text, start=section.start, end=section.end)
        if not words.normal:
            return None
        phrases = self._phrases(text, words)
        if section.name == "PREAMBLE":
            phrases.mentions[:] = [
                mention for mention in phrases.mentions if not is_header_line(text, words.starts[mention.start])
            ]
        return _Reading(section, words, phrases, [])

    def _recognise(self, text: str, readings: Sequence[_Reading], recognition: Recognition) -> None:
        """Add what recognisers find to the readings, all sentences of a report at once."""
        stretches, owners = [], []
        for reading in readings:
            explained = reading.explained()
            for start, end in reading.sentences():
                if reading.section.name == "PREAMBLE" and is_header_line(text, reading.words.starts[start]):
                    continue
                stretches.append(Stretch(reading.words, start, end, explained))
                owners.append(reading)
        for reading, candidates in zip(owners, recognition.candidates(text, stretches), strict=True):
            reading.added.extend(candidates)

    def _judged(self, text: str, reading: _Reading) -> Iterator[Entity]:
        words, phrases = reading.words, reading.phrases
        breaks = words.breaks
        added = _by_sentence(merge(phrases.mentions, reading.added), breaks) if reading.added else {}
        mentioned, named_in = _by_sentence(phrases.mentions, breaks), _by_sentence(phrases.organs, breaks)
        cued, said = _by_sentence(phrases.cues, breaks), _by_sentence(phrases.attributes, breaks)
        for number, (start, end) in enumerate(reading.sentences()):
            inside, named, more = mentioned.get(number, []), named_in.get(number, []), added.get(number, [])
            place = Place(text, words, reading.section.name, start, end)
            if inside or named:
                sentence = Sentence(self.lexicon, words.normal, start, end, mentions=inside, cues=cued.get(number, []))
                verdicts = sentence.verdicts()
                attributes = attach(self.lexicon, place, inside, said.get(number, []))
                for mention in inside:
                    yield from self._entities(place, mention, verdicts.get(mention), attributes.get(mention, ()))
                for item in sentence.inferences(named):
                    yield self._inferred(place, item)
            if more:
                yield from self._beside(place, inside, more, cued.get(number, []), said.get(number, []))

    def _beside(
        self,
        place: Place,
        inside: list[Mention],
        more: list[Mention],
        cues: list[FoundCue],
        said: list[FoundAttribute],
    ) -> Iterator[Entity]:
        """Yield what was added to a sentence, judged in the company of the lexicon's mentions."""
        taken = {index for mention in more for index in range(mention.start, mention.end)}
        everything = sorted([*inside, *more], key=lambda mention: mention.start)
        sentence = Sentence(
            self.lexicon,
            place.words.normal,
            place.start,
            place.end,
            mentions=everything,
            cues=[cue for cue in cues if taken.isdisjoint(range(cue.start, cue.end))],
        )
        verdicts = sentence.verdicts()
        attributes = attach(self.lexicon, place, everything, said)
        for mention in more:
            yield from self._entities(place, mention, verdicts.get(mention), attributes.get(mention, ()))

    def _phrases(self, text: str, words: Words) -> _Phrases:
        mentions: list[Mention] = []
        cues: list[FoundCue] = []
        organs: list[FoundOrgan] = []
        attributes: list[FoundAttribute] = []
        for start, end, entry in self._phrasebook.find(words.normal):
            if _crosses(words.breaks, start, end):
                continue
            if entry.term is not None and (
                not entry.capitals or text[words.starts[start] : words.ends[end - 1]].isupper()
            ):
                mentions.append(Mention(start, end, entry.term))
                if entry.term.category is Category.ANATOMY:
                    attributes.append(FoundAttribute(start, end, AttributeKind.ANATOMY, entry.term.name))
            if entry.cues:
                cues.append(FoundCue(start, end, tuple(entry.cues)))
            if entry.organs:
                organs.extend(FoundOrgan(start, end, organ) for organ in entry.organs)
            for row in entry.attributes:
                attributes.append(FoundAttribute(start, end, row.kind, row.value, row.side))
        mentions = _longest(mentions)
        gapped = self._gap_mentions(words, mentions)
        covered = {index for mention in gapped for index in range(mention.start, mention.end)}
        mentions = [mention for mention in mentions if covered.isdisjoint(range(mention.start, mention.end))]
        mentions = sorted([*mentions, *gapped], key=lambda mention: mention.start)
        taken = {
            index
            for mention in mentions
            if mention.term.category is not Category.ANATOMY
            for index in range(mention.start, mention.end)
        }
        cues = [cue for cue in _longest(cues) if not taken.issuperset(range(cue.start, cue.end))]
        seen = {
            index
            for mention in mentions
            if mention.term.category in (Category.SIGN, Category.DIAGNOSIS)
            for index in range(mention.start, mention.end)
        }
        organs = [organ for organ in _longest(organs) if seen.isdisjoint(range(organ.start, organ.end))]
        return _Phrases(mentions, cues, organs, attributes)

    def _gap_mentions(self, words: Words, mentions: Sequence[Mention]) -> list[Mention]:
        normal = words.normal
        firm = {
            index
            for mention in mentions
            if mention.term.category is not Category.ANATOMY
            for index in range(mention.start, mention.end)
        }
        found: list[Mention] = []
        reached = 0
        for start, word in enumerate(normal):
            if start < reached:
                continue
            for pattern in self.lexicon.gaps.get(word, ()):
                middle = start + len(pattern.before)
                if normal[start:middle] != pattern.before:
                    continue
                end = self._gap_end(normal, middle, pattern.after)
                if end is None or _crosses(words.breaks, start, end) or not firm.isdisjoint(range(start, end)):
                    continue
                found.append(Mention(start, end, pattern.term, (middle, end - len(pattern.after))))
                reached = end
                break
        return found

    def _gap_end(self, normal: Sequence[str], middle: int, after: tuple[str, ...]) -> int | None:
        for index in range(middle, min(len(normal), middle + GAP_WIDTH + 1)):
            if tuple(normal[index : index + len(after)]) == after:
                return index + len(after)
            if normal[index] in self._gap_stops:
                return None
        return None

    def _entities(
        self, place: Place, mention: Mention, verdict: Verdict | None, attributes: tuple[Attribute, ...]
    ) -> list[Entity]:
        term = mention.term
        if term.category is Category.ANATOMY:
            verdict = None
        default = Verdict(Assertion.PRESENT)
        if term.category in (Category.SIGN, Category.DIAGNOSIS):
            default = _default(place.section)
            if verdict is not None and verdict.assertion is Assertion.PRESENT:
                verdict = replace(verdict, assertion=default.assertion)
        return [
            self._entity(place, mention.start, mention.end, term, verdict or default, finding, attributes=attributes)
            for finding in term.findings or ("",)
        ]

    def _inferred(self, place: Place, item: Inference) -> Entity:
        verdict = item.verdict
        default = _SECTION_DEFAULTS.get(place.section)
        if default is not None:
            verdict = replace(verdict, assertion=default)
        term = self.lexicon.by_finding[item.finding]
        organ = item.organ
        return self._entity(
            place, organ.start, organ.end, term, verdict, item.finding, inferred=True, row=organ.organ.rule
        )

    def _entity(
        self,
        place: Place,
        start: int,
        end: int,
        term: Term,
        verdict: Verdict,
        finding: str,
        *,
        attributes: tuple[Attribute, ...] = (),
        inferred: bool = False,
        row: str = "",
    ) -> Entity:
        first, last = place.span(start, end)
        if isinstance(term, Recognised):
            code, alternatives = Code(term.cui, term.icd10cm, term.title, term.score), term.alternatives
        else:
            said = place.words.normal
            code, alternatives = self.linker.code_mention(
                term,
                phrase_of(term.name) if inferred else said[start:end],
                before=() if inferred else said[max(place.start, start - _WORDS_BEFORE) : start],
                attributes=attributes,
            )
        cue_start, cue_end = place.span(verdict.start, verdict.end) if verdict.start >= 0 else (-1, -1)
        sentence_start, sentence_end = place.span(place.start, place.end)
        return Entity(
            text=place.text[first:last],
            start=first,
            end=last,
            section=place.section,
            category=term.category,
            assertion=verdict.assertion,
            finding=finding,
            cui=code.cui,
            icd10cm=code.icd10cm,
            title=code.title,
            score=code.score,
            alternatives=alternatives,
            cue=place.text[cue_start:cue_end] if cue_start >= 0 else "",
            cue_start=cue_start,
            cue_end=cue_end,
            attributes=attributes,
            certainty=verdict.certainty,
            inferred=inferred,
            rule=" + ".join(filter(None, (row or term.rule, verdict.rule))),
            sentence_start=sentence_start,
            sentence_end=sentence_end,
        )


def findings(entities: Iterable[Entity]) -> dict[str, list[str]]:
    """Return the ChestX-ray14 findings under "present", "absent" and "uncertain", each at most once, by name.

    What is present in one place and absent in another is present; uncertain stands between. Only
    what the examination itself showed counts, not its indication or an earlier one.
    """
    rank = {Assertion.PRESENT: 0, Assertion.UNCERTAIN: 1, Assertion.ABSENT: 2}
    best: dict[str, int] = {}
    for entity in entities:
        if entity.finding and entity.assertion in rank and entity.section not in _SECTION_DEFAULTS:
            best[entity.finding] = min(rank[entity.assertion], best.get(entity.finding, len(rank)))
    return {
        str(assertion): [finding for finding in FINDINGS if best.get(finding) == rank[assertion]]
        for assertion in (Assertion.PRESENT, Assertion.ABSENT, Assertion.UNCERTAIN)
    }


def _spell_out(text: str, readings: Sequence[_Reading]) -> None:
    """Give each abbreviation that a report explains the meaning of what explains it, wherever it stands.

    It counts for words in which the lexicon has found nothing, and before another reading of just these words:
    in a report that says "pulmonary edema (PE)", "PE" is no embolism.
    """
    for reading in readings:
        for found in find_abbreviations(text, start=reading.section.start, end=reading.section.end):
            term = _explaining(found, reading)
            if term is None:
                continue
            term = replace(term, rule=f"abbreviation + {term.rule}")
            for other in readings:
                section = other.section
                for start, end in uses(text, found.short, start=section.start, end=section.end):
                    span = other.at(start, end)
                    if span is not None:
                        _reinterpret(other, span, term)


def _explaining(found: Abbreviation, reading: _Reading) -> Term | None:
    """Return the term whose mention is the long form, or ends with it and says more."""
    mentions = [*reading.phrases.mentions, *(candidate.mention for candidate in reading.added)]
    for mention in sorted(mentions, key=lambda mention: mention.start):
        start, end = reading.words.starts[mention.start], reading.words.ends[mention.end - 1]
        if end == found.long_end and start <= found.long_start and mention.gap is None:
            return mention.term
    return None


def _reinterpret(reading: _Reading, span: tuple[int, int], term: Term) -> None:
    mentions = reading.phrases.mentions
    for index, mention in enumerate(mentions):
        if (mention.start, mention.end) == span:
            if mention.term.name != term.name:
                mentions[index] = Mention(*span, term)
            return
    reading.added.append(Candidate(Mention(*span, term), Source.ABBREVIATION))


def _default(section: str) -> Verdict:
    """Return what is said of a finding by nothing but the section that it stands in."""
    assertion = _SECTION_DEFAULTS.get(section)
    return Verdict(assertion, rule=f"sections/{section}") if assertion is not None else Verdict(Assertion.PRESENT)


def _crosses(breaks: Sequence[int], start: int, end: int) -> bool:
    return bisect_right(breaks, start) != bisect_right(breaks, end - 1)


def _by_sentence(spans: list[_Span], breaks: Sequence[int]) -> dict[int, list[_Span]]:
    sentences: dict[int, list[_Span]] = {}
    for span in spans:
        sentences.setdefault(bisect_right(breaks, span.start) - 1, []).append(span)
    return sentences


def _longest(spans: list[_Span]) -> list[_Span]:
    """Return the spans that no longer one overlaps, in order; of equally long ones the first, and its equals."""
    kept: list[_Span] = []
    owner: dict[int, tuple[int, int]] = {}
    for span in sorted(spans, key=lambda span: (span.start - span.end, span.start)):
        own = (span.start, span.end)
        if all(owner.get(index, own) == own for index in range(span.start, span.end)):
            owner.update(dict.fromkeys(range(span.start, span.end), own))
            kept.append(span)
    kept.sort(key=lambda span: (span.start, span.end))
    return kept
