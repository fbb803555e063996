"""Search by words: tree -> full-text query -> page of documents; report text -> snippet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from medsearch_desktop.search.filters import BY_NAME, Kind, icd_code, keyword_text
from medsearch_desktop.search.tree import (
    And,
    DateRange,
    Field,
    Like,
    Not,
    NumberRange,
    Or,
    Phrase,
    Prefix,
    Tree,
    Value,
    Word,
    leaves,
)
from medsearch_desktop.store import fulltext
from medsearch_desktop.store.fulltext import FulltextIndex, Query

SNIPPET_LENGTH = 240
# Of a longer text only so much is looked at: a snippet has to come within a millisecond.
_MOST_TEXT = 20_000
_SECTION_RANKS = {"IMPRESSION": 2, "FINDINGS": 1}
_SENTENCE_ENDS = re.compile(r"[.:!?]\s+")
_BLANKS = re.compile(r"\s+")
_WORDS = re.compile(r"[^\W_]+")


def compile_tree(tree: Tree) -> Query:
    """Return the full-text query of a tree; only words score, filters do not. An image is left out."""
    match tree:
        case And(children):
            required = [compile_tree(child) for child in children if not isinstance(child, Not)]
            excluded = [compile_tree(child.child) for child in children if isinstance(child, Not)]
            return fulltext.all_of(required, but_not=excluded)
        case Or(children):
            return fulltext.any_of([compile_tree(child) for child in children])
        case Not(child):
            return fulltext.all_of([], but_not=[compile_tree(child)])
        case Like():
            return fulltext.everything()
        case Field(key, value):
            return _compile_field(key, value)
        case _:
            return _compile_words("text", tree)


def _compile_words(field: str, value: Word | Phrase | Prefix) -> Query:
    begins = isinstance(value, Prefix)
    tokens = fulltext.analyse(value.text, stemmed=not begins)
    if not tokens:
        return fulltext.everything()
    return fulltext.beginning(field, tokens) if begins else fulltext.words(field, tokens)


def _compile_field(key: str, value: Value) -> Query:
    row = BY_NAME[key]
    match value:
        case NumberRange(low, high, include_low, include_high):
            return fulltext.between(row.index[0], low, high, include_low=include_low, include_high=include_high)
        case DateRange(first, last):
            return fulltext.between(
                row.index[0], first.toordinal() if first else None, last.toordinal() if last else None
            )
        case _:
            if row.kind is Kind.TEXT:
                return _compile_words(row.index[0], value)
            if row.kind is Kind.CODE:
                return fulltext.keyword("states", f"mentioned|{fulltext.code_key(value.text)}")
            if row.kind is Kind.STATE:
                return fulltext.any_of([fulltext.keyword("states", f"{key}|{name}") for name in state_names(value)])
            text = keyword_text(key, value)
            ask = fulltext.keyword_beginning if isinstance(value, Prefix) else fulltext.keyword
            return fulltext.any_of([ask(field, text) for field in row.index])


def state_names(value: Word | Phrase | Prefix) -> list[str]:
    """Return the keys under which the index may hold what a state filter names: a finding, a code or both."""
    names = [fulltext.name_key(value.text.replace("_", " "))]
    code = icd_code(value.text)
    if code is not None:
        names.append(fulltext.code_key(code))
    return names


def search_documents(
    index: FulltextIndex, tree: Tree, *, k: int, offset: int = 0, sort: str = "score"
) -> tuple[int, list[tuple[int, float]]]:
    """Return how many documents match and (doc_no, score) of the page of `k` that begins at `offset`.

    `sort` is "score", "date" (newest first), "oldest" or "patient" (then newest first). Where
    nothing scores, because the question holds filters only, "score" is "date". Pages are cut from
    one order for as long as `index.generation` stays the same: see `FulltextIndex.top`.
    Raises LibraryError when the index cannot be read.
    """
    if sort == "score" and not _scores(tree):
        sort = "date"
    return index.top(compile_tree(tree), limit=k, offset=offset, sort=sort)


def count_documents(index: FulltextIndex, tree: Tree) -> int:
    """Return how many documents match. Raises LibraryError when the index cannot be read."""
    return index.count(compile_tree(tree))


def matching_documents(index: FulltextIndex, tree: Tree) -> npt.NDArray[np.int64]:
    """Return the doc_no of every document that matches, ascending. Raises LibraryError likewise."""
    return index.matching(compile_tree(tree))


def _scores(tree: Tree) -> bool:
    return any(
        BY_NAME[leaf.key].kind is Kind.TEXT if isinstance(leaf, Field) else not isinstance(leaf, Like)
        for leaf in leaves(tree, positive=True)
    )


# Snippets


@dataclass(frozen=True, slots=True)
class _Sought:
    """What one leaf looks for: tokens in a row, the last perhaps a beginning, perhaps in one section only."""

    tokens: tuple[str, ...]
    begins: bool
    section: str


@dataclass(frozen=True, slots=True)
class _Found:
    start: int
    end: int
    sought: int
    rank: int


def make_snippet(
    text: str, sections: Sequence[tuple[str, int, int]], tree: Tree
) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return the most telling part of a report, about 240 characters on one line, and what matched in it.

    The part is the one with the most different terms of the question, then one in the IMPRESSION,
    then in the FINDINGS; without any match, the beginning of these. "…" marks a cut. The ranges
    are half-open offsets into the snippet, in order, without overlap.
    """
    found = _find(text, sections, _sought(tree))
    start = _best_start(found, text, sections) if found else _opening(sections)
    return _cut(text, start, found)


