"""Studies out of the database: one with all that belongs to it, the file behind an image, the user's labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from medsearch_desktop.records import PlacedImage
from medsearch_desktop.store.database import Database, disk_path, stored_path


@dataclass(frozen=True, slots=True)
class StudyImage:
    """One image of a study with what its header says; `number_of_frames` counts those of its instance."""

    image_id: str
    series_uid: str
    sop_instance_uid: str
    frame: int
    number_of_frames: int
    instance_number: int | None
    modality: str
    view_position: str
    rows: int
    columns: int
    bits_stored: int
    photometric_interpretation: str
    sop_class_uid: str
    transfer_syntax_uid: str
    pixel_error: str
    path: str
    series_number: int | None
    series_description: str
    body_part: str
    laterality: str
    manufacturer: str


@dataclass(frozen=True, slots=True)
class StudySummary:
    """Another study of a patient: when, what, how many images and reports."""

    study_uid: str
    study_date: date | None
    study_description: str
    modalities: tuple[str, ...]
    images: int
    reports: int


@dataclass(frozen=True, slots=True)
class Label:
    """The user's own word on a study, series, image or report."""

    target_kind: str
    target_id: str
    label: str


@dataclass(frozen=True, slots=True)
class Study:
    """One study: its identifiers, its images in the order of series and instance, its reports, other studies.

    `others` are those of the same patient, oldest first; ages are years.
    """

    study_uid: str
    patient_id: str
    patient_sex: str
    patient_age: float | None
    accession_number: str
    study_id: str
    study_date: date | None
    study_description: str
    images: tuple[StudyImage, ...]
    report_ids: tuple[str, ...]
    labels: tuple[Label, ...]
    others: tuple[StudySummary, ...]


@dataclass(frozen=True, slots=True)
class ImageFile:
    """The file that an image is in, as the last ingest left it; `sha256` is empty where only its header was read."""

    image_id: str
    path: str
    frame: int
    number_of_frames: int
    size: int
    mtime_ns: int
    sha256: str
    kind: str


# `w` names the images that are wanted and the report that each is shown with.
_PLACED = """
SELECT image_id, w.report_id, root, path, i.modality, view_position, body_part
FROM w JOIN images i USING (image_no) JOIN series se USING (series_uid) JOIN files f USING (path)
ORDER BY w.report_no, series_number, i.series_uid, instance_number, frame, image_no
"""


