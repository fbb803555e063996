"""One compressed frame to the samples it holds; this, `jpeg_xl` and `video` alone import the codecs.

Each codec is called directly, by what the codestream says of itself: pydicom goes by the transfer
syntax alone, hands GDCM damage on that ends the whole process, and has no way to 12-bit JPEG without
a codec of another licence.
Source: DICOM PS3.5 8.2 and Annex A.4, ISO 10918-1, ISO 14495-1, ISO 15444-1.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile

from medsearch_desktop.errors import (
    DecodeError,
    TruncatedFileError,
    UnsupportedPixelsError,
)
from medsearch_desktop.image.aside import decode_aside, is_installed
from medsearch_desktop.image.dataset import JPEG_START
from medsearch_desktop.image.jpeg_xl import JPEG_XL_STARTS, RECOMPRESSED, JpegXlStream
from medsearch_desktop.image.video import VIDEO

_SIZ = b"\xff\x4f\xff\x51"
JPEG_2000_STARTS = (_SIZ, b"\0\0\0\x0cjP")
RLE = "1.2.840.10008.1.2.5"
# Frames as they are, and frames deflated, each in an item of its own.
FRAMED, DEFLATED_FRAMES = "1.2.840.10008.1.2.1.98", "1.2.840.10008.1.2.8.1"
_PANIC = "PanicException"
# Of these no frame begins with a mark that tells it from a further fragment.
UNMARKED = frozenset((RLE, FRAMED, DEFLATED_FRAMES))
# JPEG (retired processes too), JPEG-LS, JPEG 2000, JPEG XL and HTJ2K, each lossless and lossy; which of them a frame
# is, it says itself.
_NUMBERS = (*range(50, 67), 70, 80, 81, 90, 91, 92, 93, 110, 111, 112, 201, 202, 203)
_BASE = "1.2.840.10008.1.2.4."
CODED = frozenset((RLE, FRAMED, DEFLATED_FRAMES, *(f"{_BASE}{number}" for number in _NUMBERS)))
# Frames that nothing here reads, and video, of which its own module reads the first where PyAV is installed.
_UNREAD = VIDEO | dict.fromkeys((f"{_BASE}{number}" for number in (94, 95, 204, 205)), "pixels on a server (JPIP)")
# Blank radiographs compress to a thousandth; up to this many samples whatever is claimed is tried.
_ALWAYS_DECODED, _MOST_GROWTH = 1 << 26, 1000
READ = "Convert the file to an uncompressed transfer syntax"


@dataclass(frozen=True, slots=True)
class Layout:
    """How the samples of one frame lie in memory; `photometric` follows what the codec has made of it."""

    rows: int
    columns: int
    samples: int
    allocated: int
    stored: int
    shift: int
    signed: bool
    photometric: str
    planar: bool
    kind: str = "u"

    @property
    def count(self) -> int:
        return self.rows * self.columns * self.samples

    @property
    def size(self) -> str:
        return f"{self.rows} x {self.columns} x {self.samples}"

    def coded(self, precision: int) -> Layout:
        """Return how samples lie that a codec of `precision` bits gives back.

        Many writers code whole containers, overlays above or below the samples included, and 12 signed bits
        in 16 without their sign: then the header says which bits count.
        """
        if precision >= self.stored + self.shift:
            return replace(self, planar=False)
        return replace(self, stored=min(self.stored, precision), shift=0, planar=False)

    def arranged(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Return a frame's samples as (H, W) or (H, W, samples)."""
        if self.samples == 1:
            return samples.reshape(self.rows, self.columns)
        if self.planar:
            return samples.reshape(self.samples, self.rows, self.columns).transpose(1, 2, 0)
        return samples.reshape(self.rows, self.columns, self.samples)


def unread(syntax: str) -> str:
    """Return why the frames of a transfer syntax outside `CODED` cannot be decoded."""
    name = _UNREAD.get(syntax, "")
    lacking = ", and PyAV is not installed" if syntax in VIDEO else ""
    return f"transfer syntax {syntax} is not read" + (f": it is {name}{lacking}" if name else "")


def stream_size(head: bytes) -> tuple[int, int, int, int] | None:
    """Return rows, columns, samples and bits that the beginning of a compressed frame tells, None where it tells none.

    RLE tells none.
    """
    try:
        if head.startswith(JPEG_START):
            stream = _JpegStream.read(head)
            return stream.rows, stream.columns, stream.samples, stream.precision
        if head.startswith(JPEG_2000_STARTS):
            return _j2k_size(head)
        if head.startswith(JPEG_XL_STARTS):
            found = JpegXlStream.read(head)
            return found.rows, found.columns, found.samples, found.precision
    except (UnsupportedPixelsError, struct.error, IndexError):
        return None
    return None


