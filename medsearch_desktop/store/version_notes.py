"""How far along the reports of a study are, by their versions: for whoever shows them, without their texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medsearch_desktop.statements import ReportStatus, Statement
from medsearch_desktop.store.database import Database


@dataclass(frozen=True, slots=True)
class VersionNote:
    """A report of which versions are kept: the status and time of the one that counts, and how many there are.

    Of a report that was withdrawn it is the cancellation that counts. `effective` is as in `Statement`.
    """

    report_id: str
    status: ReportStatus
    effective: str
    versions: int


class VersionNotes:
    """Reads what is noted of versions; safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, report_ids: Sequence[str]) -> dict[str, VersionNote]:
        """Return the notes of reports by identifier, of those that have versions."""
        rows = self._read(
            "SELECT v.report_id, v.status, v.effective,"
            " (SELECT count(*) FROM report_versions o WHERE o.report_id = v.report_id)"
            " FROM report_versions v JOIN reports r USING (version_no) WHERE r.report_id IN (SELECT unnest($ids))",
            ids=list(report_ids),
        )
        return {name: VersionNote(name, ReportStatus(status), *rest) for name, status, *rest in rows}

    def withdrawn(self, *, study_uid: str, accession_number: str, patient_id: str) -> list[VersionNote]:
        """Return the reports that were withdrawn and state this study, by its UID or accession number; oldest first.

        A report that states another patient is none of it.
        """
        rows = self._read(
            "SELECT v.report_id, max(v.effective) FILTER (v.status = 'cancelled'), count(*), list(v.stated)"
            " FROM report_versions v ANTI JOIN reports r USING (report_id) GROUP BY v.report_id"
            # What is stated is JSON; a part of it narrows down what is read whole.
            " HAVING bool_or(contains(v.stated, $uid) OR ($accession != '' AND contains(v.stated, $accession)))"
            " AND bool_or(v.status = 'cancelled') ORDER BY 2, 1",
            uid=study_uid,
            accession=accession_number,
        )
        found = []
        for report_id, effective, count, stated in rows:
            statements = [Statement.from_json(text) for text in stated]
            if any(_is_of(each, study_uid, accession_number, patient_id) for each in statements):
                found.append(VersionNote(report_id, ReportStatus.CANCELLED, effective, count))
        return found

    def _read(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return self._database.read(sql, parameters)


def _is_of(stated: Statement, study_uid: str, accession_number: str, patient_id: str) -> bool:
    if patient_id and stated.patient_ids and patient_id not in stated.patient_ids:
        return False
    if stated.study_uids:
        return study_uid in stated.study_uids
    return accession_number != "" and accession_number in stated.accession_numbers
