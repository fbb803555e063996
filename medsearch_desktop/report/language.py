"""Which language a report is in, so that no mention is pretended in one that the word lists do not know.

By script where it is not Latin, else by function words; English where nothing speaks for another.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from medsearch_desktop.report.tables import read_table

ENGLISH = "en"
_SAMPLE = 6000
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
# Of the letters of a text in another script; a Greek letter or a name in an English report is far below.
_FOREIGN_SHARE = 0.4
_LEAST_WORDS = 3
_LEAST_SHARE = 0.15
_SCRIPTS = {
    "CYRILLIC": "und-Cyrl",
    "GREEK": "und-Grek",
    "ARABIC": "und-Arab",
    "HEBREW": "und-Hebr",
    "CJK": "und-Hani",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "DEVANAGARI": "und-Deva",
    "THAI": "th",
    "ARMENIAN": "hy",
    "GEORGIAN": "ka",
}


def language_of(text: str) -> str:
    """Return the language of a report as a BCP 47 tag: "en", "de", "fr", ..., or a script like "und-Cyrl"."""
    sample = text[:_SAMPLE]
    if not sample.isascii() and (script := _script(sample)):
        return script
    words = [word.lower() for word in _WORD.findall(sample)]
    known, ours_words = _languages(), _english()
    counts: Counter[str] = Counter()
    foreign, ours = 0, 0
    for word in words:
        spoken = known.get(word)
        ours += word in ours_words
        if spoken is not None:
            foreign += 1
            counts.update(spoken)
    if foreign < _LEAST_WORDS or not counts:
        return ENGLISH
    language, count = counts.most_common(1)[0]
    distinct = len({word for word in words if language in known.get(word, ())})
    clear = count > 2 * ours and count >= _LEAST_SHARE * len(words) and distinct >= _LEAST_WORDS
    return language if clear else ENGLISH


def _script(sample: str) -> str:
    letters = [char for char in sample if char.isalpha()]
    found: Counter[str] = Counter()
    for char in letters:
        if char > "\u02ff":
            found[unicodedata.name(char, "").split(" ")[0].split("-")[0]] += 1
    foreign = sum(found.values())
    if not letters or foreign < _FOREIGN_SHARE * len(letters):
        return ""
    if found["HIRAGANA"] or found["KATAKANA"]:
        return "ja"
    return _SCRIPTS.get(found.most_common(1)[0][0], "und")


@lru_cache(maxsize=1)
def _languages() -> dict[str, tuple[str, ...]]:
    """Return the languages that a word belongs to, by word, without the words that are English too."""
    spoken: dict[str, list[str]] = {}
    for row in read_table("languages.tsv"):
        for word in dict.fromkeys(row["words"].split()):
            if word not in _english():
                spoken.setdefault(word, []).append(row["language"])
    return {word: tuple(languages) for word, languages in spoken.items()}


@lru_cache(maxsize=1)
def _english() -> frozenset[str]:
    rows = read_table("languages.tsv")
    return frozenset(word for row in rows if row["language"] == ENGLISH for word in row["words"].split())
