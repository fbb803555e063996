"""The records held against each other: what refers to something that is not there, and setting that right.

One row of `RELATIONS` gives a rule, the rows that break it and what mends them. What can be made again from its
file is dropped and its file read again at the next ingest; labels and corrections, which cannot, are never touched.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.errors import LibraryFormatError
from medsearch_desktop.store.catalogue import FileRow
from medsearch_desktop.store.database import Database, disk_path, stored_path
from medsearch_desktop.store.unjoined import Unjoined

READ_AGAIN = "UPDATE files SET mtime_ns = -1, sha256 = '' WHERE path IN ({broken})"
_RECORDLESS = (
    "SELECT path FROM files WHERE state IN ('indexed', 'metadata') AND kind != 'archive'"
    " AND path NOT IN (SELECT path FROM images)"
    " AND path NOT IN (SELECT path FROM reports)"
    # Of a report that has a later version elsewhere.
    " AND path NOT IN (SELECT path FROM report_versions)"
)
_IMAGELESS = (
    "SELECT path FROM files WHERE state IN ('failed', 'indexed', 'metadata') AND kind IN ('dicom', 'raster')"
    " AND path NOT IN (SELECT path FROM images)"
)
_VERSIONLESS = (
    "SELECT {0} FROM reports WHERE version_no IS NOT NULL"
    " AND version_no NOT IN (SELECT version_no FROM report_versions)"
)
_NAMELESS = "report_id NOT IN (SELECT report_id FROM report_names)"
_SLICELESS = "SELECT series_uid FROM series_vectors WHERE series_uid NOT IN (SELECT series_uid FROM slices)"
_PATIENTLESS = "patient_id NOT IN (SELECT patient_id FROM patients)"
_EMPTY_STUDIES = (
    "SELECT study_uid FROM studies WHERE study_uid NOT IN (SELECT study_uid FROM images)"
    " AND study_uid NOT IN (SELECT study_uid FROM reports WHERE study_uid IS NOT NULL)"
)
_STUDYLESS = (
    "SELECT image_id FROM images WHERE study_uid NOT IN (SELECT study_uid FROM studies)"
    " OR series_uid NOT IN (SELECT series_uid FROM series)"
)
# A vector is L2-normalised when it is made; NaN compares as larger than every number.
_UNSOUND = "SELECT image_no::VARCHAR FROM vectors WHERE abs(array_inner_product(vector, vector) - 1) > 0.001"
_TWICE = (
    "SELECT image_no::VARCHAR FROM vectors WHERE image_no IN (SELECT image_no FROM vectors GROUP BY image_no, model_id"
    " HAVING count(*) > 1) GROUP BY image_no"
)


@dataclass(frozen=True, slots=True)
class Relation:
    """One rule: `broken` selects the names of what breaks it, `mend` sets it right ({broken} stands for that query).

    `name` is one word for it, `message` says what is wrong with an item. Statements of `mend` run in order.
    """

    name: str
    message: str
    broken: str
    mend: tuple[str, ...]


RELATIONS: tuple[Relation, ...] = (
    Relation(
        "image-without-file",
        "an image of a file that the library does not know",
        "SELECT image_id FROM images WHERE path NOT IN (SELECT path FROM files)",
        ("DELETE FROM images WHERE path NOT IN (SELECT path FROM files)",),
    ),
    Relation(
        "report-without-file",
        "a report of a file that the library does not know",
        "SELECT report_id FROM reports WHERE path NOT IN (SELECT path FROM files)",
        ("DELETE FROM reports WHERE path NOT IN (SELECT path FROM files)",),
    ),
    Relation(
        "image-without-study",
        "an image whose study or series is missing",
        _STUDYLESS,
        (READ_AGAIN.format(broken=f"SELECT path FROM images WHERE image_id IN ({_STUDYLESS})"),),
    ),
    Relation(
        "file-without-records",
        "is said to be indexed, and the library has nothing of it",
        _RECORDLESS,
        # Of one that failed, or holds a report, nothing says whether it had an image all the same.
        (READ_AGAIN, READ_AGAIN.format(broken=_IMAGELESS)),
    ),
    Relation(
        "file-without-reason",
        "is said to have failed, and nothing says why",
        "SELECT path FROM files WHERE state = 'failed' AND path NOT IN (SELECT path FROM failures)",
        (READ_AGAIN,),
    ),
    Relation(
        "duplicate-of-nothing",
        "is said to be a duplicate of a file that the library does not know",
        "SELECT path FROM files WHERE state = 'duplicate' AND held_by NOT IN (SELECT path FROM files)",
        (READ_AGAIN,),
    ),
    Relation(
        "reason-without-file",
        "why a file failed that the library does not know",
        "SELECT path FROM failures WHERE path NOT IN (SELECT path FROM files)",
        ("DELETE FROM failures WHERE path NOT IN (SELECT path FROM files)",),
    ),
    Relation(
        "vector-twice",
        "an image with more than one vector of one model",
        _TWICE,
        (f"DELETE FROM vectors WHERE image_no::VARCHAR IN ({_TWICE})",),
    ),
    Relation(
        "vector-unsound",
        "a vector that is not of length 1",
        _UNSOUND,
        ("DELETE FROM vectors WHERE abs(array_inner_product(vector, vector) - 1) > 0.001",),
    ),
    Relation(
        "vector-without-image",
        "a vector of an image that is gone",
        "SELECT image_no::VARCHAR FROM vectors WHERE image_no NOT IN (SELECT image_no FROM images)",
        ("DELETE FROM vectors WHERE image_no NOT IN (SELECT image_no FROM images)",),
    ),
    Relation(
        "unembedded-without-image",
        "why an image has no vector, of an image that is gone",
        "SELECT image_no::VARCHAR FROM unembedded WHERE image_no NOT IN (SELECT image_no FROM images)",
        ("DELETE FROM unembedded WHERE image_no NOT IN (SELECT image_no FROM images)",),
    ),
    *(
        Relation(
            f"{name}-without-image",
            f"{what}, of an image that is gone",
            f"SELECT DISTINCT image_no::VARCHAR FROM {table} WHERE image_no NOT IN (SELECT image_no FROM images)",
            (f"DELETE FROM {table} WHERE image_no NOT IN (SELECT image_no FROM images)",),
        )
        for name, table, what in (
            ("region", "regions", "what is known of its regions"),
            ("slice", "slices", "its place in a volume"),
            ("side", "sides", "its side"),
        )
    ),
    Relation(
        "mean-without-slices",
        "the mean vector of a series that has no slice",
        _SLICELESS,
        (
            READ_AGAIN.format(broken=f"SELECT path FROM images WHERE series_uid IN ({_SLICELESS})"),
            f"DELETE FROM series_vectors WHERE series_uid IN ({_SLICELESS})",
        ),
    ),
    Relation(
        "version-without-file",
        "a version of a report, of a file that the library does not know",
        "SELECT DISTINCT report_id FROM report_versions WHERE path NOT IN (SELECT path FROM files)",
        ("DELETE FROM report_versions WHERE path NOT IN (SELECT path FROM files)",),
    ),
    Relation(
        "report-without-version",
        "a report of which the version that counts is not kept",
        _VERSIONLESS.format("report_id"),
        (READ_AGAIN.format(broken=_VERSIONLESS.format("path")),),
    ),
    Relation(
        "version-without-name",
        "a version of a report by which no other can be told to be of the same",
        f"SELECT DISTINCT report_id FROM report_versions WHERE {_NAMELESS}",
        (
            "INSERT INTO report_names SELECT DISTINCT unnest((stated::JSON->'$.names')::VARCHAR[]), report_id"
            f" FROM report_versions WHERE {_NAMELESS}",
        ),
    ),
    Relation(
        "entity-without-report",
        "a mention of a report that is gone",
        "SELECT DISTINCT report_no::VARCHAR FROM entities WHERE report_no NOT IN (SELECT report_no FROM reports)",
        ("DELETE FROM entities WHERE report_no NOT IN (SELECT report_no FROM reports)",),
    ),
    Relation(
        "study-without-content",
        "a study without image and report",
        _EMPTY_STUDIES,
        (f"DELETE FROM studies WHERE study_uid IN ({_EMPTY_STUDIES})",),
    ),
    Relation(
        "series-without-image",
        "a series without image",
        "SELECT series_uid FROM series WHERE series_uid NOT IN (SELECT series_uid FROM images)",
        ("DELETE FROM series WHERE series_uid NOT IN (SELECT series_uid FROM images)",),
    ),
    Relation(
        "study-without-patient",
        "a study of a patient that the library does not know",
        f"SELECT study_uid FROM studies WHERE {_PATIENTLESS}",
        (
            f"INSERT INTO patients SELECT patient_id, max(patient_sex) FROM studies WHERE {_PATIENTLESS}"
            " GROUP BY patient_id",
        ),
    ),
    Relation(
        "ledger-empty",
        "says that the indexes have nothing to learn, and there are documents",
        "SELECT 'changes' WHERE EXISTS (SELECT 1 FROM document_keys) AND NOT EXISTS (SELECT 1 FROM changes)",
        ("INSERT INTO changes SELECT nextval('change_seq'), 'document', min(doc_no) FROM document_keys",),
    ),
)


class Audit:
    """Looks over the records of one library; safe to use from several threads, but for `mend`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def unreadable(self, stop: threading.Event) -> Iterator[tuple[str, LibraryFormatError]]:
        """Yield each table of which a part cannot be read, and why: every value of each is read, and its checksum."""
        for (table,) in self._database.read(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() ORDER BY 1"
        ):
            if stop.is_set():
                return
            try:
                self._database.read(f'SELECT bit_xor(hash(t)) FROM "{table}" t')
            except LibraryFormatError as error:
                yield table, error

    def broken(self, relation: Relation, *, most: int) -> tuple[int, list[str]]:
        """Return how many items break a rule, and the first `most` of them by name."""
        ((count,),) = self._database.read(f"SELECT count(*) FROM ({relation.broken})")
        if not count:
            return 0, []
        rows = self._database.read(f"SELECT * FROM ({relation.broken}) ORDER BY 1 LIMIT {int(most)}")
        return int(count), [disk_path(name) for (name,) in rows]

    def mend(self, relation: Relation) -> int:
        """Commit what sets a rule right and return how many items broke it."""
        with self._database.transaction():
            ((count,),) = self._database.write(f"SELECT count(*) FROM ({relation.broken})")
            if count:
                for statement in relation.mend:
                    self._database.write(statement.format(broken=relation.broken))
                # Nobody noted what that may decide.
                Unjoined(self._database).forget()
        return int(count)

    def doubted(self) -> int:
        """Count the files that are to be read again at the next ingest."""
        return int(self._database.read("SELECT count(*) FROM files WHERE mtime_ns = -1")[0][0])

    def images(self, *, sample: int) -> Iterator[list[tuple[str, str]]]:
        """Yield (image_id, path) of up to `sample` images that have pixels and were decoded, the same every time."""
        for rows in self._database.read_chunks(
            "SELECT image_id, path FROM images WHERE pixel_error = '' AND path IN (SELECT path FROM files"
            " WHERE state = 'indexed') AND image_no NOT IN (SELECT image_no FROM slices WHERE NOT key_slice)"
            " ORDER BY hash(image_id), image_id LIMIT $most",
            {"most": sample},
        ):
            yield [(image_id, disk_path(path)) for image_id, path in rows]

    def image_ids(self) -> Iterator[str]:
        """Yield the identifier of every image."""
        for rows in self._database.read_chunks("SELECT image_id FROM images", {}):
            yield from (image_id for (image_id,) in rows)

    def documents(self) -> NDArray[np.int64]:
        """Return the number of every document, in ascending order."""
        return self._column("SELECT doc_no AS no FROM document_keys ORDER BY 1")

    def vectors(self, model_id: str) -> NDArray[np.int64]:
        """Return the numbers of the images that have a vector of a model, in ascending order."""
        return self._column("SELECT image_no AS no FROM vectors WHERE model_id = $model ORDER BY 1", model=model_id)

    def unchanged(self, rows: Sequence[FileRow]) -> set[str]:
        """Return the paths of those rows which are still as they were read before."""
        now = self._database.read(
            "SELECT path, size, mtime_ns, sha256, state FROM files WHERE path IN (SELECT unnest($paths))",
            {"paths": [stored_path(row.path) for row in rows]},
        )
        held = {disk_path(path): tuple(rest) for path, *rest in now}
        return {row.path for row in rows if held.get(row.path) == (row.size, row.mtime_ns, row.sha256, row.state)}

    def _column(self, sql: str, **parameters: Any) -> NDArray[np.int64]:
        return np.asarray(self._database.read_arrays(sql, parameters)["no"], dtype=np.int64)

    def sequences_behind(self) -> list[str]:
        """Return the kinds of number of which the next one to be given is in use already."""
        behind = []
        for name, table, column in (
            ("image_no_seq", "images", "image_no"),
            ("study_no_seq", "studies", "study_no"),
            ("report_no_seq", "reports", "report_no"),
            ("change_seq", "changes", "seq"),
        ):
            ((following,),) = self._database.read(
                "SELECT max(greatest(start_value, coalesce(last_value + 1, 1))) FROM duckdb_sequences()"
                " WHERE sequence_name = $name AND database_name = current_database()",
                {"name": name},
            )
            ((highest,),) = self._database.read(f"SELECT coalesce(max({column}), 0) FROM {table}")
            if highest >= following:
                behind.append(column)
        return behind
