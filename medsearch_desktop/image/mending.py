"""The size and depth of an image whose header leaves them out, from what its pixel data say of themselves."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from medsearch_desktop.image.codecs import stream_size
from medsearch_desktop.image.dataset import ITEM, Header, PixelElement

# The markers in front of a codestream's size, tables and comments included, hardly ever take more.
_HEAD = 1 << 16


@dataclass(frozen=True, slots=True)
class Size:
    """Rows, columns, samples a pixel and bits a sample, 0 where they are not known."""

    rows: int
    columns: int
    samples: int
    allocated: int

    @property
    def is_known(self) -> bool:
        """Whether nothing is missing."""
        return all((self.rows, self.columns, self.samples, self.allocated))


def mended(header: Header, size: Size) -> Size:
    """Return `size` with what it lacks, as far as the pixel data leave no doubt about it."""
    element = header.pixels
    if element is None or size.is_known:
        return size
    if element.undefined:
        return _by_codestream(header, element, size)
    if element.stop > header.file.size:
        # The length that is there says nothing of the one that was.
        return size
    return _by_length(element.stop - element.start, max(1, header.integer(0x00280008) or 1), size)


def _by_codestream(header: Header, element: PixelElement, size: Size) -> Size:
    file, position = header.file, element.start
    # The first item is the offset table, the second holds the first frame or its beginning.
    for _ in range(2):
        if position + 8 > file.size:
            return size
        group, number, length = struct.unpack("<HHI", file.read(position, position + 8))
        if group << 16 | number != ITEM:
            return size
        start, position = position + 8, position + 8 + length
    found = stream_size(file.read(start, min(position, start + _HEAD, file.size)))
    if found is None:
        return size
    rows, columns, samples, bits = found
    allocated = 8 if bits <= 8 else 16 if bits <= 16 else 32
    return Size(size.rows or rows, size.columns or columns, size.samples or samples, size.allocated or allocated)


def _by_length(length: int, frames: int, size: Size) -> Size:
    candidates = []
    if size.rows and size.columns:
        candidates = [replace(size, allocated=bits) for bits in (8, 16, 32)]
    elif size.allocated and size.samples and (known := size.rows or size.columns):
        other = length * 8 // (known * size.samples * size.allocated * frames)
        candidates = [replace(size, rows=size.rows or other, columns=size.columns or other)]
    for each in candidates:
        taken = -(-each.rows * each.columns * each.samples * each.allocated * frames // 8)
        # One byte may be there to make the length even.
        if taken and taken <= length <= taken + taken % 2:
            return each
    return size
