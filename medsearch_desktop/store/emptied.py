"""Studies, series and patients that nothing speaks of any more, dropped in the transaction that emptied them."""

from __future__ import annotations

from typing import Any

from medsearch_desktop.store.database import Database


class Emptied:
    """What records went from in the transaction under way; writes within the transaction of whoever calls.

    What a transaction that failed leaves noted is looked at by the next, to no harm.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._studies: set[str] = set()
        self._series: set[str] = set()

    def note(self, study_uids: set[str]) -> None:
        """Note that something went from these studies."""
        self._studies |= study_uids

    def note_series(self, series_uids: set[str]) -> None:
        """Note that something went from these series."""
        self._series |= series_uids

    def drop(self) -> None:
        """Drop those of what was noted that are empty now: most ingests take nothing away, and look at nothing."""
        studies, self._studies = sorted(self._studies), set()
        series, self._series = sorted(self._series), set()
        if studies:
            self._drop_studies("study_uid IN (SELECT unnest($uids))", uids=studies)
        if series:
            self._drop_series("series_uid IN (SELECT unnest($uids))", uids=series)

    def drop_all(self) -> None:
        """Drop all that are empty, whatever was noted."""
        self._drop_studies("true")
        self._drop_series("true")
        self._write("DELETE FROM patients WHERE patient_id NOT IN (SELECT patient_id FROM studies)")

    def _drop_studies(self, those: str, **parameters: Any) -> None:
        rows = self._write(
            f"SELECT study_no, patient_id FROM studies WHERE {those}"
            f" AND study_uid NOT IN (SELECT study_uid FROM images WHERE {those})"
            f" AND study_uid NOT IN (SELECT study_uid FROM reports WHERE study_uid IS NOT NULL AND {those})",
            **parameters,
        )
        if not rows:
            return
        numbers = [number for number, _ in rows]
        self._write(
            "INSERT INTO changes SELECT nextval('change_seq'), 'document', no * 2 + 1 FROM (SELECT unnest($nos) AS no)",
            nos=numbers,
        )
        self._write("DELETE FROM studies WHERE study_no IN (SELECT unnest($nos))", nos=numbers)
        self._write(
            "DELETE FROM patients WHERE patient_id IN (SELECT unnest($ids))"
            " AND patient_id NOT IN (SELECT patient_id FROM studies)",
            ids=sorted({patient for _, patient in rows}),
        )

    def _drop_series(self, those: str, **parameters: Any) -> None:
        self._write(
            f"DELETE FROM series WHERE {those} AND series_uid NOT IN (SELECT series_uid FROM images WHERE {those})",
            **parameters,
        )

    def _write(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return self._database.write(sql, parameters)
