"""Display pixels as a PNG that is no larger than asked, for previews and handouts."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Raster
from PIL.PngImagePlugin import PngImageFile


def png_of(display: NDArray[np.uint8], *, most: int) -> bytes:
    """Return a PNG of 8-bit pixels, (H, W) or (H, W, 3), with no side longer than `most` pixels."""
    return _written(Raster.fromarray(display), most)


def shrunk(png: bytes, *, most: int) -> bytes:
    """Return a PNG with no side longer than `most` pixels: the same bytes where it is none already."""
    # The plug-in itself: Image.open warns above 89 million pixels, which a picture of ours may have.
    with PngImageFile(io.BytesIO(png)) as raster:
        return png if max(raster.size) <= most else _written(raster, most)


def _written(raster: Raster.Image, most: int) -> bytes:
    scale = min(1.0, most / max(raster.size))
    size = max(1, round(raster.width * scale)), max(1, round(raster.height * scale))
    if size != raster.size:
        raster = raster.resize(size, Raster.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    raster.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
