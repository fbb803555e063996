"""What the cloud sample's container does with one image, told again without the network.

A re-telling of the steps of aws-samples/medical-image-search (`artifacts/dicom_featurization_service.py`), in its
order and one image at a time: read with pydicom, scale the stored values by their maximum to 8 bits whatever
the header says of windows and MONOCHROME1, write a PNG of full size, read it again and write a tenth of it as
thumbnail, write a row of metadata, resize the stored values, crop at random, and run DenseNet121 in torch. The
upload, the download and the two web services are left out and a local table takes both rows: that is in its favour.
"""

from __future__ import annotations

import random
import sqlite3
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import torch
from numpy.typing import NDArray
from PIL import Image as Raster

SIZE = 512
_MEAN = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
_STD = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)


class CloudSample:
    """One container; `network` maps (1, 3, size, size) to (1, 1024)."""

    def __init__(self, network: Any, folder: Path, *, size: int = SIZE) -> None:
        self._network = network
        self._folder = folder
        self._size = size
        self._random = random.Random(3)
        folder.mkdir(parents=True, exist_ok=True)
        self._table = sqlite3.connect(folder / "rows.sqlite")
        self._table.execute("CREATE TABLE IF NOT EXISTS images (id TEXT PRIMARY KEY, row TEXT, vector BLOB)")

    def close(self) -> None:
        self._table.close()

    def index(self, path: Path) -> NDArray[np.float32]:
        """Do all that is done with one file and return its vector, shape (1024,)."""
        ds = pydicom.dcmread(path)
        values = ds.pixel_array.astype(float)
        grey = np.uint8(np.maximum(values, 0) / values.max() * 255.0)
        full = self._folder / f"{path.stem}.full.png"
        full.write_bytes(_png(grey))
        with Raster.open(full) as picture:
            small = picture.resize((picture.width // 10, picture.height // 10))
        full.unlink()
        thumbnail = self._folder / f"{path.stem}.png"
        small.save(thumbnail)
        row = (ds.ViewPosition, str(thumbnail), f"s{ds.StudyID}", ds.Modality, ds.BodyPartExamined)
        tensor = self._prepared(np.asarray(values, np.float32) / (2**ds.BitsStored - 1))
        with torch.no_grad():
            vector: NDArray[np.float32] = self._network(tensor[None]).numpy()[0]
        self._table.execute("INSERT OR REPLACE INTO images VALUES (?, ?, ?)", (path.stem, repr(row), vector.tobytes()))
        self._table.commit()
        return vector

    def _prepared(self, values: NDArray[np.float32]) -> torch.Tensor:
        # Four pixels of play for the crop: 516 to 512 in the sample.
        wide = self._size + 4
        resized = Raster.fromarray(values).resize((wide, wide), Raster.Resampling.BILINEAR)
        top, left = self._random.randint(0, 4), self._random.randint(0, 4)
        cropped = np.asarray(resized)[top : top + self._size, left : left + self._size]
        return (torch.from_numpy(cropped.copy()).repeat(3, 1, 1) - _MEAN) / _STD


def _png(grey: NDArray[np.uint8]) -> bytes:
    # As the sample's writer does: no row filter, zlib's default effort. Cheaper than Pillow's PNG.
    height, width = grey.shape
    rows = np.zeros((height, width + 1), np.uint8)
    rows[:, 1:] = grey

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows.tobytes()))
        + chunk(b"IEND", b"")
    )
