"""What a sentence says of a finding beside whether it is there: place, side, size, change.

Words before a finding belong to it when only its other adjectives stand between ("small left pleural
effusion"), words after it when a preposition, a verb or a bracket leads back to it ("opacity in the
right lower lobe", "the effusion is small"), and a place at the head of a clause to all that is found
there ("right lung: consolidation"). All words are data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from medsearch_desktop.records import SEVERITIES, Attribute, AttributeKind, Category
from medsearch_desktop.report.assertion import Mention
from medsearch_desktop.report.lexicon import Lexicon
from medsearch_desktop.report.words import Words

_PLACES = frozenset({AttributeKind.ANATOMY, AttributeKind.LATERALITY})
_ARTICLES = frozenset({"the", "a", "an", "his", "her", "both"})
_JOINERS = frozenset({",", "and", "or", "/"})
_ALTERNATIVES = frozenset({"or", "/", "versus", "vs"})
_RANGE = frozenset({"to", "or", "and"})
_PUNCTUATION = frozenset(".,;:()[]!?>")
_ENDS = frozenset(".;!?:")
_CLAUSE_MARKS = frozenset({";", ".", "there"})
_BEFORE_WIDTH, _AFTER_WIDTH, _ADJECTIVES = 10, 15, 4


@dataclass(frozen=True, slots=True)
class FoundAttribute:
    """A phrase at words `[start, end)` that may say something of a finding; `kind` None when it does not."""

    start: int
    end: int
    kind: AttributeKind | None
    value: str
    side: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """One sentence, words `[start, end)`, in its section of a report."""

    text: str
    words: Words
    section: str
    start: int
    end: int

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the characters, half-open, of words `[start, end)`."""
        return self.words.starts[start], self.words.ends[end - 1]


def attach(
    lexicon: Lexicon, place: Place, mentions: Sequence[Mention], found: Sequence[FoundAttribute]
) -> dict[Mention, tuple[Attribute, ...]]:
    """Return the attributes of each mention but anatomy, in the order of the text, without those that have none."""
    targets = [mention for mention in mentions if mention.term.category is not Category.ANATOMY]
    if not targets or not found:
        return {}
    return _Attachment(lexicon, place, targets, found).attributes()


