"""What a sentence says of each mention in it: present, absent, uncertain, historical, family, hypothetical.

In the manner of ConText (Harkema et al., J Biomed Inform 2009;42:839): a cue reaches forward or
backward until something ends its reach. What is added here is telling the list that a "no" runs
through ("no effusion, pneumothorax or consolidation") from the statement that follows it ("no
effusion, stable cardiomegaly"), which reports do without a full stop. All cues are data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from medsearch_desktop.records import Assertion, Category, Certainty
from medsearch_desktop.report.lexicon import Cue, Lexicon, Organ, Term

_LABEL_MARKS = frozenset(":-")
_COMMAS = frozenset({",", "and", "with"})
_JOINERS = frozenset({",", "and", "or", "nor", "with", "/"})
_CLOSERS = frozenset({"or", "nor"})
_ARTICLES = frozenset({"the", "there", "this", "these", "it"})
_NEXT_WIDTH = 4
_BACK_WIDTH = 12
_EITHER_WIDTH = 8
_ORGAN_WIDTH = 12


@dataclass(frozen=True, slots=True)
class Mention:
    """A term at words `[start, end)`; `gap` is the range between its halves, if it has any."""

    start: int
    end: int
    term: Term
    gap: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class FoundCue:
    """A phrase at words `[start, end)` that may act as any of `cues`."""

    start: int
    end: int
    cues: tuple[Cue, ...]


@dataclass(frozen=True, slots=True)
class FoundOrgan:
    """An organ named at words `[start, end)`."""

    start: int
    end: int
    organ: Organ


@dataclass(frozen=True, slots=True)
class Verdict:
    """An assertion and the words `[start, end)` that decided it; both -1 when nothing but the mention did.

    `rule` names the row of the tables by which they did.
    """

    assertion: Assertion
    start: int = -1
    end: int = -1
    certainty: Certainty = Certainty.CERTAIN
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Inference:
    """A finding that the state of an organ rules out or leaves in doubt."""

    organ: FoundOrgan
    finding: str
    verdict: Verdict


class Sentence:
    """One sentence under judgement: words `[start, end)` of `words`, and what was found among them, in order."""

    def __init__(
        self,
        lexicon: Lexicon,
        words: Sequence[str],
        start: int,
        end: int,
        *,
        mentions: Sequence[Mention],
        cues: Sequence[FoundCue],
    ) -> None:
        self.lexicon, self.words, self.start, self.end = lexicon, words, start, end
        self.mentions = [mention for mention in mentions if mention.term.category is not Category.ANATOMY]
        self.cues = cues
        self.verbs = lexicon.words["verb"]
        self.stops = {found.start for found in cues if any(cue.kind == "stop" for cue in found.cues)}
        self.stops.update(index for index in range(start, end) if words[index] in (";", ":", "-"))
        self.cue_at = {found.start: found for found in cues}
        self.mention_at = {mention.start: mention for mention in self.mentions}
        self.groups = self._groups() if "(" in words[start:end] else {}

    def verdicts(self) -> dict[Mention, Verdict | None]:
        """Return what was said of each mention but anatomy; None where no cue spoke of it."""
        found: dict[Mention, Verdict | None] = {}
        spoken: dict[Mention, list[tuple[FoundCue, Cue]]] = {mention: [] for mention in self.mentions}
        after: dict[Mention, Verdict] = {}
        if self.mentions:
            for cue in self.cues:
                self._speak(cue, spoken, after)
        for mention in self.mentions:
            found[mention] = self._inside(mention) or self._settle(spoken[mention], after.get(mention))
        self._alternatives(found)
        return found

    # Reach ------------------------------------------------------------------------------------

    def _speak(
        self,
        found: FoundCue,
        spoken: dict[Mention, list[tuple[FoundCue, Cue]]],
        after: dict[Mention, Verdict],
    ) -> None:
        forward = False
        for cue in found.cues:
            leans_back = cue.kind == "query" and (found.end == self.end or found.end in self.stops)
            if (cue.kind == "pre" and not self._answers_label(found)) or (cue.kind == "query" and not leans_back):
                covered = self._ahead(found, cue)
                for mention in covered:
                    spoken[mention].append((found, cue))
                forward = forward or bool(covered)
            elif not forward and (cue.kind == "post" or leans_back or cue.assertion is Assertion.ABSENT):
                if cue.kind not in ("pre", "post", "query") or cue.assertion is None:
                    continue
                for mention in self._behind(found):
                    after.setdefault(mention, _verdict(found, cue, cue.assertion))

    def _answers_label(self, found: FoundCue) -> bool:
        """Whether a cue is the whole answer to a label before it: "Pneumothorax: no"."""
        ends = found.end >= self.end or found.end in self.stops or self.words[found.end] in ".,"
        return ends and found.start > self.start and self.words[found.start - 1] in _LABEL_MARKS

    def _ahead(self, found: FoundCue, cue: Cue) -> list[Mention]:
        limit = self._limit_after(found.start)
        if cue.reach == "next" or cue.kind == "query":
            limit = min(limit, found.end + _NEXT_WIDTH)
            for mention in self.mentions:
                if mention.start >= found.end:
                    between = self.words[found.end : mention.start]
                    clear = mention.start < limit and not self.verbs.intersection(between) and "," not in between
                    blocked = any(found.end <= stop < mention.start for stop in self.stops)
                    return [mention] if clear and not blocked else []
            return []
        if cue.reach == "sentence":
            if any(mention.end <= found.start for mention in self.mentions):
                return []
            reach = min((stop for stop in self.stops if found.end <= stop < limit), default=limit)
        else:
            reach = self._reach(found, cue, limit)
        return [mention for mention in self.mentions if found.end <= mention.start < reach]

    def _reach(self, found: FoundCue, cue: Cue, limit: int) -> int:
        """Return the first word that a forward cue does not speak of."""
        words, denies, series = self.words, cue.assertion is Assertion.ABSENT, cue.reach == "series"
        must_close = not denies and not series
        restarts, closing = self.lexicon.words["restart"], self.lexicon.words["closing"]
        subjects, prepositions = self.lexicon.words["subject"], self.lexicon.words["preposition"]
        seen = closed = False
        # "Differential: pneumonia" heads its list with a colon.
        index = found.end + (found.end < limit and words[found.end] == ":")
        while index < limit:
            word = words[index]
            if index in self.stops:
                return index
            mention = self.mention_at.get(index)
            if mention is not None:
                if denies and mention.gap and self.verbs.intersection(words[slice(*mention.gap)]):
                    return index
                seen, index = True, mention.end
                continue
            if word in _COMMAS:
                following = index + 1
                while following < limit and words[following] in _JOINERS:
                    following += 1
                if _CLOSERS.intersection(words[index:following]):
                    index = following
                    continue
                if closed or following >= limit or (word == "," and cue.reach == "near"):
                    return index
                next_word = words[following]
                if next_word in restarts and (
                    next_word in self.lexicon.strong_restarts
                    or not (series or self._closes(following, limit, _CLOSERS))
                ):
                    return index
                if self._states(following, limit):
                    return index
                if word == "," and must_close and not self._closes(following, limit, _JOINERS - {",", "with"}):
                    return index
                index = following
                continue
            if seen and denies:
                if word in closing:
                    closed = True
                # A new subject without any mark before it: text dictated without punctuation.
                elif (
                    word in subjects
                    and words[index - 1] not in prepositions
                    and words[index - 1] not in _JOINERS
                    and (word in _ARTICLES or self._has_verb(index, min(limit, index + 4)))
                ):
                    return index
            index += 1
        return limit

    def _states(self, index: int, limit: int) -> bool:
        """Whether a clause of its own begins at `index`: a subject with its verb, or a verb before the next mention."""
        if self.words[index] in self.lexicon.words["subject"] and self._has_verb(index, limit):
            return True
        ahead = next((mention.start for mention in self.mentions if mention.start >= index), limit)
        return ahead < limit and self._has_verb(index, ahead)

    def _closes(self, index: int, limit: int, closers: frozenset[str]) -> bool:
        """Whether the list at `index` goes on to one of `closers` before a verb or stop ends it."""
        for position in range(index, limit):
            if position in self.stops:
                return False
            if self.words[position] in closers or self._is_either(position):
                return True
        return False

    def _has_verb(self, index: int, limit: int) -> bool:
        for position in range(index, limit):
            if self.words[position] == "," or position in self.stops:
                return False
            if self.words[position] in self.verbs:
                return True
        return False

    def _behind(self, found: FoundCue) -> list[Mention]:
        """Return the mentions that a backward cue speaks of: the nearest, and those listed with it."""
        floor = self._limit_before(found.start)
        before = [mention for mention in self.mentions if floor <= mention.start and mention.end <= found.start]
        if not before or found.start - before[-1].end > _BACK_WIDTH or not self._linked(before[-1].end, found.start):
            return []
        covered = [before[-1]]
        for mention in reversed(before[:-1]):
            between = self.words[mention.end : covered[-1].start]
            if not _JOINERS.intersection(between) or self.verbs.intersection(between):
                break
            if any(mention.end <= index < covered[-1].start for index in self.stops):
                break
            if any(mention.end <= cue.start < covered[-1].start and _speaks_ahead(cue) for cue in self.cues):
                break
            alternatives = any(self._is_either(index) for index in range(mention.end, found.start))
            if not alternatives and self._introduced(mention):
                break
            covered.append(mention)
        return covered

    def _linked(self, end: int, start: int) -> bool:
        between = self.words[end:start]
        inner = [index for index in self.stops if end <= index < start]
        if inner and not (inner == [start - 1] and self.words[start - 1] in _LABEL_MARKS):
            return False
        if between and between[-1] == ",":
            return False
        commas = between.count(",")
        return commas != 1

    def _introduced(self, mention: Mention) -> bool:
        """Whether an earlier "there is" or verb already says that the mention is there."""
        return any(index in self.stops or self.words[index] in self.verbs for index in range(self.start, mention.start))

    def _is_either(self, index: int) -> bool:
        found = self.cue_at.get(index)
        return found is not None and any(cue.kind == "either" for cue in found.cues)

    def _groups(self) -> dict[int, tuple[int, int]]:
        """Map each word in brackets to the range of its innermost pair."""
        groups: dict[int, tuple[int, int]] = {}
        open_at: list[int] = []
        for index in range(self.start, self.end):
            if self.words[index] == "(":
                open_at.append(index)
            elif self.words[index] == ")" and open_at:
                first = open_at.pop()
                for inside in range(first, index):
                    groups.setdefault(inside, (first, index))
        return groups

    def _limit_after(self, index: int) -> int:
        return self.groups[index][1] if index in self.groups else self.end

    def _limit_before(self, index: int) -> int:
        return self.groups[index][0] if index in self.groups else self.start

    # Verdict ----------------------------------------------------------------------------------

    def _inside(self, mention: Mention) -> Verdict | None:
        """Return what stands between the halves of a mention: "heart is not enlarged"."""
        if mention.gap is None:
            return None
        for index in range(*mention.gap):
            entry = self.lexicon.entries.get((self.words[index],))
            for cue in entry.cues if entry else ():
                if cue.kind in ("pre", "borderline") and cue.assertion is not Assertion.PRESENT:
                    return _verdict(FoundCue(index, index + 1, (cue,)), cue, cue.assertion or Assertion.UNCERTAIN)
        return None

    def _settle(self, spoken: Sequence[tuple[FoundCue, Cue]], after: Verdict | None) -> Verdict | None:
        state: tuple[FoundCue, Cue] | None = None
        for found, cue in spoken:
            if state is None or self._overrules(state, found, cue):
                state = (found, cue)
        if state is None or state[1].assertion is None:
            return after
        before = _verdict(*state, state[1].assertion)
        if after is None or before.assertion in (Assertion.FAMILY, Assertion.HYPOTHETICAL, Assertion.ABSENT):
            return before
        if after.assertion is Assertion.PRESENT:
            return before
        return after

    def _overrules(self, state: tuple[FoundCue, Cue], found: FoundCue, cue: Cue) -> bool:
        """Whether a nearer cue takes the place of one farther back."""
        old, new = state[1].assertion, cue.assertion
        apart = any(state[0].end <= mention.start < found.start for mention in self.mentions)
        if new in (Assertion.FAMILY, Assertion.HYPOTHETICAL):
            return old is not Assertion.ABSENT or apart
        if old in (Assertion.FAMILY, Assertion.HYPOTHETICAL):
            return False
        if old is Assertion.ABSENT:
            return apart and (cue.breaks or new in (Assertion.ABSENT, Assertion.HISTORICAL))
        if new is Assertion.ABSENT:
            return True
        if old is Assertion.UNCERTAIN:
            return apart and cue.breaks
        if old is Assertion.HISTORICAL:
            return apart and new is not Assertion.HISTORICAL
        return new is not Assertion.PRESENT or apart

    def _alternatives(self, found: dict[Mention, Verdict | None]) -> None:
        """Leave both in doubt where a report says one or the other and denies neither."""
        findings = [
            mention for mention in self.mentions if mention.term.category in (Category.SIGN, Category.DIAGNOSIS)
        ]
        for position, (first, second) in enumerate(pairwise(findings)):
            where = self._joined_by(first, second)
            if where is None or not all(_is_open(found[mention]) for mention in (first, second)):
                continue
            verdict = Verdict(Assertion.UNCERTAIN, where, where + 1, Certainty.POSSIBLE, self._either_rule(where))
            found[first] = found[second] = verdict
            if self.words[where - 1] != ",":
                # "opacity, atelectasis versus pneumonia" weighs what the opacity is, not whether it is there.
                continue
            for earlier in reversed(findings[:position]):
                following = findings[findings.index(earlier) + 1]
                between = self.words[earlier.end : following.start]
                if not between or between[0] != "," or len(between) > _NEXT_WIDTH or not _is_open(found[earlier]):
                    break
                found[earlier] = verdict

    def _joined_by(self, first: Mention, second: Mention) -> int | None:
        if second.start - first.end > _EITHER_WIDTH:
            return None
        joint = None
        for index in range(first.end, second.start):
            word = self.words[index]
            if (
                index in self.stops
                or word in self.verbs
                or (word == "," and joint is None and index + 1 < second.start)
            ):
                if word == "," and self._is_either(index + 1):
                    continue
                return None
            if self._is_either(index):
                joint = index if joint is None or self._weighs(index) else joint
            elif joint is not None and (word == "and" or word in self.lexicon.words["preposition"]):
                return None
        return joint if joint is not None and self._weighs(joint) else None

    def _weighs(self, index: int) -> bool:
        """Whether the word that joins two mentions sets one against the other: "versus", not "or"."""
        found = self.cue_at.get(index)
        return found is not None and any(cue.kind == "either" and cue.assertion for cue in found.cues)

    def _either_rule(self, index: int) -> str:
        return next(cue.rule for cue in self.cue_at[index].cues if cue.kind == "either")

    # Organs -----------------------------------------------------------------------------------

    def inferences(self, organs: Sequence[FoundOrgan]) -> list[Inference]:
        """Return what the state of each organ rules out ("heart size is normal") or leaves in doubt."""
        found: list[Inference] = []
        for organ in organs:
            state = self._state_ahead(organ) or self._state_behind(organ)
            if state is None:
                continue
            words, cue = state
            if cue.kind == "borderline":
                verdict = _verdict(words, cue, Assertion.UNCERTAIN)
                found.extend(Inference(organ, finding, verdict) for finding in organ.organ.uncertain)
            else:
                verdict = _verdict(words, cue, Assertion.ABSENT)
                found.extend(Inference(organ, finding, verdict) for finding in organ.organ.rules_out)
        return found

    def _state_ahead(self, organ: FoundOrgan) -> tuple[FoundCue, Cue] | None:
        for index in range(organ.end, min(self.end, organ.end + _ORGAN_WIDTH)):
            if index in self.mention_at or (index in self.stops and self.words[index] not in _LABEL_MARKS):
                return None
            found = self.cue_at.get(index)
            if found is None:
                continue
            state = self._state(found, organ)
            if state is not None:
                return state
            if any(cue.kind in ("abnormal", "pre", "post", "pseudo", "stop", "normal") for cue in found.cues):
                return None
        return None

    def _state_behind(self, organ: FoundOrgan) -> tuple[FoundCue, Cue] | None:
        for found in self.cues:
            between = self.words[found.end : organ.start]
            if found.end <= organ.start and (not between or tuple(between) in (("in", "size"), ("size",), ("sized",))):
                state = self._state(found, organ)
                if state is not None and not self._denied(found):
                    return state
        return None

    def _state(self, found: FoundCue, organ: FoundOrgan) -> tuple[FoundCue, Cue] | None:
        spoken = " ".join(self.words[found.start : found.end])
        for cue in found.cues:
            if cue.kind == "borderline":
                return found, cue
            if cue.kind == "normal" and any(f" {word} " in f" {spoken} " for word in organ.organ.words):
                return found, cue
        return None

    def _denied(self, found: FoundCue) -> bool:
        before = self.words[max(self.start, found.start - 2) : found.start]
        return any(word in ("not", "no", "non") for word in before)


def _verdict(found: FoundCue, cue: Cue, assertion: Assertion) -> Verdict:
    certainty = Certainty.POSSIBLE if assertion is Assertion.UNCERTAIN else cue.certainty
    return Verdict(assertion, found.start, found.end, certainty, cue.rule)


def _speaks_ahead(found: FoundCue) -> bool:
    return any(cue.kind == "pre" for cue in found.cues)


def _is_open(verdict: Verdict | None) -> bool:
    return verdict is None or verdict.assertion is Assertion.PRESENT
