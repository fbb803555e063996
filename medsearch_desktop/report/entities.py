"""Text to mentions, each with what is said of it and its code.

The pipeline is a blank spaCy vocabulary with a phrase matcher over the shipped lexicon and explicit
steps: words, phrases, sentences, assertions. Words that the lexicon does not know are one and the
same word to the matcher, so the vocabulary stays as large as it was however many reports are read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from medsearch_desktop.records import Assertion, Category, Entity, Section
from medsearch_desktop.report.assertion import FoundCue, FoundOrgan, Inference, Mention, Sentence, Verdict
from medsearch_desktop.report.lexicon import FINDINGS, GAP_WIDTH, Entry, Term, load_lexicon
from medsearch_desktop.report.linking import Linker
from medsearch_desktop.report.sections import NOT_READ, is_header_line
from medsearch_desktop.report.tables import tables_digest
from medsearch_desktop.report.words import Words, split_words

# Changes when the rules or any table does: a library then knows which reports to read again.
PIPELINE_VERSION = f"rules-1-{tables_digest()}"

_Span = TypeVar("_Span", Mention, FoundCue, FoundOrgan)

_UNKNOWN = "unknown"
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
        mentions, cues, organs = self._phrases(text, words)
        if section.name == "PREAMBLE":
            mentions = [mention for mention in mentions if not is_header_line(text, words.starts[mention.start])]
        found: list[Entity] = []
        mentioned, cued, named_in = (_by_sentence(spans, words.breaks) for spans in (mentions, cues, organs))
        for number, (start, end) in enumerate(zip(words.breaks, (*words.breaks[1:], len(words.normal)), strict=True)):
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
            verdicts = sentence.verdicts()
            for mention in inside:
                found.extend(self._entities(text, words, section, mention, verdicts.get(mention)))
            found.extend(self._inferred(text, words, section, item) for item in sentence.inferences(named))
        return found

    def _phrases(self, text: str, words: Words) -> tuple[list[Mention], list[FoundCue], list[FoundOrgan]]:
        known = self._known
        doc = self._doc(self._vocab, words=[word if word in known else _UNKNOWN for word in words.normal])
        mentions: list[Mention] = []
        cues: list[FoundCue] = []
        organs: list[FoundOrgan] = []
        for key, start, end in self._matcher(doc):
            entry = self._entries[key]
            if _crosses(words.breaks, start, end):
                continue
            if entry.term is not None and (
                not entry.capitals or text[words.starts[start] : words.ends[end - 1]].isupper()
            ):
                mentions.append(Mention(start, end, entry.term))
            if entry.cues:
                cues.append(FoundCue(start, end, tuple(entry.cues)))
            organs.extend(FoundOrgan(start, end, organ) for organ in entry.organs)
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
        return mentions, cues, organs

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
        self, text: str, words: Words, section: Section, mention: Mention, verdict: Verdict | None
    ) -> list[Entity]:
        term = mention.term
        if term.category is Category.ANATOMY:
            verdict = None
        default = Assertion.PRESENT
        if term.category in (Category.SIGN, Category.DIAGNOSIS):
            default = _SECTION_DEFAULTS.get(section.name, default)
            if verdict is not None and verdict.assertion is Assertion.PRESENT:
                verdict = replace(verdict, assertion=default)
        entity = self._entity(text, words, section, mention.start, mention.end, term, verdict or Verdict(default))
        return [replace(entity, finding=finding) for finding in term.findings] or [entity]

    def _inferred(self, text: str, words: Words, section: Section, item: Inference) -> Entity:
        verdict = item.verdict
        default = _SECTION_DEFAULTS.get(section.name)
        if default is not None:
            verdict = replace(verdict, assertion=default)
        term = self.lexicon.by_finding[item.finding]
        entity = self._entity(text, words, section, item.organ.start, item.organ.end, term, verdict)
        return replace(entity, finding=item.finding)

    def _entity(
        self, text: str, words: Words, section: Section, start: int, end: int, term: Term, verdict: Verdict
    ) -> Entity:
        first, last = words.starts[start], words.ends[end - 1]
        cue = verdict.start >= 0
        cue_start = words.starts[verdict.start] if cue else -1
        cue_end = words.ends[verdict.end - 1] if cue else -1
        return Entity(
            text=text[first:last],
            start=first,
            end=last,
            section=section.name,
            category=term.category,
            assertion=verdict.assertion,
            cui=term.cui,
            icd10cm=term.icd10cm,
            title=term.title,
            score=1.0 if term.icd10cm or term.cui else 0.0,
            alternatives=self.linker.runners_up(term),
            cue=text[cue_start:cue_end] if cue else "",
            cue_start=cue_start,
            cue_end=cue_end,
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
