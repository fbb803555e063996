"""Where images lie: slices of volumes, which of them have vectors, the mean vector of each series, sides of the body.

What is chosen and averaged follows from what is stored alone, so an ingest that was cut off is made up for by the
next: every step begins by asking which series are not as they should be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.records import Failure, Image, Place
from medsearch_desktop.store.database import Database, disk_path

# Means that are compared at once: 64 MB.
_AT_ONCE = 16_384
# Series that are chosen for or averaged at once: some 12 MB of vectors.
SERIES_AT_ONCE = 256
_AMONG = "count(*) || ':' || bit_xor(hash(image_no))"


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice of a volume, and what tells it apart from others at its place."""

    image_no: int
    place: Place
    number: tuple[int, int, str]


def insert_places(database: Database, numbers: Sequence[int], images: Sequence[Image]) -> None:
    """Write the sides of `images` and where the slices among them lie, inside the transaction that writes them.

    No slice is a key slice yet.
    """
    sided = [(no, image.laterality) for no, image in zip(numbers, images, strict=True) if image.laterality]
    if sided:
        database.insert("sides", {"image_no": [no for no, _ in sided], "laterality": [side for _, side in sided]})
    slices = [(no, image, image.place) for no, image in zip(numbers, images, strict=True) if image.place is not None]
    if slices:
        database.insert(
            "slices",
            {
                "image_no": [no for no, _, _ in slices],
                "series_uid": [image.series_uid for _, image, _ in slices],
                "orientation": [place.orientation for _, _, place in slices],
                "position": [place.position for _, _, place in slices],
                "key_slice": [False] * len(slices),
            },
        )


