"""The striking points of every image, by which regions are compared: one row an image and network.

A row holds its points as they are: 64 places as little-endian 16-bit numbers, then their 64 vectors of 128 signed
bytes, 8,320 bytes in all. A question goes over those of all images, 0.8 GB of 100,000: for that they lie once more in
the files of `store.points`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.errors import LibraryError
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.points import POINTS, VALUES, PointFiles

ROW_BYTES = POINTS * (2 + VALUES)
# Images whose points stand in memory at once: on the way to the files 17 MB, in a question 4 MB a thread.
_AT_ONCE, _COMPARED_AT_ONCE = 2048, 512
# Share of rows of images that are gone at which the files are made anew.
_ANEW_ABOVE = 0.2

_T = TypeVar("_T")

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
    """Reads and writes striking points; safe to use from several threads.

    `folder` is that of the files, which are made of the table whenever they are missing, damaged, or of another one.
    """

    def __init__(self, database: Database, region_id: str, *, folder: Path) -> None:
        self._database = database
        self._region_id = region_id
        self._folder = folder
        self._lock = threading.RLock()
        self._files: PointFiles | None = None
        # The change of the library up to which `_alive` tells which rows of the files are of images that are there.
        self._seen = -1
        self._alive = np.empty(0, np.bool_)

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
        # Both under one lock: a question in between would take the rows for missing and put them into the files, too.
        with self._lock:
            files = self.catch_up()
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
                numbers = np.array([image_nos[place] for place in kept], np.int64)
                self._database.insert(
                    "regions",
                    {
                        "image_no": numbers,
                        "region_id": [self._region_id] * len(kept),
                        "points": [rows[place].tobytes() for place in kept],
                    },
                )
            if kept:
                # After an error, and after a crash, catching up puts them in.
                seen, self._seen = self._seen, -1
                files.append(numbers, places[kept], vectors[kept], watermark=seen)
                self._alive = np.concatenate([self._alive, np.ones(len(kept), np.bool_)])
                self._seen = seen
        return len(kept)

    def catch_up(self) -> PointFiles:
        """Bring the files to what the table holds, and return them. Raises StorageFullError, LibraryError."""
        with self._lock:
            last = int(self._database.read("SELECT coalesce(max(seq), 0) FROM changes")[0][0])
            files = self._files
            if files is None:
                files = self._files = PointFiles(self._folder, region_id=self._region_id)
            # Files that know more than the database are of another state of it: one that was put back by hand.
            if files.watermark > last:
                files.reset()
            elif self._seen == last:
                return files
            self._seen = -1
            # Points are never changed: it is enough to know which images have any.
            numbers = np.asarray(
                self._database.read_arrays(
                    "SELECT image_no FROM regions WHERE region_id = $region", {"region": self._region_id}
                )["image_no"],
                np.int64,
            )
            if (~np.isin(files.numbers, numbers)).sum() > _ANEW_ABOVE * len(files.numbers):
                files.reset()
            for block in self._missing(numbers, files.numbers):
                files.append(*block, watermark=last)
            self._alive = np.isin(files.numbers, numbers)
            self._seen = last
            return files

    def _missing(self, numbers: NDArray[np.int64], held: NDArray[np.int64]) -> Iterator[Block]:
        missing = np.setdiff1d(numbers, held)
        if not len(missing):
            return
        for rows in self._database.read_chunks(
            "SELECT image_no, points FROM regions WHERE region_id = $region AND image_no >= $least",
            {"region": self._region_id, "least": int(missing[0])},
            rows=_AT_ONCE,
        ):
            block = _block([row for row in rows if len(row[1]) == ROW_BYTES])
            wanted = np.isin(block.numbers, missing)
            if wanted.any():
                yield Block(block.numbers[wanted], block.places[wanted], block.vectors[wanted])

    def compare(
        self, likeness: Callable[[NDArray[np.uint8]], NDArray[np.float32]], *, threads: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the numbers of all images that have points, and what `likeness` returns for them.

        It is called by several threads, with the vectors of some images as `PointFiles.vectors` returns them.
        """

        def over(files: PointFiles) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
            rows = len(files.numbers)

            def part(start: int) -> NDArray[np.float32]:
                return likeness(files.vectors(start, min(start + _COMPARED_AT_ONCE, rows)))

            with ThreadPoolExecutor(threads) as pool:
                parts = list(pool.map(part, range(0, rows, _COMPARED_AT_ONCE)))
            return files.numbers[self._alive], np.concatenate([np.empty(0, np.float32), *parts])[self._alive]

        return self._reading(over)

    def of(self, image_nos: Sequence[int]) -> Block:
        """Return the points of those of some images that have any."""

        def some(files: PointFiles) -> Block:
            rows = np.flatnonzero(np.isin(files.numbers, np.asarray(image_nos, np.int64)) & self._alive)
            return Block(files.numbers[rows], *files.rows(rows.tolist()))

        return self._reading(some)

    def _reading(self, read: Callable[[PointFiles], _T]) -> _T:
        """Return what `read` makes of the files, which are made anew once where they cannot be read."""
        with self._lock:
            try:
                return read(self.catch_up())
            except OSError:
                self._files, self._seen = None, -1
                PointFiles(self._folder, region_id=self._region_id).reset()
            try:
                return read(self.catch_up())
            except OSError as error:
                raise LibraryError(
                    f"the points of regions cannot be read ({error.strerror or error})",
                    item=str(self._folder),
                    remedy="Check the disk",
                ) from error

    def shapes(self, image_nos: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Return (width, height) in pixels by image number."""
        listed = ",".join(str(int(no)) for no in image_nos) or "NULL"
        rows = self._database.read(f"SELECT image_no, columns, rows FROM images WHERE image_no IN ({listed})")
        return {no: (columns, height) for no, columns, height in rows}


def _block(rows: list[tuple[int, bytes]]) -> Block:
    table = np.frombuffer(b"".join(points for _, points in rows), np.uint8).reshape(len(rows), ROW_BYTES)
    places = np.ascontiguousarray(table[:, : 2 * POINTS]).view("<u2").astype(np.uint16)
    vectors = np.ascontiguousarray(table[:, 2 * POINTS :]).view(np.int8).reshape(len(rows), POINTS, VALUES)
    return Block(np.array([no for no, _ in rows], np.int64), places, vectors)
