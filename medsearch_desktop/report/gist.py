"""What a name or a phrase says, freed of how it is put: its telling words, and the side of the body.

"Calculus of kidney", "renal calculi" and "kidney stones" are alike, and so are the names of one
injury on the right, on the left and on an unspecified side.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from medsearch_desktop.report.lexicon import phrase_of
from medsearch_desktop.report.tables import read_table

RIGHT, LEFT, BOTH, UNSTATED = "R", "L", "B", "U"
_SIDES = {
    "right": RIGHT,
    "rt": RIGHT,
    "left": LEFT,
    "lt": LEFT,
    "bilateral": BOTH,
    "bilaterally": BOTH,
    "both": BOTH,
    "bilat": BOTH,
}
_SIDED = re.compile(r"\b(?:right|left|bilateral|unspecified)\b", re.IGNORECASE)
# Words in brackets may stand or be missing in what a title names, and "without" only says what is not there.
_OPTIONAL = re.compile(
    r"\([^()]*\)|\[[^\]]*\]|,? without [^,]*|,? (?:un|not )specified (?:as|whether) [^,]*|\bnot elsewhere classified\b"
)
_SITE = re.compile(r"\b(?:right|left|bilateral|unspecified) (?:(?:upper|lower) )?\w+\b", re.IGNORECASE)
_CHUNK = re.compile(r",| of | in | to | with | by | from | due ")
_JOINED = re.compile(r" and/or | or | and ")


@dataclass(frozen=True, slots=True)
class Gist:
    """The telling words of a text, each once and sorted, and its side: R, L, B(oth) or empty."""

    words: tuple[str, ...]
    side: str

    @property
    def key(self) -> str:
        """The words as one text, equal for texts that say the same."""
        return " ".join(self.words)


def gist(text: str) -> Gist:
    """Return what a phrase says. Never fails, whatever the text holds."""
    return gist_of_words(phrase_of(text))


def gist_of_words(words: Sequence[str]) -> Gist:
    """Return what a phrase of normal words says."""
    side = side_of_words(words)
    kept = [normal for word in _whole(words) if word not in _SIDES and (normal := _reading(word))]
    return Gist(tuple(sorted({part for normal in kept for part in normal.split()})), side)


def side_of_words(words: Sequence[str]) -> str:
    """Return the side that normal words say: R, L, B(oth) or empty."""
    sides = {_SIDES[word] for word in words if word in _SIDES}
    return BOTH if BOTH in sides or len(sides) > 1 else next(iter(sides), "")


def gist_of_name(name: str) -> Gist:
    """Return what a name of a terminology says, without the words that the name itself calls optional."""
    return gist(_OPTIONAL.sub(" ", name) if _OPTIONAL.search(name) else name)


def side_of_title(title: str) -> str:
    """Return the side that a title names: R, L, B, U when it says that the side is unspecified, or nothing.

    U is also given to other things left unspecified; only among titles of one family does it mean the side.
    """
    found = [match.group().lower() for match in _SIDED.finditer(title)]
    for word, side in (("right", RIGHT), ("left", LEFT), ("bilateral", BOTH), ("unspecified", UNSTATED)):
        if word in found:
            return side
    return ""


def family_of_title(title: str) -> str:
    """Return a title without its side: equal for the codes of one thing on either side, both or an unspecified one."""
    bare = re.sub(r"\b(right|left|bilateral|unspecified|side)\b", " ", title.lower())
    return " ".join(_singular(word) for word in re.findall(r"[\w/]+", bare))


def gist_of_title_less_site(title: str) -> Gist:
    """Return what a title says without the site that it gives a side: of "bursitis, right elbow" the first word."""
    return gist_of_name(_SITE.sub(" ", title))


def alternatives(name: str) -> list[list[frozenset[str]]]:
    """Return the parts of a name of which any one will do: "bronchus or lung" gives one list, of two parts."""
    found = []
    for chunk in _CHUNK.split(_OPTIONAL.sub(" ", name.lower())):
        parts = _JOINED.split(chunk)
        if len(parts) > 1:
            found.append([frozenset(gist(part).words) for part in parts])
    return found


@lru_cache(maxsize=1)
def weak_words() -> frozenset[str]:
    """Return the words that a phrase may have and its name lack, as they are after reading."""
    return frozenset(_singular(row["word"]) for row in _rows() if row["role"] == "weak")


@lru_cache(maxsize=1)
def place_words() -> frozenset[str]:
    """Return the words for parts of the body, as they are after reading."""
    return frozenset(_reading(row["word"]) for row in _rows() if row["role"] == "place")


@lru_cache(maxsize=1)
def light_words() -> frozenset[str]:
    """Return the words that say little of what a name means, "disease" and the like, as they are after reading."""
    return frozenset(_singular(row["word"]) for row in _rows() if row["role"] == "light")


@lru_cache(maxsize=1)
def gist_digest() -> str:
    """Return 12 hexadecimal digits that change whenever names are read differently because a table changed."""
    read = [sorted(row.items()) for table in ("words", "phrases") for row in read_table(f"linking/{table}.tsv")]
    return hashlib.sha256(repr(read).encode()).hexdigest()[:12]


@lru_cache(maxsize=1)
def _rows() -> tuple[dict[str, str], ...]:
    return read_table("linking/words.tsv")


@lru_cache(maxsize=1)
def _tables() -> tuple[frozenset[str], dict[str, str], frozenset[str], dict[str, list[tuple[tuple[str, ...], str]]]]:
    neutral = frozenset(row["word"] for row in _rows() if row["role"] == "neutral")
    same = {row["word"]: row["normal"] for row in _rows() if row["role"] == "same"}
    phrases: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for row in read_table("linking/phrases.tsv"):
        words = tuple(row["written"].split())
        phrases.setdefault(words[0], []).append((words, row["normal"]))
    for found in phrases.values():
        found.sort(key=lambda item: -len(item[0]))
    normal = frozenset(part for row in _rows() for part in row["normal"].split())
    return neutral, same, normal, phrases


def _whole(words: Sequence[str]) -> list[str]:
    """Return the words with each known phrase replaced by what it stands for."""
    *_, phrases = _tables()
    out: list[str] = []
    index = 0
    while index < len(words):
        for written, normal in phrases.get(words[index], ()):
            if tuple(words[index : index + len(written)]) == written:
                out.extend(normal.split())
                index += len(written)
                break
        else:
            out.append(words[index])
            index += 1
    return out


@lru_cache(maxsize=65_536)
def _reading(word: str) -> str:
    neutral, same, normal, _ = _tables()
    if word in neutral:
        return ""
    if word in same:
        return same[word]
    if word in normal:
        return word
    singular = _singular(word)
    return same.get(singular, "" if singular in neutral else singular)


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    if len(word) > 4 and word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