class Stacks:
    """Reads and writes the volumes of a library; safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def unsettled(self, key_slices: int) -> list[tuple[str, str]]:
        """Return (series_uid, what it holds now) of series whose key slices were chosen among others, or not at all."""
        rows = self._database.read(
            f"SELECT series_uid, now FROM (SELECT series_uid, {_AMONG} || ':' || $wanted AS now FROM slices"
            " GROUP BY series_uid) LEFT JOIN stacks USING (series_uid) WHERE among IS DISTINCT FROM now"
            " ORDER BY series_uid",
            {"wanted": key_slices},
        )
        return [(uid, now) for uid, now in rows]

    def slices_of(self, series_uids: Sequence[str]) -> dict[str, list[Slice]]:
        """Return the slices that can be shown of each of these series."""
        rows = self._database.read(
            "SELECT slices.series_uid, image_no, orientation, position, coalesce(instance_number, 2147483647), frame,"
            " image_id FROM slices JOIN images USING (image_no) WHERE slices.series_uid IN (SELECT unnest($uids))",
            {"uids": list(series_uids)},
        )
        found: dict[str, list[Slice]] = {uid: [] for uid in series_uids}
        for uid, no, turned, position, *number in rows:
            found[uid].append(Slice(no, Place(turned, position), tuple(number)))
        return found

    def choose(self, image_nos: Sequence[int], *, among: Mapping[str, str]) -> None:
        """Commit the key slices of some series, `among` which they were chosen by series.

        Vectors of slices that are none any more go.
        """
        of_them = "series_uid IN (SELECT unnest($uids))"
        parameters: dict[str, Any] = {"uids": list(among), "nos": list(image_nos)}
        others = f"SELECT image_no FROM slices WHERE {of_them} AND image_no NOT IN (SELECT unnest($nos))"
        with self._database.transaction():
            self._write(
                "INSERT INTO changes SELECT nextval('change_seq'), 'image', image_no FROM"
                f" (SELECT DISTINCT image_no FROM vectors WHERE image_no IN ({others}))",
                **parameters,
            )
            for table in ("vectors", "unembedded"):
                self._write(f"DELETE FROM {table} WHERE image_no IN ({others})", **parameters)
            self._write(f"UPDATE slices SET key_slice = false WHERE key_slice AND image_no IN ({others})", **parameters)
            self._write(
                "UPDATE slices SET key_slice = true WHERE NOT key_slice AND image_no IN (SELECT unnest($nos))",
                nos=parameters["nos"],
            )
            self._write(f"DELETE FROM stacks WHERE {of_them}", uids=parameters["uids"])
            self._database.insert("stacks", {"series_uid": list(among), "among": list(among.values())})

    def give_up(self, model_id: str) -> list[Failure]:
        """Commit that slices which a model tried in vain cannot be shown, and return their files, each once."""
        failed = "SELECT image_no FROM unembedded SEMI JOIN slices USING (image_no) WHERE model_id = $model"
        with self._database.transaction():
            rows = self._write(
                "SELECT path, min(reason) FROM unembedded JOIN images USING (image_no) SEMI JOIN slices"
                " USING (image_no) WHERE model_id = $model GROUP BY path ORDER BY path",
                model=model_id,
            )
            if rows:
                nos = [no for (no,) in self._write(failed, model=model_id)]
                self._write(
                    "UPDATE images SET pixel_error = u.reason FROM unembedded u WHERE u.image_no = images.image_no"
                    " AND u.model_id = $model AND list_contains($nos, images.image_no)",
                    model=model_id,
                    nos=nos,
                )
                paths = [path for path, _ in rows]
                self._write("DELETE FROM failures WHERE path IN (SELECT unnest($paths))", paths=paths)
                reasons = [reason for _, reason in rows]
                self._database.insert("failures", {"path": paths, "reason": reasons})
                self._write("UPDATE files SET state = 'failed' WHERE path IN (SELECT unnest($paths))", paths=paths)
                for table in ("slices", "unembedded", "vectors"):
                    self._write(f"DELETE FROM {table} WHERE list_contains($nos, image_no)", nos=nos)
        return [Failure(disk_path(path), reason) for path, reason in rows]

    def average(self, model_id: str) -> int:
        """Commit the mean vector of every series whose key slices have other vectors than it was made of.

        Return how many series that were.
        """
        with self._database.transaction():
            self._write(
                "DELETE FROM series_vectors WHERE series_uid NOT IN (SELECT series_uid FROM slices WHERE key_slice)"
            )
            self._write("DELETE FROM stacks WHERE series_uid NOT IN (SELECT series_uid FROM slices)")
        stale = self._database.read(
            f"SELECT series_uid, now FROM (SELECT series_uid, {_AMONG} AS now FROM slices JOIN vectors USING (image_no)"
            " WHERE key_slice AND model_id = $model GROUP BY series_uid) LEFT JOIN (SELECT * FROM series_vectors WHERE"
            " model_id = $model) USING (series_uid) WHERE members IS DISTINCT FROM now ORDER BY series_uid",
            {"model": model_id},
        )
        for start in range(0, len(stale), SERIES_AT_ONCE):
            self._write_means(model_id, dict(stale[start : start + SERIES_AT_ONCE]))
        return len(stale)

    def _write_means(self, model_id: str, members: Mapping[str, str]) -> None:
        parameters = {"uids": list(members), "model": model_id}
        rows = self._database.read_arrays(
            "SELECT slices.series_uid, vector FROM slices JOIN vectors USING (image_no) JOIN images USING (image_no)"
            " WHERE slices.series_uid IN (SELECT unnest($uids)) AND model_id = $model AND key_slice"
            " ORDER BY slices.series_uid, image_id",
            parameters,
        )
        if not len(rows["vector"]):
            # Gone since they were listed.
            return
        vectors = np.stack(list(rows["vector"])).astype(np.float64)
        owners = rows["series_uid"]
        uids, firsts = np.unique(owners.astype(str), return_index=True)
        sums = np.add.reduceat(vectors, firsts, axis=0)
        means = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        with self._database.transaction():
            self._write(
                "DELETE FROM series_vectors WHERE series_uid IN (SELECT unnest($uids)) AND model_id = $model",
                **parameters,
            )
            self._database.insert(
                "series_vectors",
                {
                    "series_uid": uids.tolist(),
                    "model_id": [model_id] * len(uids),
                    "members": [members[uid] for uid in uids.tolist()],
                    "vector": means.astype(np.float32).tolist(),
                },
            )

    def mean(self, series_uid: str, model_id: str) -> NDArray[np.float32] | None:
        """Return the mean vector of a series, or None where it has none of that model."""
        rows = self._database.read(
            "SELECT vector FROM series_vectors WHERE series_uid = $uid AND model_id = $model",
            {"uid": series_uid, "model": model_id},
        )
        return np.array(rows[0][0], np.float32) if rows else None

    def means(self, model_id: str) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
        """Yield (series, mean vectors (n, 1024)) in blocks, by series."""
        after = ""
        while True:
            block = self._database.read_arrays(
                "SELECT series_uid, vector FROM series_vectors WHERE model_id = $model AND series_uid > $after"
                f" ORDER BY series_uid LIMIT {_AT_ONCE}",
                {"model": model_id, "after": after},
            )
            if not len(block["series_uid"]):
                return
            uids = [str(uid) for uid in block["series_uid"]]
            after = uids[-1]
            yield uids, np.stack(list(block["vector"])).astype(np.float32, copy=False)

    def has_series(self, series_uid: str) -> bool:
        """Whether there is a series of that identifier."""
        return bool(self._database.read("SELECT 1 FROM series WHERE series_uid = $uid", {"uid": series_uid}))

    def images_of_series(self, series_uid: str) -> NDArray[np.int64]:
        """Return the numbers of the images of a series; none for what is no series."""
        arrays = self._database.read_arrays(
            "SELECT image_no FROM images WHERE series_uid = $uid ORDER BY image_no", {"uid": series_uid}
        )
        return np.asarray(arrays["image_no"], dtype=np.int64)

    def middle_slices(self, series_uids: Sequence[str]) -> dict[str, int]:
        """Return the number of the middle key slice of each series."""
        rows = self._database.read(
            "SELECT slices.series_uid, list(image_no ORDER BY orientation, position, instance_number, frame, image_id)"
            " FROM slices JOIN images USING (image_no) WHERE key_slice AND slices.series_uid IN (SELECT unnest($uids))"
            " GROUP BY slices.series_uid",
            {"uids": list(series_uids)},
        )
        return {uid: numbers[len(numbers) // 2] for uid, numbers in rows}

    def series_of(self, image_nos: NDArray[np.int64]) -> dict[int, str]:
        """Return the series of those images that are slices of a volume."""
        if not len(image_nos):
            return {}
        rows = self._database.read(
            "SELECT image_no, series_uid FROM slices WHERE image_no IN (SELECT no FROM numbers)", numbers=image_nos
        )
        return dict(rows)

    def series_among(self, image_nos: NDArray[np.int64]) -> set[str]:
        """Return the volumes that any of these images is of."""
        rows = self._database.read(
            "SELECT DISTINCT series_uid FROM slices WHERE image_no IN (SELECT no FROM numbers)", numbers=image_nos
        )
        return {uid for (uid,) in rows}

    def _write(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return self._database.write(sql, parameters)
