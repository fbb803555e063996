"""Reports as they are stored: one out with all its entities, and entities in anew."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.records import LinkRule, Report, Section
from medsearch_desktop.statements import Statement
from medsearch_desktop.store.cards import PACKED_ENTITY, unpack_entity
from medsearch_desktop.store.database import Database, disk_path

_ENTITY_COLUMNS = (
    "text",
    "start",
    "end",
    "section",
    "finding",
    "cui",
    "icd10cm",
    "title",
    "score",
    "cue",
    "cue_start",
    "cue_end",
    "inferred",
    "rule",
    "sentence_start",
    "sentence_end",
)


@dataclass(frozen=True, slots=True)
class StoredReport:
    """One report with its number, its file and the pipeline that read it."""

    report_no: int
    report: Report
    path: str
    pipeline_version: str


class Reports:
    """Reads and rewrites the reports of a library; writes from one thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, report_id: str) -> StoredReport | None:
        """Return the report of that identifier, or None."""
        rows = self._database.read("SELECT report_no FROM reports WHERE report_id = $id", {"id": report_id})
        return next(iter(self.read([no for (no,) in rows])), None)

    def numbers(self, *, not_of: str = "") -> list[int]:
        """Return the numbers of all reports, or of those that another pipeline than `not_of` read, ascending."""
        rows = self._database.read(
            "SELECT report_no FROM reports WHERE pipeline_version != $version ORDER BY report_no", {"version": not_of}
        )
        return [no for (no,) in rows]

    def unread(self) -> list[int]:
        """Return the numbers of the reports that are stored and that nothing has read yet, ascending."""
        rows = self._database.read("SELECT report_no FROM reports WHERE pipeline_version = '' ORDER BY report_no")
        return [no for (no,) in rows]

    def page(self, offset: int, count: int) -> list[int]:
        """Return the numbers of `count` reports from `offset` on, ascending."""
        rows = self._database.read(
            "SELECT report_no FROM reports ORDER BY report_no LIMIT $count OFFSET $offset",
            {"count": count, "offset": offset},
        )
        return [no for (no,) in rows]

    def numbers_of(self, report_ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the numbers of the reports of these identifiers, ascending; unknown ones are left out."""
        arrays = self._database.read_arrays(
            "SELECT report_no FROM reports WHERE report_id IN (SELECT unnest($ids)) ORDER BY report_no",
            {"ids": list(report_ids)},
        )
        return np.asarray(arrays["report_no"], dtype=np.int64)

    def read(self, numbers: Sequence[int]) -> list[StoredReport]:
        """Return reports by number, ascending; numbers that are gone are left out."""
        if not numbers:
            return []
        wanted = ",".join(str(int(number)) for number in numbers)
        packed = dict(
            self._database.read(
                f"SELECT report_no, to_json(list({PACKED_ENTITY} ORDER BY ordinal))::VARCHAR FROM entities"
                f" WHERE report_no IN ({wanted}) GROUP BY report_no"
            )
        )
        rows = self._database.read(
            "SELECT report_no, report_id, text, sections, study_uid, link_rule, encoding, language, path,"
            f" pipeline_version, stated FROM reports WHERE report_no IN ({wanted}) ORDER BY report_no"
        )
        return [_stored(row, json.loads(packed.get(row[0], "[]"))) for row in rows]

    def rewrite(
        self,
        reports: Iterable[tuple[int, Report]],
        *,
        pipeline_version: str,
        together_with: Callable[[], None] | None = None,
    ) -> None:
        """Commit sections and entities of reports anew, by number; the text index learns of it at its next refresh.

        What `together_with` writes is committed with them, or not at all.
        """
        reports = list(reports)
        if not reports:
            return
        numbers = [no for no, _ in reports]
        with self._database.transaction():
            if together_with is not None:
                together_with()
            self._database.write("DELETE FROM entities WHERE report_no IN (SELECT unnest($nos))", {"nos": numbers})
            self._database.write(
                "UPDATE reports SET pipeline_version = $version WHERE report_no IN (SELECT unnest($nos))",
                {"nos": numbers, "version": pipeline_version},
            )
            for number, report in reports:
                sections = [{"name": s.name, "start": s.start, "end": s.end} for s in report.sections]
                self._database.write(
                    "UPDATE reports SET sections = $sections, language = $language WHERE report_no = $no"
                    " AND (sections != $sections OR language != $language)",
                    {"sections": sections, "language": report.language, "no": number},
                )
            insert_entities(self._database, reports)
            self._database.write(
                "INSERT INTO changes SELECT nextval('change_seq'), 'document', no * 2 FROM (SELECT unnest($nos) AS no)",
                {"nos": numbers},
            )


@dataclass(frozen=True, slots=True)
class NewReport:
    """A report to be stored: its file as the database holds it, its version if it has any, and what read it.

    `pipeline_version` is "" for one that nothing has read yet.
    """

    path: str
    report: Report
    pipeline_version: str
    version_no: int | None = None

    @property
    def has_versions(self) -> bool:
        """Whether it names itself, so that other files may hold other versions of it."""
        return self.report.stated is not None and bool(self.report.stated.names)


def insert_reports(database: Database, rows: Sequence[NewReport]) -> None:
    """Append reports with their entities, and note them as changed, within whatever transaction is open."""
    if not rows:
        return
    count = {"count": len(rows)}
    numbers = [no for (no,) in database.write("SELECT nextval('report_no_seq') FROM range($count)", count)]
    reports = [row.report for row in rows]
    database.insert(
        "reports",
        {
            "report_no": numbers,
            "report_id": [r.report_id for r in reports],
            "study_uid": [r.study_uid for r in reports],
            "link_rule": [r.link_rule.value if r.link_rule else None for r in reports],
            "path": [row.path for row in rows],
            "encoding": [r.encoding for r in reports],
            "language": [r.language for r in reports],
            "text": [r.text for r in reports],
            "sections": [[{"name": s.name, "start": s.start, "end": s.end} for s in r.sections] for r in reports],
            "pipeline_version": [row.pipeline_version for row in rows],
            "version_no": [row.version_no for row in rows],
            "position": [r.stated.position if r.stated else 0 for r in reports],
            "stated": [r.stated.as_json() if r.stated else "" for r in reports],
        },
    )
    insert_entities(database, zip(numbers, reports, strict=True))
    database.write(
        "INSERT INTO changes SELECT nextval('change_seq'), 'document', no * 2 FROM (SELECT unnest($nos) AS no)",
        {"nos": numbers},
    )


def insert_entities(database: Database, reports: Iterable[tuple[int, Report]]) -> None:
    """Append the entities of reports, given by number, within whatever transaction is open."""
    rows = [(no, n, e) for no, report in reports for n, e in enumerate(report.entities)]
    columns: dict[str, list[Any]] = {
        "report_no": [no for no, _, _ in rows],
        "ordinal": [n for _, n, _ in rows],
        "alternatives": [
            json.dumps([[c.cui, c.icd10cm, c.title, round(c.score, 4)] for c in e.alternatives]) for _, _, e in rows
        ],
        "category": [e.category.value for _, _, e in rows],
        "assertion": [e.assertion.value for _, _, e in rows],
        "attributes": [json.dumps([[a.kind.value, a.value, a.start, a.end] for a in e.attributes]) for _, _, e in rows],
        "certainty": [e.certainty.value for _, _, e in rows],
    }
    for name in _ENTITY_COLUMNS:
        columns[name] = [getattr(e, name) for _, _, e in rows]
    database.insert("entities", columns)


def _stored(row: tuple[Any, ...], packed: list[Any]) -> StoredReport:
    number, report_id, text, sections, study_uid, link_rule, encoding, language, path, version, stated = row
    report = Report(
        report_id=report_id,
        text=text,
        sections=tuple(Section(s["name"], s["start"], s["end"]) for s in sections),
        entities=tuple(unpack_entity(text, entity) for entity in packed),
        study_uid=study_uid,
        link_rule=LinkRule(link_rule) if link_rule else None,
        encoding=encoding,
        language=language,
        stated=Statement.from_json(stated) if stated else None,
    )
    return StoredReport(number, report, disk_path(path), version)