def decompress(data: bytes, layout: Layout, syntax: str) -> tuple[NDArray[Any], Layout]:
    """Return the samples of one compressed frame. The codestream says what it holds; the header must agree."""
    if data.startswith(JPEG_START):
        codec, decoder = "JPEG", _jpeg
    elif data.startswith(JPEG_2000_STARTS):
        codec, decoder = "JPEG 2000", _jpeg_2000
    elif syntax in _BY_SYNTAX:
        codec, decoder = _BY_SYNTAX[syntax]
    elif data.startswith(JPEG_XL_STARTS):
        codec, decoder = "JPEG XL", partial(_jpeg_xl, recompressed=syntax == RECOMPRESSED)
    else:
        raise UnsupportedPixelsError(f"a frame of transfer syntax {syntax} holds no known codestream", remedy=READ)
    if layout.count > max(_ALWAYS_DECODED, _MOST_GROWTH * len(data)):
        # A codec allocates what is claimed before it finds out, several times over.
        raise UnsupportedPixelsError(
            f"{len(data)} bytes of {codec} claim an image of {layout.size} samples", remedy="The file is damaged"
        )
    try:
        samples, found = decoder(data, layout)
        if samples.size != layout.count:
            raise UnsupportedPixelsError(
                f"the {codec} frame has {samples.size} samples, not {layout.size}", remedy=READ
            )
        return found.arranged(samples), found
    except DecodeError:
        raise
    except BaseException as error:
        # The codecs document no exceptions; whatever one raises concerns this frame alone. A panic of
        # the RLE codec, which is Rust, is not even an Exception.
        if not isinstance(error, Exception) and type(error).__name__ != _PANIC:
            raise
        raise UnsupportedPixelsError(f"the {codec} frame is not decodable ({error})"[:200], remedy=READ) from error


