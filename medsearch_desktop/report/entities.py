"""Text to mentions, each with what is said of it and its code.

The pipeline is a blank spaCy vocabulary with a phrase matcher over the shipped lexicon and explicit
steps: words, phrases, sentences, assertions. Words that the lexicon does not know are one and the
same word to the matcher, so the vocabulary stays as large as it was however many reports are read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from medsearch_desktop.records import Assertion, Attribute, AttributeKind, Category, Entity, Section
from medsearch_desktop.report.assertion import FoundCue, FoundOrgan, Inference, Mention, Sentence, Verdict
from medsearch_desktop.report.attributes import FoundAttribute, Place, attach
from medsearch_desktop.report.lexicon import FINDINGS, GAP_WIDTH, Entry, Term, load_lexicon, phrase_of
from medsearch_desktop.report.linking import Linker
from medsearch_desktop.report.sections import NOT_READ, is_header_line
from medsearch_desktop.report.tables import tables_digest
from medsearch_desktop.report.words import Words, split_words

# Changes when the rules or any table does: a library then knows which reports to read again.
PIPELINE_VERSION = f"rules-3-{tables_digest()}"

_Span = TypeVar("_Span", Mention, FoundCue, FoundOrgan, FoundAttribute)

_UNKNOWN = "unknown"
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


class EntityExtractor:
    """The mentions of reports; built once, it may be used from several threads."""

    def __init__(self, *, linker: Linker | None = None) -> None:
        import spacy
        from spacy.matcher import PhraseMatcher
        from spacy.tokens import Doc

        self.lexicon = load_lexicon()
        self.linker = Linker() if linker is None else linker
        self._vocab = spacy.blank("en").vocab
        self._doc: Any = Doc
        self._matcher: Any = PhraseMatcher(self._vocab)
        self._known: set[str] = {_UNKNOWN}
        self._entries: dict[int, Entry] = {}
        for phrase, entry in self.lexicon.entries.items():
            key = " ".join(phrase)
            self._matcher.add(key, [Doc(self._vocab, words=list(phrase))])
            self._entries[self._vocab.strings[key]] = entry
            self._known.update(phrase)
        self._gap_stops = _PUNCTUATION | {
            phrase[0]
            for phrase, entry in self.lexicon.entries.items()
            if len(phrase) == 1 and any(cue.kind in ("normal", "stop") for cue in entry.cues)
        }

    def extract(self, text: str, sections: Sequence[Section]) -> tuple[Entity, ...]:
        """Return the mentions of all sections in the order of the text; offsets are into `text`."""
        found: list[Entity] = []
        for section in sections:
            if section.name not in NOT_READ:
                found.extend(self._extract_section(text, section))
        found.sort(key=lambda entity: (entity.start, entity.end, entity.finding))
        return tuple(found)

    def extract_many(self, texts: Iterable[tuple[str, Sequence[Section]]]) -> Iterator[tuple[Entity, ...]]:
        """Yield the mentions of each (text, sections), in order."""
        for text, sections in texts:
            yield self.extract(text, sections)

    def _extract_section(self, text: str, section: Section) -> list[Entity]:
        words = split_words(text, start=section.start, end=section.end)
        if not words.normal:
            return []
        phrases = self._phrases(text, words)
        mentions = phrases.mentions
        if section.name == "PREAMBLE":
            mentions = [mention for mention in mentions if not is_header_line(text, words.starts[mention.start])]
        found: list[Entity] = []
        breaks = words.breaks
        mentioned, cued, named_in = (_by_sentence(spans, breaks) for spans in (mentions, phrases.cues, phrases.organs))
        said = _by_sentence(phrases.attributes, breaks)
        for number, (start, end) in enumerate(zip(breaks, (*breaks[1:], len(words.normal)), strict=True)):
            inside, named = mentioned.get(number, []), named_in.get(number, [])
            if not inside and not named:
                continue
            sentence = Sentence(
                self.lexicon,
                words.normal,
                start,
                end,
                mentions=inside,
                cues=cued.get(number, []),
            )
            place = Place(text, words, section.name, start, end)
            verdicts = sentence.verdicts()
            attributes = attach(self.lexicon, place, inside, said.get(number, []))
            for mention in inside:
                found.extend(self._entities(place, mention, verdicts.get(mention), attributes.get(mention, ())))
            found.extend(self._inferred(place, item) for item in sentence.inferences(named))
        return found

    def _phrases(self, text: str, words: Words) -> _Phrases:
        known = self._known
        doc = self._doc(self._vocab, words=[word if word in known else _UNKNOWN for word in words.normal])
        mentions: list[Mention] = []
        cues: list[FoundCue] = []
        organs: list[FoundOrgan] = []
        attributes: list[FoundAttribute] = []
        for key, start, end in self._matcher(doc):
            entry = self._entries[key]
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
