"""Which models a library has vectors of, which one is in use, and what the match meter measured of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.records import Failure, HeldModel, MatchCurve, ModelRole
from medsearch_desktop.store.database import Database, disk_path

# The length of the column that holds a vector.
DIM = 1024

# Images of which only the header was ever read wait for an ordinary ingest, those without pixels and slices that
# their series has not chosen for nothing.
# By numbers first: to look at the paths of all images and files takes four times as long, and mostly none is left.
_LACKING = """
WITH without AS MATERIALIZED (
    SELECT image_no FROM images
    WHERE pixel_error = '' AND image_no > $after
      AND image_no NOT IN (SELECT image_no FROM vectors WHERE model_id = $model)
      AND image_no NOT IN (SELECT image_no FROM slices WHERE NOT key_slice)
)
SELECT image_no, image_id, path FROM images
WHERE image_no IN (FROM without) AND path IN (SELECT path FROM files WHERE state != 'metadata')
"""
_NOT_TRIED = " AND image_no NOT IN (SELECT image_no FROM unembedded WHERE model_id = $model)"


@dataclass(frozen=True, slots=True)
class LackingFile:
    """One file with images that lack a vector: their numbers and identifiers, in the order of the file.

    `sha256` is what it held when it was indexed.
    """

    path: str
    size: int
    sha256: str
    image_nos: tuple[int, ...]
    image_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Labelled:
    """The images that have a vector and a report: number, whose they are, what the report calls present.

    `patients` holds one number a patient, or a study where the patient is not known. `findings` is
    boolean of shape (n, findings); its last column stands for "no finding".
    """

    image_nos: NDArray[np.int64]
    patients: NDArray[np.int64]
    findings: NDArray[np.bool_]


class Models:
    """Reads and writes what a library knows of its models; safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def held(self) -> list[HeldModel]:
        """Return every model that has a role or vectors here, the one in use first, then by name."""
        rows = self._database.read(
            "SELECT model_id, coalesce(role, 'kept'), coalesce(n, 0), coalesce(sha256, '') FROM models"
            " FULL JOIN (SELECT model_id, count(*) AS n FROM vectors GROUP BY model_id) USING (model_id)"
            " WHERE coalesce(role, 'kept') != 'kept' OR n > 0 ORDER BY coalesce(role, '') != 'in use', model_id"
        )
        return [HeldModel(model_id, ModelRole(role), count, sha256) for model_id, role, count, sha256 in rows]

    def adopt(self, model_id: str, *, sha256: str) -> None:
        """Commit that a model is the one in use, whatever was before."""
        with self._database.transaction():
            self._database.write("DELETE FROM models WHERE role = 'in use' AND model_id != $model", {"model": model_id})
            self._set_role(model_id, ModelRole.IN_USE, sha256)

    def remember_file(self, model_id: str, sha256: str) -> None:
        """Commit which file makes a model's vectors, where that is not known yet."""
        self._database.write(
            "UPDATE models SET sha256 = $sha256 WHERE model_id = $model AND sha256 = ''",
            {"model": model_id, "sha256": sha256},
        )

    def begin(self, model_id: str, *, sha256: str) -> None:
        """Commit that a switch to a model has begun; one to another that had not ended is given up."""
        with self._database.transaction():
            self._database.write("UPDATE models SET role = 'kept' WHERE role = 'next'")
            self._database.write(
                "INSERT INTO models VALUES ($model, 'next', $sha256) ON CONFLICT (model_id) DO UPDATE SET"
                " role = CASE WHEN role = 'in use' THEN role ELSE 'next' END, sha256 = coalesce(nullif(sha256, ''),"
                " excluded.sha256)",
                {"model": model_id, "sha256": sha256},
            )

    def finish(self, model_id: str, *, after: int) -> bool:
        """Commit that a model is the one in use, unless images above `after` came that it has not seen."""
        with self._database.transaction():
            if self._database.write(f"{_LACKING} LIMIT 1", {"model": model_id, "after": after}):
                return False
            self._database.write("UPDATE models SET role = 'kept' WHERE role IN ('in use', 'next')")
            self._set_role(model_id, ModelRole.IN_USE, "")
        return True

    def drop(self, model_id: str) -> int:
        """Commit that all that a model made is gone; return how many vectors that were."""
        parameters = {"model": model_id}
        with self._database.transaction():
            ((count,),) = self._database.write("SELECT count(*) FROM vectors WHERE model_id = $model", parameters)
            for table in ("vectors", "unembedded", "curves", "models", "series_vectors"):
                self._database.write(f"DELETE FROM {table} WHERE model_id = $model", parameters)
        self._database.checkpoint()
        return int(count)

    def count_lacking(self, model_id: str, *, retry: bool = True) -> int:
        """Count the images that a model has still to embed; without `retry`, but those that it could not."""
        sql = _LACKING if retry else _LACKING + _NOT_TRIED
        ((count,),) = self._database.read(f"SELECT count(*) FROM ({sql})", {"model": model_id, "after": -1})
        return int(count)

    def lacking(self, model_id: str, *, after: int, retry: bool, limit: int) -> list[LackingFile]:
        """Return up to `limit` files with images above number `after` that lack a vector, in order of number."""
        sql = _LACKING if retry else _LACKING + _NOT_TRIED
        rows = self._database.read(
            f"WITH lacking AS ({sql}), page AS (SELECT path, list(image_no ORDER BY image_no) AS nos,"
            " list(image_id ORDER BY image_no) AS ids FROM lacking GROUP BY path ORDER BY min(image_no) LIMIT $limit)"
            " SELECT path, size, sha256, nos, ids FROM page JOIN files USING (path) ORDER BY nos[1]",
            {"model": model_id, "after": after, "limit": limit},
        )
        return [
            LackingFile(disk_path(path), size, sha256, tuple(nos), tuple(ids)) for path, size, sha256, nos, ids in rows
        ]

    def add_vectors(
        self,
        model_id: str,
        image_nos: Sequence[int],
        vectors: NDArray[np.float32],
        *,
        failed: Sequence[tuple[int, str]] = (),
    ) -> int:
        """Commit vectors (n, 1024) of images that are still here and have none, and (image_no, reason) of failures.

        Return how many vectors that were.
        """
        with self._database.transaction():
            tried = [*image_nos, *(no for no, _ in failed)]
            wanted = self._still_lacking(model_id, tried)
            kept = [place for place, no in enumerate(image_nos) if no in wanted]
            self._database.insert_vectors(
                np.array([image_nos[place] for place in kept], np.int64), vectors[kept], model_id=model_id
            )
            self._database.write(
                "INSERT INTO changes SELECT nextval('change_seq'), 'image', no FROM (SELECT unnest($nos) AS no)",
                {"nos": [image_nos[place] for place in kept]},
            )
            self._database.write(
                "DELETE FROM unembedded WHERE model_id = $model AND image_no IN (SELECT unnest($nos))",
                {"model": model_id, "nos": tried},
            )
            reasons = [(no, reason) for no, reason in failed if no in wanted]
            self._database.insert(
                "unembedded",
                {
                    "image_no": [no for no, _ in reasons],
                    "model_id": [model_id] * len(reasons),
                    "reason": [reason for _, reason in reasons],
                },
            )
        return len(kept)

    def unembedded(self, model_id: str) -> list[Failure]:
        """Return the files of images that a model could not embed though they were there, and why."""
        rows = self._database.read(
            "SELECT path, min(reason) FROM unembedded JOIN images USING (image_no) WHERE model_id = $model"
            " GROUP BY path ORDER BY path",
            {"model": model_id},
        )
        return [Failure(disk_path(path), reason) for path, reason in rows]

    def curve(self, model_id: str) -> MatchCurve | None:
        """Return what the match meter measured of a model, or None."""
        rows = self._database.read("SELECT curve FROM curves WHERE model_id = $model", {"model": model_id})
        return MatchCurve.from_json(json.loads(rows[0][0])) if rows else None

    def measured(self) -> list[str]:
        """Return the models that have a curve, by name."""
        return [model_id for (model_id,) in self._database.read("SELECT model_id FROM curves ORDER BY model_id")]

    def set_curve(self, curve: MatchCurve) -> None:
        """Commit a curve in place of an older one of its model."""
        self._database.write(
            "INSERT INTO curves VALUES ($model, $curve) ON CONFLICT (model_id) DO UPDATE SET curve = excluded.curve",
            {"model": curve.model_id, "curve": json.dumps(curve.as_json())},
        )

    def pipeline_version(self) -> str:
        """Return what read the library's reports, all versions of it."""
        rows = self._database.read("SELECT DISTINCT pipeline_version FROM reports ORDER BY ALL")
        return ", ".join(version for (version,) in rows)

    def labelled(self, model_id: str) -> Labelled:
        """Return the images that a model has embedded and whose study has a report, by number."""
        rows = self._database.read(
            "SELECT image_no, patient_id, study_uid, findings FROM vectors JOIN images USING (image_no)"
            " JOIN studies USING (study_uid) JOIN (SELECT study_uid, list(DISTINCT finding)"
            "   FILTER (finding != '' AND assertion = 'present') AS findings"
            "   FROM reports LEFT JOIN entities USING (report_no) WHERE study_uid IS NOT NULL GROUP BY study_uid"
            " ) USING (study_uid) WHERE model_id = $model ORDER BY image_no",
            {"model": model_id},
        )
        names = sorted({name for *_, found in rows for name in found or ()})
        column = {name: place for place, name in enumerate(names)}
        owners: dict[tuple[str, str], int] = {}
        findings = np.zeros((len(rows), len(names) + 1), np.bool_)
        patients = np.empty(len(rows), np.int64)
        for place, (_, patient_id, study_uid, found) in enumerate(rows):
            owner = ("patient", patient_id) if patient_id else ("study", study_uid)
            patients[place] = owners.setdefault(owner, len(owners))
            findings[place, [column[name] for name in found or ()] or [-1]] = True
        return Labelled(np.array([no for no, *_ in rows], np.int64), patients, findings)

    def _set_role(self, model_id: str, role: ModelRole, sha256: str) -> None:
        self._database.write(
            "INSERT INTO models VALUES ($model, $role, $sha256) ON CONFLICT (model_id) DO UPDATE SET role = $role,"
            " sha256 = coalesce(nullif(sha256, ''), excluded.sha256)",
            {"model": model_id, "role": role.value, "sha256": sha256},
        )

    def _still_lacking(self, model_id: str, image_nos: Sequence[int]) -> set[int]:
        if not image_nos:
            return set()
        # Literal numbers reach the index of either table.
        listed = ",".join(str(int(no)) for no in image_nos)
        here = self._database.write(
            f"SELECT image_no FROM images WHERE image_no IN ({listed})"
            f" EXCEPT SELECT image_no FROM slices WHERE NOT key_slice AND image_no IN ({listed})"
        )
        done = self._database.write(
            f"SELECT image_no FROM vectors WHERE image_no IN ({listed}) AND model_id = $model", {"model": model_id}
        )
        return {no for (no,) in here} - {no for (no,) in done}
