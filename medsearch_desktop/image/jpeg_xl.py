"""JPEG XL: what a codestream says of itself in front of its pixels, and its samples.

libjxl allocates what a codestream claims, and its binding tells nothing of it beforehand; so the claim is read here,
and checked, before a decoder sees the bytes.
Source: ISO/IEC 18181-1 (codestream: Annexes B and D), 18181-2 (boxes), DICOM PS3.5 A.4.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from medsearch_desktop.errors import TruncatedFileError, UnsupportedPixelsError

SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (110, 111, 112))
RECOMPRESSED = "1.2.840.10008.1.2.4.111"
_NAKED, _BOXED = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"
JPEG_XL_STARTS = (_NAKED, _BOXED)
# What is read of a codestream here ends long before.
_HEAD, _MAX_BOXES = 64, 1000
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_DAMAGED, _READ = "The file is damaged", "Convert the file to an uncompressed transfer syntax"


@dataclass(frozen=True, slots=True)
class JpegXlStream:
    """What the headers of a codestream say: its size as it is coded, samples a pixel, and bits a sample.

    `is_converted` where the decoder turns the samples into another colour model: those of a picture coded in XYB, and
    those of a JPEG file packed anew.
    """

    rows: int
    columns: int
    samples: int
    precision: int
    is_converted: bool

    @classmethod
    def read(cls, data: bytes) -> JpegXlStream:
        """Read the headers of a codestream, naked or in boxes. Raises UnsupportedPixelsError."""
        head, has_jpeg = (data[2:_HEAD], False) if data.startswith(_NAKED) else _unboxed(data)
        bits = _Bits(head)
        rows, columns = _size(bits)
        if bits.take(1):
            # All that follows is as usual: 8 bits, sRGB, in XYB.
            return cls(rows, columns, 3, 8, True)
        if bits.take(1):
            # The orientation is left as it is, as that of a JPEG frame is.
            bits.take(3)
            if bits.take(1):
                _size(bits)
            if bits.take(1) or bits.take(1):
                raise UnsupportedPixelsError("JPEG XL with a preview or an animation is not read", remedy=_READ)
        if bits.take(1):
            raise UnsupportedPixelsError("JPEG XL of floating point samples is not read", remedy=_READ)
        precision = bits.choice((0, 8), (0, 10), (0, 12), (6, 1))
        if precision > 16:
            raise UnsupportedPixelsError(f"JPEG XL of {precision} bits is not read", remedy=_READ)
        bits.take(1)
        if bits.choice((0, 0), (0, 1), (4, 2), (12, 1)):
            raise UnsupportedPixelsError("JPEG XL with more than its colour channels is not read", remedy=_READ)
        in_xyb = bits.take(1) == 1
        grey = False
        if not bits.take(1):
            bits.take(1)
            grey = bits.choice((0, 0), (0, 1), (4, 2), (6, 18)) == 1
        return cls(rows, columns, 1 if grey else 3, precision, in_xyb or has_jpeg)


def jpeg_xl_samples(data: bytes) -> NDArray[Any]:
    """Return the samples of a codestream, (H, W) or (H, W, 3), uint8 or uint16, in the depth it is coded in.

    Raises TruncatedFileError, and whatever the codec raises of a damaged one.
    """
    from imagecodecs import JpegxlError, jpegxl_decode

    try:
        samples: NDArray[Any] = jpegxl_decode(data, index=0, keeporientation=True, numthreads=1)
        return samples
    except JpegxlError as error:
        if "NEED_MORE_INPUT" in str(error):
            raise TruncatedFileError(
                "the compressed frame ends early", remedy="Copy the file again from its origin"
            ) from error
        raise


class _Bits:
    """The bits of a codestream in their order, the lowest of each byte first (ISO/IEC 18181-1 B.2)."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise UnsupportedPixelsError("the JPEG XL codestream ends in its headers", remedy=_DAMAGED)
        taken = self._value & ((1 << count) - 1)
        self._value >>= count
        self._left -= count
        return taken

    def choice(self, *forms: tuple[int, int]) -> int:
        """Return a number in one of four forms, each of so many bits and above so much."""
        count, above = forms[self.take(2)]
        return above + self.take(count)


def _size(bits: _Bits) -> tuple[int, int]:
    """Return rows and columns of a SizeHeader."""
    lengths = (9, 1), (13, 1), (18, 1), (30, 1)
    in_eights = bits.take(1)
    rows = 8 * (bits.take(5) + 1) if in_eights else bits.choice(*lengths)
    if ratio := bits.take(3):
        of, to = _RATIOS[ratio - 1]
        return rows, rows * of // to
    return rows, 8 * (bits.take(5) + 1) if in_eights else bits.choice(*lengths)


def _unboxed(data: bytes) -> tuple[bytes, bool]:
    """Return the beginning of the codestream that boxes hold, and whether a JPEG file can be made of it."""
    position, head, has_jpeg = 0, b"", False
    for _ in range(_MAX_BOXES):
        if position + 8 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, position)
        start = position + 8
        if length == 1:
            if position + 16 > len(data):
                break
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        stop = position + length if length else len(data)
        if stop < start:
            raise UnsupportedPixelsError("the boxes of the JPEG XL frame are damaged", remedy=_DAMAGED)
        if kind in (b"jxlc", b"jxlp") and len(head) < _HEAD:
            # A part begins with its number.
            first = start + (4 if kind == b"jxlp" else 0)
            head += data[first : max(first, min(stop, first + _HEAD))]
        has_jpeg |= kind == b"jbrd"
        position = stop
    if not head.startswith(_NAKED):
        raise UnsupportedPixelsError("the frame holds no JPEG XL codestream", remedy=_DAMAGED)
    return head[2:_HEAD], has_jpeg