class _Attachment:
    """Decides, for one sentence, which finding each attribute belongs to."""

    def __init__(
        self, lexicon: Lexicon, place: Place, targets: Sequence[Mention], found: Sequence[FoundAttribute]
    ) -> None:
        self._lexicon, self._place, self._targets = lexicon, place, targets
        self._words = place.words.normal
        self._joints = lexicon.joints
        self._found = _longest(found, self._words)
        self._in_attribute = {index: each for each in self._found for index in range(each.start, each.end)}
        self._blockers = lexicon.blockers
        self._got: dict[Mention, list[FoundAttribute]] = {}

    def attributes(self) -> dict[Mention, tuple[Attribute, ...]]:
        """Return the attributes of every mention that has any."""
        later: list[FoundAttribute] = []
        for each in self._found:
            if each.kind is None:
                continue
            within = [mention for mention in self._targets if mention.start <= each.start and each.end <= mention.end]
            ahead = None if within or each.side == "after" else self._ahead(each)
            if within:
                self._give(each, within)
            elif ahead is not None:
                self._give(each, [ahead, *self._alternatives(ahead, each)])
            else:
                later.append(each)
        for each in later:
            if each.side != "before":
                self._give(each, self._behind(each) or self._fronted(each))
        return {mention: self._told(found) for mention, found in self._got.items()}

    def _give(self, each: FoundAttribute, mentions: Iterable[Mention]) -> None:
        for mention in mentions:
            self._got.setdefault(mention, []).append(each)

    def _told(self, found: list[FoundAttribute]) -> tuple[Attribute, ...]:
        found.sort(key=lambda each: (each.start, each.end))
        told = []
        for each in found:
            if each.kind is None:
                continue
            start, end = self._place.span(each.start, each.end)
            told.append(Attribute(each.kind, each.value, self._place.text[start:end], start, end))
        return tuple(told)

    # Before the finding -----------------------------------------------------------------------

    def _ahead(self, each: FoundAttribute) -> Mention | None:
        """Return the finding that an adjective stands before, with nothing but adjectives between."""
        target = next((mention for mention in self._targets if mention.start >= each.end), None)
        if target is None or target.start - each.end > _BEFORE_WIDTH:
            return None
        joined, strange = False, 0
        follows = any(
            self._same_clause(mention.end, each.start) for mention in self._targets if mention.end <= each.start
        )
        for index in range(each.end, target.start):
            word = self._words[index]
            if index in self._in_attribute:
                continue
            if word in _JOINERS:
                if word == "," and follows:
                    return None
                following = self._in_attribute.get(index + 1)
                if following is None and not (word == "," and not follows):
                    return None
                joined = True
            elif word in self._blockers or word in _PUNCTUATION:
                return None
            elif word not in _ARTICLES:
                strange += 1
        if strange > _ADJECTIVES or (joined and follows and self._preposition_before(each.start) is not None):
            return None
        return target

    def _alternatives(self, first: Mention, each: FoundAttribute) -> list[Mention]:
        """Return what a place before a finding holds for too: "left basilar atelectasis or pneumonia"."""
        if each.kind not in _PLACES:
            return []
        for second in self._targets:
            if second.start >= first.end:
                between = self._words[first.end : second.start]
                return [second] if len(between) == 1 and between[0] in _ALTERNATIVES else []
        return []

    # After the finding ------------------------------------------------------------------------

    def _behind(self, each: FoundAttribute) -> list[Mention]:
        before = [mention for mention in self._targets if mention.end <= each.start]
        if (
            not before
            or each.start - before[-1].end > _AFTER_WIDTH
            or not self._same_clause(before[-1].end, each.start)
        ):
            return []
        mention = before[-1]
        if each.kind in _PLACES:
            belongs = self._placed(mention, each)
        elif each.kind is AttributeKind.SEVERITY:
            belongs = self._ends_well(each) and self._only_copula(mention.end, each.start)
        else:
            belongs = self._ends_well(each) and not self._new_clause(mention.end, each.start)
        if not belongs:
            return []
        return [mention] if each.kind is AttributeKind.SEVERITY else self._coordinated(before, each)

    def _placed(self, mention: Mention, each: FoundAttribute) -> bool:
        """Whether a place or side after a finding is its own."""
        between = self._words[mention.end : each.start]
        if "with" in between or self._new_clause(mention.end, each.start, each.end):
            return False
        if self._preposition_before(each.start, floor=mention.end) is not None:
            return True
        adverb = each.value == "bilateral" and each.kind is AttributeKind.LATERALITY
        if adverb and self._ends_well(each):
            return True
        # "Effusion (left)", "effusion, right", "Effusion: left".
        marked = bool(between) and between[0] in ("(", ",", ":") and self._only_copula(mention.end, each.start)
        return marked and self._ends_well(each)

    def _preposition_before(self, index: int, *, floor: int | None = None) -> int | None:
        """Return where the preposition stands that governs the words before `index`, if one does."""
        floor = self._place.start if floor is None else floor
        for position in range(index - 1, floor - 1, -1):
            word = self._words[position]
            if word in self._joints["locative"]:
                # "distention of the stomach" says nothing of the effusion before it.
                return position if word != "of" or position == floor else None
            if position in self._in_attribute or word in _ARTICLES or word in _JOINERS:
                continue
            if word in self._blockers or word in _PUNCTUATION or index - position > _ADJECTIVES:
                return None
        return None

    def _only_copula(self, start: int, end: int) -> bool:
        allowed = self._joints["copula"]
        return all(
            index in self._in_attribute or word in allowed or word in ",:("
            for index, word in enumerate(self._words[start:end], start=start)
        )

    def _ends_well(self, each: FoundAttribute) -> bool:
        """Whether nothing follows that the words would be the adjective of."""
        if each.end >= self._place.end or each.end in self._in_attribute:
            return True
        word = self._words[each.end]
        return word in _PUNCTUATION or word in self._joints["tail"]

    def _new_clause(self, start: int, index: int, end: int | None = None) -> bool:
        """Whether a comma or "and" before `index` begins a statement with a verb of its own."""
        marks = [place for place in range(start, index) if self._words[place] in (",", "and")]
        if not marks:
            return False
        verbs = self._lexicon.words["verb"]
        limit = self._place.end if end is not None else index
        after = [place for place in range(marks[-1], limit) if self._words[place] in verbs]
        if end is None:
            # "effusion, which is unchanged" says it of the effusion; "effusion and the heart is unchanged" does not.
            between = self._words[marks[-1] + 1 : index]
            copula = self._joints["copula"]
            return any(word not in copula and word not in _JOINERS for word in between) and bool(after)
        stop = next((place for place in range(end, limit) if self._words[place] in (",", ".", ";")), limit)
        return any(end <= place < stop or marks[-1] < place < index for place in after)

    def _coordinated(self, before: Sequence[Mention], each: FoundAttribute) -> list[Mention]:
        """Return the nearest finding and those listed with it that have nothing of this kind yet."""
        covered = [before[-1]]
        for mention in reversed(before[:-1]):
            between = range(mention.end, covered[-1].start)
            listed = any(self._words[index] in _JOINERS for index in between) and all(
                self._words[index] in _JOINERS | _ARTICLES or index in self._in_attribute for index in between
            )
            kinds = {got.kind for got in self._got.get(mention, []) if got.end <= mention.start}
            if not listed or each.kind in kinds or (each.kind in _PLACES and kinds & _PLACES):
                break
            covered.append(mention)
        return covered

    # At the head of a clause ------------------------------------------------------------------

    def _fronted(self, each: FoundAttribute) -> list[Mention]:
        """Return the findings of a clause that begins with a place: "In the right lung there is ..."."""
        if each.kind not in _PLACES:
            return []
        ahead = [mention for mention in self._targets if mention.start >= each.end]
        if not ahead or not self._leads_to(each, ahead[0]):
            return []
        covered = [ahead[0]]
        for mention in ahead[1:]:
            between = range(covered[-1].end, mention.start)
            words = {self._words[index] for index in between}
            placed = any(index in self._in_attribute and self._in_attribute[index].kind in _PLACES for index in between)
            if placed or words & (self._joints["boundary"] | _ENDS | self._lexicon.words["verb"]):
                break
            covered.append(mention)
        return covered

    def _leads_to(self, each: FoundAttribute, target: Mention) -> bool:
        index = each.end
        while index < target.start and (
            (index in self._in_attribute and self._in_attribute[index].kind in _PLACES)
            or self._words[index] in _PLACE_NOUNS
        ):
            index += 1
        rest = self._words[index : target.start]
        if not rest or len(rest) > _BEFORE_WIDTH or set(rest) & (self._joints["boundary"] | _ENDS - {":"}):
            return False
        preposition = self._preposition_before(each.start)
        if preposition is not None and (preposition == self._place.start or self._words[preposition - 1] in _JOINERS):
            return rest[0] in self._joints["shows"] or rest[0] in (",", ":") or rest[0] in self._lexicon.words["verb"]
        return rest[0] in self._joints["shows"] or rest[0] == ":"

    def _same_clause(self, start: int, end: int) -> bool:
        boundary = self._joints["boundary"]
        return not any(
            self._words[index] in boundary or self._words[index] in _CLAUSE_MARKS for index in range(start, end)
        )


