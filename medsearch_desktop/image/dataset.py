"""The walk through a DICOM data set: bytes to the elements in front of the pixels, and their values.

pydicom tells the elements apart, and reads the items of sequences and the character sets. What it is
not asked to do, and why:
- To open the file: `dcmread` inflates without bound, believes a transfer syntax that the bytes belie,
  and takes a short read for the end; here a length past the end of the file is told from one.
- To convert values: that warns, and takes longer than all the reading. Values stay bytes until used.
- To skip sequences of undefined length: it calls itself once a level, so that two hundred levels end
  in RecursionError, and keeps every item in memory, wanted or not.
Source: DICOM PS3.5 (encoding, 7 and Annex A), PS3.10 7.1 (file meta).
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import os
import re
import struct
import warnings
import zlib
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, cast

from pydicom.charset import default_encoding
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import data_element_generator, read_sequence_item
from pydicom.tag import BaseTag

from medsearch_desktop.errors import (
    DecodeError,
    NotAnImageError,
    TruncatedFileError,
)
from medsearch_desktop.image.charset import decoded_text

# Set once, on import: pydicom's warnings say what the fallbacks here deal with, decoding runs in
# threads, where they cannot be silenced for a moment, and a log must not quote what a header says.
warnings.filterwarnings("ignore", module=r"pydicom\.")
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

_UNDEFINED = 0xFFFFFFFF
ITEM, _ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_CHARACTER_SET = 0x00080005
PIXELS, FLOAT_PIXELS, DOUBLE_PIXELS = 0x7FE00010, 0x7FE00008, 0x7FE00009
_PIXEL_TAGS = frozenset((PIXELS, FLOAT_PIXELS, DOUBLE_PIXELS))
_LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
# Headers end long before; a file of empty elements would otherwise keep a core busy for minutes.
MAX_ELEMENTS = 2_000_000
_MAX_TOP_ELEMENTS = 100_000
# Of a sequence, and of what lies in one of its items: an item takes pydicom two thirds of a kilobyte, however empty.
_MAX_ITEMS = 100_000
_MAX_VALUE, _MAX_ITEM = 1 << 22, 1 << 24
_ALWAYS_INFLATED, _MOST_INFLATION = 1 << 26, 200
# Values above this stay in the file until they are asked for.
_DEFERRED = 1 << 12
# Nearly every header fits; a longer one is read on in steps of this.
_WINDOW = 1 << 15
PNG, JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
NATIVE = frozenset(("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", _DEFLATED, _BIG_ENDIAN))


class Source:
    """One file, read at will but never past its end; `head` is its beginning, kept for the header."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file = file
        self.name = name
        self.size = file.seek(0, os.SEEK_END)
        self.head = self._read(0, _WINDOW)
        self._base, self._window = 0, self.head

    @property
    def is_raster(self) -> bool:
        return self.head.startswith((PNG, JPEG_START))

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

    def window(self, position: int, *, ahead: int = 16) -> tuple[bytes, int]:
        """Return bytes around `position`, at least `ahead` from it on where there are, and where they start."""
        if position + ahead <= len(self.head) or len(self.head) == self.size:
            return self.head, 0
        if not self._base <= position <= self._base + len(self._window) - ahead:
            self._base, self._window = position, self._read(position, _WINDOW)
        return self._window, self._base

    def truncated(self, message: str) -> TruncatedFileError:
        return TruncatedFileError(
            f"{message}; the file has {self.size} bytes", item=self.name, remedy="Copy the file again from its origin"
        )

    def damaged(self, message: str) -> NotAnImageError:
        return NotAnImageError(message, item=self.name, remedy="The file is damaged")


@contextmanager
def opened(source: str | os.PathLike[str] | BinaryIO, name: str) -> Iterator[Source]:
    if isinstance(source, str | os.PathLike):
        with Path(source).open("rb", buffering=0) as file:
            yield _filled(Source(cast(BinaryIO, file), name))
    else:
        yield _filled(Source(source, name))


def _filled(file: Source) -> Source:
    if file.size == 0:
        raise NotAnImageError("the file is empty", item=file.name, remedy="Copy it again from its origin")
    return file


