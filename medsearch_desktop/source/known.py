"""All known files in columns: some 200 bytes a file where objects in a dict take 1,400.

Rows lie in the order of their paths and are found by halving; a record is made when it is asked for. A table may
hold the files of some folders only, and look up the others where they are kept.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any, TypeVar, overload

import numpy as np

Record = TypeVar("Record")

# path, root, size, mtime_ns, sha256, kind, state, checked_ns, held_by
Row = tuple[str, str, int, int, str, str, str, int, str]
_DIGEST = 32
_NO_DIGEST = "0" * 2 * _DIGEST
# Rows that are put into columns at once: a Python statement a row would cost four times as much.
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The files that are not at or below `roots`, which a table may leave out; both look-ups are for any thread.

    `at(path)` returns the row of a path or None, `holding(sha256)` the rows of a content, in any order; both may return
    rows that lie below the roots, too.
    """

    roots: tuple[str, ...]
    at: Callable[[str], Row | None]
    holding: Callable[[str], Iterable[Row]]
    _starts: tuple[str, ...] = field(init=False)
    _roots: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_starts", tuple(os.path.join(root, "") for root in self.roots))  # noqa: PTH118
        object.__setattr__(self, "_roots", frozenset(self.roots))

    def is_of(self, path: str) -> bool:
        """Whether a path is none of those that the table holds."""
        return path not in self._roots and not path.startswith(self._starts)


