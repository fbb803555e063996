"""Records out of the database: what is known of files, images, reports and documents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.records import Failure
from medsearch_desktop.store.cards import MOST_ENTITIES, PACKED, PACKED_ENTITY
from medsearch_desktop.store.database import Database, disk_path


@dataclass(frozen=True, slots=True)
class FileRow:
    """One file as the last ingest left it; `path` and `root` are as the disk spells them."""

    path: str
    root: str
    size: int
    mtime_ns: int
    sha256: str
    kind: str
    state: str
    checked_ns: int
    held_by: str


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image with what answers show of it."""

    image_no: int
    image_id: str
    study_uid: str
    path: str
    frame: int
    modality: str
    view_position: str
    pixel_error: str


@dataclass(frozen=True, slots=True)
class Totals:
    """How many records of each kind a library holds; vectors are those of the model in use."""

    images: int
    vectors: int
    reports: int
    studies: int
    patients: int
    files: int
    failures: int


class Catalogue:
    """Reads a library's database; safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def files(self) -> Iterator[FileRow]:
        """Yield every known file."""
        for rows in self._database.read_chunks(f"SELECT {_FILE_COLUMNS} FROM files"):
            yield from map(_file, rows)

    def orphans(self) -> list[FileRow]:
        """Return the duplicates of which the file that had the records is no more, by path."""
        rows = self._read(
            "WITH held AS MATERIALIZED (SELECT DISTINCT held_by FROM files WHERE state = 'duplicate'),"
            " there AS (SELECT path FROM images WHERE path IN (FROM held)"
            " UNION SELECT path FROM reports WHERE path IN (FROM held)"
            " UNION SELECT path FROM report_versions WHERE path IN (FROM held))"
            f" SELECT {_FILE_COLUMNS} FROM files WHERE state = 'duplicate' AND held_by NOT IN (FROM there)"
            " ORDER BY path"
        )
        return [_file(row) for row in rows]

    def roots(self) -> list[tuple[str, bool, int]]:
        """Return (path, online, start of the last complete scan in ns) of every root."""
        return [(disk_path(p), online, ns) for p, online, ns in self._read("SELECT * FROM roots ORDER BY path")]

    def failures(self) -> list[Failure]:
        """Return every file that could not be indexed wholly, by path."""
        return [Failure(disk_path(p), r) for p, r in self._read("SELECT path, reason FROM failures ORDER BY path")]

    def document_count(self) -> int:
        """Count the documents."""
        return int(self._read("SELECT count(*) FROM document_keys")[0][0])

    def vector_count(self, model_id: str) -> int:
        """Count the vectors of a model."""
        return int(self._read("SELECT count(*) FROM vectors WHERE model_id = $model", model=model_id)[0][0])

    def totals(self) -> Totals:
        """Count the records."""
        return Totals(
            *self._read(
                "SELECT (SELECT count(*) FROM images), (SELECT count(*) FROM vectors WHERE model_id IN"
                " (SELECT model_id FROM models WHERE role = 'in use')), (SELECT count(*) FROM reports),"
                " (SELECT count(*) FROM studies), (SELECT count(*) FROM patients), (SELECT count(*) FROM files),"
                " (SELECT count(*) FROM failures)"
            )[0]
        )

    def report_places(self) -> dict[tuple[str, int], str]:
        """Return report_id by the path of its file and its position there."""
        rows = self._read("SELECT report_id, path, position FROM reports")
        return {(disk_path(path), position): report_id for report_id, path, position in rows}

    def reports_to_join(self, numbers: NDArray[np.int64]) -> list[tuple[int, str, str, str, str, str]]:
        """Return (report_no, report_id, path, root, first 2,000 characters, Statement as JSON or "") by number."""
        rows = self._database.read(
            "SELECT report_no, report_id, r.path, f.root, left(text, 2000), stated FROM reports r"
            " JOIN files f USING (path) WHERE report_no IN (SELECT no FROM numbers) ORDER BY report_id",
            numbers=numbers,
        )
        return [(no, report_id, disk_path(path), disk_path(root), *rest) for no, report_id, path, root, *rest in rows]

    def image(self, image_id: str) -> ImageRow | None:
        """Return the image of that identifier, or None."""
        rows = self._images("image_id = $id", id=image_id)
        return rows[0] if rows else None

    def images(self, image_nos: NDArray[np.int64]) -> dict[int, ImageRow]:
        """Return images by number."""
        if not len(image_nos):
            return {}
        return {row.image_no: row for row in self._images(f"image_no IN ({_literal(image_nos)})")}

    def vectors(self, model_id: str, *, image_nos: NDArray[np.int64] | None = None) -> Iterator[tuple[Any, Any]]:
        """Yield (image numbers (n,), vectors (n, 1024) float32) in ascending order, in blocks.

        Only images of which `image_nos` has the number, when it is given.
        """
        if image_nos is None:
            held = self._database.read_arrays(
                "SELECT image_no FROM vectors WHERE model_id = $model", {"model": model_id}
            )
            image_nos = held["image_no"]
        wanted = np.unique(image_nos)
        for start in range(0, len(wanted), _VECTORS_AT_ONCE):
            numbers = wanted[start : start + _VECTORS_AT_ONCE]
            # Put in order here: the database would keep some blocks in memory to do it.
            where, rest = (
                f"image_no BETWEEN {numbers[0]} AND {numbers[-1]} AND image_no IN (SELECT no FROM numbers)",
                numbers,
            )
            if len(numbers) <= _MOST_LITERALS:
                where, rest = f"image_no IN ({_literal(numbers)})", None
            block = self._database.read_arrays(
                f"SELECT image_no, vector FROM vectors WHERE model_id = $model AND {where}",
                {"model": model_id},
                numbers=rest,
            )
            if len(block["image_no"]):
                order = np.argsort(block["image_no"])
                yield block["image_no"][order], np.stack(list(block["vector"])).astype(np.float32, copy=False)[order]

    def images_where(self, condition: str, parameters: dict[str, Any]) -> NDArray[np.int64]:
        """Return the numbers of images that a condition over i (images), s (studies) and se (series) lets pass."""
        # A join that the condition does not look at costs ten times what the answer does.
        joins = " JOIN studies s USING (study_uid)" if re.search(r"\bs\.", condition) else ""
        joins += " JOIN series se USING (series_uid)" if re.search(r"\bse\.", condition) else ""
        arrays = self._database.read_arrays(
            f"SELECT i.image_no FROM images i{joins} WHERE {condition} ORDER BY i.image_no", parameters
        )
        return np.asarray(arrays["image_no"], dtype=np.int64)

    def changes(self, kind: str, *, after: int) -> tuple[NDArray[np.int64], int]:
        """Return (distinct numbers changed after a sequence number, the latest sequence number)."""
        # Taken first: what is committed in between is then learnt twice, never missed.
        last = self.last_change()
        arrays = self._database.read_arrays(
            "SELECT DISTINCT no FROM changes WHERE kind = $kind AND seq > $after ORDER BY no",
            {"kind": kind, "after": after},
        )
        return np.asarray(arrays["no"], dtype=np.int64), last

    def last_change(self) -> int:
        """Return the sequence number of the last change of any kind, 0 in an empty library."""
        return int(self._read("SELECT coalesce(max(seq), 0) FROM changes")[0][0])

    def embedded_images(self, image_nos: NDArray[np.int64], model_id: str) -> NDArray[np.int64]:
        """Return those of `image_nos` that have a vector of a model."""
        if not len(image_nos):
            return image_nos
        arrays = self._database.read_arrays(
            "SELECT image_no FROM vectors WHERE model_id = $model AND image_no IN (SELECT no FROM numbers)",
            {"model": model_id},
            numbers=image_nos,
        )
        return np.asarray(arrays["image_no"], dtype=np.int64)

    def documents(self, doc_nos: NDArray[np.int64] | None = None) -> Iterator[dict[str, Any]]:
        """Yield every document, or those of `doc_nos` that exist, as the full-text index takes them."""
        sizes = self._database.read_arrays(
            f"WITH k AS MATERIALIZED ({'FROM document_keys' if doc_nos is None else _KEYS}),"
            " en AS (SELECT report_no, count(*) AS entities FROM entities SEMI JOIN k USING (report_no) GROUP BY ALL)"
            " SELECT doc_no, coalesce(length(text), 0) AS characters, coalesce(entities, 0) AS entities"
            " FROM k LEFT JOIN reports USING (report_no) LEFT JOIN en USING (report_no) ORDER BY doc_no",
            numbers=doc_nos,
        )
        # In blocks: all documents with their entities at once would not fit into the memory that is allowed.
        cost = np.cumsum(
            1 / _DOCUMENTS_AT_ONCE + sizes["characters"] / _CHARACTERS_AT_ONCE + sizes["entities"] / _ENTITIES_AT_ONCE
        )
        for block in np.split(sizes["doc_no"], np.flatnonzero(np.diff(cost // 1)) + 1):
            for row in self._database.read(_DOCUMENTS, numbers=block):
                yield _document(row)

    def document_studies(self, doc_nos: NDArray[np.int64]) -> list[str]:
        """Return the StudyInstanceUIDs of documents, without those that have none."""
        rows = self._database.read(
            "SELECT DISTINCT study_uid FROM reports WHERE report_no * 2 IN (SELECT no FROM numbers)"
            " AND study_uid IS NOT NULL"
            " UNION SELECT study_uid FROM studies WHERE study_no * 2 + 1 IN (SELECT no FROM numbers)",
            numbers=doc_nos,
        )
        return [uid for (uid,) in rows]

    def studies_of(self, target_kind: str, target_id: str) -> list[str]:
        """Return the studies that a study, series, image or report identifier stands for; empty when unknown."""
        table, column = {
            "study": ("studies", "study_uid"),
            "series": ("series", "series_uid"),
            "image": ("images", "image_id"),
            "report": ("reports", "report_id"),
        }[target_kind]
        rows = self._read(f"SELECT study_uid FROM {table} WHERE {column} = $id AND study_uid IS NOT NULL", id=target_id)
        return [uid for (uid,) in rows]

    def images_of_documents(self, doc_nos: NDArray[np.int64]) -> dict[int, int]:
        """Return doc_no by image_no for the images of these documents' studies."""
        rows = self._database.read(
            "SELECT image_no, min(doc_no) FROM images JOIN document_keys USING (study_uid)"
            " WHERE doc_no IN (SELECT no FROM numbers) GROUP BY image_no",
            numbers=doc_nos,
        )
        return dict(rows)

    def _images(self, where: str, **parameters: Any) -> list[ImageRow]:
        rows = self._read(
            "SELECT image_no, image_id, study_uid, path, frame, modality, view_position, pixel_error FROM images"
            f" WHERE {where}",
            **parameters,
        )
        return [ImageRow(no, image_id, uid, disk_path(path), *rest) for no, image_id, uid, path, *rest in rows]

    def _read(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return self._database.read(sql, parameters)


# Literal numbers reach the primary key's index (1 ms for 20 of 200,000 rows); a list parameter scans (8 ms).
_MOST_LITERALS = 1000
# 32 MB of vectors.
_VECTORS_AT_ONCE = 8192


def _literal(numbers: Iterable[int]) -> str:
    return ",".join(str(int(number)) for number in numbers)


_FILE_COLUMNS = "path, root, size, mtime_ns, sha256, kind, state, checked_ns, held_by"


def _file(row: tuple[Any, ...]) -> FileRow:
    path, root, size, mtime_ns, sha256, kind, state, checked_ns, held_by = row
    places = disk_path(path), disk_path(root)
    return FileRow(*places, size, mtime_ns, sha256, kind, state, checked_ns, disk_path(held_by))


# An entity takes some 9 kB on its way into a document.
_DOCUMENTS_AT_ONCE, _CHARACTERS_AT_ONCE, _ENTITIES_AT_ONCE = 4096, 1 << 24, 20_000
# Those of the view `document_keys` that `numbers` names: asked of the view it looks at every report and study.
_KEYS = """
SELECT report_no * 2 AS doc_no, report_no, report_id, study_uid FROM reports
WHERE report_no IN (SELECT no // 2 FROM numbers WHERE no % 2 = 0)
UNION ALL
SELECT study_no * 2 + 1, NULL, NULL, study_uid FROM studies
WHERE study_no IN (SELECT no // 2 FROM numbers WHERE no % 2 = 1)
AND NOT EXISTS (SELECT 1 FROM reports WHERE reports.study_uid = studies.study_uid)
"""
_DOCUMENTS = f"""
WITH k AS MATERIALIZED ({_KEYS}),
im AS (
    SELECT study_uid, count(*) AS image_count, list(DISTINCT view_position) AS view_positions,
           list(image_id ORDER BY image_no) AS image_ids
    FROM images SEMI JOIN k USING (study_uid) GROUP BY study_uid
),
se AS (
    SELECT study_uid, list(DISTINCT body_part) AS body_parts,
           list(DISTINCT modality ORDER BY modality) FILTER (modality != '') AS modalities,
           list(DISTINCT laterality) AS lateralities, list(DISTINCT manufacturer) AS manufacturers
    FROM series SEMI JOIN k USING (study_uid) GROUP BY study_uid
),
sd AS (
    SELECT study_uid, list(DISTINCT laterality) AS sides
    FROM images SEMI JOIN k USING (study_uid) JOIN sides USING (image_no) GROUP BY study_uid
),
en AS (
    SELECT report_no, list(DISTINCT [icd10cm, title, finding, assertion, category, text]) AS entities,
           to_json(list({PACKED_ENTITY} ORDER BY ordinal) FILTER (ordinal < {MOST_ENTITIES})) AS packed
    FROM entities SEMI JOIN k USING (report_no) GROUP BY report_no
),
la AS (
    SELECT study_uid, list(DISTINCT label) AS labels FROM (
        SELECT target_id AS study_uid, label FROM labels WHERE target_kind = 'study'
        UNION ALL SELECT study_uid, label FROM labels JOIN series ON target_id = series_uid WHERE target_kind = 'series'
        UNION ALL SELECT study_uid, label FROM labels JOIN images ON target_id = image_id WHERE target_kind = 'image'
        UNION ALL SELECT study_uid, label FROM labels JOIN reports ON target_id = report_id
                  WHERE target_kind = 'report' AND study_uid IS NOT NULL
    ) GROUP BY study_uid
)
SELECT k.doc_no, k.report_id, k.study_uid, coalesce(r.text, ''), coalesce(r.sections, []),
       coalesce(s.patient_id, ''), coalesce(s.accession_number, ''), coalesce(s.study_id, ''), s.study_date,
       coalesce(s.study_description, ''), coalesce(s.patient_sex, ''), s.patient_age,
       coalesce(se.modalities, []), coalesce(im.view_positions, []), coalesce(se.body_parts, []),
       list_distinct(list_concat(coalesce(se.lateralities, []), coalesce(sd.sides, []))),
       coalesce(se.manufacturers, []), coalesce(la.labels, []),
       coalesce(im.image_count, 0), coalesce(en.entities, []), {PACKED}::VARCHAR
FROM k
LEFT JOIN reports r ON r.report_no = k.report_no
LEFT JOIN studies s ON s.study_uid = k.study_uid
LEFT JOIN im ON im.study_uid = k.study_uid
LEFT JOIN se ON se.study_uid = k.study_uid
LEFT JOIN sd ON sd.study_uid = k.study_uid
LEFT JOIN en ON en.report_no = k.report_no
LEFT JOIN la ON la.study_uid = k.study_uid
ORDER BY k.doc_no
"""

_DOCUMENT_FIELDS = (
    "doc_no",
    "report_id",
    "study_uid",
    "text",
    "sections",
    "patient_id",
    "accession_number",
    "study_id",
    "study_date",
    "study_description",
    "patient_sex",
    "patient_age",
    "modalities",
    "view_positions",
    "body_parts",
    "lateralities",
    "manufacturers",
    "labels",
    "image_count",
    "entities",
    "card",
)


def _document(row: tuple[Any, ...]) -> dict[str, Any]:
    document = dict(zip(_DOCUMENT_FIELDS, row, strict=True))
    document["sections"] = [(s["name"], s["start"], s["end"]) for s in document["sections"]]
    for name in ("modalities", "view_positions", "body_parts", "lateralities", "manufacturers"):
        document[name] = sorted(value for value in document[name] if value)
    document["card"] = document["card"].encode("utf-8")
    document["entities"] = sorted(tuple(entity) for entity in document["entities"])
    return document