def _elements(
    file: Source, start: int, implicit: bool, order: str, *, group: int | None = None
) -> Iterator[tuple[int, RawDataElement]]:
    """Yield the elements of a data set by tag; its pixel data, whole or not, comes last.

    Positions count from the start of the file. With `group` the data set ends where that group does.
    """
    position, base, count, ended = start, 0, 0, False
    taken: list[RawDataElement] = []
    stream = io.BytesIO()

    def take(tag: BaseTag, vr: str | None, length: int) -> bool:
        """Check an element that pydicom is about to read, and stop it at those that it must not."""
        nonlocal ended, count
        number, value = int(tag), base + stream.tell()
        count += 1
        if count > _MAX_TOP_ELEMENTS:
            raise file.damaged("the header has too many elements")
        if group is not None and number >> 16 != group:
            ended = True
            return True
        if number >> 16 in (0, 0xFFFE) and number != SEQUENCE_END:
            raise file.damaged(f"byte {position} starts no element")
        if number in _PIXEL_TAGS or length == _UNDEFINED:
            ended = number in _PIXEL_TAGS
        elif value + length > file.size:
            head = value - (12 if vr and vr.encode() in _LONG_VRS else 8)
            short = None if implicit else _short_length(file, head, number, order)
            if short is None:
                left = max(0, file.size - value)
                raise file.truncated(
                    f"element ({number >> 16:04X},{number & 0xFFFF:04X}) claims {length} bytes where {left} are left"
                )
            value, length, vr = head + 8, short, "UN"
        # The character set would be converted on the spot, and an unknown one would warn.
        elif number != _CHARACTER_SET:
            return False
        taken.append(RawDataElement(tag, vr, length, None, value, vr in (None, "UN"), order == "<"))
        return True

    while not ended and position + 8 <= file.size:
        window, base = file.window(position, ahead=_DEFERRED + 16)
        stream = io.BytesIO(window)
        stream.seek(position - base)
        before = position
        try:
            for raw in data_element_generator(stream, implicit, order == "<", take, _DEFERRED):
                element = cast(RawDataElement, raw)
                if element.value is not None and len(element.value) < element.length:
                    # The window ends inside the value; the next one begins with this element.
                    break
                tag = int(element.tag)
                if base:
                    element = element._replace(value_tell=base + element.value_tell)
                position = element.value_tell + element.length
                if tag != SEQUENCE_END:
                    yield tag, element
        except struct.error:
            # The window ends inside an element's head.
            pass
        if taken:
            element = taken.pop()
            position = element.value_tell + element.length
            if element.length == _UNDEFINED and not ended:
                position = _end_of_items(file, element.value_tell, element.is_implicit_VR, order)
                element = element._replace(length=position - element.value_tell)
            yield int(element.tag), element
        elif position == before and not ended:
            if file.read(position, position + 4) == struct.pack(f"{order}HH", _ITEM_END >> 16, _ITEM_END & 0xFFFF):
                return
            raise file.truncated(f"the element at byte {position} is cut short")
    if not ended and position < file.size and file.read(position, file.size).strip(b"\0"):
        raise file.truncated(f"the element at byte {position} is cut short")


def _short_length(file: Source, head: int, number: int, order: str) -> int | None:
    """Return the length in two bytes of the element at `head`, None where what would follow is no next element.

    Old writers give them to UN, and to the VRs that they do not know and write as "??" or blanks.
    """
    buffer, base = file.window(head)
    (length,) = struct.unpack_from(f"{order}H", buffer, head - base + 6)
    end = head + 8 + length
    if not length or end + 8 > file.size:
        return None
    group, element = struct.unpack(f"{order}HH", file.read(end, end + 4))
    return length if number < group << 16 | element <= PIXELS else None


def _end_of_items(file: Source, start: int, implicit: bool, order: str, *, in_sequence: bool = True) -> int:
    """Return where a sequence, or an item, of undefined length ends; a list replaces the call stack at any depth."""
    heads = struct.Struct(f"{order}HHI"), struct.Struct(f"{order}HH2sH"), struct.Struct(f"{order}I")
    position = start
    # One entry an open sequence or item of undefined length: is it a sequence, are its elements implicit.
    inside = [(in_sequence, implicit)]
    for _ in range(MAX_ELEMENTS):
        if position + 8 > file.size:
            break
        in_sequence, plain = inside[-1]
        buffer, base = file.window(position)
        group, number, vr, length, size = _element_head(buffer, position - base, plain or in_sequence, heads)
        tag = group << 16 | number
        position += size
        if tag in (SEQUENCE_END, _ITEM_END):
            inside.pop()
            if not inside:
                return position
        elif length == _UNDEFINED:
            inside.append((False, plain) if tag == ITEM else (True, plain or vr in (b"", b"UN")))
        else:
            position += length
    raise file.truncated(f"the sequence at byte {start} has no end")


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