@lru_cache(maxsize=256)
def _sought(tree: Tree) -> tuple[_Sought, ...]:
    sought: dict[_Sought, None] = {}
    for leaf in leaves(tree, positive=True):
        section = ""
        value: Value | Like = leaf if not isinstance(leaf, Field) else leaf.value
        if isinstance(leaf, Field):
            kind = BY_NAME[leaf.key].kind
            if kind not in (Kind.TEXT, Kind.STATE) or leaf.key in ("description", "manufacturer"):
                continue
            section = leaf.key.upper() if kind is Kind.TEXT else ""
        if isinstance(value, Word | Phrase | Prefix):
            begins = isinstance(value, Prefix)
            tokens = tuple(fulltext.analyse(value.text, stemmed=not begins))
            if tokens:
                sought[_Sought(tokens, begins, section)] = None
    return tuple(sought)


def _find(text: str, sections: Sequence[tuple[str, int, int]], sought: Sequence[_Sought]) -> list[_Found]:
    if not sought:
        return []
    # The sections that matter most come first where a text is too long to be looked at whole.
    ranked = sorted(sections, key=lambda part: -_SECTION_RANKS.get(part[0], 0)) if len(text) > _MOST_TEXT else []
    parts = [(start, min(end, start + _MOST_TEXT)) for _, start, end in ranked[:2]] or [(0, min(len(text), _MOST_TEXT))]
    found: list[_Found] = []
    for part_start, part_end in parts:
        words = _WORDS.findall(text, part_start, part_end)
        spans = [match.span() for match in _WORDS.finditer(text, part_start, part_end)]
        for begins in {each.begins for each in sought}:
            tokens = list(map(_plain if begins else _stemmed, words))
            for number, each in enumerate(sought):
                if each.begins == begins:
                    for first in _places(each, tokens):
                        start, end = spans[first][0], spans[first + len(each.tokens) - 1][1]
                        section = _section_at(sections, start)
                        if each.section in ("", section):
                            found.append(_Found(start, end, number, _SECTION_RANKS.get(section, 0)))
    found.sort(key=lambda match: (match.start, -match.end))
    return found


# Reports share their vocabulary: looking a word up is ten times faster than analysing it again.
@lru_cache(maxsize=65_536)
def _stemmed(word: str) -> str:
    return " ".join(fulltext.analyse(word))


@lru_cache(maxsize=65_536)
def _plain(word: str) -> str:
    return " ".join(fulltext.analyse(word, stemmed=False))


def _places(sought: _Sought, tokens: Sequence[str]) -> list[int]:
    """Return where in `tokens` the sought ones begin to stand in a row."""
    *leading, last = sought.tokens
    reach = len(leading)
    if sought.begins:
        ends = [place for place, token in enumerate(tokens) if token.startswith(last)]
    else:
        ends = [place for place, token in enumerate(tokens) if token == last]
    return [end - reach for end in ends if end >= reach and list(tokens[end - reach : end]) == leading]


def _section_at(sections: Sequence[tuple[str, int, int]], position: int) -> str:
    return next((name for name, start, end in sections if start <= position < end), "")


def _best_start(found: Sequence[_Found], text: str, sections: Sequence[tuple[str, int, int]]) -> int:
    """Return where the best part begins: at its section or sentence if near, else a little before its first match."""
    best, best_worth = found[0], (-1, -1, -1)
    for first, match in enumerate(found):
        window: list[_Found] = []
        for other in found[first:]:
            if other.end > match.start + SNIPPET_LENGTH * 3 // 4:
                break
            window.append(other)
        worth = (len({other.sought for other in window}), match.rank, len(window))
        if worth > best_worth:
            best, best_worth = match, worth
    section_start = max((start for _, start, end in sections if start <= best.start < end), default=0)
    earliest = max(section_start, best.start - SNIPPET_LENGTH // 4)
    if earliest == section_start:
        return earliest
    lead = text[earliest : best.start]
    begins = _SENTENCE_ENDS.search(lead) or _BLANKS.search(lead)
    return earliest + begins.end() if begins else best.start


def _opening(sections: Sequence[tuple[str, int, int]]) -> int:
    ranked = sorted(sections, key=lambda part: -_SECTION_RANKS.get(part[0], 0))
    return ranked[0][1] if ranked and ranked[0][0] in _SECTION_RANKS else 0


def _cut(text: str, start: int, found: Sequence[_Found]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return about SNIPPET_LENGTH characters from `start` on one line, and the matches in them."""
    while start < len(text) and text[start].isspace():
        start += 1
    # Room for runs of blanks, which become one.
    line = " ".join(text[start : start + 2 * SNIPPET_LENGTH].split())
    if len(line) > SNIPPET_LENGTH:
        blank = line.rfind(" ", 0, SNIPPET_LENGTH + 1)
        line = line[: blank if blank > 0 else SNIPPET_LENGTH]
    before = "… " if text[:start].strip() else ""
    ranges: list[tuple[int, int]] = []
    for each in found:
        first, last = _place_on_line(text, start, each.start), _place_on_line(text, start, each.end)
        if each.start < start or last > len(line):
            continue
        first, last = first + len(before), last + len(before)
        if ranges and first < ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(last, ranges[-1][1]))
        else:
            ranges.append((first, last))
    whole = _place_on_line(text, start, min(len(text.rstrip()), start + 2 * SNIPPET_LENGTH + 1)) <= len(line)
    return f"{before}{line}{'' if whole else ' …'}", tuple(ranges)


def _place_on_line(text: str, start: int, position: int) -> int:
    """Return where `position`, before or after a word, stands in the line that `text[start:]` becomes."""
    passed = text[start:position]
    return len(" ".join(passed.split())) + (passed[-1:].isspace() and bool(passed.strip()))
