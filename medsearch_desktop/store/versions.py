"""Versions of reports: all that came of each, and which of them is searched.

Messages come in any order, twice, and late. So which version counts is worked out anew, from all that
are kept, whenever one comes or goes: of those that no later cancellation withdraws, the latest final
one, or the latest preliminary one where none is final.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from medsearch_desktop.records import Report
from medsearch_desktop.statements import ReportStatus, Statement, StoredVersion
from medsearch_desktop.store.database import Database, disk_path
from medsearch_desktop.store.reports import NewReport, insert_reports
from medsearch_desktop.store.unjoined import Unjoined

_COLUMNS = "version_no, report_id, path, position, status, effective, sent, encoding, text, stated"
_CORRECTED = {status.value: rank for rank, status in enumerate((ReportStatus.FINAL, ReportStatus.CORRECTED))}


class Versions:
    """Keeps the versions of a library's reports; writes within the transaction of whoever calls.

    `settle` has to end every transaction in which anything was added or dropped.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        # What a transaction that failed leaves in these is settled by the next, to no harm.
        self._unsettled: set[str] = set()
        self._fresh: dict[int, NewReport] = {}

    def of(self, report_id: str) -> list[StoredVersion]:
        """Return the versions of a report in the order of their time, none for one that has no versions."""
        rows = self._database.read(
            "SELECT v.version_no, v.report_id, v.path, v.position, v.status, v.effective, v.sent, v.text,"
            " r.version_no IS NOT NULL FROM report_versions v LEFT JOIN reports r USING (version_no)"
            " WHERE v.report_id = $id ORDER BY v.effective, v.sent, v.version_no",
            {"id": report_id},
        )
        return [
            StoredVersion(no, name, disk_path(path), position, ReportStatus(status), *rest)
            for no, name, path, position, status, *rest in rows
        ]

    def report_ids(self) -> list[str]:
        """Return the identifiers of all reports that have versions, withdrawn ones too."""
        return [name for (name,) in self._database.read("SELECT DISTINCT report_id FROM report_versions")]

    def drop(self, paths: Sequence[str]) -> None:
        """Drop the versions in these files, given as the database holds them."""
        gone = self._write(
            "DELETE FROM report_versions WHERE path IN (SELECT unnest($paths)) RETURNING report_id", paths=list(paths)
        )
        self._unsettled.update(report_id for (report_id,) in gone)

    def move(self, old: str, new: str) -> None:
        """Give the versions in one file to another that has the same content."""
        self._write("UPDATE report_versions SET path = $new WHERE path = $old", old=old, new=new)

    def add(self, reports: Sequence[NewReport]) -> None:
        """Keep versions of reports.

        A version of a report that is known gets its identifier instead of its own; so do the reports
        that it shows to be one.
        """
        if not reports:
            return
        names = sorted({name for new in reports for name in _statement(new.report).names})
        known: dict[str, str] = dict(
            self._write("SELECT name, report_id FROM report_names WHERE name IN (SELECT unnest($names))", names=names)
        )
        numbers = [
            no for (no,) in self._write("SELECT nextval('version_no_seq') FROM range($count)", count=len(reports))
        ]
        group = _Groups(known)
        rows: list[dict[str, Any]] = []
        for number, new in zip(numbers, reports, strict=True):
            report, stated = new.report, _statement(new.report)
            ids = list(dict.fromkeys(group.of[name] for name in stated.names if name in group.of))
            report_id = ids[0] if ids else report.report_id
            for other in ids[1:]:
                if other in group.stored:
                    self._join(other, report_id)
                for row in group.join(other, report_id):
                    self._fresh.pop(row["version_no"], None)
                self._unsettled.add(other)
            group.add(stated.names, report_id)
            self._unsettled.add(report_id)
            if report_id == report.report_id:
                # Under another identifier there may be corrections, which reading it again applies.
                self._fresh[number] = new
            rows.append(
                {
                    "version_no": number,
                    "report_id": report_id,
                    "path": new.path,
                    "position": stated.position,
                    "status": stated.status.value,
                    "effective": stated.effective,
                    "sent": stated.sent,
                    "encoding": report.encoding,
                    "text": report.text,
                    "stated": stated.as_json(),
                }
            )
            group.rows.setdefault(report_id, []).append(rows[-1])
        self._database.insert("report_versions", {name: [row[name] for row in rows] for name in rows[0]})
        unknown = [name for name in group.of if name not in known]
        self._database.insert("report_names", {"name": unknown, "report_id": [group.of[name] for name in unknown]})

    def settle(self, *, note_studies: Callable[[set[str]], None]) -> None:
        """Make the version that counts the one that is searched, of every report that something came or went of.

        Versions that were read just now come with what was read; others are to be read (their
        `pipeline_version` is ""). `note_studies` is told of the studies whose reports change.
        """
        ids = sorted(self._unsettled)
        if not ids:
            return
        versions: dict[str, list[dict[str, Any]]] = {}
        for values in self._write(
            f"SELECT {_COLUMNS} FROM report_versions WHERE report_id IN (SELECT unnest($ids))", ids=ids
        ):
            row = dict(zip(_COLUMNS.split(", "), values, strict=True))
            versions.setdefault(row["report_id"], []).append(row)
        current = dict(
            self._write("SELECT report_id, version_no FROM reports WHERE report_id IN (SELECT unnest($ids))", ids=ids)
        )
        best = {report_id: chosen for report_id in ids if (chosen := choose(versions.get(report_id, [])))}
        changed = [name for name in ids if current.get(name) != best.get(name, {"version_no": None})["version_no"]]
        self._withdraw([name for name in changed if name in current], note_studies)
        insert_reports(self._database, [self._row(best[name]) for name in changed if name in best])
        self._write(
            "DELETE FROM report_names WHERE report_id IN (SELECT unnest($ids))",
            ids=[name for name in ids if name not in versions],
        )
        self._unsettled.clear()
        self._fresh.clear()

    def _row(self, version: dict[str, Any]) -> NewReport:
        number = version["version_no"]
        if (fresh := self._fresh.get(number)) is not None:
            return replace(fresh, version_no=number)
        report = Report(
            version["report_id"],
            version["text"],
            encoding=version["encoding"],
            stated=Statement.from_json(version["stated"]),
        )
        return NewReport(version["path"], report, "", number)

    def _join(self, other: str, report_id: str) -> None:
        """Give the stored versions of one report to another: a message says that they are one."""
        for table in ("report_versions", "report_names"):
            self._write(f"UPDATE {table} SET report_id = $id WHERE report_id = $other", id=report_id, other=other)

    def _withdraw(self, report_ids: list[str], note_studies: Callable[[set[str]], None]) -> None:
        if not report_ids:
            return
        of_these = "report_id IN (SELECT unnest($ids))"
        rows = self._write(f"SELECT report_no, study_uid FROM reports WHERE {of_these}", ids=report_ids)
        numbers = [no for no, _ in rows]
        Unjoined(self._database).withdraw(numbers)
        self._write(
            "INSERT INTO changes SELECT nextval('change_seq'), 'document', no * 2 FROM (SELECT unnest($nos) AS no)",
            nos=numbers,
        )
        self._write("DELETE FROM entities WHERE report_no IN (SELECT unnest($nos))", nos=numbers)
        self._write(f"DELETE FROM reports WHERE {of_these}", ids=report_ids)
        note_studies({uid for _, uid in rows if uid})

    def _write(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return self._database.write(sql, parameters)


class _Groups:
    """Which report each name is of while versions are added: `stored` are the reports that were known before.

    `rows` are the versions that are being added, by report.
    """

    def __init__(self, known: dict[str, str]) -> None:
        self.of = dict(known)
        self.stored = set(known.values())
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self._names: dict[str, list[str]] = {}
        for name, report_id in known.items():
            self._names.setdefault(report_id, []).append(name)

    def add(self, names: Iterable[str], report_id: str) -> None:
        for name in names:
            if name not in self.of:
                self.of[name] = report_id
                self._names.setdefault(report_id, []).append(name)

    def join(self, other: str, report_id: str) -> list[dict[str, Any]]:
        """Give names and rows of one report to another, and return the rows."""
        names, rows = self._names.pop(other, []), self.rows.pop(other, [])
        for name in names:
            self.of[name] = report_id
        for row in rows:
            row["report_id"] = report_id
        self._names.setdefault(report_id, []).extend(names)
        self.rows.setdefault(report_id, []).extend(rows)
        return rows


def choose(versions: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the version that counts, or None where a cancellation withdrew them all; see above.

    A version is a row of the table. Where two are of one time a correction comes before what it may
    correct, and else the one that came last counts.
    """

    def moment(row: dict[str, Any]) -> tuple[str, str]:
        return row["effective"], row["sent"]

    withdrawn = max(
        (moment(row) for row in versions if row["status"] == ReportStatus.CANCELLED.value), default=("", "")
    )
    cancelled = any(row["status"] == ReportStatus.CANCELLED.value for row in versions)
    standing = [
        row
        for row in versions
        if row["status"] != ReportStatus.CANCELLED.value and (not cancelled or moment(row) > withdrawn)
    ]
    return max(
        standing,
        key=lambda row: (
            row["status"] != ReportStatus.PRELIMINARY.value,
            row["effective"],
            _CORRECTED.get(row["status"], 0),
            row["sent"],
            row["version_no"],
        ),
        default=None,
    )


def _statement(report: Report) -> Statement:
    assert report.stated is not None, "versions are of reports that messages carry"
    return report.stated
