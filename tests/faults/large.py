"""Films that are larger than is read at once, and take no room on the disk."""

from __future__ import annotations

import io
import struct
from pathlib import Path

from makers import Film, dataset


def large_film(path: Path, side: int) -> Path:
    """Write a sound film of side x side zeros, which take no room on the disk."""
    ds = dataset(Film(patient=7, study=7, size=8))
    ds.Rows = ds.Columns = side
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    head = buffer.getvalue()[: -len(ds.PixelData) - 4] + struct.pack("<I", 2 * side * side)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + 2 * side * side)
    return path
