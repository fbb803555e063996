"""Text to words: where each one stands, how it is normally spelt, and where a sentence begins.

White space and hyphens inside words are no words, so a term matches however its line was wrapped
or its parts were joined ("air-space", "air space").
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from medsearch_desktop.report.tables import read_table

_WORD = re.compile(r"(?:[A-Za-z]\.){2,}|[^\W\d_]+(?:['’][^\W\d_]+)?|\d+(?:[.,]\d+)*|_+|[^\w\s]")
_LETTER = re.compile(r"[^\W_]")
_DASHES = frozenset("-‐‑‒–—―−")
_BULLETS = frozenset("-–—*•·▪◦●>")
_ENDS = frozenset(".!?")
# A line shorter than this was broken by hand; a longer one may be wrapped by the program that wrote it.
_WRAP_WIDTH = 60
# No sentence of a report is longer; without an end to it, one that lacks all full stops would be judged as a whole.
_MAX_SENTENCE = 150


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one stretch of text; all sequences have one item a word.

    `normal` holds the normal spelling (lower case, American), `starts` and `ends` half-open
    offsets into the whole report. `breaks` holds the indices of words that begin a sentence,
    ascending, the first being 0.
    """

    normal: tuple[str, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    breaks: tuple[int, ...]


def split_words(text: str, *, start: int = 0, end: int | None = None) -> Words:
    """Return the words of `text[start:end]`, offsets counted in `text`. Never fails, whatever the text holds."""
    end = len(text) if end is None else end
    width = max((len(line) for line in text[start:end].split("\n")), default=0)
    normal: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    breaks: list[int] = []
    position = start
    for match in _WORD.finditer(text, start, end):
        word = match.group()
        begins, position_before = match.start(), position
        position = match.end()
        if word in _DASHES:
            before = text[begins - 1 : begins]
            after = text[position : position + 1]
            if _LETTER.match(before) and _LETTER.match(after):
                continue
        line_break = "\n" in text[position_before:begins]
        if (
            not normal
            or len(normal) - breaks[-1] >= _MAX_SENTENCE
            or _begins_sentence(text, word, begins, normal, position_before, line_break, width)
        ):
            breaks.append(len(normal))
        if line_break and word in _BULLETS:
            continue
        normal.append(normal_spelling(word))
        starts.append(begins)
        ends.append(position)
    unique = tuple(dict.fromkeys(index for index in breaks if index < len(normal)))
    return Words(tuple(normal), tuple(starts), tuple(ends), unique)


def plain_words(text: str) -> tuple[str, ...]:
    """Return the normal words of a phrase, without punctuation: much faster than `split_words`, which tells places."""
    if _letters_alone(text):
        return tuple(map(normal_spelling, text.split()))
    return tuple(word for word in map(normal_spelling, _WORD.findall(text)) if word[0].isalnum())


def normal_words(text: str) -> tuple[str, ...]:
    """Return the `normal` of `split_words`, by a short way where there is one: phrases of the tables are all of it."""
    if _letters_alone(text):
        return tuple(map(normal_spelling, text.split()))
    if "\n" in text or not _DASHES.isdisjoint(text):
        return split_words(text).normal
    return tuple(map(normal_spelling, _WORD.findall(text)))


def _letters_alone(text: str) -> bool:
    """Whether a phrase is words of plain letters between spaces, as most are, which takes no pattern to cut."""
    return text.isascii() and text.replace(" ", "").isalpha()


def _begins_sentence(
    text: str, word: str, begins: int, normal: Sequence[str], previous_end: int, line_break: bool, width: int
) -> bool:
    previous = normal[-1]
    if previous in _ENDS:
        if previous == "?":
            # "? pneumonia" asks what follows, "pneumonia?" what went before.
            return previous_end > 1 and not text[previous_end - 2].isspace()
        return not (
            previous == "." and len(normal) > 1 and normal[-2] in sentence_words("abbreviation") and not line_break
        )
    if not line_break:
        return False
    if text.count("\n", previous_end, begins) > 1 or word in _BULLETS:
        return True
    answers_label = len(normal) > 1 and normal[-2] in (":", "-")
    if previous in sentence_words("runs on") and not answers_label:
        return False
    if not (word[0].isupper() or word[0].isdigit()):
        return False
    return _broken_by_hand(text, word, previous_end, width)


def _broken_by_hand(text: str, word: str, previous_end: int, width: int) -> bool:
    """Whether the line before `word` ended though the word would have fitted on it."""
    if width < _WRAP_WIDTH:
        return True
    line_start = text.rfind("\n", 0, previous_end) + 1
    return previous_end - line_start + 1 + len(word) <= width


@lru_cache(maxsize=65_536)
def normal_spelling(word: str) -> str:
    """Return the lower-case American spelling of one word, without accents or a possessive ending."""
    if word in _DASHES:
        return "-"
    lower = word.lower().replace("’", "'")
    if not lower.isascii():
        decomposed = unicodedata.normalize("NFKD", lower)
        lower = "".join(char for char in decomposed if not unicodedata.combining(char)) or lower
    lower = lower.removesuffix("'s")
    exact, prefixes = _spelling()
    if lower in exact:
        return exact[lower]
    for prefix, replacement in prefixes:
        if lower.startswith(prefix):
            return replacement + lower[len(prefix) :]
    return lower


@lru_cache(maxsize=4)
def sentence_words(role: str) -> frozenset[str]:
    """Return the words of `data/sentences.tsv` that have a role."""
    return frozenset(row["word"] for row in read_table("sentences.tsv") if row["role"] == role)


@lru_cache(maxsize=1)
def _spelling() -> tuple[dict[str, str], tuple[tuple[str, str], ...]]:
    exact: dict[str, str] = {}
    prefixes: list[tuple[str, str]] = []
    for row in read_table("spelling.tsv"):
        if row["written"].endswith("*"):
            prefixes.append((row["written"][:-1], row["normal"].removesuffix("*")))
        else:
            exact[row["written"]] = row["normal"]
    return exact, tuple(prefixes)
