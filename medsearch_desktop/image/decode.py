"""DICOM, PNG and JPEG bytes to metadata and 8-bit pixels.

    file ─► _Source ─► _Header (top-level elements, nothing behind the pixels is read)
                          ├─► Image          allow-listed tags only
                          └─► frame bytes ─► codec ─► stored values ─► preprocess.to_display

The data set is walked here rather than by pydicom: decoding runs in threads, where pydicom's
warnings cannot be silenced safely; a length that points past the end of the file has to be told
from a short read; nesting must cost no stack; and a header takes a tenth of a millisecond instead
of one. Each codec is called directly for the same reasons.
Source: DICOM PS3.5 (encoding, 7 and Annex A), PS3.10 7.1 (file meta), PS3.3 C.7.6 and C.11 (pixels).
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Raster
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from medsearch_desktop.errors import (
    DecodeError,
    NoPixelsError,
    NotAnImageError,
    TruncatedFileError,
    UnsupportedPixelsError,
)
from medsearch_desktop.image.preprocess import Display, LookupTable, Rendering, Window, to_display
from medsearch_desktop.records import Image

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXELS, _FLOAT_PIXELS, _DOUBLE_PIXELS = 0x7FE00010, 0x7FE00008, 0x7FE00009
_LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
# Headers end long before; a file of empty elements would otherwise keep a core busy for minutes.
_MAX_ELEMENTS = 2_000_000
_MAX_VALUE = 1 << 22
# Nearly every header fits; a longer one is read on in steps of this.
_WINDOW = 1 << 15
_MAX_INFLATED_HEADER = 1 << 24

_PNG, _JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_JPEG_2000_STARTS = (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP")
_DEFLATED = "1.2.840.10008.1.2.1.99"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_NATIVE = frozenset(("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", _DEFLATED, _BIG_ENDIAN))
_RLE = "1.2.840.10008.1.2.5"
# JPEG, JPEG-LS, JPEG 2000 and HTJ2K, each lossless and lossy; which of them a frame is, it says itself.
_CODED = frozenset((_RLE, *(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91, 201, 202, 203))))
_READ = "Convert the file to an uncompressed transfer syntax"


@dataclass(frozen=True)
class Decoded:
    """The images of one file and what to show of each; `displays[i]` belongs to `images[i]`.

    A display is uint8 of shape (H, W), or (H, W, 3) for colour; None where the pixels could not be
    decoded, and then `images[i].pixel_error` says why.
    """

    images: tuple[Image, ...]
    displays: tuple[Display | None, ...]


def decode(
    source: str | os.PathLike[str] | BinaryIO,
    *,
    name: str,
    sha256: str,
    max_frames: int,
    max_pixels: int,
    study_hint: str = "",
) -> Decoded:
    """Return the metadata and display pixels of a DICOM, PNG or JPEG file.

    `name` stands for the file in messages and `sha256`, the digest of its content, for the
    identifiers it lacks. Raster files that share `study_hint` share a study. Of a multi-frame
    instance at most `max_frames` frames are decoded, as `select_frames` picks them, and no more than
    fit into `max_pixels` (rows x columns x samples) together; nothing is allocated for an image
    above that. Where only pixels fail, the images come back with `pixel_error`; if none of several
    frames can be decoded, the middle one stands for all.
    Raises NotAnImageError, TruncatedFileError or NoPixelsError when there is nothing to index, and
    UnsupportedPixelsError for such a raster file. OSError of the disk passes through.
    """
    with _opened(source, name) as file:
        if file.is_raster:
            return _decode_raster(file, sha256, study_hint, max_pixels)
        header = _Header.read(file, inflate_limit=2 * max_pixels + _MAX_INFLATED_HEADER)
        if header.pixels is None:
            raise NoPixelsError("the DICOM file holds no pixel data", item=name, remedy="Visual search leaves it out")
        return _decode_dicom(header, sha256, max_frames, max_pixels)


def read_tags(source: str | os.PathLike[str] | BinaryIO, *, name: str, sha256: str = "", study_hint: str = "") -> Image:
    """Return the metadata of a DICOM, PNG or JPEG file without touching its pixels.

    DICOM files without pixels are read too. Of a multi-frame instance the record is that of the
    middle frame, which `decode` returns among others. Identifiers that the file lacks come from
    `sha256`. Raises NotAnImageError and TruncatedFileError.
    """
    with _opened(source, name) as file:
        if file.is_raster:
            return _raster_record(sha256, study_hint, _open_raster(file))
        return _record(_Header.read(file, inflate_limit=_MAX_INFLATED_HEADER), sha256)


def select_frames(number_of_frames: int, max_frames: int) -> tuple[int, ...]:
    """Return up to `max_frames` frame indices, ascending and evenly spaced, the middle one among them."""
    if number_of_frames <= max_frames:
        return tuple(range(number_of_frames))
    middle = number_of_frames // 2
    chosen = [(2 * i + 1) * number_of_frames // (2 * max_frames) for i in range(max_frames)]
    if middle not in chosen:
        nearest = min(range(max_frames), key=lambda i: abs(chosen[i] - middle))
        chosen[nearest] = middle
    return tuple(chosen)


def derive_uid(*parts: str) -> str:
    """Return a UID under 2.25 (PS3.5 B.2) that is the same whenever the parts are."""
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


# ---- bytes -------------------------------------------------------------------------------------


class _Source:
    """One file, read at will but never past its end; `head` is its beginning, kept for the header."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file = file
        self.name = name
        self.size = file.seek(0, os.SEEK_END)
        self.head = self._read(0, _WINDOW)
        self._base, self._window = 0, self.head

    @property
    def is_raster(self) -> bool:
        return self.head.startswith((_PNG, _JPEG_START))

    def _read(self, start: int, length: int) -> bytes:
        self.file.seek(start)
        parts: list[bytes] = []
        length = min(length, self.size - start)
        # An unbuffered file may give less than it was asked for.
        while length > 0 and (part := self.file.read(length)):
            parts.append(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read(self, start: int, stop: int) -> bytes:
        if 0 <= start <= stop <= len(self.head):
            return self.head[start:stop]
        value = self._read(start, stop - start)
        if len(value) != stop - start:
            raise self.truncated(f"bytes {start} to {stop} are missing")
        return value

    def window(self, position: int) -> tuple[bytes, int]:
        """Return bytes around `position`, at least 16 from it on where there are, and where they start."""
        if position + 16 <= len(self.head) or len(self.head) == self.size:
            return self.head, 0
        if not self._base <= position <= self._base + len(self._window) - 16:
            self._base, self._window = position, self._read(position, _WINDOW)
        return self._window, self._base

    def truncated(self, message: str) -> TruncatedFileError:
        return TruncatedFileError(
            f"{message}; the file has {self.size} bytes", item=self.name, remedy="Copy the file again from its origin"
        )


@contextmanager
def _opened(source: str | os.PathLike[str] | BinaryIO, name: str) -> Iterator[_Source]:
    if isinstance(source, str | os.PathLike):
        with Path(source).open("rb", buffering=0) as file:
            yield _filled(_Source(cast(BinaryIO, file), name))
    else:
        yield _filled(_Source(source, name))


def _filled(file: _Source) -> _Source:
    if file.size == 0:
        raise NotAnImageError("the file is empty", item=file.name, remedy="Copy it again from its origin")
    return file


@dataclass(frozen=True, slots=True)
class _Element:
    vr: bytes
    start: int
    stop: int
    undefined: bool
    implicit: bool


def _walk(file: _Source, start: int, stop: int, implicit: bool, order: str) -> Iterator[tuple[int, _Element]]:
    """Yield the elements of a data set without their values; its pixel data, whole or not, comes last."""
    heads = struct.Struct(f"{order}HHI"), struct.Struct(f"{order}HH2sH"), struct.Struct(f"{order}I")
    position = start
    for _ in range(_MAX_ELEMENTS):
        if position + 8 > stop:
            if position < stop and file.read(position, stop).strip(b"\0"):
                raise file.truncated(f"the element at byte {position} is cut short")
            return
        buffer, base = file.window(position)
        group, number, vr, length, size = _element_head(buffer, position - base, implicit, heads)
        tag, value = group << 16 | number, position + size
        if tag == _ITEM_END:
            return
        if tag == _SEQUENCE_END:
            position = value
            continue
        if group in (0, 0xFFFE):
            raise NotAnImageError(f"byte {position} starts no element", item=file.name, remedy="The file is damaged")
        is_pixels = tag in (_PIXELS, _FLOAT_PIXELS, _DOUBLE_PIXELS)
        if length != _UNDEFINED:
            position = value + length
            if position > stop and not is_pixels:
                raise file.truncated(
                    f"element ({group:04X},{number:04X}) claims {length} bytes where {max(0, stop - value)} are left"
                )
            yield tag, _Element(vr, value, position, False, vr == b"")
        elif is_pixels:
            yield tag, _Element(vr, value, stop, True, vr == b"")
        else:
            position = _end_of_items(file, value, stop, vr in (b"", b"UN"), order)
            yield tag, _Element(vr, value, position, True, vr in (b"", b"UN"))
        if is_pixels:
            return
    raise NotAnImageError("the header has too many elements", item=file.name, remedy="The file is damaged")


def _element_head(
    buffer: bytes, offset: int, implicit: bool, heads: tuple[struct.Struct, struct.Struct, struct.Struct]
) -> tuple[int, int, bytes, int, int]:
    if not implicit:
        group, number, vr, length = heads[1].unpack_from(buffer, offset)
        if vr in _LONG_VRS and offset + 12 <= len(buffer):
            return group, number, vr, heads[2].unpack_from(buffer, offset + 8)[0], 12
        # Some writers slip into implicit encoding; two capitals are never the low half of a sane length.
        if group != 0xFFFE and vr.isalpha() and vr.isupper():
            return group, number, vr, length, 8
    group, number, length = heads[0].unpack_from(buffer, offset)
    return group, number, b"", length, 8


def _end_of_items(file: _Source, start: int, stop: int, implicit: bool, order: str) -> int:
    """Return where a sequence of undefined length ends; a list replaces the call stack, whatever the depth."""
    heads = struct.Struct(f"{order}HHI"), struct.Struct(f"{order}HH2sH"), struct.Struct(f"{order}I")
    position = start
    # One entry an open sequence or item of undefined length: is it a sequence, are its elements implicit.
    inside = [(True, implicit)]
    for _ in range(_MAX_ELEMENTS):
        if position + 8 > stop:
            break
        in_sequence, plain = inside[-1]
        buffer, base = file.window(position)
        group, number, vr, length, size = _element_head(buffer, position - base, plain or in_sequence, heads)
        tag = group << 16 | number
        position += size
        if tag in (_SEQUENCE_END, _ITEM_END):
            inside.pop()
            if not inside:
                return position
        elif length == _UNDEFINED:
            inside.append((False, plain) if tag == _ITEM else (True, plain or vr in (b"", b"UN")))
        else:
            position += length
    raise file.truncated(f"the sequence at byte {start} has no end")


@dataclass(frozen=True)
class _Header:
    """The elements of one data set up to its pixels, and how it is encoded."""

    file: _Source
    elements: dict[int, _Element]
    order: str
    transfer_syntax: str = ""

    @classmethod
    def read(cls, file: _Source, *, inflate_limit: int) -> _Header:
        start = 132 if file.head[128:132] == b"DICM" else 0
        meta, body = _file_meta(file, start)
        syntax = meta.get(0x00020010, "")
        if syntax == _DEFLATED:
            file, body = _inflated(file, body, inflate_limit), 0
        implicit, order = _encoding(file, body, syntax)
        elements: dict[int, _Element] = {}
        try:
            for tag, element in _walk(file, body, file.size, implicit, order):
                elements.setdefault(tag, element)
        except DecodeError as error:
            if start == 0 and not cls(file, elements, order).is_plausible:
                raise _not_an_image(file) from error
            raise
        if not syntax:
            syntax = "1.2.840.10008.1.2" if implicit else _BIG_ENDIAN if order == ">" else "1.2.840.10008.1.2.1"
        header = cls(file, elements, order, syntax)
        # Without the preamble's signature only the content can tell DICOM from chance.
        if (start == 0 and not header.is_plausible) or not elements:
            raise _not_an_image(file)
        return header

    @property
    def is_plausible(self) -> bool:
        if re.fullmatch(r"1\.2\.840\.10008\.[0-9.]+", self.text(0x00080016)):
            return True
        return bool(self.text(0x00080060) or self.text(0x00080018)) and (0x00280010 in self.elements)

    @property
    def pixels(self) -> tuple[int, _Element] | None:
        for tag in (_PIXELS, _FLOAT_PIXELS, _DOUBLE_PIXELS):
            if tag in self.elements:
                return tag, self.elements[tag]
        return None

    def value(self, tag: int) -> bytes:
        element = self.elements.get(tag)
        if element is None or element.stop - element.start > _MAX_VALUE:
            return b""
        return self.file.read(element.start, element.stop)

    def text(self, tag: int) -> str:
        value = self.value(tag)
        return _text(value, self.value(0x00080005)) if value else ""

    def first(self, tag: int) -> str:
        return self.text(tag).split("\\", 1)[0].strip()

    def uid(self, tag: int) -> str:
        text = self.first(tag)
        return text if re.fullmatch(r"[0-9A-Za-z._-]{1,128}", text) else ""

    def integer(self, tag: int) -> int | None:
        """Return an IS value that fits into 32 bits."""
        match = re.fullmatch(r"[+-]?\d{1,10}", self.first(tag))
        number = int(match[0]) if match else None
        return number if number is not None and -(2**31) <= number < 2**31 else None

    def decimal(self, tag: int) -> float | None:
        try:
            number = float(self.first(tag))
        except ValueError:
            return None
        return number if math.isfinite(number) else None

    def words(self, tag: int, *, signed: bool = False) -> tuple[int, ...]:
        """Return the 16-bit numbers of a US, SS or OW value."""
        value = self.value(tag)
        return struct.unpack(f"{self.order}{len(value) // 2}{'h' if signed else 'H'}", value[: len(value) // 2 * 2])

    def word(self, tag: int, default: int) -> int:
        return next(iter(self.words(tag)), default)

    def item(self, tag: int, index: int = 0) -> _Header | None:
        """Return one item of a sequence, or None if it is damaged: no sequence is worth losing an image for."""
        element = self.elements.get(tag)
        if element is None:
            return None
        try:
            for i, (start, stop) in enumerate(self._item_ranges(element)):
                if i == index:
                    return replace(self, elements=dict(_walk(self.file, start, stop, element.implicit, self.order)))
        except DecodeError:
            pass
        return None

    def _item_ranges(self, element: _Element) -> Iterator[tuple[int, int]]:
        position = element.start
        while position + 8 <= element.stop:
            group, number, length = struct.unpack(f"{self.order}HHI", self.file.read(position, position + 8))
            if group << 16 | number != _ITEM:
                return
            position += 8
            if length == _UNDEFINED:
                end = _end_of_item(self.file, position, element.stop, element.implicit, self.order)
            else:
                end = position + length
            if end > element.stop:
                raise self.file.truncated(f"the item at byte {position} is cut short")
            yield position, end
            position = end


def _end_of_item(file: _Source, start: int, stop: int, implicit: bool, order: str) -> int:
    end = start
    for _, element in _walk(file, start, stop, implicit, order):
        end = element.stop
    # Behind the last element stands the delimiter, which ends the item.
    return min(end + 8, stop)


def _not_an_image(file: _Source) -> NotAnImageError:
    return NotAnImageError("neither DICOM nor PNG nor JPEG", item=file.name, remedy="Other files are no images here")


def _file_meta(file: _Source, start: int) -> tuple[dict[int, str], int]:
    """Return the text of the group 0002 elements, always explicit little endian, and where they end."""
    meta: dict[int, str] = {}
    position, heads = start, (struct.Struct("<HHI"), struct.Struct("<HH2sH"), struct.Struct("<I"))
    while position + 8 <= len(file.head) and file.head[position : position + 2] == b"\x02\x00":
        _, number, _, length, size = _element_head(file.head, position, False, heads)
        position += size + length
        if position > file.size:
            raise file.truncated(f"element (0002,{number:04X}) claims {length} bytes")
        meta[0x00020000 | number] = _text(file.head[position - length : position], b"")
    return meta, position


def _encoding(file: _Source, position: int, syntax: str) -> tuple[bool, str]:
    """Return whether a data set is implicit, and its byte order: as it looks, since headers err."""
    first = file.window(position)[0][position - file.window(position)[1] :][:8]
    if len(first) < 8:
        raise file.truncated("there is no data set behind the file header") if position else _not_an_image(file)
    order = ">" if syntax == _BIG_ENDIAN else "<"
    groups = {candidate: struct.unpack(f"{candidate}H", first[:2])[0] for candidate in "<>"}
    if groups[order] > 0xFF and groups["<" if order == ">" else ">"] <= 0xFF:
        order = "<" if order == ">" else ">"
    if position == 0 and groups[order] not in (0x0002, 0x0008) and syntax != _DEFLATED:
        raise _not_an_image(file)
    vr = first[4:6]
    return not (vr.isalpha() and vr.isupper()), order


def _inflated(file: _Source, start: int, limit: int) -> _Source:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflater.decompress(file.read(start, file.size), limit)
    except zlib.error as error:
        raise TruncatedFileError("the deflated data set is damaged", item=file.name, remedy="Copy it again") from error
    return _Source(io.BytesIO(data), file.name)


# ---- values ------------------------------------------------------------------------------------

# Defined terms of PS3.3 C.12.1.1.2 without their prefix.
_CODECS = {
    "6": "ascii", "13": "shift_jis", "100": "latin_1", "101": "iso8859_2", "109": "iso8859_3", "110": "iso8859_4",
    "126": "iso8859_7", "127": "iso8859_6", "138": "iso8859_8", "144": "iso8859_5", "148": "iso8859_9",
    "149": "euc_kr", "166": "tis_620", "192": "utf_8", "203": "iso8859_15", "58": "gb2312",
}  # fmt: skip


def _text(value: bytes, character_set: bytes) -> str:
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii").strip("\0 \t\r\n")
    terms = character_set.decode("ascii", "ignore").split("\\")
    codecs = [_CODECS.get(term.strip("\0 ").rsplit(" ", 1)[-1], term.strip("\0 ").lower()) for term in terms]
    # UTF-8 behind a missing or wrong declaration is common and is never anything else by chance.
    candidates = (*(codec for codec in codecs if codec in (*_CODECS.values(), "gb18030", "gbk")), "utf_8", "latin_1")
    text = "".join(_run(part, candidates) for part in re.split(rb"(?=\x1b)", value))
    return "".join(c for c in text if c.isprintable()).strip()


def _run(part: bytes, candidates: Sequence[str]) -> str:
    """Decode one run of PS3.5 6.1.2.5, which an escape sequence may open."""
    for escape, codec in ((b"\x1b$)C", "euc_kr"), (b"\x1b$)A", "gb2312")):
        if part.startswith(escape):
            return part[len(escape) :].decode(codec, "replace")
    if part.startswith(b"\x1b"):
        try:
            return part.decode("iso2022_jp_2")
        except UnicodeDecodeError:
            part = re.sub(rb"^\x1b[ -/]*[0-~]", b"", part)
    for codec in candidates:
        try:
            return part.decode(codec)
        except UnicodeDecodeError:
            continue
    return part.decode("latin_1")


def _date(text: str) -> date | None:
    match = re.fullmatch(r"(\d{4})[.\-]?(\d\d)[.\-]?(\d\d)", text)
    try:
        return date(*map(int, match.groups())) if match else None
    except ValueError:
        return None


_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def _age(text: str, born: date | None, studied: date | None) -> float | None:
    if match := re.fullmatch(r"(\d{1,3})([YMWD]?)", text):
        years = int(match[1]) * _YEARS[match[2] or "Y"]
    elif born and studied and born <= studied:
        years = (studied - born).days / 365.25
    else:
        return None
    return round(years, 3) if years < 150 else None


# Only projections have a view; a CT scout is "AP" too, and its slices are not.
_PROJECTIONS = frozenset(("CR", "DX", "DR", "RF", "XA", "MG", "RG", "PX", "IO"))
_VIEWS = tuple(
    (re.compile(pattern, re.IGNORECASE), view)
    for pattern, view in (
        (r"\bpa\b|postero-?\s?anterior", "PA"),
        (r"\bap\b|antero-?\s?posterior", "AP"),
        (r"\bmlo\b|medio-?\s?lateral oblique", "MLO"),
        (r"\bcc\b|cranio-?\s?caudal", "CC"),
        (r"\bll\b|\bleft lateral\b", "LL"),
        (r"\brl\b|\bright lateral\b", "RL"),
        (r"\blat\b|\blateral\b", "LATERAL"),
    )
)


def _view(header: _Header, modality: str) -> str:
    stated = header.first(0x00185101).upper()
    if stated or modality not in _PROJECTIONS:
        return stated
    code = header.item(0x00540220)
    for words in (code.text(0x00080104) if code else "", header.text(0x0008103E), header.text(0x00181400)):
        for pattern, view in _VIEWS:
            if pattern.search(words.replace("_", " ")):
                return view
    return ""


def _record(header: _Header, sha256: str) -> Image:
    instance = header.uid(0x00080018) or derive_uid("instance", sha256)
    frames = max(1, header.integer(0x00280008) or 1)
    frame = frames // 2 if frames > 1 else 0
    modality = header.first(0x00080060).upper()
    study_date = _date(header.first(0x00080020))
    return Image(
        image_id=f"{instance}#{frame + 1}" if frames > 1 else instance,
        sop_instance_uid=instance,
        study_uid=header.uid(0x0020000D) or derive_uid("study", sha256),
        series_uid=header.uid(0x0020000E) or derive_uid("series", sha256),
        frame=frame,
        number_of_frames=frames,
        sop_class_uid=header.uid(0x00080016),
        transfer_syntax_uid=header.transfer_syntax,
        patient_id=header.text(0x00100020),
        patient_sex=header.first(0x00100040).upper(),
        patient_age=_age(header.first(0x00101010).upper(), _date(header.first(0x00100030)), study_date),
        accession_number=header.text(0x00080050),
        study_id=header.text(0x00200010),
        study_date=study_date,
        study_description=header.text(0x00081030),
        series_description=header.text(0x0008103E),
        series_number=header.integer(0x00200011),
        instance_number=header.integer(0x00200013),
        modality=modality,
        view_position=_view(header, modality),
        body_part=header.first(0x00180015).upper(),
        laterality=(header.first(0x00200062) or header.first(0x00200060)).upper(),
        manufacturer=header.text(0x00080070),
        rows=header.word(0x00280010, 0),
        columns=header.word(0x00280011, 0),
        bits_stored=header.word(0x00280101, 0),
        photometric_interpretation=header.first(0x00280004).upper(),
    )


# ---- DICOM pixels ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layout:
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

    def arranged(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Return a frame's samples as (H, W) or (H, W, samples)."""
        if self.samples == 1:
            return samples.reshape(self.rows, self.columns)
        if self.planar:
            return samples.reshape(self.samples, self.rows, self.columns).transpose(1, 2, 0)
        return samples.reshape(self.rows, self.columns, self.samples)


def _decode_dicom(header: _Header, sha256: str, max_frames: int, max_pixels: int) -> Decoded:
    record = _record(header, sha256)
    images: list[Image] = []
    displays: list[Display | None] = []
    try:
        layout = _layout(header, max_pixels)
        frames = _Frames(header, layout, record.number_of_frames)
    except DecodeError as error:
        return Decoded((replace(record, pixel_error=_reason(error)),), (None,))
    for frame in select_frames(record.number_of_frames, max(1, min(max_frames, max_pixels // layout.count))):
        image_id = f"{record.sop_instance_uid}#{frame + 1}" if record.number_of_frames > 1 else record.image_id
        image = replace(record, image_id=image_id, frame=frame)
        try:
            pixels, found = frames.read(frame)
            displays.append(to_display(pixels, _rendering(header, found, frame)))
        except DecodeError as error:
            displays.append(None)
            image = replace(image, pixel_error=_reason(error))
        images.append(image)
    if not any(display is not None for display in displays):
        images, displays = [image for image in images if image.frame == record.frame], [None]
    return Decoded(tuple(images), tuple(displays))


def _reason(error: DecodeError) -> str:
    return f"{error.message}. {error.remedy}" if error.remedy else error.message


def _layout(header: _Header, max_pixels: int) -> _Layout:
    tag, _ = cast(tuple[int, _Element], header.pixels)
    kind = "u" if tag == _PIXELS else "f"
    rows, columns, samples = (header.word(t, d) for t, d in ((0x00280010, 0), (0x00280011, 0), (0x00280002, 1)))
    allocated = header.word(0x00280100, {_PIXELS: 0, _FLOAT_PIXELS: 32, _DOUBLE_PIXELS: 64}[tag])
    stored = header.word(0x00280101, allocated) or allocated
    if not rows or not columns:
        raise UnsupportedPixelsError("the header gives no Rows or Columns", remedy="The file is damaged")
    if rows * columns * samples > max_pixels:
        raise UnsupportedPixelsError(
            f"the image of {rows} x {columns} x {samples} samples passes the limit of {max_pixels}",
            remedy="Raise the setting max_pixels",
        )
    if samples not in (1, 3) or allocated not in ((1, 8, 16, 32, 64) if kind == "u" else (32, 64)):
        raise UnsupportedPixelsError(f"{samples} samples of {allocated} bits a pixel are not read", remedy=_READ)
    photometric = header.first(0x00280004).upper() or ("RGB" if samples == 3 else "MONOCHROME2")
    stored = min(stored, allocated)
    high_bit = header.word(0x00280102, stored - 1)
    shift = high_bit + 1 - stored if kind == "u" and stored <= high_bit + 1 <= allocated else 0
    signed = header.word(0x00280103, 0) == 1
    planar = samples == 3 and header.word(0x00280006, 0) == 1
    return _Layout(rows, columns, samples, allocated, stored, shift, signed, photometric, planar, kind)


class _Frames:
    """The frames of one instance, read one at a time."""

    def __init__(self, header: _Header, layout: _Layout, number_of_frames: int) -> None:
        self.header, self.layout, self.count = header, layout, number_of_frames
        _, self.element = cast(tuple[int, _Element], header.pixels)
        self.file, self.syntax = header.file, header.transfer_syntax
        self.available = min(self.element.stop, self.file.size) - self.element.start
        whole = layout.count * layout.allocated // 8 * number_of_frames
        # Archives that decompress on export sometimes leave the old transfer syntax in place.
        self.native = not self.element.undefined and (
            self.syntax in _NATIVE or (self.syntax in _CODED and whole <= self.available <= whole + 1)
        )
        self.subsampled = layout.photometric == "YBR_FULL_422" and self.available < whole
        self.cut = False
        self.by_frame: list[list[tuple[int, int]]] = []
        if self.native:
            return
        # Encapsulated although native: a lost file header. The codestream itself will tell what it is.
        if self.syntax not in _CODED | _NATIVE:
            raise UnsupportedPixelsError(f"transfer syntax {self.syntax} is not read", remedy=_READ)
        if not self.element.undefined:
            raise UnsupportedPixelsError(
                f"the pixel data has a length although transfer syntax {self.syntax} is encapsulated", remedy=_READ
            )
        self.by_frame = self._grouped(*self._fragments())

    def read(self, frame: int) -> tuple[NDArray[Any], _Layout]:
        """Return a frame's stored values and how they are to be understood."""
        if self.native:
            return self._native(frame)
        data = b"".join(self.file.read(start, stop) for start, stop in self._fragments_of(frame))
        return _decompressed(data, self.layout, self.syntax)

    def _native(self, frame: int) -> tuple[NDArray[Any], _Layout]:
        layout, order = self.layout, self.header.order
        bits = layout.count * layout.allocated
        if self.subsampled:
            bits = bits // 3 * 2
        first, last = frame * bits // 8, -(-(frame + 1) * bits // 8)
        if last > self.available:
            message = f"frame {frame + 1} of {layout.size} needs {last} bytes of pixel data, {self.available} are there"
            if self.element.stop > self.file.size:
                raise self.file.truncated(message)
            raise UnsupportedPixelsError(message, remedy="The file is damaged; copy it again from its origin")
        swapped = order == ">" and layout.allocated == 8 and self.element.vr == b"OW"
        if swapped:
            # 8-bit samples in big-endian words: PS3.5 8.1.1, also across frames of odd length.
            even = self.file.read(self.element.start + first // 2 * 2, self.element.start + (last + 1) // 2 * 2)
            data = np.frombuffer(even, "u2").byteswap().tobytes()[first % 2 :][: last - first]
        else:
            data = self.file.read(self.element.start + first, self.element.start + last)
        if layout.allocated == 1:
            bit = frame * bits % 8
            samples = np.unpackbits(np.frombuffer(data, "u1"), bitorder="little")[bit : bit + bits]
        else:
            samples = np.frombuffer(data, f"{order}{layout.kind}{layout.allocated // 8}")
            if layout.shift and np.bitwise_or.reduce(samples) & ((1 << layout.shift) - 1):
                # HighBit promises samples at the top of their containers; these are at the bottom.
                layout = replace(layout, shift=0)
        if self.subsampled:
            if layout.columns % 2 or layout.allocated != 8:
                raise UnsupportedPixelsError("YBR_FULL_422 needs 8 bits and an even number of columns", remedy=_READ)
            first_y, second_y, blue, red = samples.reshape(-1, 4).T
            samples = np.stack((first_y, blue, red, second_y, blue, red), axis=1).reshape(-1)
            layout = replace(layout, planar=False)
        return layout.arranged(samples), layout

    def _fragments_of(self, frame: int) -> list[tuple[int, int]]:
        if frame < len(self.by_frame):
            return self.by_frame[frame]
        if self.cut:
            raise self.file.truncated(f"frame {frame + 1} of the pixel data is cut off")
        raise UnsupportedPixelsError(f"the pixel data holds no frame {frame + 1}", remedy="The file is damaged")

    def _fragments(self) -> tuple[list[tuple[int, int]], bytes]:
        """Return the fragments of PS3.5 A.4 and the basic offset table; set `cut` if the file ends first."""
        position, fragments, table = self.element.start, list[tuple[int, int]](), None
        while position + 8 <= self.file.size and len(fragments) < _MAX_ELEMENTS:
            buffer, base = self.file.window(position)
            group, number, length = struct.unpack_from("<HHI", buffer, position - base)
            position += 8
            if group << 16 | number == _SEQUENCE_END:
                return fragments, table or b""
            if group << 16 | number != _ITEM:
                raise UnsupportedPixelsError(f"byte {position - 8} starts no pixel data item", remedy=_READ)
            if position + length > self.file.size:
                break
            if table is None:
                table = self.file.read(position, position + length)
            elif length:
                fragments.append((position, position + length))
            position += length
        self.cut = True
        return fragments, table or b""

    def _grouped(self, fragments: list[tuple[int, int]], table: bytes) -> list[list[tuple[int, int]]]:
        """Share the fragments out to frames: by offset table, one each, or by where codestreams start."""
        if self.count == 1 or not fragments:
            return [fragments] if fragments else []
        extended = self.header.value(0x7FE00001)
        coded, width = (extended, 8) if extended else (table, 4)
        offsets = np.frombuffer(coded[: len(coded) // width * width], f"<u{width}").tolist()
        starts = {start - fragments[0][0]: i for i, (start, _) in enumerate(fragments)}
        firsts = [starts[offset] for offset in offsets if offset in starts]
        sound = len(offsets) == self.count and firsts == sorted(set(firsts)) and firsts[:1] == [0]
        if not sound or (len(firsts) < self.count and not self.cut):
            firsts = list(range(len(fragments)))
            if len(fragments) != self.count and self.syntax != _RLE:
                marks = (_JPEG_START, *_JPEG_2000_STARTS)
                heads = [self.file.read(start, min(stop, start + 6)) for start, stop in fragments]
                firsts = [i for i, head in enumerate(heads) if head.startswith(marks)]
            if len(firsts) != self.count and not self.cut:
                raise UnsupportedPixelsError(
                    f"{self.count} frames lie in {len(fragments)} fragments without a sound offset table", remedy=_READ
                )
        return [fragments[i:j] for i, j in zip(firsts, [*firsts[1:], len(fragments)], strict=True)]


def _decompressed(data: bytes, layout: _Layout, syntax: str) -> tuple[NDArray[Any], _Layout]:
    """Return the samples of one compressed frame. The codestream says what it holds; the header must agree."""
    if data.startswith(_JPEG_START):
        codec, decoder = "JPEG", _jpeg
    elif data.startswith(_JPEG_2000_STARTS):
        codec, decoder = "JPEG 2000", _jpeg_2000
    elif syntax == _RLE:
        codec, decoder = "RLE", _rle
    else:
        raise UnsupportedPixelsError(f"a frame of transfer syntax {syntax} holds no known codestream", remedy=_READ)
    try:
        samples, found = decoder(data, layout)
        if samples.size != layout.count:
            raise UnsupportedPixelsError(
                f"the {codec} frame has {samples.size} samples, not {layout.size}", remedy=_READ
            )
        return found.arranged(samples), found
    except DecodeError:
        raise
    except BaseException as error:
        # The codecs document no exceptions; whatever one raises concerns this frame alone. A panic of
        # the RLE codec, which is Rust, is not even an Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UnsupportedPixelsError(f"the {codec} frame is not decodable ({error})"[:200], remedy=_READ) from error


def _rle(data: bytes, layout: _Layout) -> tuple[NDArray[Any], _Layout]:
    from rle.utils import decode_pixel_data

    raw = decode_pixel_data(data, version=2, rows=layout.rows, columns=layout.columns, bits_allocated=layout.allocated)
    return np.frombuffer(raw, f"<u{layout.allocated // 8}"), replace(layout, planar=True)


def _jpeg_2000(data: bytes, layout: _Layout) -> tuple[NDArray[Any], _Layout]:
    from openjpeg.utils import decode_pixel_data

    start = data.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(data) < start + 43:
        raise UnsupportedPixelsError("the frame holds no JPEG 2000 codestream", remedy=_READ)
    # SIZ of ISO 15444-1 A.5.1: the reference grid, its offset, and the depth of the first component.
    width, height, left, top = struct.unpack_from(">4I", data, start + 8)
    samples, depth = struct.unpack_from(">HB", data, start + 40)
    _agree(layout, "JPEG 2000", height - top, width - left, samples)
    _ended(data, start)
    precision = (depth & 0x7F) + 1
    raw = decode_pixel_data(data, version=2)
    size = 1 if precision <= 8 else 2 if precision <= 16 else 4
    photometric = "RGB" if layout.photometric in ("YBR_ICT", "YBR_RCT") else layout.photometric
    found = replace(layout, stored=precision, shift=0, planar=False, photometric=photometric)
    return np.frombuffer(raw, f"=u{size}"), found


def _jpeg(data: bytes, layout: _Layout) -> tuple[NDArray[Any], _Layout]:
    stream = _JpegStream.read(data)
    _agree(layout, "JPEG", stream.rows, stream.columns, stream.samples)
    _ended(data, stream.position)
    found = replace(layout, stored=stream.precision, shift=0, planar=False)
    if stream.frame_type == 0xF7:
        from jpeg_ls import decode_pixel_data  # type: ignore[import-untyped]

        raw, info = decode_pixel_data(data)
        found = replace(found, planar=stream.samples > 1 and info["interleave_mode"] == 0)
    elif stream.frame_type in (0xC0, 0xC1, 0xC2) and stream.precision == 8:
        picture = _Jpeg(io.BytesIO(data))
        if stream.samples == 3:
            if layout.photometric == "RGB" and not stream.tells_colour:
                # libjpeg would take unmarked samples for YCbCr; asking for that leaves them as they are.
                picture.draft("YCbCr", picture.size)
            found = replace(found, photometric="RGB")
        raw = picture.tobytes()
    else:
        raw = _gdcm(_plain_jpeg(data, stream), layout, stream.precision)
        # Bits above those stored may hold an overlay, as in native data.
        found = replace(found, stored=min(layout.stored, stream.precision))
    return np.frombuffer(raw, "=u1" if stream.precision <= 8 else "=u2"), found


def _gdcm(data: bytes, layout: _Layout, precision: int) -> bytes:
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
        raise UnsupportedPixelsError("the frame holds no JPEG codestream", remedy=_READ)


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
        raise UnsupportedPixelsError(f"JPEG frames of type {stream.frame_type:02X} are not read", remedy=_READ)
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


def _agree(layout: _Layout, codec: str, rows: int, columns: int, samples: int) -> None:
    # Checked before decoding: the codec would allocate what the codestream claims.
    if (rows, columns, samples) != (layout.rows, layout.columns, layout.samples):
        raise UnsupportedPixelsError(
            f"the {codec} frame is {rows} x {columns} x {samples} where the header says {layout.size}", remedy=_READ
        )


def _ended(data: bytes, start: int) -> None:
    # Inside a codestream FF is never followed by D9; without it codecs paint the missing part grey.
    if data.rfind(b"\xff\xd9", start) < 0:
        raise TruncatedFileError("the compressed frame ends early", remedy="Copy the file again from its origin")


# ---- how stored values are shown ---------------------------------------------------------------


def _rendering(header: _Header, layout: _Layout, frame: int) -> Rendering:
    groups = (header.item(0x52009230, frame), header.item(0x52009229))
    transform = _group(groups, 0x00289145) or header
    values = _group(groups, 0x00289132) or header
    intercept = transform.decimal(0x00281052) or 0.0
    padding = header.words(0x00280120, signed=layout.signed)[:1]
    limit = header.words(0x00280121, signed=layout.signed)[:1]
    center, width = values.decimal(0x00281050), values.decimal(0x00281051)
    function = values.first(0x00281056).upper() or "LINEAR"
    # Rescaling can make values negative, and then the table's first value is signed.
    voi_signed = layout.signed or intercept < 0
    return Rendering(
        photometric_interpretation=layout.photometric,
        bits_stored=layout.stored,
        signed=layout.signed,
        shift=layout.shift,
        slope=transform.decimal(0x00281053) or 1.0,
        intercept=intercept,
        modality_lut=_table(header.item(0x00283000), 0x00283002, 0x00283006, signed=layout.signed),
        voi_lut=_table(header.item(0x00283010), 0x00283002, 0x00283006, signed=voi_signed),
        window=Window(center, width, function) if center is not None and width is not None else None,
        padding=(min(padding + limit), max(padding + limit)) if padding else None,
        inverse=header.first(0x20500020).upper() == "INVERSE",
        palette=_palette(header, layout) if layout.photometric == "PALETTE COLOR" else None,
    )


def _group(groups: Sequence[_Header | None], tag: int) -> _Header | None:
    """Return the functional group of a frame, or else the one that all frames share (PS3.3 C.7.6.16)."""
    return next((item for group in groups if group and (item := group.item(tag))), None)


def _table(item: _Header | None, described: int, held: int, *, signed: bool) -> LookupTable | None:
    """Return a usable table of PS3.3 C.11.1.1.1 or None."""
    descriptor = item.words(described) if item else ()
    if item is None or len(descriptor) != 3:
        return None
    count, first, bits = descriptor[0] or 1 << 16, descriptor[1], min(max(descriptor[2], 1), 16)
    vr = item.elements[described].vr
    if first >= 1 << 15 and (vr == b"SS" or (signed and vr != b"US")):
        first -= 1 << 16
    data = item.value(held)
    if len(data) >= 2 * count:
        values = np.frombuffer(data, f"{item.order}u2", count).astype(np.uint16)
    elif len(data) >= count:
        values = np.frombuffer(data, "u1", count).astype(np.uint16)
    else:
        return None
    return LookupTable(first, values, bits)


def _palette(header: _Header, layout: _Layout) -> tuple[LookupTable, LookupTable, LookupTable]:
    tables = []
    for channel in range(3):
        described, plain, segmented = 0x00281101 + channel, 0x00281201 + channel, 0x00281221 + channel
        table = _table(header, described, plain, signed=layout.signed)
        descriptor = header.words(described)
        if table is None and len(descriptor) == 3 and (segments := header.value(segmented)):
            form = "u1" if descriptor[2] <= 8 else f"{header.order}u2"
            width = np.dtype(form).itemsize
            numbers = np.frombuffer(segments[: len(segments) // width * width], form).tolist()
            values = _unfolded(numbers, width, descriptor[0] or 1 << 16)
            if values:
                table = LookupTable(descriptor[1], np.array(values, np.uint16), descriptor[2])
        if table is None:
            raise UnsupportedPixelsError("the palette is missing or incomplete", remedy=_READ)
        tables.append(table)
    return tables[0], tables[1], tables[2]


def _unfolded(numbers: list[int], width: int, limit: int) -> list[int]:
    """Return the entries, `limit` at most, of a segmented palette of PS3.3 C.7.9.2; empty if it is unsound."""
    values: list[int] = []
    pending = [(0, len(numbers), -1)]
    while pending and len(values) < limit:
        position, stop, segments = pending.pop()
        if position + 2 > stop or segments == 0:
            continue
        kind, length = numbers[position], numbers[position + 1]
        size = {0: 2 + length, 1: 3, 2: 2 + 4 // width}.get(kind, 0)
        if not size or position + size > stop:
            return []
        pending.append((position + size, stop, segments - 1))
        if kind == 0:
            values += numbers[position + 2 : position + size]
        elif kind == 1 and values:
            first, last = values[-1], numbers[position + 2]
            values += [round(first + (last - first) * (i + 1) / length) for i in range(length)]
        elif kind == 2 and segments < 0:
            offset = sum(part << (8 * width * i) for i, part in enumerate(numbers[position + 2 : position + size]))
            pending.append((offset // width, len(numbers), length))
        else:
            return []
    return values[:limit]


# ---- raster files ------------------------------------------------------------------------------


class _Jpeg(JpegImageFile):
    """Pillow's reader without its look at the camera header, which warns, and not thread-safely, of any flaw."""

    def _read_dpi_from_exif(self) -> None:
        pass


def _open_raster(file: _Source) -> JpegImageFile | PngImageFile:
    """Return a picture whose pixels are still on disk."""
    file.file.seek(0)
    try:
        # The plug-ins themselves: Image.open warns above 89 million pixels, where `max_pixels` is our limit.
        return (PngImageFile if file.head.startswith(_PNG) else _Jpeg)(file.file)
    except Exception as error:
        # Pillow lets struct, zlib, key and index errors of damaged headers through.
        raise _damaged(file, error) from error


def _damaged(file: _Source, error: Exception) -> DecodeError:
    remedy = "Copy the file again from its origin"
    if "truncated" in str(error).lower() or isinstance(error, EOFError | struct.error | IndexError):
        return TruncatedFileError("the picture ends before its header says it does", item=file.name, remedy=remedy)
    return NotAnImageError(f"the picture is damaged ({error})"[:200], item=file.name, remedy=remedy)


def _turn(raster: Raster.Image) -> int:
    """Return the EXIF orientation, 1 to 8, as far as the header in front of the pixels gives it."""
    exif = bytes(raster.info.get("exif", b"")).removeprefix(b"Exif\0\0")
    order = ">" if exif.startswith(b"MM") else "<"
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        entries = (struct.unpack_from(f"{order}HHIH", exif, start + 2 + 12 * i) for i in range(count))
        turn = next((value for tag, form, _, value in entries if (tag, form) == (0x0112, 3)), 1)
    except struct.error:
        # A broken camera header is no reason to lose the picture.
        return 1
    return int(turn) if 1 <= turn <= 8 else 1


def _raster_record(sha256: str, study_hint: str, raster: Raster.Image) -> Image:
    grey = raster.mode in ("1", "L", "LA") or raster.mode.startswith("I")
    instance = derive_uid("instance", sha256)
    rows, columns = (raster.width, raster.height) if _turn(raster) >= 5 else (raster.height, raster.width)
    return Image(
        image_id=instance,
        sop_instance_uid=instance,
        study_uid=derive_uid("study of", study_hint) if study_hint else derive_uid("study", sha256),
        series_uid=derive_uid("series", sha256),
        rows=rows,
        columns=columns,
        bits_stored=16 if raster.mode.startswith("I") else 8,
        photometric_interpretation="MONOCHROME2" if grey else "RGB",
    )


def _decode_raster(file: _Source, sha256: str, study_hint: str, max_pixels: int) -> Decoded:
    raster = _open_raster(file)
    samples = len(raster.getbands())
    if raster.width * raster.height * samples > max_pixels:
        raise UnsupportedPixelsError(
            f"the image of {raster.height} x {raster.width} x {samples} samples passes the limit of {max_pixels}",
            item=file.name,
            remedy="Raise the setting max_pixels",
        )
    record = _raster_record(sha256, study_hint, raster)
    turn = _turn(raster)
    try:
        raster.load()
        display = _raster_display(raster)
    except Exception as error:
        raise _damaged(file, error) from error
    quarter, mirrored = {1: (0, 0), 2: (0, 1), 3: (2, 0), 4: (2, 1), 5: (3, 1), 6: (3, 0), 7: (1, 1), 8: (1, 0)}[turn]
    display = np.rot90(display, quarter)
    return Decoded((record,), (np.ascontiguousarray(display[:, ::-1] if mirrored else display),))


def _raster_display(raster: Raster.Image) -> Display:
    if raster.mode.startswith("I"):
        deep = np.asarray(raster)
        return to_display(deep.astype(np.uint16), Rendering(bits_stored=16))
    if raster.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in raster.info:
        # What lies behind a transparent pixel is as dark as the background of a radiograph.
        grey = raster.mode in ("1", "L", "LA", "La")
        layer = raster.convert("RGBA")
        raster = Raster.alpha_composite(Raster.new("RGBA", layer.size, (0, 0, 0, 255)), layer)
        return np.array(raster.convert("L" if grey else "RGB"))
    return np.array(raster.convert("L" if raster.mode in ("1", "L") else "RGB"))
