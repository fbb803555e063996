"""Looks names up in the UMLS base that a licence holder has imported; it stays on disk, whatever its size."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medsearch_desktop.errors import TerminologyError
from medsearch_desktop.report.gist import gist_digest
from medsearch_desktop.report.ranking import ease
from medsearch_desktop.report.terminology import UMLS, Concept, KnowledgeBase, Name
from medsearch_desktop.report.umls import FORMAT, umls_path

_REMEDY = "Import it again with `medsearch terminology import-umls`, or remove the file"
_MOST_NAMES = 2_000


class UmlsBase:
    """The names, CUIs and codes of an imported base; it may be used from several threads.

    `shipped` knows the codes of the loaded ICD-10-CM release: only those are given. Raises TerminologyError when
    the file is damaged or of another format.
    """

    def __init__(self, path: Path, shipped: KnowledgeBase) -> None:
        self._path = path
        self._shipped = shipped
        self._lock = threading.Lock()
        self.about = read_about(path)
        self.release = self.about["release"]
        self._database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def same(self, key: str) -> list[Name]:
        """Return the names whose telling words are exactly those of `key`."""
        return self._names(self._run("SELECT cui, text, key FROM kept WHERE key = ? LIMIT 50", key))

    def nearest(self, key: str, *, limit: int = 48) -> list[Name]:
        """Return the names that share most words with `key`, among those that have its rarest word."""
        words = key.split()
        marks = ", ".join("?" * len(words))
        rare = self._run(f"SELECT word FROM frequency WHERE word IN ({marks}) ORDER BY names, word LIMIT 1", *words)  # noqa: S608
        if not rare:
            return []
        rows = self._run(
            "SELECT cui, text, key FROM kept WHERE rowid IN (SELECT name FROM word WHERE word = ? LIMIT ?)",
            rare[0][0],
            _MOST_NAMES,
        )
        said = set(words)
        rows.sort(key=lambda row: (-len(said & set(row[2].split())), len(row[2]), row[0]))
        return self._names(rows[:limit])

    def _names(self, rows: Sequence[Any]) -> list[Name]:
        concepts: dict[str, Concept] = {}
        for cui, _, _ in rows:
            if cui not in concepts:
                concepts[cui] = self._concept(cui)
        return [Name(text, key, UMLS, concepts[cui]) for cui, text, key in rows]

    def _concept(self, cui: str) -> Concept:
        codes = [row[0] for row in self._run("SELECT icd10cm FROM code WHERE cui = ? ORDER BY rank, icd10cm", cui)]
        known = [concept for code in codes if (concept := self._shipped.concept_of_code(code)) is not None]
        if known:
            return replace(min(known, key=lambda concept: (*ease(concept), len(concept.code))), cui=cui)
        title = self._run("SELECT text FROM kept WHERE cui = ? ORDER BY preferred DESC, rowid LIMIT 1", cui)
        return Concept("", title[0][0], cui)

    def _run(self, statement: str, *values: object) -> list[Any]:
        try:
            with self._lock:
                return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise TerminologyError(f"is damaged ({error})", item=str(self._path), remedy=_REMEDY) from error


def read_about(path: Path) -> dict[str, str]:
    """Return what an imported base says of itself: release, counts, when and from what it was made.

    `stale` is "yes" when this version of the program reads names otherwise than the one that made it.

    Raises TerminologyError when the file is damaged or of another format.
    """
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            about = dict(database.execute("SELECT key, value FROM meta"))
        finally:
            database.close()
    except sqlite3.Error as error:
        raise TerminologyError(f"cannot be read ({error})", item=str(path), remedy=_REMEDY) from error
    if about.get("format") != str(FORMAT):
        raise TerminologyError("is of another format", item=str(path), remedy=_REMEDY)
    return {**about, "stale": "no" if about["reading"] == gist_digest() else "yes"}


def open_umls(shipped: KnowledgeBase, path: Path | None = None) -> UmlsBase | None:
    """Return the user's UMLS base, or None when there is none. Raises TerminologyError when it is damaged."""
    path = umls_path() if path is None else path
    return UmlsBase(path, shipped) if path.is_file() else None
