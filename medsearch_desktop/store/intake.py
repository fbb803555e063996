"""Records into the database: what became of each file, in transactions that hold whole files.

A file's row, its images, vectors, reports and entities are committed together or not at all, so
a process that dies loses the files in flight and nothing else, and a file whose row is there is
never done twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.records import Image, LinkRule, Report, SourceFile
from medsearch_desktop.store.database import Database, disk_path, stored_path
from medsearch_desktop.store.emptied import Emptied
from medsearch_desktop.store.reports import NewReport, insert_reports
from medsearch_desktop.store.stacks import insert_places
from medsearch_desktop.store.unjoined import Unjoined
from medsearch_desktop.store.versions import Versions

INDEXED, METADATA, DUPLICATE, FAILED, IGNORED = "indexed", "metadata", "duplicate", "failed", "ignored"

_KEEP_FIRST = "{0} = coalesce(nullif({0}, ''), excluded.{0})"
_STUDY_CONFLICT = "ON CONFLICT (study_uid) DO UPDATE SET " + ", ".join(
    [
        *(_KEEP_FIRST.format(n) for n in ("patient_sex", "accession_number", "study_id", "study_description")),
        "patient_age = coalesce(patient_age, excluded.patient_age)",
        "study_date = coalesce(study_date, excluded.study_date)",
    ]
)


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    `state` is one of the five above, `checked_ns` when its content was read. `vectors` holds one
    float32 vector or None an image. `moved_from` names the path that the same content had before:
    its records are kept and only re-addressed. `reason` is set for a file that failed wholly or
    whose pixels did. `is_unread` where the reports have their text only, and are to be read. `held_by`
    is, of a duplicate, the path of the file that has the records.
    """

    file: SourceFile
    state: str
    checked_ns: int
    reason: str = ""
    images: tuple[Image, ...] = ()
    vectors: tuple[NDArray[np.float32] | None, ...] = ()
    reports: tuple[Report, ...] = ()
    is_unread: bool = False
    moved_from: str = ""
    held_by: str = ""


