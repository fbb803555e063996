"""The striking points of all images in flat files, for questions that read them all: a cache of the table `regions`.

The database gives rows of this size at some 10,000 a second, whether ten are asked for or all; these files give them
as fast as memory does. Vectors lie beside each other as unsigned bytes, 128 above what they are, which is how
processors multiply whole numbers fastest. Files are read in blocks, never mapped: so memory stays bounded, and a
file that is cut short is an error and not the end of the process.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.disk import append, open_private, writing_to

FORMAT = 1
POINTS = 64
VALUES = 128
OFFSET = 128
"""What a stored vector's values are above the signed ones."""

_VECTORS, _PLACES, _NUMBERS, _SIDECAR = "vectors.u8", "places.u16", "numbers.i64", "index.json"
_BYTES = {_VECTORS: POINTS * VALUES, _PLACES: 2 * POINTS, _NUMBERS: 8}


@dataclass(frozen=True)
class _Sidecar:
    """What the files beside it hold. Written last, so it never claims more than there is."""

    format: int = FORMAT
    region_id: str = ""
    rows: int = 0
    watermark: int = 0


class PointFiles:
    """The points of one network, row by row in the order of arrival; rows are never changed.

    `folder` is created when missing. Files that are missing, too short, of another format or of another network are
    dropped: `numbers` is then empty. Not for several threads at once, but for reading.
    Raises StorageFullError, LibraryError.
    """

    def __init__(self, folder: Path, *, region_id: str) -> None:
        self._folder = folder
        self._region_id = region_id
        with writing_to(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._sidecar = self._read_sidecar()
        self.numbers: NDArray[np.int64] = np.empty(0, np.int64)
        if self._sidecar.rows:
            self.numbers = np.fromfile(folder / _NUMBERS, np.int64, self._sidecar.rows)

    @property
    def watermark(self) -> int:
        """The number of the library's last change when rows were last added."""
        return self._sidecar.watermark

    def reset(self) -> None:
        """Drop everything."""
        with writing_to(self._folder):
            self._remove()
            self._sidecar = _Sidecar(region_id=self._region_id)
            self.numbers = np.empty(0, np.int64)

    def append(
        self, numbers: NDArray[np.int64], places: NDArray[np.uint16], vectors: NDArray[np.int8], *, watermark: int
    ) -> None:
        """Add rows that are not held yet, durably: (n,), (n, 64), and (n, 64, 128) of signed values.

        After an error the files hold what they did before.
        """
        rows = self._sidecar.rows
        shifted = (vectors.view(np.uint8) ^ OFFSET).reshape(len(numbers), -1)
        with writing_to(self._folder):
            for name, values in (
                (_VECTORS, shifted),
                (_PLACES, places.astype("<u2")),
                (_NUMBERS, numbers.astype(np.int64)),
            ):
                append(self._folder / name, values.tobytes(), at=rows * _BYTES[name])
            self._write_sidecar(_Sidecar(FORMAT, self._region_id, rows + len(numbers), watermark))
        self.numbers = np.concatenate([self.numbers, numbers.astype(np.int64)])

    def vectors(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the vectors of rows `start` to `stop`, (n, 64, 128), each value `OFFSET` above what it is.

        Raises OSError where the file gives less than it should.
        """
        size = _BYTES[_VECTORS]
        with io.FileIO(self._folder / _VECTORS) as file:
            found = _read(file, start * size, (stop - start) * size)
        return found.reshape(stop - start, POINTS, VALUES)

    def rows(self, rows: Sequence[int]) -> tuple[NDArray[np.uint16], NDArray[np.int8]]:
        """Return the places (n, 64) and the signed vectors (n, 64, 128) of some rows, in their order.

        Raises OSError where the files give less than they should.
        """
        vectors = np.empty((len(rows), POINTS, VALUES), np.uint8)
        places = np.empty((len(rows), POINTS), np.uint16)
        if not len(rows):
            return places, vectors.view(np.int8)
        with (
            io.FileIO(self._folder / _VECTORS) as of_vectors,
            io.FileIO(self._folder / _PLACES) as of_places,
        ):
            for position, row in enumerate(rows):
                size = _BYTES[_VECTORS]
                vectors[position] = _read(of_vectors, row * size, size).reshape(POINTS, VALUES)
                size = _BYTES[_PLACES]
                places[position] = _read(of_places, row * size, size).view("<u2")
        return places, (vectors ^ OFFSET).view(np.int8)

    def _read_sidecar(self) -> _Sidecar:
        try:
            held = _Sidecar(**json.loads((self._folder / _SIDECAR).read_text("utf-8")))
            sound = (held.format, held.region_id) == (FORMAT, self._region_id) and all(
                (self._folder / name).stat().st_size >= held.rows * size for name, size in _BYTES.items()
            )
        except (OSError, ValueError, TypeError):
            sound = False
        if sound:
            return held
        self._remove()
        return _Sidecar(region_id=self._region_id)

    def _write_sidecar(self, sidecar: _Sidecar) -> None:
        part = self._folder / f"{_SIDECAR}.part"
        with os.fdopen(open_private(part), "r+b") as file:
            file.truncate(0)
            file.write(json.dumps(asdict(sidecar)).encode())
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._folder / _SIDECAR)
        self._sidecar = sidecar

    def _remove(self) -> None:
        # First what vouches for the others.
        for name in (_SIDECAR, *_BYTES):
            (self._folder / name).unlink(missing_ok=True)


def _read(file: io.FileIO, start: int, size: int) -> NDArray[np.uint8]:
    content = np.empty(size, np.uint8)
    file.seek(start)
    view, done = content.data, 0
    while done < size:
        piece = file.readinto(view[done:])
        if not piece:
            raise OSError(f"ends after {start + done} bytes")
        done += piece
    return content
