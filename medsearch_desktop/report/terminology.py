"""The shipped base of concepts: the codes of one ICD-10-CM release, the names of HPO, and how both are looked up.

The file is one line of JSON, which tells what it is, and a compressed body of columns. Nothing but
names is stored: each index over them is made when it is first asked for, as is each column cut into its cells, for
most reports need little of it.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import threading
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.errors import TerminologyError
from medsearch_desktop.report.gist import family_of_title, side_of_title
from medsearch_desktop.report.tables import collector_held

FORMAT = 1
# What a name is: the title of a code, a term that it includes, what it says of itself at its head, what
# another code's exclusion sends here; an HPO name or its exact synonym; a name of an imported UMLS base.
TITLE, INCLUSION, INCLUDES, SEE, HPO, HPO_SYNONYM, UMLS = "tincshu"
_COLUMNS = ("code", "title", "cui", "seventh", "owner", "kind", "name", "key")
_CONCEPT_COLUMNS = _COLUMNS[:4]
# Words of more names than these imply nothing.
_RARE = 400
_COLUMN_END = "\f"
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 \n"
_OTHER = len(_LETTERS)
_BASE = _OTHER + 1


@dataclass(frozen=True, slots=True)
class Concept:
    """One code or one HPO term; `seventh` holds the letters of which the full code needs one more.

    `side` is R, L, B, U (said to be unspecified) or empty, `parent` is true when finer codes lie below.
    """

    code: str
    title: str
    cui: str
    seventh: str = ""
    side: str = ""
    parent: bool = False


@dataclass(frozen=True, slots=True)
class Name:
    """One name of a concept, with the telling words by which it is found."""

    text: str
    key: str
    kind: str
    concept: Concept


class KnowledgeBase:
    """The concepts and names of one file; it may be used from several threads.

    `columns` are in UTF-8, a cell a line.
    """

    def __init__(self, header: dict[str, Any], columns: dict[str, bytes]) -> None:
        self.header = header
        self.release: str = header["release"]
        self._columns = _Columns(columns)
        self._implied: dict[str, dict[str, float]] = {}
        self._categories: dict[str, _Category] = {}

    @property
    def codes(self) -> tuple[str, ...]:
        """Every code as the tabular list prints it, sorted; those that need a 7th character are without it."""
        return tuple(sorted(self._by_code))

    def has_code(self, code: str) -> bool:
        """Whether the release has that code, as the tabular list prints it or with a 7th character that it allows."""
        return self._row_of_code(code) is not None

    def concept_of_code(self, code: str) -> Concept | None:
        """Return the concept of a code; of one with a 7th character, that of the code without it."""
        row = self._row_of_code(code)
        return None if row is None else self._concept(row)

    def names_of_code(self, code: str) -> tuple[str, str, str] | None:
        """Return the code, title and CUI of the concept of a code, without where it stands among others."""
        row = self._row_of_code(code)
        if row is None:
            return None
        columns = self._columns
        return columns["code"][row], columns["title"][row], columns["cui"][row]

    def same(self, key: str) -> list[Name]:
        """Return the names whose telling words are exactly those of `key`."""
        return [self._name(row) for row in self._keys.get(key, ())]

    def nearest(self, key: str, *, limit: int = 96) -> list[Name]:
        """Return the names whose letters are most like those of `key`, best first, by cosine of TF-IDF trigrams."""
        return [self._name(row) for row in self._index.nearest(key, limit=limit)]

    def family(self, concept: Concept) -> list[Concept]:
        """Return the codes that differ from a concept's in the side alone, itself among them."""
        if not concept.code:
            return [concept]
        wanted = (family_of_title(concept.title), len(concept.code))
        found = [self._concept(row) for row in self._category(concept.code).families.get(wanted, ())]
        return found if concept.side else [concept, *found]

    def below(self, concept: Concept) -> list[Concept]:
        """Return the codes that are one step finer than a concept's, in the order of the tabular list."""
        if not concept.code:
            return []
        return [self._concept(row) for row in sorted(self._category(concept.code).children.get(concept.code, ()))]

    def weight(self, word: str) -> float:
        """Return how telling a word is: the logarithm of how few names have it; most for one that none has."""
        return float(np.log(len(self._owners) / (1 + self._word_counts.get(word, 0))))

    def knows_word(self, word: str) -> bool:
        """Whether any name has that word among its telling ones."""
        return word in self._word_counts

    def nearest_word(self, word: str) -> str:
        """Return the word of the base that is most like one that it lacks, or nothing when none is near."""
        words, index = self._words_index
        for row in index.nearest(word, limit=12):
            found = words[row]
            if found[:1] == word[:1] and abs(len(found) - len(word)) <= 2 and _edits(found, word) <= 1 + len(word) // 9:
                return found
        return ""

    def _row_of_code(self, code: str) -> int | None:
        if code in self._by_code:
            return self._by_code[code]
        # Codes shorter than six characters are filled up with X before the seventh.
        row = self._by_code.get(code[:-1], self._by_code.get(code[:-1].rstrip("X").rstrip(".")))
        return row if row is not None and len(code) == 8 and code[-1] in self._columns["seventh"][row] else None

    def _concept(self, row: int) -> Concept:
        code, title, cui, seventh = (self._columns[column][row] for column in _CONCEPT_COLUMNS)
        if not code:
            return Concept(code, title, cui, seventh)
        return Concept(code, title, cui, seventh, side_of_title(title), code in self._category(code).children)

    def _name(self, row: int) -> Name:
        columns = self._columns
        return Name(columns["name"][row], columns["key"][row], columns["kind"][row], self._concept(self._owners[row]))

    def implied(self, words: Collection[str]) -> dict[str, float]:
        """Return the words that names with the rarest of `words` nearly always have, too, and how surely (to 0.85).

        A femur goes with "intertrochanteric" without being named.
        """
        rarest = min(words, key=lambda word: (self._word_counts.get(word, 0), word))
        if not 0 < self._word_counts.get(rarest, 0) <= _RARE:
            return {}
        found = self._implied.get(rarest)
        if found is None:
            rows = self._rows_of_word(rarest)
            counts = Counter(word for row in rows for word in set(self._columns["key"][row].split()))
            found = {word: 0.85 * n / len(rows) for word, n in counts.items() if n >= 0.75 * len(rows)}
            self._implied[rarest] = found
        return found

    def _rows_of_word(self, word: str) -> list[int]:
        return [row for row, key in enumerate(self._columns["key"]) if word in key and word in key.split()]

    def _category(self, code: str) -> _Category:
        """Return how the codes that share their first three characters with `code` belong together."""
        category = code[:3]
        found = self._categories.get(category)
        if found is None:
            titles, by_code = self._columns["title"], self._by_code
            found = _Category({}, {})
            for member in self._members.get(category, ()):
                row = by_code[member]
                # The nearest code above is the parent; placeholders between the two are no codes.
                parent = next((above for above in reversed(_above(member)) if above in by_code), None)
                if parent is not None:
                    found.children.setdefault(parent, []).append(row)
                if side_of_title(titles[row]):
                    found.families.setdefault((family_of_title(titles[row]), len(member)), []).append(row)
            self._categories[category] = found
        return found

    @cached_property
    def _by_code(self) -> dict[str, int]:
        codes = self._columns["code"]
        # Of rows with the same code the first one holds.
        rows = dict(zip(reversed(codes), range(len(codes) - 1, -1, -1), strict=True))
        rows.pop("", None)
        return rows

    @cached_property
    def _members(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for code in self._by_code:
            found.setdefault(code[:3], []).append(code)
        return found

    @cached_property
    def _owners(self) -> list[int]:
        return list(map(int, self._columns["owner"]))

    @cached_property
    @collector_held()
    def _keys(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for row, key in enumerate(self._columns["key"]):
            found.setdefault(key, []).append(row)
        return found

    @cached_property
    def _word_counts(self) -> dict[str, int]:
        return Counter(" ".join(self._columns["key"]).split())

    @cached_property
    def _index(self) -> _Trigrams:
        return _Trigrams(self._columns["key"])

    @cached_property
    def _words_index(self) -> tuple[list[str], _Trigrams]:
        # A word that stands in one name only may be a misspelling itself, or of a tongue that no report uses.
        words = sorted(word for word, count in self._word_counts.items() if count > 1 and len(word) > 3)
        return words, _Trigrams(words)


class _Columns:
    """The columns of a base by their names, each cut into its cells when it is first asked for."""

    def __init__(self, columns: dict[str, bytes]) -> None:
        self._bytes = columns
        self._cells: dict[str, list[str]] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> list[str]:
        cells = self._cells.get(name)
        if cells is None:
            with self._lock:
                # Another thread may have been faster.
                if name not in self._cells:
                    self._cells[name] = self._bytes.pop(name).decode("utf-8").split("\n")
                cells = self._cells[name]
        return cells


@dataclass(frozen=True, slots=True)
class _Category:
    """The rows of the codes of one category: by the code above, and by title less its side and length of the code."""

    children: dict[str, list[int]]
    families: dict[tuple[str, int], list[int]]


class _Trigrams:
    """Postings of the letter triples of texts; whose weights are the same in all, so that they need not be kept."""

    def __init__(self, texts: Sequence[str]) -> None:
        grams, rows = _grams(texts)
        order = np.argsort(grams, kind="stable")
        grams, rows = grams[order], rows[order]
        first = np.ones(len(grams), bool)
        first[1:] = (grams[1:] != grams[:-1]) | (rows[1:] != rows[:-1])
        grams, self._rows = grams[first], rows[first]
        counts = np.bincount(grams, minlength=_BASE**3)
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        weights = np.log((1 + len(texts)) / (1 + counts)) + 1.0
        self._weights = (weights * weights).astype(np.float32)
        lengths = np.sqrt(np.bincount(self._rows, weights=self._weights[grams], minlength=len(texts)))
        self._inverse = (1.0 / np.maximum(lengths, 1e-6)).astype(np.float32)

    def nearest(self, text: str, *, limit: int) -> list[int]:
        """Return the rows of the texts nearest to one, best first; of equals the first."""
        scores = np.zeros(len(self._inverse), np.float32)
        for gram in np.unique(_grams([text])[0]):
            scores[self._rows[self._starts[gram] : self._starts[int(gram) + 1]]] += self._weights[gram]
        scores *= self._inverse
        if limit < len(scores):
            least = np.partition(scores, -limit)[-limit]
            found = np.flatnonzero(scores >= max(least, 1e-9))
        else:
            found = np.flatnonzero(scores > 0)
        return [int(row) for row in found[np.argsort(-scores[found], kind="stable")][:limit]]


def load_shipped() -> KnowledgeBase:
    """Return the base that ships with the package, loaded once a process (about a tenth of a second).

    Raises TerminologyError when the file is missing, damaged or of another format.
    """
    return load_base(shipped_path())


@lru_cache(maxsize=2)
def load_base(path: Path) -> KnowledgeBase:
    """Return the base in a file. Raises TerminologyError when it is missing, damaged or of another format."""
    header, body = _read(path)
    if hashlib.sha256(body).hexdigest() != header["sha256"]:
        raise TerminologyError("is damaged: its SHA-256 is not the one that it states", item=str(path), remedy=_REMEDY)
    try:
        parts = lzma.decompress(body).split(_COLUMN_END.encode())
        return KnowledgeBase(header, dict(zip(_COLUMNS, parts, strict=True)))
    except (lzma.LZMAError, ValueError, KeyError) as error:
        raise TerminologyError(f"is damaged ({error})", item=str(path), remedy=_REMEDY) from error


def read_header(path: Path) -> dict[str, Any]:
    """Return what a base says of itself: release, sources, counts, sha256. Raises TerminologyError."""
    return _read(path)[0]


def write_base(
    path: Path, header: dict[str, Any], concepts: Sequence[tuple[str, ...]], names: Sequence[tuple[str, ...]]
) -> dict[str, Any]:
    """Write a base and return its header; the same content gives the same bytes. Replaces `path` as a whole.

    `concepts` are (code, title, cui, seventh), `names` are (row of the concept, kind, name, key).

    Raises TerminologyError when the file cannot be written.
    """
    columns = [*zip(*concepts, strict=True), *zip(*names, strict=True)]
    text = _COLUMN_END.join("\n".join(column) for column in columns)
    body = lzma.compress(text.encode("utf-8"), format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, preset=9)
    whole = {"format": FORMAT, **header, "sha256": hashlib.sha256(body).hexdigest()}
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_bytes(json.dumps(whole, sort_keys=True).encode("ascii") + b"\n" + body)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise TerminologyError(
            f"cannot be written ({error.strerror})", item=str(path), remedy="Give another file with -o"
        ) from error
    return whole


def shipped_path() -> Path:
    """Return the path of the base that ships with the package."""
    return Path(str(resources.files("medsearch_desktop.report") / "data" / "linking" / "concepts.base"))


_REMEDY = "Install the program again, or make the base anew with `medsearch terminology build`"


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    try:
        line, _, body = path.read_bytes().partition(b"\n")
        header = json.loads(line)
        if header["format"] != FORMAT:
            raise TerminologyError(f"is of format {header['format']}, not {FORMAT}", item=str(path), remedy=_REMEDY)
    except OSError as error:
        raise TerminologyError(f"cannot be read ({error.strerror})", item=str(path), remedy=_REMEDY) from error
    except (ValueError, KeyError, TypeError) as error:
        raise TerminologyError("is no base of concepts", item=str(path), remedy=_REMEDY) from error
    return header, body


def _above(code: str) -> list[str]:
    return [code[:length].rstrip(".") for length in range(3, len(code)) if length != 4]


def _grams(texts: Sequence[str]) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    """Return the letter triples of words with a space on either side, and the row of the text that each is of."""
    table = np.full(256, _OTHER, np.uint8)
    for index, letter in enumerate(_LETTERS):
        table[ord(letter)] = index
    joined = " " + " \n ".join(texts) + " "
    letters = table[np.frombuffer(joined.encode("utf-8"), np.uint8)].astype(np.uint16)
    breaks = letters == _LETTERS.index("\n")
    space = letters == _LETTERS.index(" ")
    inside = ~(breaks[:-2] | breaks[1:-1] | breaks[2:] | space[1:-1])
    grams = (letters[:-2] * _BASE + letters[1:-1]) * _BASE + letters[2:]
    rows = np.cumsum(breaks, dtype=np.int32)[1:-1]
    return grams[inside], rows[inside]


def _edits(one: str, other: str) -> int:
    """Return the letters to add, drop, change or swap with their neighbour to make one word of the other."""
    before, row = [0] * (len(other) + 1), list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        older, before, row = before, row, [i]
        for j, wanted in enumerate(other, start=1):
            cost = min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
    return row[-1]
