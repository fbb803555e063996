"""Reports that no study was found for: by what they were looked up, so that each is looked at again only for cause.

Looking at 200,000 of them takes 40 s, and an ingest of ten files changes the answer of a few. What was looked up in
vain is kept as numbers (`source.seeking` makes them); what comes or goes answers to numbers, too, and only reports
that share one with it may be joined now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.store.database import Database, disk_path

# Beyond so many rows, one an image, all reports are looked at: it takes as long.
_MOST_ROWS = 100_000
_IMAGES = "images i JOIN studies s USING (study_uid)"
_ROW = "s.study_uid, s.accession_number, s.study_id, s.patient_id, i.path, coalesce(s.study_date::VARCHAR, '')"
# Stands among the numbers of each report that was looked at: the version of what makes them.
_LOOKED_AT = 1

Numbers = NDArray[np.int64]


class Unjoined:
    """What was looked up in vain, and what came and went since.

    `stir`, `withdraw` and `forget` write in whatever transaction is open.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def stir(self, paths: list[str]) -> None:
        """Note that the images and reports of these files, as the database spells them, came here or leave."""
        if not paths or not self._database.write("SELECT 1 FROM sought LIMIT 1"):
            return
        those = "path IN (SELECT unnest($paths))"
        for sql in (
            f"INSERT INTO stirred SELECT DISTINCT {_ROW} FROM {_IMAGES} WHERE i.{those}",
            f"INSERT INTO stirred SELECT DISTINCT '', '', '', '', path, '' FROM reports WHERE {those}",
            f"DELETE FROM sought WHERE report_no IN (SELECT report_no FROM reports WHERE {those})",
        ):
            self._database.write(sql, {"paths": paths})

    def withdraw(self, report_nos: list[int]) -> None:
        """Note that these reports leave."""
        if not self._database.write("SELECT 1 FROM sought LIMIT 1"):
            return
        those = "report_no IN (SELECT unnest($nos))"
        for sql in (
            f"INSERT INTO stirred SELECT DISTINCT '', '', '', '', path, '' FROM reports WHERE {those}",
            f"DELETE FROM sought WHERE {those}",
        ):
            self._database.write(sql, {"nos": report_nos})

    def is_stirred(self) -> bool:
        """Whether something left or changed its place since all reports were joined."""
        return bool(self._database.read("SELECT 1 FROM stirred LIMIT 1"))

    def came_and_went(self) -> list[tuple[str, str, str, str, str, str]] | None:
        """Return a row as `Joins.study_places` for each image that may change where a report belongs; None for all.

        Those of every study of which an image came, changed or went since all reports were joined. Of a report that
        went it is the path alone.
        """
        joined = self._database.read("SELECT seq FROM joined")
        if not joined:
            return None
        rows = self._database.read(
            f"(SELECT DISTINCT {_ROW} FROM {_IMAGES} WHERE i.study_uid IN (SELECT"
            " study_uid FROM images WHERE image_no IN (SELECT no FROM changes WHERE kind = 'image' AND seq > $seq)))"
            " UNION ALL (SELECT DISTINCT * FROM stirred) LIMIT $most",
            {"seq": joined[0][0], "most": _MOST_ROWS + 1},
        )
        if len(rows) > _MOST_ROWS:
            return None
        return [
            (uid, accession, study_id, patient, disk_path(path), day)
            for uid, accession, study_id, patient, path, day in rows
        ]

    def never_looked_at(self) -> Numbers:
        """Return the numbers of the reports without a study that nobody has looked at since they came or moved."""
        return self._numbers(
            "SELECT report_no AS no FROM reports WHERE study_uid IS NULL"
            " AND report_no NOT IN (SELECT report_no FROM sought WHERE key = $made) ORDER BY 1",
            {"made": _LOOKED_AT},
        )

    def sharing(self, keys: Iterable[int]) -> Numbers:
        """Return the numbers of the reports without a study that were looked up by one of these keys."""
        wanted = np.fromiter(keys, dtype=np.int64)
        if not len(wanted):
            return wanted
        return self._numbers(
            "SELECT report_no AS no FROM reports WHERE study_uid IS NULL AND report_no IN ("
            "SELECT report_no FROM sought WHERE key IN (SELECT no FROM numbers)) ORDER BY 1",
            numbers=wanted,
        )

    def keep(self, keys: Mapping[int, Iterable[int]]) -> None:
        """Commit by which keys reports were looked up in vain, by number."""
        pairs = [(number, key) for number, those in keys.items() for key in (_LOOKED_AT, *those)]
        if not pairs:
            return
        columns = np.array(pairs, dtype=np.int64)
        with self._database.transaction():
            # An earlier release may have made other keys of them.
            self._database.write("DELETE FROM sought WHERE report_no IN (SELECT unnest($nos))", {"nos": list(keys)})
            self._database.insert("sought", {"report_no": columns[:, 0], "key": columns[:, 1]})

    def drop_joined(self) -> None:
        """Commit that reports which have a study now are looked for no more."""
        self._database.write(
            "DELETE FROM sought WHERE report_no IN (SELECT report_no FROM reports WHERE study_uid IS NOT NULL)"
        )

    def forget(self) -> None:
        """Have every report without a study looked at again; cut off after the first, it is done again."""
        for table in ("joined", "sought", "stirred"):
            self._database.write(f"DELETE FROM {table}")

    def _numbers(
        self, sql: str, parameters: dict[str, Any] | None = None, *, numbers: Numbers | None = None
    ) -> Numbers:
        return np.asarray(self._database.read_arrays(sql, parameters, numbers=numbers)["no"], dtype=np.int64)
