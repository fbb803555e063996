"""What people corrected, as a ledger: nothing is overwritten, an undone correction stays with who undid it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from medsearch_desktop.records import Assertion, Correction
from medsearch_desktop.store.database import Database

_COLUMNS = (
    "correction_id",
    "report_id",
    "start",
    "end",
    "text",
    "assertion",
    "icd10cm",
    "title",
    "note",
    "author",
    "made_at",
    "before",
    "undone_by",
    "undone_at",
)
_SELECT = ", ".join(f'"{name}"' for name in _COLUMNS)


class Corrections:
    """The corrections of a library, in the order in which they were made; writes from one thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Correction]:
        """Return every correction, undone ones too."""
        rows = self._database.read(f"SELECT {_SELECT} FROM corrections ORDER BY made_at, correction_id")
        return [_correction(row) for row in rows]

    def holding(self) -> dict[str, tuple[Correction, ...]]:
        """Return the corrections that are not undone by report_id."""
        found: dict[str, list[Correction]] = {}
        for each in self.all():
            if not each.undone_at:
                found.setdefault(each.report_id, []).append(each)
        return {report_id: tuple(corrections) for report_id, corrections in found.items()}

    def add(self, corrections: Sequence[Correction]) -> None:
        """Commit corrections; one that is there already only learns whether it was undone meanwhile."""
        columns: dict[str, list[Any]] = {name: [getattr(each, name) for each in corrections] for name in _COLUMNS}
        columns["before"] = [json.dumps(each.before) for each in corrections]
        columns["assertion"] = [None if each.assertion is None else each.assertion.value for each in corrections]
        undone = "CASE WHEN corrections.undone_at = '' THEN excluded.{0} ELSE corrections.{0} END"
        self._database.insert(
            "corrections",
            columns,
            conflict="ON CONFLICT (correction_id) DO UPDATE SET"
            f" undone_by = {undone.format('undone_by')}, undone_at = {undone.format('undone_at')}",
        )

    def undo(self, correction_id: str, *, author: str, at: str) -> None:
        """Commit that a correction holds no more."""
        self._database.write(
            "UPDATE corrections SET undone_by = $author, undone_at = $at WHERE correction_id = $id",
            {"author": author, "at": at, "id": correction_id},
        )


def _correction(row: tuple[Any, ...]) -> Correction:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["assertion"] = None if values["assertion"] is None else Assertion(values["assertion"])
    values["before"] = json.loads(values["before"])
    return Correction(**values)