def _plain(data: bytes, layout: Layout) -> tuple[NDArray[Any], Layout]:
    if layout.allocated == 1:
        return np.unpackbits(np.frombuffer(data, "u1"), bitorder="little")[: layout.count], layout
    width = layout.allocated // 8
    # One byte more makes an odd length even.
    return np.frombuffer(data[: len(data) // width * width], f"<{layout.kind}{width}")[: layout.count], layout


def _inflate(data: bytes, layout: Layout) -> tuple[NDArray[Any], Layout]:
    limit = layout.count * layout.allocated // 8 + 2
    return _plain(zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, limit), layout)


def _rle(data: bytes, layout: Layout) -> tuple[NDArray[Any], Layout]:
    from rle.utils import decode_pixel_data

    size: dict[str, Any] = {"rows": layout.rows, "columns": layout.columns, "bits_allocated": layout.allocated}
    try:
        raw: bytes | bytearray = cast(bytearray, decode_pixel_data(data, version=2, **size))
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != _PANIC:
            raise
        # Some writers code what fills a segment up as samples, which it does not take; pydicom is slow, and does.
        raw = _rle_by_pydicom(data, layout, size)
        if not raw:
            raise
    return np.frombuffer(raw, f"<u{layout.allocated // 8}"), replace(layout, planar=True)


def _rle_by_pydicom(data: bytes, layout: Layout, size: dict[str, Any]) -> bytes:
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import RLELosslessDecoder

    header = {"samples_per_pixel": layout.samples, "number_of_frames": 1, "pixel_keyword": "PixelData", **size}
    header |= {"photometric_interpretation": "MONOCHROME2" if layout.samples == 1 else "RGB"}
    header |= {"bits_stored": layout.allocated, "pixel_representation": 0, "planar_configuration": 1}
    try:
        return bytes(RLELosslessDecoder.as_buffer(encapsulate([data]), decoding_plugin="pydicom", **header)[0])
    except Exception:  # noqa: BLE001 - what it documents of its errors is not all; the first one is told
        return b""


def _jpeg_2000(data: bytes, layout: Layout) -> tuple[NDArray[Any], Layout]:
    from openjpeg.utils import decode_pixel_data

    rows, columns, samples, precision = _j2k_size(data)
    _agree(layout, "JPEG 2000", rows, columns, samples)
    _ended(data, data.find(_SIZ))
    raw = decode_pixel_data(data, version=2)
    size = 1 if precision <= 8 else 2 if precision <= 16 else 4
    photometric = "RGB" if layout.photometric in ("YBR_ICT", "YBR_RCT") else layout.photometric
    found = replace(layout.coded(precision), photometric=photometric)
    return np.frombuffer(raw, f"=u{size}"), found


def _j2k_size(data: bytes) -> tuple[int, int, int, int]:
    start = data.find(_SIZ)
    if start < 0 or len(data) < start + 43:
        raise UnsupportedPixelsError("the frame holds no JPEG 2000 codestream", remedy=READ)
    # SIZ of ISO 15444-1 A.5.1: the reference grid, its offset, and the depth of the first component.
    width, height, left, top = struct.unpack_from(">4I", data, start + 8)
    samples, depth = struct.unpack_from(">HB", data, start + 40)
    return height - top, width - left, samples, (depth & 0x7F) + 1


def _jpeg_xl(data: bytes, layout: Layout, *, recompressed: bool) -> tuple[NDArray[Any], Layout]:
    stream = JpegXlStream.read(data)
    _agree(layout, "JPEG XL", stream.rows, stream.columns, stream.samples)
    found = layout.coded(stream.precision)
    if stream.samples == 3 and (stream.is_converted or recompressed or layout.photometric == "XYB"):
        found = replace(found, photometric="RGB")
    if not is_installed("imagecodecs"):
        raise UnsupportedPixelsError("JPEG XL needs the package imagecodecs", remedy="Install MedSearch Desktop again")
    return decode_aside("JPEG XL", data, most_samples=layout.count), found


def _jpeg(data: bytes, layout: Layout) -> tuple[NDArray[Any], Layout]:
    stream = _JpegStream.read(data)
    _agree(layout, "JPEG", stream.rows, stream.columns, stream.samples)
    _ended(data, stream.position)
    found = layout.coded(stream.precision)
    if stream.frame_type == 0xF7:
        from jpeg_ls import decode_pixel_data  # type: ignore[import-untyped]

        raw, info = decode_pixel_data(data)
        found = replace(found, planar=stream.samples > 1 and info["interleave_mode"] == 0)
    elif stream.frame_type in (0xC0, 0xC1, 0xC2) and stream.precision == 8:
        picture = Jpeg(io.BytesIO(data))
        if stream.samples == 3:
            if layout.photometric == "RGB" and not stream.tells_colour:
                # libjpeg would take unmarked samples for YCbCr; asking for that leaves them as they are.
                picture.draft("YCbCr", picture.size)
            found = replace(found, photometric="RGB")
        raw = picture.tobytes()
    else:
        raw = _gdcm(_plain_jpeg(data, stream), layout, stream.precision)
    return np.frombuffer(raw, "=u1" if stream.precision <= 8 else "=u2"), found


def _gdcm(data: bytes, layout: Layout, precision: int) -> bytes:
    """Decode lossless and 12-bit JPEG, which no other permissive codec reads."""
    import gdcm

    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(data)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((layout.columns, layout.rows, 1))
    image.SetDataElement(element)
    colours = gdcm.PhotometricInterpretation
    image.SetPhotometricInterpretation(colours(colours.MONOCHROME2 if layout.samples == 1 else colours.RGB))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    # With 16 GDCM tries, and complains on standard error, its 8-bit codec before the 12-bit one.
    allocated = precision if precision == 12 else 8 if precision <= 8 else 16
    image.SetPixelFormat(gdcm.PixelFormat(layout.samples, allocated, precision, precision - 1, 0))
    buffer = image.GetBuffer()
    if buffer is None:
        raise UnsupportedPixelsError("the JPEG frame is damaged", remedy="Copy the file again from its origin")
    # The binding hands bytes over as text.
    return cast(bytes, buffer.encode("utf-8", "surrogateescape"))


@dataclass(frozen=True, slots=True)
class _JpegStream:
    """What the markers of ISO 10918-1 B or ISO 14495-1 C say up to the first scan."""

    frame_type: int
    precision: int
    rows: int
    columns: int
    samples: int
    component_ids: bytes
    tells_colour: bool
    position: int

    @classmethod
    def read(cls, data: bytes) -> _JpegStream:
        position, tells = 0, False
        while position + 4 <= len(data):
            marker = data[position + 1]
            if data[position] != 0xFF or marker == 0xFF:
                position += 1
                continue
            if marker == 0x01 or 0xD0 <= marker <= 0xD8:
                position += 2
                continue
            body = data[position + 4 : position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")]
            tells = tells or (marker == 0xE0 and body[:4] == b"JFIF")
            # libjpeg passes over an Adobe marker that is too short to hold its transform.
            tells = tells or (marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12)
            if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
                precision, rows, columns, samples = struct.unpack_from(">BHHB", body)
                ids = body[6::3]
                return cls(marker, precision, rows, columns, samples, ids, tells or ids.upper() == b"RGB", position)
            if marker in (0xD9, 0xDA):
                break
            position += 4 + len(body)
        raise UnsupportedPixelsError("the frame holds no JPEG codestream", remedy=READ)


def _plain_jpeg(data: bytes, stream: _JpegStream) -> bytes:
    """Return a one-scan JPEG codestream reduced to what decoding its samples takes.

    GDCM ends the whole process at a stray marker, table or colour hint; so every part is checked, the
    application segments are left out, and the components are named R, G and B: not to be transformed.
    Raises UnsupportedPixelsError. Source: ISO 10918-1 B.2.
    """
    damaged = UnsupportedPixelsError("the JPEG frame is damaged", remedy="Copy the file again from its origin")
    lossless = stream.frame_type == 0xC3
    names = b"RGB" if stream.samples == 3 else b"\x01"
    if stream.frame_type not in (0xC1, 0xC3) or not 2 <= stream.precision <= 16:
        raise UnsupportedPixelsError(f"JPEG frames of type {stream.frame_type:02X} are not read", remedy=READ)
    parts, position, marker = [b"\xff\xd8"], 2, 0
    while marker != 0xDA:
        start, marker, length = struct.unpack_from(">BBH", data, position)
        body = data[position + 4 : position + 2 + length]
        position += 2 + length
        if start != 0xFF or len(body) != length - 2:
            raise damaged
        if marker == 0xC4:
            sound = _sound_tables(body)
        elif marker == stream.frame_type:
            body = body[:6] + b"".join(bytes((name, *body[7 + 3 * i : 9 + 3 * i])) for i, name in enumerate(names))
            sound = len(body) == length - 2 and all(body[7 + 3 * i] in (0x11, 0x21, 0x22) for i in range(len(names)))
        elif marker == 0xDA:
            sound = len(body) == 4 + 2 * len(names) and body[1:-3:2] == stream.component_ids
            # Sequential scans have one possible ending, which some writers get wrong.
            ending = body[-3:] if lossless else b"\x00\x3f\x00"
            if lossless:
                sound &= 1 <= ending[0] <= 7 and ending[1] == 0 and ending[2] < stream.precision
            body = body[:1] + b"".join(bytes((name, body[2 + 2 * i])) for i, name in enumerate(names)) + ending
        elif marker in (0xDB, 0xDD):
            sound = len(body) == 2 or marker == 0xDB
        elif 0xE0 <= marker <= 0xEF or marker == 0xFE:
            continue
        else:
            sound = False
        if not sound:
            raise damaged
        parts.append(struct.pack(">BBH", 0xFF, marker, length) + body)
    # What is left are entropy-coded data with restart markers, and then the end.
    marked = re.search(rb"\xff[^\x00\xd0-\xd7\xff]", data[position:])
    if marked is None or marked[0] != b"\xff\xd9":
        raise damaged
    return b"".join((*parts, data[position : position + marked.end()]))


def _sound_tables(body: bytes) -> bool:
    """Tell whether the Huffman tables of a DHT segment fill it exactly and are codes at all."""
    while body:
        counts = body[1:17]
        taken = sum(count << (16 - size) for size, count in enumerate(counts, 1))
        if len(counts) < 16 or body[0] & 0xEF > 3 or taken > 1 << 16 or len(body) < 17 + sum(counts):
            return False
        body = body[17 + sum(counts) :]
    return True


def _agree(layout: Layout, codec: str, rows: int, columns: int, samples: int) -> None:
    # Checked before decoding: the codec would allocate what the codestream claims.
    if (rows, columns, samples) != (layout.rows, layout.columns, layout.samples):
        raise UnsupportedPixelsError(
            f"the {codec} frame is {rows} x {columns} x {samples} where the header says {layout.size}", remedy=READ
        )


def _ended(data: bytes, start: int) -> None:
    # Inside a codestream FF is never followed by D9; without it codecs paint the missing part grey.
    if data.rfind(b"\xff\xd9", start) < 0:
        raise TruncatedFileError("the compressed frame ends early", remedy="Copy the file again from its origin")


class Jpeg(JpegImageFile):
    """Pillow's reader without its look at the camera header, which warns, and not thread-safely, of any flaw."""

    def _read_dpi_from_exif(self) -> None:
        pass


_BY_SYNTAX = {RLE: ("RLE", _rle), FRAMED: ("uncompressed", _plain), DEFLATED_FRAMES: ("deflated", _inflate)}
