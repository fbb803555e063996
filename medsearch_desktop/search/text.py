"""Search by words: tree -> full-text query -> page of documents; report text -> snippet."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

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
_BLANKS = re.compile(r"\s+")


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
            return fulltext.between(row.index[0], first and first.toordinal(), last and last.toordinal())
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
    start = _best_start(found, text) if found else _opening(text, sections)
    return _cut(text, start, found)


def _sought(tree: Tree) -> list[_Sought]:
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
    return list(sought)


def _find(text: str, sections: Sequence[tuple[str, int, int]], sought: Sequence[_Sought]) -> list[_Found]:
    if not sought:
        return []
    # The sections that matter most come first where a text is too long to be looked at whole.
    spans = sorted(sections, key=lambda part: -_SECTION_RANKS.get(part[0], 0)) if len(text) > _MOST_TEXT else []
    parts = [(start, min(end, start + _MOST_TEXT)) for _, start, end in spans[:2]] or [(0, min(len(text), _MOST_TEXT))]
    found: list[_Found] = []
    for part_start, part_end in parts:
        part = text[part_start:part_end]
        for begins in {each.begins for each in sought}:
            tokens = fulltext.token_spans(part, stemmed=not begins)
            places: dict[str, list[int]] = {}
            for place, (token, _, _) in enumerate(tokens):
                places.setdefault(token, []).append(place)
            for number, each in enumerate(sought):
                if each.begins == begins:
                    for start, end in _matches(each, tokens, places):
                        section = _section_at(sections, part_start + start)
                        if each.section in ("", section):
                            rank = _SECTION_RANKS.get(section, 0)
                            found.append(_Found(part_start + start, part_start + end, number, rank))
    found.sort(key=lambda match: (match.start, -match.end))
    return found


def _matches(
    sought: _Sought, tokens: Sequence[tuple[str, int, int]], places: dict[str, list[int]]
) -> list[tuple[int, int]]:
    wanted = sought.tokens
    if sought.begins and len(wanted) == 1:
        firsts = [place for token, at in places.items() if token.startswith(wanted[0]) for place in at]
    else:
        firsts = places.get(wanted[0], [])
    ranges = []
    for first in firsts:
        row = tokens[first : first + len(wanted)]
        if len(row) == len(wanted) and all(
            token == want or (sought.begins and number == len(wanted) - 1 and token.startswith(want))
            for number, ((token, _, _), want) in enumerate(zip(row, wanted, strict=True))
        ):
            ranges.append((row[0][1], row[-1][2]))
    return ranges


def _section_at(sections: Sequence[tuple[str, int, int]], position: int) -> str:
    return next((name for name, start, end in sections if start <= position < end), "")


def _best_start(found: Sequence[_Found], text: str) -> int:
    """Return where the best part begins: at its sentence if that is near, else a little before its first match."""
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
    earliest = max(0, best.start - SNIPPET_LENGTH // 4)
    lead = text[earliest : best.start]
    breaks = [match.end() for match in re.finditer(r"[.:!?]\s+|\n", lead)]
    if breaks:
        return earliest + breaks[0]
    if earliest == 0:
        return 0
    blank = _BLANKS.search(lead)
    return earliest + blank.end() if blank else best.start


def _opening(text: str, sections: Sequence[tuple[str, int, int]]) -> int:
    ranked = sorted(sections, key=lambda part: -_SECTION_RANKS.get(part[0], 0))
    return ranked[0][1] if ranked and ranked[0][0] in _SECTION_RANKS else 0


def _cut(text: str, start: int, found: Sequence[_Found]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return about SNIPPET_LENGTH characters from `start` on one line, and the matches in them."""
    while start < len(text) and text[start].isspace():
        start += 1
    # Room for runs of blanks, which become one; so long a run of them is no report.
    raw = text[start : start + 4 * SNIPPET_LENGTH]
    pieces: list[str] = []
    kept: list[int] = []
    for match in re.finditer(r"\S+", raw):
        length = len(kept) + bool(kept) + len(match[0])
        if length > SNIPPET_LENGTH and kept:
            break
        if kept:
            pieces.append(" ")
            kept.append(start + match.start() - 1)
        piece = match[0][:SNIPPET_LENGTH]
        pieces.append(piece)
        kept.extend(range(start + match.start(), start + match.start() + len(piece)))
    if not kept:
        return "", ()
    cut_before = bool(text[:start].strip())
    cut_after = bool(text[kept[-1] + 1 : kept[-1] + 1 + 4 * SNIPPET_LENGTH].strip())
    before = "… " if cut_before else ""
    snippet = before + "".join(pieces) + (" …" if cut_after else "")
    ranges: list[tuple[int, int]] = []
    for each in found:
        if each.start < kept[0] or each.end > kept[-1] + 1:
            continue
        first = len(before) + bisect_left(kept, each.start)
        last = len(before) + bisect_left(kept, each.end - 1) + 1
        if ranges and first < ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(last, ranges[-1][1]))
        else:
            ranges.append((first, last))
    return snippet, tuple(ranges)