class Intake:
    """Writes to a library's database; one instance, used from one thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.versions = Versions(database)
        self._dropped: list[str] = []
        self._emptied = Emptied(database)
        self._unjoined = Unjoined(database)

    def write(self, outcomes: Sequence[Outcome], *, model_id: str, pipeline_version: str) -> list[Outcome]:
        """Commit `outcomes` and return them as they were committed.

        An outcome with an image whose identifier another file of the library holds becomes a
        duplicate of that file. Where the two agree in study, series and size, it is the same image
        in another encoding; where they do not, the archive is at fault and `reason` says so. The
        first that can be shown stays.
        """
        with self._dropping():
            self._move(outcomes)
            self._drop_records([o.file.path for o in outcomes if not o.moved_from])
            settled = self._without_conflicts(outcomes)
            self._insert_files(settled)
            self._insert_images(settled, model_id)
            self._insert_reports(settled, pipeline_version)
            self._emptied.drop()
        return settled

    def remove(self, paths: Iterable[str]) -> None:
        """Commit that these files are gone: their records go, and those of studies left empty."""
        paths = [stored_path(path) for path in paths]
        if not paths:
            return
        with self._dropping():
            self._drop_records_stored(paths)
            self.versions.settle(note_studies=self._note_left)
            self._write("DELETE FROM files WHERE path IN (SELECT unnest($paths))", paths=paths)
            self._write("DELETE FROM failures WHERE path IN (SELECT unnest($paths))", paths=paths)
            self._emptied.drop()

    def take_dropped(self) -> list[str]:
        """Return the identifiers of the images whose records went since the last call, for their pictures to follow."""
        dropped, self._dropped = self._dropped, []
        return dropped

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        before = len(self._dropped)
        try:
            with self._database.transaction():
                yield
        except BaseException:
            # They are all still there.
            del self._dropped[before:]
            raise

    def drop_empty_studies(self) -> None:
        """Remove studies, series and patients that no image, report or readable file speaks of any more.

        What an ingest leaves empty goes in the transaction that empties it; this looks at all.
        """
        with self._database.transaction():
            self._emptied.drop_all()

    def set_root(self, path: str, *, online: bool, scanned_ns: int = 0) -> None:
        """Commit whether a root is there, and when its last complete scan began."""
        self._write(
            "INSERT INTO roots VALUES ($path, $online, $scanned) ON CONFLICT (path) DO UPDATE SET online = $online,"
            " scanned_ns = greatest(scanned_ns, $scanned)",
            path=stored_path(path),
            online=online,
            scanned=scanned_ns,
        )

    def touch(self, files: Sequence[tuple[SourceFile, int]]) -> None:
        """Commit new sizes and times of files whose content is as it was, each with when it was read, in ns."""
        if not files:
            return
        self._write(
            "UPDATE files SET size = n.size, mtime_ns = n.mtime_ns, checked_ns = n.checked_ns FROM (SELECT"
            " unnest($paths) AS path, unnest($sizes) AS size, unnest($mtimes) AS mtime_ns, unnest($checked) AS"
            " checked_ns) n WHERE files.path = n.path",
            paths=[stored_path(file.path) for file, _ in files],
            sizes=[file.size for file, _ in files],
            mtimes=[file.mtime_ns for file, _ in files],
            checked=[checked_ns for _, checked_ns in files],
        )

    def link_reports(self, links: Sequence[tuple[str, str | None, LinkRule | None]]) -> None:
        """Commit the studies that reports belong to: (report_id, study_uid, rule) each."""
        if not links:
            return
        with self._database.transaction():
            ids = [report_id for report_id, _, _ in links]
            old = self._write(
                "SELECT DISTINCT study_uid FROM reports WHERE report_id IN (SELECT unnest($ids))"
                " AND study_uid IS NOT NULL",
                ids=ids,
            )
            self._write(
                "UPDATE reports SET study_uid = n.study_uid, link_rule = n.link_rule FROM (SELECT unnest($ids) AS"
                " report_id, unnest($studies) AS study_uid, unnest($rules) AS link_rule) n"
                " WHERE reports.report_id = n.report_id",
                ids=ids,
                studies=[study_uid for _, study_uid, _ in links],
                rules=[rule.value if rule else None for _, _, rule in links],
            )
            self._note_studies({uid for (uid,) in old} | {uid for _, uid, _ in links if uid})
            self._write(
                "INSERT INTO changes SELECT nextval('change_seq'), 'document', report_no * 2 FROM reports"
                " WHERE report_id IN (SELECT unnest($ids))",
                ids=ids,
            )

    def doubt(self, paths: Sequence[str]) -> None:
        """Commit that these files are to be read again at the next ingest, whatever their size and time say."""
        self._write(
            "UPDATE files SET mtime_ns = -1, sha256 = '' WHERE path IN (SELECT unnest($paths))",
            paths=[stored_path(path) for path in paths],
        )

    def set_label(self, target_kind: str, target_id: str, label: str, *, study_uids: Iterable[str]) -> None:
        """Commit a label on a study, series, image or report; `study_uids` are the studies it shows on."""
        with self._database.transaction():
            self._write(
                "INSERT INTO labels VALUES ($kind, $id, $label) ON CONFLICT DO NOTHING",
                kind=target_kind,
                id=target_id,
                label=label,
            )
            self._note_studies(set(study_uids))

    def remove_label(self, target_kind: str, target_id: str, label: str, *, study_uids: Iterable[str]) -> bool:
        """Commit that a label is taken off its target again; return whether it was there."""
        with self._database.transaction():
            gone = self._write(
                "DELETE FROM labels WHERE target_kind = $kind AND target_id = $id AND label = $label RETURNING label",
                kind=target_kind,
                id=target_id,
                label=label,
            )
            self._note_studies(set(study_uids))
        return bool(gone)

    def drop_root(self, path: str) -> None:
        """Commit that a folder is none that is kept current any more; its files were removed before."""
        self._write("DELETE FROM roots WHERE path = $path", path=stored_path(path))

    def _write(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return self._database.write(sql, parameters)

    def _move(self, outcomes: Sequence[Outcome]) -> None:
        moved = [outcome for outcome in outcomes if outcome.moved_from]
        # All at once, for each look goes through all images.
        self._unjoined.stir([stored_path(outcome.moved_from) for outcome in moved])
        for outcome in moved:
            # Whatever this path held before was written over; in order, for an heir may have taken it just now.
            self._drop_records([outcome.file.path])
            names = {"old": stored_path(outcome.moved_from), "new": stored_path(outcome.file.path)}
            # A report's place may be what joins it to its study: it has to be joined anew.
            studies = self._write("SELECT study_uid FROM reports WHERE path = $old", old=names["old"])
            self._write("UPDATE reports SET path = $new, study_uid = NULL, link_rule = NULL WHERE path = $old", **names)
            self.versions.move(names["old"], names["new"])
            self._write("UPDATE images SET path = $new WHERE path = $old", **names)
            self._write("UPDATE failures SET path = $new WHERE path = $old", **names)
            self._write("DELETE FROM files WHERE path = $old", old=names["old"])
            self._note_left({uid for (uid,) in studies if uid})
        self._unjoined.stir([stored_path(outcome.file.path) for outcome in moved])

    def _drop_records(self, paths: Sequence[str]) -> None:
        stored = [stored_path(path) for path in paths]
        known = self._write("SELECT path FROM files WHERE path IN (SELECT unnest($paths))", paths=stored)
        if known:
            self._drop_records_stored([path for (path,) in known])

    def _drop_records_stored(self, paths: list[str]) -> None:
        gone = "path IN (SELECT unnest($paths))"
        self._unjoined.stir(paths)
        studies = self._write(
            f"SELECT study_uid, series_uid FROM images WHERE {gone} UNION SELECT study_uid, NULL FROM reports"
            f" WHERE {gone} AND study_uid IS NOT NULL",
            paths=paths,
        )
        self._write(
            f"INSERT INTO changes SELECT nextval('change_seq'), 'image', image_no FROM images WHERE {gone}", paths=paths
        )
        self._write(
            f"INSERT INTO changes SELECT nextval('change_seq'), 'document', report_no * 2 FROM reports WHERE {gone}",
            paths=paths,
        )
        for table in ("vectors", "unembedded", "regions", "slices", "sides"):
            self._write(
                f"DELETE FROM {table} WHERE image_no IN (SELECT image_no FROM images WHERE {gone})", paths=paths
            )
        self._write(
            f"DELETE FROM entities WHERE report_no IN (SELECT report_no FROM reports WHERE {gone})", paths=paths
        )
        dropped = self._write(f"DELETE FROM images WHERE {gone} RETURNING image_id", paths=paths)
        self._dropped += [image_id for (image_id,) in dropped]
        self._write(f"DELETE FROM reports WHERE {gone}", paths=paths)
        self.versions.drop(paths)
        self._emptied.note_series({series for _, series in studies if series})
        self._note_left({uid for uid, _ in studies})

    def _note_left(self, study_uids: set[str]) -> None:
        self._note_studies(study_uids)
        self._emptied.note(study_uids)

    def _note_studies(self, study_uids: set[str]) -> None:
        if study_uids:
            self._write(
                "INSERT INTO changes SELECT nextval('change_seq'), 'document', no FROM ("
                " SELECT study_no * 2 + 1 AS no FROM studies WHERE study_uid IN (SELECT unnest($uids))"
                " UNION ALL SELECT report_no * 2 FROM reports WHERE study_uid IN (SELECT unnest($uids)))",
                uids=sorted(study_uids),
            )

    def _without_conflicts(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        ids = [image.image_id for o in outcomes for image in o.images]
        held = self._write(
            "SELECT image_id, path, pixel_error, study_uid, series_uid, rows, columns FROM images"
            " WHERE image_id IN (SELECT unnest($ids))",
            ids=ids,
        )
        looks = {image_id: tuple(look) for image_id, _, _, *look in held}
        holders = {image_id: path for image_id, path, error, *_ in held if not error}
        # Of a broken and a sound file of one image the sound one is the image, whichever came first.
        broken = {image_id: path for image_id, path, error, *_ in held if error}
        displaced: dict[str, str] = {}
        settled: dict[int, Outcome] = {}
        for place, outcome in sorted(enumerate(outcomes), key=lambda item: any(i.pixel_error for i in item[1].images)):
            path = stored_path(outcome.file.path)
            sound = not any(image.pixel_error for image in outcome.images)
            if sound:
                displaced |= {broken.pop(i.image_id): path for i in outcome.images if i.image_id in broken}
            rivals = {**holders, **broken}
            rival = next((image for image in outcome.images if image.image_id in rivals), None)
            if rival is not None:
                holder = rivals[rival.image_id]
                reason = outcome.reason
                if not reason and _look(rival) != looks[rival.image_id]:
                    reason = f"another image with its SOPInstanceUID is in {holder}; remove one of the two"
                outcome = replace(
                    outcome,
                    state=DUPLICATE,
                    reason=reason,
                    images=(),
                    vectors=(),
                    reports=(),
                    held_by=disk_path(holder),
                )
            holders.update((image.image_id, path) for image in outcome.images)
            looks.update((image.image_id, _look(image)) for image in outcome.images)
            settled[place] = outcome
        if displaced:
            self._drop_records_stored(sorted(displaced))
            for old, new in displaced.items():
                # It stays listed as broken, and has its records back when the sound file goes.
                self._write("UPDATE files SET state = 'duplicate', held_by = $new WHERE path = $old", old=old, new=new)
        return [settled[place] for place in range(len(outcomes))]

    def _insert_files(self, outcomes: Sequence[Outcome]) -> None:
        paths = [stored_path(o.file.path) for o in outcomes]
        self._write("DELETE FROM files WHERE path IN (SELECT unnest($paths))", paths=paths)
        self._write("DELETE FROM failures WHERE path IN (SELECT unnest($paths))", paths=paths)
        self._database.insert(
            "files",
            {
                "path": paths,
                "root": [stored_path(o.file.root) for o in outcomes],
                "size": [o.file.size for o in outcomes],
                "mtime_ns": [o.file.mtime_ns for o in outcomes],
                "sha256": [o.file.sha256 for o in outcomes],
                "kind": [o.file.kind.value for o in outcomes],
                "state": [o.state for o in outcomes],
                "checked_ns": [o.checked_ns for o in outcomes],
                "held_by": [stored_path(o.held_by) for o in outcomes],
            },
        )
        failed = [(path, o.reason) for path, o in zip(paths, outcomes, strict=True) if o.reason]
        self._database.insert("failures", {"path": [p for p, _ in failed], "reason": [r for _, r in failed]})

    def _insert_images(self, outcomes: Sequence[Outcome], model_id: str) -> None:
        rows = [
            (stored_path(o.file.path), image, vector)
            for o in outcomes
            for image, vector in zip(o.images, o.vectors, strict=True)
        ]
        if not rows:
            return
        images = [image for _, image, _ in rows]
        self._insert_studies(images)
        numbers = self._numbers("image_no_seq", len(rows))
        columns: dict[str, list[Any]] = {
            "image_no": numbers,
            "path": [path for path, _, _ in rows],
        }
        for name in (
            "image_id",
            "sop_instance_uid",
            "study_uid",
            "series_uid",
            "frame",
            "number_of_frames",
            "instance_number",
            "modality",
            "sop_class_uid",
            "transfer_syntax_uid",
            "view_position",
            "rows",
            "columns",
            "bits_stored",
            "photometric_interpretation",
            "pixel_error",
        ):
            columns[name] = [getattr(image, name) for image in images]
        self._database.insert("images", columns)
        insert_places(self._database, numbers, images)
        embedded = [(no, vector) for no, (_, _, vector) in zip(numbers, rows, strict=True) if vector is not None]
        if embedded:
            self._database.insert_vectors(
                np.array([no for no, _ in embedded]), np.stack([v for _, v in embedded]), model_id=model_id
            )
        self._database.insert(
            "changes",
            {"seq": self._numbers("change_seq", len(numbers)), "kind": ["image"] * len(numbers), "no": numbers},
        )
        self._note_studies({image.study_uid for image in images})

    def _insert_studies(self, images: Sequence[Image]) -> None:
        studies: dict[str, dict[str, Any]] = {}
        series: dict[str, dict[str, Any]] = {}
        patients: dict[str, dict[str, Any]] = {}
        for image in images:
            _fill(studies, image.study_uid, image, _STUDY_COLUMNS)
            _fill(series, image.series_uid, image, _SERIES_COLUMNS)
            patients.setdefault(image.patient_id, {"patient_id": image.patient_id, "sex": image.patient_sex})
        numbers = self._numbers("study_no_seq", len(studies))
        for number, row in zip(numbers, studies.values(), strict=True):
            row["study_no"] = number
        for table, rows, conflict in (
            ("studies", studies, _STUDY_CONFLICT),
            ("series", series, "ON CONFLICT DO NOTHING"),
            ("patients", patients, "ON CONFLICT DO NOTHING"),
        ):
            first = next(iter(rows.values()))
            self._database.insert(
                table, {name: [row[name] for row in rows.values()] for name in first}, conflict=conflict
            )

    def _insert_reports(self, outcomes: Sequence[Outcome], pipeline_version: str) -> None:
        found = [
            NewReport(stored_path(o.file.path), report, "" if o.is_unread else pipeline_version)
            for o in outcomes
            for report in o.reports
        ]
        insert_reports(self._database, [new for new in found if not new.has_versions])
        self.versions.add([new for new in found if new.has_versions])
        self.versions.settle(note_studies=self._note_left)
        self._note_studies({new.report.study_uid for new in found if new.report.study_uid})

    def _numbers(self, sequence: str, count: int) -> list[int]:
        return [no for (no,) in self._write(f"SELECT nextval('{sequence}') FROM range($count)", count=count)]


_STUDY_COLUMNS = (
    "study_uid",
    "patient_id",
    "patient_sex",
    "patient_age",
    "accession_number",
    "study_id",
    "study_date",
    "study_description",
)
_SERIES_COLUMNS = (
    "series_uid",
    "study_uid",
    "modality",
    "series_number",
    "series_description",
    "body_part",
    "laterality",
    "manufacturer",
)


def _look(image: Image) -> tuple[Any, ...]:
    return image.study_uid, image.series_uid, image.rows, image.columns


def _fill(rows: dict[str, dict[str, Any]], key: str, image: Image, names: Sequence[str]) -> None:
    # One row a key; what an earlier image left empty a later one may say.
    row = rows.setdefault(key, {name: getattr(image, name) for name in names})
    for name in names:
        if row[name] in ("", None):
            row[name] = getattr(image, name)
