"""Files as they are known: those at and below some folders, and any other by its path or its content.

What an ingest needs to know of a large library is mostly what lies in the few folders that it walks.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from medsearch_desktop.store.database import BYTES_PATH, Database, disk_path, stored_path

# path, root, size in bytes, mtime_ns, sha256, kind, state, checked_ns, held_by; paths as the disk spells them.
FileColumns = tuple[str, str, int, int, str, str, str, int, str]
_COLUMNS = "path, root, size, mtime_ns, sha256, kind, state, checked_ns, held_by"
# 256 beginnings are compared with a million paths in 0.3 s; a multitude of folders is taken with those above them.
_MOST_STARTS = 256
_HEAD = "coalesce(try_cast('0x' || left(sha256, 16) AS UBIGINT), 0)"
_WELL_FORMED = frozenset("0123456789abcdef")


class Files:
    """Reads the files of a library; safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loading = threading.Lock()
        self._heads: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None = None

    def below(self, roots: Sequence[str]) -> Iterator[FileColumns]:
        """Yield the files at and below `roots`, absolute paths, and perhaps others; nearly all by path."""
        where, parameters = _at_or_below(roots)
        plain = " AND ".join(f"NOT starts_with({name}, '{BYTES_PATH}')" for name in ("path", "root", "held_by"))
        # What needs no translation, a million rows perhaps, is spared it.
        yield from self._rows(f"({where}) AND {plain} ORDER BY path", parameters)
        yield from map(_translated, self._rows(f"({where}) AND NOT ({plain})", parameters))

    def at(self, path: str) -> FileColumns | None:
        """Return the file at a path, or None."""
        rows = self._database.read(f"SELECT {_COLUMNS} FROM files WHERE path = $path", {"path": stored_path(path)})
        return _translated(rows[0]) if rows else None

    def holding(self, sha256: str) -> list[FileColumns]:
        """Return the files of a content, in any order; none of "".

        The first call looks at every file, further ones at next to none. What is committed after it may be missing.
        """
        if not sha256:
            return []
        rows: list[tuple[Any, ...]] = []
        places = self._places(sha256)
        if places is not None:
            if not len(places):
                return []
            rows = self._database.read(
                f"SELECT {_COLUMNS} FROM files WHERE rowid IN (SELECT no FROM numbers) AND sha256 = $content",
                {"content": sha256},
                numbers=places,
            )
        if places is None or len(rows) < len(places):
            # Written over meanwhile, or the same beginning of another content.
            rows = self._database.read(f"SELECT {_COLUMNS} FROM files WHERE sha256 = $content", {"content": sha256})
        return [_translated(row) for row in rows]

    def _places(self, sha256: str) -> np.ndarray[Any, Any] | None:
        """Return the row identifiers that a content had when it was first asked; None where that is not known."""
        if len(sha256) != 64 or not _WELL_FORMED.issuperset(sha256):
            return None
        with self._loading:
            if self._heads is None:
                # An index of the database over digests would hold 150 MB a million files, and slow every commit.
                found = self._database.read_arrays(
                    f"SELECT {_HEAD} AS head, rowid AS place FROM files WHERE sha256 != ''"
                )
                order = np.argsort(found["head"])
                self._heads = found["head"][order], found["place"][order]
            heads, places = self._heads
        head = np.uint64(int(sha256[:16], 16))
        return places[np.searchsorted(heads, head, "left") : np.searchsorted(heads, head, "right")]

    def _rows(self, where: str, parameters: dict[str, str]) -> Iterator[FileColumns]:
        chunks = self._database.read_chunks(f"SELECT {_COLUMNS} FROM files WHERE {where}", parameters, rows=8192)
        found: Iterator[Any] = chain.from_iterable(chunks)
        return found


def _at_or_below(roots: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Return a condition that lets the files at and below `roots` pass, and its parameters."""
    wanted = set(roots)
    while len(wanted) > _MOST_STARTS:
        wanted = {os.path.dirname(root) for root in wanted}  # noqa: PTH120 - paths stay strings
    # Of a name that is not UTF-8 the whole path is spelt otherwise: these few are taken wherever they lie.
    parts, parameters = [f"starts_with(path, '{BYTES_PATH}')"], dict[str, str]()
    for number, root in enumerate(sorted(wanted)):
        parameters |= {f"at{number}": stored_path(root), f"below{number}": stored_path(os.path.join(root, ""))}  # noqa: PTH118
        parts.append(f"starts_with(path, $below{number})")
    # One by one and not as a list: in an alternative a list is joined, and then every path is made ready for that.
    places = ", ".join(f"$at{number}" for number in range(len(wanted)))
    return " OR ".join([*parts, *([f"path IN ({places})"] if places else [])]), parameters


def _translated(row: tuple[Any, ...]) -> FileColumns:
    path, root, size, mtime_ns, sha256, kind, state, checked_ns, held_by = row
    places = disk_path(path), disk_path(root)
    return *places, size, mtime_ns, sha256, kind, state, checked_ns, disk_path(held_by)