class Studies:
    """Reads studies and their labels; safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, study_uid: str) -> Study | None:
        """Return the study of that StudyInstanceUID, or None."""
        rows = self._read(
            "SELECT study_uid, patient_id, patient_sex, patient_age, accession_number, study_id, study_date,"
            " study_description FROM studies WHERE study_uid = $uid",
            uid=study_uid,
        )
        if not rows:
            return None
        images = self._read(
            "SELECT image_id, i.series_uid, sop_instance_uid, frame, number_of_frames, instance_number, i.modality,"
            " view_position, rows, columns, bits_stored, photometric_interpretation, sop_class_uid,"
            " transfer_syntax_uid, pixel_error, path, series_number, series_description, body_part,"
            " coalesce(sides.laterality, se.laterality), manufacturer FROM images i JOIN series se USING (series_uid)"
            " LEFT JOIN sides USING (image_no) WHERE i.study_uid = $uid"
            " ORDER BY series_number, i.series_uid, instance_number, frame, image_no",
            uid=study_uid,
        )
        reports = self._read("SELECT report_id FROM reports WHERE study_uid = $uid ORDER BY report_no", uid=study_uid)
        names = ("study_uid", "patient_id", "patient_sex", "patient_age", "accession_number", "study_id")
        fields = dict(zip((*names, "study_date", "study_description"), rows[0], strict=True))
        placed = [[*row[:15], disk_path(row[15]), *row[16:]] for row in images]
        return Study(
            **fields,
            images=tuple(StudyImage(*values) for values in placed),
            report_ids=tuple(report_id for (report_id,) in reports),
            labels=self.labels(study_uid),
            others=self._others(study_uid, patient_id=fields["patient_id"]),
        )

    def labels(self, study_uid: str) -> tuple[Label, ...]:
        """Return the labels of a study and of its series, images and reports."""
        rows = self._read(
            "SELECT target_kind, target_id, label FROM labels WHERE (target_kind = 'study' AND target_id = $uid)"
            " OR (target_kind = 'series' AND target_id IN (SELECT series_uid FROM series WHERE study_uid = $uid))"
            " OR (target_kind = 'image' AND target_id IN (SELECT image_id FROM images WHERE study_uid = $uid))"
            " OR (target_kind = 'report' AND target_id IN (SELECT report_id FROM reports WHERE study_uid = $uid))"
            " ORDER BY ALL",
            uid=study_uid,
        )
        return tuple(Label(*row) for row in rows)

    def label_counts(self) -> dict[str, int]:
        """Return every label and how many targets have it, by label."""
        return dict(self._read("SELECT label, count(*) FROM labels GROUP BY label ORDER BY label"))

    def labelled(self, label: str) -> tuple[Label, ...]:
        """Return what has a label."""
        rows = self._read(
            "SELECT target_kind, target_id, label FROM labels WHERE label = $label ORDER BY ALL", label=label
        )
        return tuple(Label(*row) for row in rows)

    def image_file(self, image_id: str) -> ImageFile | None:
        """Return the file that an image is in, or None where there is no such image."""
        rows = self._read(
            "SELECT image_id, path, frame, number_of_frames, size, mtime_ns, sha256, kind FROM images JOIN files"
            " USING (path) WHERE image_id = $id",
            id=image_id,
        )
        return next((ImageFile(image, disk_path(path), *rest) for image, path, *rest in rows), None)

    def placed_images(self, image_ids: Sequence[str]) -> list[PlacedImage]:
        """Return images by identifier, each with the first report of its study; unknown ones are left out."""
        rows = self._read(
            "WITH these AS (SELECT image_no, study_uid FROM images WHERE image_id IN (SELECT unnest($ids))),"
            " firsts AS (SELECT study_uid, min(report_no) AS report_no, arg_min(report_id, report_no) AS report_id"
            "  FROM reports SEMI JOIN these USING (study_uid) GROUP BY study_uid),"
            f" w AS (SELECT image_no, report_no, report_id FROM these LEFT JOIN firsts USING (study_uid)) {_PLACED}",
            ids=list(image_ids),
        )
        return [_placed(row) for row in rows]

    def images_of_reports(self, report_ids: Sequence[str]) -> list[PlacedImage]:
        """Return the images of the studies of reports, report by report, in the order of series and instance."""
        rows = self._read(
            "WITH w AS (SELECT image_no, report_no, report_id FROM reports JOIN images USING (study_uid)"
            f" WHERE report_id IN (SELECT unnest($ids))) {_PLACED}",
            ids=list(report_ids),
        )
        return [_placed(row) for row in rows]

    def paths_of_root(self, root: str) -> list[str] | None:
        """Return the known files of an ingested folder or file, None where it was never ingested."""
        if not self._read("SELECT 1 FROM roots WHERE path = $root", root=stored_path(root)):
            return None
        rows = self._read("SELECT path FROM files WHERE root = $root ORDER BY path", root=stored_path(root))
        return [disk_path(path) for (path,) in rows]

    def root_counts(self) -> dict[str, int]:
        """Return how many files are known of each root."""
        return {disk_path(root): count for root, count in self._read("SELECT root, count(*) FROM files GROUP BY root")}

    def _others(self, study_uid: str, *, patient_id: str) -> tuple[StudySummary, ...]:
        # Without an identifier all unknown patients would be one.
        if not patient_id:
            return ()
        rows = self._read(
            "SELECT study_uid, study_date, study_description,"
            " (SELECT coalesce(list(DISTINCT modality ORDER BY modality), []) FROM images i"
            "  WHERE i.study_uid = s.study_uid),"
            " (SELECT count(*) FROM images i WHERE i.study_uid = s.study_uid),"
            " (SELECT count(*) FROM reports r WHERE r.study_uid = s.study_uid)"
            " FROM studies s WHERE patient_id = $patient AND study_uid != $uid ORDER BY study_date, study_uid",
            patient=patient_id,
            uid=study_uid,
        )
        return tuple(StudySummary(uid, day, text, tuple(kinds), *counts) for uid, day, text, kinds, *counts in rows)

    def _read(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return self._database.read(sql, parameters)


def _placed(row: tuple[Any, ...]) -> PlacedImage:
    image_id, report_id, root, path, *told = row
    return PlacedImage(image_id, report_id, disk_path(root), disk_path(path), *told)
