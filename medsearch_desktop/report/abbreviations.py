"""Abbreviations that a report explains itself: "congestive heart failure (CHF)", and from there on "CHF".

The algorithm of Schwartz and Hearst (A simple algorithm for identifying abbreviation definitions in
biomedical text, Pac Symp Biocomput 2003:451-462): the letters of the short form are looked for from right
to left in the words before the bracket, the first of them at the beginning of a word. scispaCy's detector is
the same algorithm, but its package asks for scikit-learn, scipy and nmslib, and for a spaCy below 3.8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_BRACKET = re.compile(r"\(([^()\n]{2,100})\)")
_SHORT = re.compile(r"[A-Za-z0-9][A-Za-z0-9/.&'’-]{1,9}")
# Words before the bracket are looked for no further back than this, nor beyond the end of a sentence.
_REACH = 160
_ENDS = re.compile(r"[.;:!?](?=\s)|\n[ \t]*\n|[()\[\]]")
_WORD = re.compile(r"[^\s]+")


@dataclass(frozen=True, slots=True)
class Abbreviation:
    """A short form and what it was said to stand for; both ranges are half-open offsets into the text."""

    short: str
    short_start: int
    short_end: int
    long_start: int
    long_end: int


def find_abbreviations(text: str, *, start: int = 0, end: int | None = None) -> tuple[Abbreviation, ...]:
    """Return the definitions within `text[start:end]`, in the order of the text.

    Either "long form (SF)" or "SF (long form)". A short form has two to ten characters, a letter among
    them, and a capital unless it is all that the bracket holds and short.
    """
    return tuple(_definitions(text, start, len(text) if end is None else end))


def uses(text: str, short: str, *, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges within `text[start:end]` where a short form stands as a word, spelt the same."""
    for match in re.compile(rf"(?<![A-Za-z0-9]){re.escape(short)}(?![A-Za-z0-9])").finditer(text, start, end):
        yield match.span()


def _definitions(text: str, start: int, end: int) -> Iterator[Abbreviation]:
    for match in _BRACKET.finditer(text, start, end):
        inside = match.group(1).strip()
        first = match.start(1) + match.group(1).find(inside)
        floor = _floor(text, start, match.start())
        if _is_short(inside):
            found = _long_form(text, inside, floor, match.start())
            if found is not None:
                yield Abbreviation(inside, first, first + len(inside), *found)
            continue
        before = list(_WORD.finditer(text, floor, match.start()))
        if not before or not _is_short(before[-1].group()):
            continue
        short = before[-1].group()
        found = _long_form(text, short, first, first + len(inside))
        # The whole bracket explains it, or it is a remark.
        if found is not None and found[0] == first:
            yield Abbreviation(short, *before[-1].span(), *found)


def _is_short(text: str) -> bool:
    return _SHORT.fullmatch(text) is not None and any(letter.isupper() for letter in text)


def _floor(text: str, start: int, end: int) -> int:
    floor = max(start, end - _REACH)
    for match in _ENDS.finditer(text, floor, end):
        floor = match.end()
    return floor


def _long_form(text: str, short: str, floor: int, end: int) -> tuple[int, int] | None:
    """Return the range of the words in `text[floor:end]` that a short form stands for, if its letters fit them."""
    letters = [letter.lower() for letter in short if letter.isalnum()]
    stop = end
    while stop > floor and not text[stop - 1].isalnum():
        stop -= 1
    position = stop
    for index in range(len(letters) - 1, -1, -1):
        position -= 1
        while position >= floor and (
            text[position].lower() != letters[index] or (index == 0 and position > 0 and text[position - 1].isalnum())
        ):
            position -= 1
        if position < floor:
            return None
    words = text[position:stop].split()
    # The limits of the paper: no more words than min(|short| + 5, 2 |short|), and longer than the short form.
    if len(words) > min(len(letters) + 5, 2 * len(letters)) or stop - position <= len(short):
        return None
    if short.lower() in (word.lower() for word in words):
        return None
    return position, stop