class FileTable:
    """The files of a library as `rows` give them, once each; read, never changed.

    Columns of a row: path, root, size in bytes, mtime_ns, sha256 (may be empty), kind, state, checked_ns, held_by.
    `elsewhere` is where files are looked up that `rows` leave out.
    """

    def __init__(self, rows: Iterable[Row], *, elsewhere: Elsewhere | None = None) -> None:
        self._elsewhere = elsewhere
        # What was found there; what is looked up once is mostly asked for again.
        self._found: dict[str, Row | None] = {}
        self._numbers = [array("q") for _ in range(3)]
        self._words: dict[str, int] = {}
        self._word_columns = [array("I") for _ in range(4)]
        self._digests = bytearray()
        # Digests that are none of SHA-256, by row; "" is not among them.
        self._odd: dict[int, str] = {}
        self._empty = bytearray()
        self._text = bytearray()
        self._ends = array("Q", [0])
        last, in_order = "", True
        source = iter(rows)
        while block := list(islice(source, _ROWS_AT_ONCE)):
            paths = [row[0] for row in block]
            # Characters are in the order of the bytes below.
            in_order = in_order and (not len(self) or last < paths[0]) and all(a < b for a, b in pairwise(paths))
            last = paths[-1]
            self._append(paths, block)
        if not in_order:
            order = sorted(range(len(self)), key=self._name)
            self._reorder(order)
        self._names = list(self._words)
        self._contents: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None = None
        self._latest = ("", -1)

    def __len__(self) -> int:
        return len(self._empty)

    @property
    def paths(self) -> Sequence[str]:
        """All paths, in ascending order."""
        return _Paths(self)

    def find(self, path: str) -> int:
        """Return the row of a path, -1 where there is none."""
        latest, row = self._latest
        if latest == path and row >= 0:
            return row
        name = _encoded(path)
        # A walk meets the files of a folder in this order: mostly it is the one after the last.
        row += 1
        if row >= len(self) or self._name(row) != name:
            row = bisect_left(range(len(self)), name, key=self._name)
            if row >= len(self) or self._name(row) != name:
                return -1
        self._latest = (path, row)
        return row

    def path(self, row: int) -> str:
        """Return the path of a row."""
        return self._name(row).decode("utf-8", "surrogatepass")

    def row(self, row: int) -> Row:
        """Return a row with all its columns."""
        size, mtime_ns, checked_ns = (column[row] for column in self._numbers)
        root, kind, state, held_by = (self._names[column[row]] for column in self._word_columns)
        return self.path(row), root, size, mtime_ns, self._digest(row), kind, state, checked_ns, held_by

    def holders(self, sha256: str) -> list[Row]:
        """Return the rows of a content, here and elsewhere, in the order of their paths; none of "" ."""
        if not sha256:
            return []
        wanted, _ = _packed(sha256)
        heads, by_digest = self._by_content()
        head = np.frombuffer(wanted[:8], ">u8")[0]
        first = int(np.searchsorted(heads, head, "left"))
        found: dict[str, Row] = {}
        for place in range(first, len(self)):
            row = int(by_digest[place])
            if heads[place] != head:
                break
            if not self._empty[row] and self._digests[row * _DIGEST : (row + 1) * _DIGEST] == wanted:
                found[self.path(row)] = self.row(row)
        if (elsewhere := self._elsewhere) is not None:
            others = (each for each in elsewhere.holding(sha256) if elsewhere.is_of(each[0]))
            found = {each[0]: each for each in others} | found
        return [found[path] for path in sorted(found)]

    def outside(self, path: str) -> Row | None:
        """Return the row of a path that the table leaves out, None where there is none elsewhere either."""
        if self._elsewhere is None or not self._elsewhere.is_of(path):
            return None
        if path not in self._found:
            self._found[path] = self._elsewhere.at(path)
        return self._found[path]

    def view(self, make: Callable[..., Record]) -> FileView[Record]:
        """Return the table as a mapping from path to `make(*row)`."""
        return FileView(self, make)

    def _append(self, paths: list[str], block: list[Row]) -> None:
        _, roots, sizes, mtimes, digests, kinds, states, checked, held_by = zip(*block, strict=True)
        for column, numbers in zip(self._numbers, (sizes, mtimes, checked), strict=True):
            column.extend(numbers)
        codes = self._words
        for words, column_of in zip(self._word_columns, (roots, kinds, states, held_by), strict=True):
            for word in dict.fromkeys(column_of):
                codes.setdefault(word, len(codes))
            words.extend([codes[word] for word in column_of])
        self._append_digests(digests)
        text = "".join(paths)
        plain = text.isascii()
        lengths = [len(path) if plain else len(_encoded(path)) for path in paths]
        ends = len(self._text) + np.cumsum(np.array(lengths, np.uint64))
        self._text += text.encode("ascii") if plain else _encoded(text)
        self._ends.frombytes(ends.astype(np.uint64).tobytes())

    def _append_digests(self, digests: Sequence[str]) -> None:
        first = len(self._empty)
        self._empty += bytes(not digest for digest in digests)
        text = "".join(digest or _NO_DIGEST for digest in digests)
        if {len(digest) for digest in digests} <= {0, 2 * _DIGEST}:
            try:
                packed = bytes.fromhex(text)
            except ValueError:
                packed = b""
            if packed.hex() == text:
                self._digests += packed
                return
        for row, digest in enumerate(digests, start=first):
            one, whole = _packed(digest)
            self._digests += one
            if not whole:
                self._odd[row] = digest

    def _by_content(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return the beginnings of all digests in their order, and whose they are; an ingest of headers never asks."""
        if self._contents is None:
            heads = np.frombuffer(bytes(self._digests), ">u8").reshape(-1, _DIGEST // 8)[:, 0].astype(np.uint64)
            by_digest = np.argsort(heads, kind="stable").astype(np.uint32)
            self._contents = heads[by_digest], by_digest
        return self._contents

    def _reorder(self, order: list[int]) -> None:
        text = bytearray()
        ends = array("Q", [0])
        for row in order:
            text += self._name(row)
            ends.append(len(text))
        self._digests = bytearray(
            b"".join(self._digests[row * _DIGEST : (row + 1) * _DIGEST] for row in order),
        )
        self._odd = {place: self._odd[row] for place, row in enumerate(order) if row in self._odd}
        self._empty = bytearray(self._empty[row] for row in order)
        self._numbers = [array("q", (column[row] for row in order)) for column in self._numbers]
        self._word_columns = [array("I", (column[row] for row in order)) for column in self._word_columns]
        self._text, self._ends = text, ends

    def _name(self, row: int) -> bytes:
        return bytes(self._text[self._ends[row] : self._ends[row + 1]])

    def _digest(self, row: int) -> str:
        if self._empty[row]:
            return ""
        return self._odd.get(row) or self._digests[row * _DIGEST : (row + 1) * _DIGEST].hex()


class FileView(Mapping[str, Record]):
    """A table as a mapping from path to a record that is made when it is asked for.

    What lies elsewhere is found, but neither counted nor iterated over.
    """

    def __init__(self, table: FileTable, make: Callable[..., Record]) -> None:
        self.table = table
        self._make = make
        self._latest: tuple[int, Record] | None = None

    def __getitem__(self, path: str) -> Record:
        row = self.table.find(path)
        if row < 0:
            outside = self.table.outside(path)
            if outside is None:
                raise KeyError(path)
            return self._make(*outside)
        latest = self._latest
        if latest is None or latest[0] != row:
            latest = self._latest = row, self._make(*self.table.row(row))
        return latest[1]

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and (self.table.find(path) >= 0 or self.table.outside(path) is not None)

    def __iter__(self) -> Iterator[str]:
        return iter(self.table.paths)

    def __len__(self) -> int:
        return len(self.table)


class PathSet:
    """A set of paths, for which those of a table cost one byte each."""

    def __init__(self, table: FileTable) -> None:
        self._table = table
        self._marks = bytearray(len(table))
        self._others: set[str] = set()

    def add(self, path: str) -> None:
        """Put a path in."""
        row = self._table.find(path)
        if row >= 0:
            self._marks[row] = 1
        else:
            self._others.add(path)

    def missing(self) -> Iterator[str]:
        """Yield the paths of the table that are not in it, in ascending order."""
        for row in np.flatnonzero(np.frombuffer(bytes(self._marks), np.uint8) == 0).tolist():
            yield self._table.path(row)

    def __contains__(self, path: object) -> bool:
        if not isinstance(path, str):
            return False
        row = self._table.find(path)
        return bool(self._marks[row]) if row >= 0 else path in self._others


class Holders:
    """The paths that hold a content, first those of a table, then what is made of the lists that `of` returns."""

    def __init__(self, table: FileTable) -> None:
        self._table = table
        self._lists: dict[str, list[str]] = {}

    def of(self, sha256: str) -> list[str]:
        """Return the paths that hold a content, duplicates last; what is done to the list lasts."""
        if sha256 not in self._lists:
            rows = self._table.holders(sha256)
            rows.sort(key=lambda row: row[6] == "duplicate")
            self._lists[sha256] = [row[0] for row in rows]
        return self._lists[sha256]


class Contents(Container[str]):
    """The contents that files of a table hold whose state is not `but`."""

    def __init__(self, table: FileTable, *, but: str) -> None:
        self._table = table
        self._but = but

    def __contains__(self, sha256: object) -> bool:
        return isinstance(sha256, str) and any(row[6] != self._but for row in self._table.holders(sha256))


class _Paths(Sequence[str]):
    def __init__(self, table: FileTable) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: Any) -> Any:
        rows = range(len(self._table))[place]
        return self._table.path(rows) if isinstance(rows, int) else [self._table.path(row) for row in rows]


def _encoded(path: str) -> bytes:
    # In this encoding bytes are in the order of the characters, those of names that are not UTF-8 too.
    return path.encode("utf-8", "surrogatepass")


def _packed(sha256: str) -> tuple[bytes, bool]:
    """Return 32 bytes that stand for a digest, and whether they say all of it."""
    if not sha256:
        return bytes(_DIGEST), True
    try:
        packed = bytes.fromhex(sha256)
    except ValueError:
        packed = b""
    if len(packed) == _DIGEST and packed.hex() == sha256:
        return packed, True
    return hashlib.sha256(sha256.encode()).digest(), False