_PLACE_NOUNS = frozenset({"lung", "side", "lobe", "zone", "base", "hemithorax", "region", "area"})


def _longest(found: Sequence[FoundAttribute], words: Sequence[str]) -> list[FoundAttribute]:
    """Return the attributes of each kind that no longer one of it overlaps, ranges of severity as one, in order."""
    kept: list[FoundAttribute] = []
    for kinds in (
        (AttributeKind.ANATOMY,),
        (AttributeKind.LATERALITY, AttributeKind.SEVERITY, AttributeKind.CHANGE, None),
    ):
        taken: dict[int, tuple[int, int]] = {}
        for each in sorted((e for e in found if e.kind in kinds), key=lambda e: (e.start - e.end, e.start)):
            own = (each.start, each.end)
            if all(taken.get(index, own) == own for index in range(each.start, each.end)):
                taken.update(dict.fromkeys(range(each.start, each.end), own))
                kept.append(each)
    kept.sort(key=lambda each: (each.start, each.end))
    return _with_ranges(kept, words)


def _with_ranges(found: list[FoundAttribute], words: Sequence[str]) -> list[FoundAttribute]:
    merged: list[FoundAttribute] = []
    for each in found:
        last = merged[-1] if merged else None
        if (
            last is not None
            and each.kind is AttributeKind.SEVERITY is last.kind
            and " " not in last.value
            and (each.start == last.end or (each.start == last.end + 1 and words[last.end] in _RANGE))
        ):
            low, high = sorted((last.value, each.value), key=SEVERITIES.index)
            value = low if low == high else f"{low} to {high}"
            merged[-1] = FoundAttribute(last.start, each.end, AttributeKind.SEVERITY, value)
        else:
            merged.append(each)
    return merged
