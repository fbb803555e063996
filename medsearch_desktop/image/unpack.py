"""The pixel data of an instance as a station takes them that knows no compression.

By the decoder that draws: pydicom hands some codecs damage on which they end the whole process, and leaves samples at
the top of their containers behind under a header that says they are at the bottom.
Source: DICOM PS3.5 8.1 and A.2 (uncompressed pixels), PS3.3 C.7.6.3 (Image Pixel).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medsearch_desktop.errors import UnsupportedPixelsError
from medsearch_desktop.image.dataset import NATIVE, Header, opened
from medsearch_desktop.image.frames import Frames, layout_of

_MAX_INFLATED_HEADER = 1 << 24
# The length of an element has 32 bits, of which the highest value means none (PS3.5 7.1).
_MOST_BYTES = (1 << 32) - 2
_TURNED = "1.2.840.10008.1.2.2"
# Once they are read, every pixel has a chrominance of its own.
_IN_FULL = {"YBR_FULL_422": "YBR_FULL"}


@dataclass(frozen=True, slots=True)
class Unpacked:
    """All frames, little-endian, colour by pixel, and what a header has to say of them; `tag` is the element's."""

    tag: int
    data: bytes
    rows: int
    columns: int
    samples: int
    photometric_interpretation: str
    bits_allocated: int
    bits_stored: int
    high_bit: int


def unpack(path: Path, *, max_pixels: int) -> Unpacked | None:
    """Return the pixel data of a DICOM file uncompressed, None where they are so or it has none.

    `max_pixels` bounds one frame, as for `decode`. All frames are in memory at once. Raises DecodeError, among
    others for a frame that is damaged and for video; OSError passes through.
    """
    with opened(path, str(path)) as file:
        header = Header.read(file, inflate_limit=2 * max_pixels + _MAX_INFLATED_HEADER)
        if header.pixels is None or header.transfer_syntax in NATIVE - {_TURNED}:
            return None
        layout = layout_of(header, max_pixels)
        count = max(1, header.integer(0x00280008) or 1)
        frames = Frames(header, layout, count)
        if frames.is_video:
            raise UnsupportedPixelsError("a video is not unpacked", item=str(path), remedy="Send it to another station")
        # A bit a sample lies packed across the ends of frames.
        kind = np.dtype("u1" if layout.allocated == 1 else f"<{layout.kind}{layout.allocated // 8}")
        size = layout.count * kind.itemsize
        if size * count > _MOST_BYTES * (8 if layout.allocated == 1 else 1):
            raise UnsupportedPixelsError("it is too large uncompressed", item=str(path))
        data, found = bytearray(size * count), layout
        for frame in range(count):
            pixels, found = frames.read(frame)
            data[frame * size : (frame + 1) * size] = np.ascontiguousarray(pixels, kind).tobytes()
        if layout.allocated == 1:
            data = bytearray(np.packbits(np.frombuffer(data, "u1"), bitorder="little").tobytes())
        if len(data) % 2:
            data.append(0)
    photometric = _IN_FULL.get(found.photometric, found.photometric)
    return Unpacked(
        header.pixels.tag,
        bytes(data),
        layout.rows,
        layout.columns,
        layout.samples,
        photometric,
        layout.allocated,
        found.stored,
        found.stored + found.shift - 1,
    )