@dataclass(frozen=True, slots=True)
class PixelElement:
    """Where the pixel data of a file lie; `stop` may be behind the end of a file that is cut off."""

    tag: int
    vr: str
    start: int
    stop: int
    undefined: bool


@dataclass(frozen=True)
class Header:
    """The elements of one data set up to its pixels, and how it is encoded."""

    file: Source
    elements: Mapping[int, RawDataElement | DataElement]
    order: str
    transfer_syntax: str = ""
    pixels: PixelElement | None = None
    # That of the data set around an item, which holds unless the item has its own (PS3.5 7.5.3).
    character_set: bytes = b""
    _sequences: dict[int, list[Dataset] | array[int]] = field(default_factory=dict, compare=False)

    @classmethod
    def read(cls, file: Source, *, inflate_limit: int) -> Header:
        start = 132 if file.head[128:132] == b"DICM" else 0
        meta, body = _file_meta(file, start)
        syntax = meta.get(0x00020010, "")
        if syntax == _DEFLATED:
            file, body = _inflated(file, body, inflate_limit), 0
        implicit, order = _encoding(file, body, syntax)
        elements: dict[int, RawDataElement | DataElement] = {}
        pixels = None
        try:
            for tag, element in _elements(file, body, implicit, order):
                if tag in _PIXEL_TAGS:
                    undefined = element.length == _UNDEFINED
                    stop = file.size if undefined else element.value_tell + element.length
                    pixels = PixelElement(tag, element.VR or "", element.value_tell, stop, undefined)
                else:
                    elements.setdefault(tag, element)
        except DecodeError as error:
            if start == 0 and not cls(file, elements, order).is_plausible:
                raise _not_an_image(file) from error
            raise
        if not syntax:
            syntax = "1.2.840.10008.1.2" if implicit else _BIG_ENDIAN if order == ">" else "1.2.840.10008.1.2.1"
        header = cls(file, elements, order, syntax, pixels)
        # Without the preamble's signature only the content can tell DICOM from chance.
        if (start == 0 and not header.is_plausible) or not (elements or pixels):
            raise _not_an_image(file)
        return header

    @property
    def is_plausible(self) -> bool:
        if re.fullmatch(r"1\.2\.840\.10008\.[0-9.]+", self.text(0x00080016)):
            return True
        return bool(self.text(0x00080060) or self.text(0x00080018)) and (0x00280010 in self.elements)

    def vr(self, tag: int) -> str:
        """Return an element's value representation, empty where its encoding leaves it to the dictionary."""
        element = self.elements.get(tag)
        return (element.VR or "") if element else ""

    def value(self, tag: int, *, limit: int = _MAX_VALUE) -> bytes:
        """Return the bytes of a value, none of one above `limit`."""
        element = self.elements.get(tag)
        if not isinstance(element, RawDataElement) or not 0 < element.length <= limit:
            return b""
        if element.value is None:
            return self.file.read(element.value_tell, element.value_tell + element.length)
        return element.value

    def text(self, tag: int) -> str:
        value = self.value(tag)
        return decoded_text(value, self.value(_CHARACTER_SET) or self.character_set) if value else ""

    def first(self, tag: int) -> str:
        return self.text(tag).split("\\", 1)[0].strip()

    def uid(self, tag: int) -> str:
        text = self.first(tag)
        return text if re.fullmatch(r"[0-9A-Za-z._-]{1,128}", text) else ""

    def integer(self, tag: int) -> int | None:
        """Return an IS value that fits into 32 bits."""
        # Some writers print whole numbers as they print all others.
        match = re.fullmatch(r"([+-]?\d{1,10})(?:\.0*)?", self.first(tag))
        number = int(match[1]) if match else None
        return number if number is not None and -(2**31) <= number < 2**31 else None

    def decimal(self, tag: int) -> float | None:
        try:
            # Consoles of some countries write a decimal comma.
            number = float(self.first(tag).replace(",", "."))
        except ValueError:
            return None
        return number if math.isfinite(number) else None

    def words(self, tag: int, *, signed: bool = False) -> tuple[int, ...]:
        """Return the 16-bit numbers of a US, SS or OW value."""
        value = self.value(tag)
        return struct.unpack(f"{self.order}{len(value) // 2}{'h' if signed else 'H'}", value[: len(value) // 2 * 2])

    def word(self, tag: int, default: int) -> int:
        return next(iter(self.words(tag)), default)

    def double(self, tag: int) -> float:
        """Return an FD value, NaN where there is none."""
        value = self.value(tag)
        return float(struct.unpack(f"{self.order}d", value[:8])[0]) if len(value) >= 8 else math.nan

    def item(self, tag: int, index: int = 0) -> Header | None:
        """Return one item of a sequence, or None if it is damaged: no sequence is worth losing an image for."""
        if tag not in self._sequences:
            self._sequences[tag] = self._items(tag)
        items = self._sequences[tag]
        if isinstance(items, array):
            item = self._read_item(tag, *items[2 * index : 2 * index + 2])
        else:
            item = items[index] if index < len(items) else None
        if item is None:
            return None
        # As they were read: pydicom would convert those without a value, whatever they claim to be.
        elements = {int(tag): item.get_item(tag, keep_deferred=True) for tag in item.keys()}  # noqa: SIM118 - a Dataset
        outer = self.value(_CHARACTER_SET) or self.character_set
        return replace(self, elements=elements, pixels=None, character_set=outer, _sequences={})

    def _items(self, tag: int) -> list[Dataset] | array[int]:
        """Return the items of a sequence up to its end or damage: where each begins and ends, as they stay unread.

        The functional groups of some thousand frames are tens of megabytes, of which a frame needs its own.
        """
        element = self.elements.get(tag)
        if isinstance(element, DataElement):
            return list(element.value) if element.VR == "SQ" else []
        spans = array("q")
        if element is None:
            return spans
        file, position = self._content(element)
        stop = min(position + element.length, file.size)
        while position + 8 <= stop:
            buffer, base = file.window(position)
            group, number, length = struct.unpack_from(f"{self.order}HHI", buffer, position - base)
            if group << 16 | number != ITEM:
                break
            end = position + 8 + length
            if length == _UNDEFINED:
                try:
                    end = _end_of_items(file, position + 8, element.is_implicit_VR, self.order, in_sequence=False)
                except TruncatedFileError:
                    break
            spans.extend((position, min(end, stop)))
            if len(spans) > 2 * _MAX_ITEMS:
                return array("q")
            position = end
        return spans

    def _content(self, element: RawDataElement) -> tuple[Source, int]:
        """Return what holds the value of a sequence, and where it begins there."""
        if element.value is None:
            return self.file, element.value_tell
        return Source(io.BytesIO(element.value), self.file.name), 0

    def _read_item(self, tag: int, start: int = 0, stop: int = 0) -> Dataset | None:
        if not 0 < stop - start <= _MAX_ITEM:
            return None
        element = cast(RawDataElement, self.elements[tag])
        data = self._content(element)[0].read(start, stop)
        if data.count(struct.pack(f"{self.order}HH", ITEM >> 16, ITEM & 0xFFFF)) > _MAX_ITEMS:
            return None
        try:
            return read_sequence_item(io.BytesIO(data), element.is_implicit_VR, self.order == "<", default_encoding)
        except (OSError, EOFError, ValueError, LookupError, TypeError, struct.error, RecursionError):
            return None


def _not_an_image(file: Source) -> NotAnImageError:
    return NotAnImageError("neither DICOM nor PNG nor JPEG", item=file.name, remedy="Other files are no images here")


def _file_meta(file: Source, start: int) -> tuple[dict[int, str], int]:
    """Return the text of the group 0002 elements, always explicit little endian, and where they end."""
    meta: dict[int, str] = {}
    position = start
    if file.head[start : start + 2] == b"\x02\x00":
        for tag, element in _elements(file, start, False, "<", group=0x0002):
            position = element.value_tell + element.length
            meta[tag] = decoded_text(element.value or b"", b"")
    return meta, position


def _encoding(file: Source, position: int, syntax: str) -> tuple[bool, str]:
    """Return whether a data set is implicit, and its byte order: as it looks, since headers err."""
    window, base = file.window(position)
    first = window[position - base :][:8]
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


def _inflated(file: Source, start: int, limit: int) -> Source:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    # Images shrink to a tenth, seldom to a hundredth; zeros by the gigabyte shrink to a thousandth.
    limit = min(limit, max(_ALWAYS_INFLATED, _MOST_INFLATION * (file.size - start)))
    try:
        data = inflater.decompress(file.read(start, file.size), limit)
    except zlib.error as error:
        raise TruncatedFileError("the deflated data set is damaged", item=file.name, remedy="Copy it again") from error
    return Source(io.BytesIO(data), file.name)


def derive_uid(*parts: str) -> str:
    """Return a UID under 2.25 (PS3.5 B.2) that is the same whenever the parts are."""
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"
