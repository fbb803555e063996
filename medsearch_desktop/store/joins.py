"""What joining reports to studies asks of the database: names that are taken, and the images that may matter."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from itertools import chain
from typing import Any

from medsearch_desktop.store.database import BYTES_PATH, Database, disk_path, stored_path
from medsearch_desktop.store.unjoined import Unjoined

# Of what Python and the database fold differently nothing is left out; nor are names that stand here otherwise.
_ODD = "strlen({0}) != length({0})"
_FOLDED = "lower(trim({0}, ' ' || chr(0)))"
_LAST = "SELECT coalesce(max(seq), 0) FROM changes"
_ABOVE = "rtrim(parse_dirpath({0}, 'system'), $separator)"


class Joins:
    """Reads what reports are joined by; safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.unjoined = Unjoined(database)

    def are_current(self) -> bool:
        """Whether nothing has changed since all reports were joined; an ingest may have been cut off before that."""
        return (
            bool(self._database.read(f"SELECT 1 FROM joined WHERE seq = ({_LAST})")) and not self.unjoined.is_stirred()
        )

    def keep_current(self) -> None:
        """Note that all reports are joined."""
        with self._database.transaction():
            self._database.write("DELETE FROM joined")
            self._database.write("DELETE FROM stirred")
            self._database.write(f"INSERT INTO joined {_LAST}")

    def report_ids_in(self, path: str) -> dict[int, str]:
        """Return report_id by position of the reports in the file at a path."""
        rows = self._database.read(
            "SELECT position, report_id FROM reports WHERE path = $path", {"path": stored_path(path)}
        )
        return {int(position): str(report_id) for position, report_id in rows}

    def is_report_id(self, report_id: str) -> bool:
        """Whether a report, or one that is withdrawn, has that identifier."""
        rows = self._database.read(
            "SELECT 1 FROM reports WHERE report_id = $id UNION ALL SELECT 1 FROM report_versions WHERE report_id = $id"
            " LIMIT 1",
            {"id": report_id},
        )
        return bool(rows)

    def reports_in(self, folders: Collection[str]) -> Iterator[str]:
        """Yield the paths of the reports that lie in these folders (without a separator at the end), and of others."""
        sql = f"SELECT path FROM reports WHERE {_ABOVE.format('path')} IN (SELECT unnest($folders)) OR {_undecoded()}"
        parameters = {"folders": _stored(folders), "separator": os.sep}
        for rows in self._database.read_chunks(sql, parameters):
            for (path,) in rows:
                yield disk_path(path)

    def study_places(
        self,
        *,
        study_uids: Collection[str],
        accession_numbers: Collection[str],
        study_ids: Collection[str],
        patient_ids: Collection[str],
        study_folders: Collection[str],
        folders: Collection[str],
        names: Collection[str],
        separators: str,
    ) -> Iterator[tuple[str, str, str, str, str, str]]:
        """Yield (study_uid, accession_number, study_id, patient_id, path of an image, date), one row an image.

        All images of studies that have one of the identifiers (in small letters but for UIDs), and every image of
        which one of the three nearest folders is among `folders`, the nearest has a name among `study_folders`,
        or the file's name up to the first of `separators` is among `names`. Others may be among them.
        """
        # An alternative that nothing answers to would cost its share all the same.
        by_study = [
            f"{what} IN (SELECT unnest(${name}))"
            for what, name, values in (
                ("study_uid", "study_uids", study_uids),
                (_FOLDED.format("accession_number"), "accession_numbers", accession_numbers),
                (_FOLDED.format("study_id"), "study_ids", study_ids),
                (_FOLDED.format("patient_id"), "patient_ids", patient_ids),
            )
            if values
        ]
        by_study += [_ODD.format(name) for name in ("accession_number", "study_id", "patient_id")]
        by_place = [
            f"{what} IN (SELECT unnest(${name}))"
            for what, name, values in (
                ("d1", "folders", folders),
                (_ABOVE.format("d1"), "folders", folders),
                (_ABOVE.format(_ABOVE.format("d1")), "folders", folders),
                ("lower(parse_filename(d1, false, 'system'))", "study_folders", study_folders),
                ("lower(split_part(translate(base, $separators, $dots), '.', 1))", "names", names),
            )
            if values
        ]
        by_place += [_undecoded(), *([_ODD.format("base")] if names else [])]
        sql = (
            f"SELECT study_uid, accession_number, study_id, patient_id, path, coalesce(study_date::VARCHAR, '') FROM ("
            f" SELECT s.*, path, {_ABOVE.format('path')} AS d1, parse_filename(path, false, 'system') AS base,"
            f" ({' OR '.join(by_study)}) AS of_study FROM images i JOIN studies s USING (study_uid)"
            f") WHERE of_study OR {' OR '.join(by_place)}"
        )
        lists = {
            "study_uids": list(study_uids),
            "accession_numbers": list(accession_numbers),
            "study_ids": list(study_ids),
            "patient_ids": list(patient_ids),
            "folders": _stored(folders),
            "study_folders": list(study_folders),
            "names": list(names),
        }
        parameters: dict[str, Any] = {name: values for name, values in lists.items() if values}
        parameters["separator"] = os.sep
        if names:
            others = separators.replace(".", "")
            parameters |= {"separators": others, "dots": "." * len(others)}
        chunks = self._database.read_chunks(sql, parameters)
        for *identifiers, path, day in chain.from_iterable(chunks):
            yield (*identifiers, disk_path(path), day)


def _undecoded() -> str:
    return f"starts_with(path, '{BYTES_PATH}')"


def _stored(paths: Collection[str]) -> list[str]:
    return [stored_path(path) for path in paths]
