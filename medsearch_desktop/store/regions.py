"""The striking points of every image, by which regions are compared: one row an image and network.

A row holds its points as they are: 64 places as little-endian 16-bit numbers, then their 64 vectors of 128 signed
bytes, 8,320 bytes in all. They are scanned whole for every question: of 100,000 images that is 0.8 GB read in blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.store.database import Database

POINTS = 64
VALUES = 128
ROW_BYTES = POINTS * (2 + VALUES)
# Images whose points stand in memory at once while a question goes over them: 17 MB, and 67 as float32.
_AT_ONCE = 2048

# As for vectors: images of which only the header was ever read wait for an ordinary ingest, and of a volume the key
# slices alone stand for it.
_LACKING = """
FROM images WHERE pixel_error = '' AND image_no > $after
  AND image_no NOT IN (SELECT image_no FROM regions WHERE region_id = $region)
  AND path IN (SELECT path FROM files WHERE state != 'metadata')
  AND image_no NOT IN (SELECT image_no FROM slices WHERE NOT key_slice)
"""


class Block(NamedTuple):
    """The points of some images: numbers (n,) int64, places (n, 64) uint16, vectors (n, 64, 128) int8."""

    numbers: NDArray[np.int64]
    places: NDArray[np.uint16]
    vectors: NDArray[np.int8]


class RegionStore:
    """Reads and writes striking points; safe to use from several threads."""

    def __init__(self, database: Database, region_id: str) -> None:
        self._database = database
        self._region_id = region_id

    def count(self) -> int:
        """Count the images that have points."""
        rows = self._database.read(
            "SELECT count(*) FROM regions WHERE region_id = $region", {"region": self._region_id}
        )
        return int(rows[0][0])

    def count_lacking(self) -> int:
        """Count the images with pixels that have none."""
        rows = self._database.read(f"SELECT count(*) {_LACKING}", {"region": self._region_id, "after": -1})
        return int(rows[0][0])

    def lacking(self, *, after: int, limit: int) -> list[tuple[int, str]]:
        """Return (image_no, image_id) of up to `limit` images above number `after` that have none, in order."""
        return self._database.read(
            f"SELECT image_no, image_id {_LACKING} ORDER BY image_no LIMIT $limit",
            {"region": self._region_id, "after": after, "limit": limit},
        )

    def add(self, image_nos: Sequence[int], places: NDArray[np.uint16], vectors: NDArray[np.int8]) -> int:
        """Commit points, (n, 64) and (n, 64, 128), of images that are still here and have none; return how many."""
        rows = np.concatenate(
            [
                places.astype("<u2").reshape(len(image_nos), -1).view(np.uint8),
                vectors.reshape(len(image_nos), -1).view(np.uint8),
            ],
            axis=1,
        )
        with self._database.transaction():
            listed = ",".join(str(int(no)) for no in image_nos) or "NULL"
            wanted = {
                no
                for (no,) in self._database.write(
                    f"SELECT image_no FROM images WHERE image_no IN ({listed}) AND image_no NOT IN"
                    f" (SELECT image_no FROM regions WHERE image_no IN ({listed}) AND region_id = $region)",
                    {"region": self._region_id},
                )
            }
            kept = [place for place, no in enumerate(image_nos) if no in wanted]
            self._database.insert(
                "regions",
                {
                    "image_no": np.array([image_nos[place] for place in kept], np.int64),
                    "region_id": [self._region_id] * len(kept),
                    "points": [rows[place].tobytes() for place in kept],
                },
            )
        return len(kept)

    def scan(self) -> Iterator[Block]:
        """Yield the points of all images, in blocks and in no particular order."""
        for rows in self._database.read_chunks(
            "SELECT image_no, points FROM regions WHERE region_id = $region", {"region": self._region_id}, rows=_AT_ONCE
        ):
            yield _block(rows)

    def of(self, image_nos: Sequence[int]) -> Block:
        """Return the points of those of some images that have any."""
        listed = ",".join(str(int(no)) for no in image_nos) or "NULL"
        return _block(
            self._database.read(
                f"SELECT image_no, points FROM regions WHERE region_id = $region AND image_no IN ({listed})",
                {"region": self._region_id},
            )
        )

    def shapes(self, image_nos: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Return (width, height) in pixels by image number."""
        listed = ",".join(str(int(no)) for no in image_nos) or "NULL"
        rows = self._database.read(f"SELECT image_no, columns, rows FROM images WHERE image_no IN ({listed})")
        return {no: (columns, height) for no, columns, height in rows}


def _block(rows: list[tuple[int, bytes]]) -> Block:
    sound = [(no, points) for no, points in rows if len(points) == ROW_BYTES]
    table = np.frombuffer(b"".join(points for _, points in sound), np.uint8).reshape(len(sound), ROW_BYTES)
    places = np.ascontiguousarray(table[:, : 2 * POINTS]).view("<u2").astype(np.uint16)
    vectors = np.ascontiguousarray(table[:, 2 * POINTS :]).view(np.int8).reshape(len(sound), POINTS, VALUES)
    return Block(np.array([no for no, _ in sound], np.int64), places, vectors)
