"""The frames of a DICOM instance, one at a time: stored values and how they are to be shown.

Source: DICOM PS3.5 8 (pixel data), Annex A.4 (encapsulation), PS3.3 C.7.6.3, C.7.6.16, C.7.9.2, C.11.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.errors import (
    UnsupportedPixelsError,
)
from medsearch_desktop.image.codecs import CODED, JPEG_2000_STARTS, READ, UNMARKED, Layout, decompress, unread
from medsearch_desktop.image.dataset import (
    DOUBLE_PIXELS,
    FLOAT_PIXELS,
    ITEM,
    JPEG_START,
    MAX_ELEMENTS,
    NATIVE,
    PIXELS,
    SEQUENCE_END,
    Header,
    PixelElement,
)
from medsearch_desktop.image.jpeg_xl import JPEG_XL_STARTS
from medsearch_desktop.image.jpeg_xl import SYNTAXES as JPEG_XL
from medsearch_desktop.image.mending import Size, mended
from medsearch_desktop.image.preprocess import LookupTable, Rendering, Window
from medsearch_desktop.image.video import MOST_BYTES, VIDEO, first_pixels, is_readable
from medsearch_desktop.image.windows import preset_window

_TABLE = (0x00283002, 0x00283006)
_GE_BIG_ENDIAN_PIXELS = "1.2.840.113619.5.2"
_ANGIOGRAPHY = "1.2.840.10008.5.1.4.1.1.12."


def layout_of(header: Header, max_pixels: int) -> Layout:
    tag = cast(PixelElement, header.pixels).tag
    kind = "u" if tag == PIXELS else "f"
    size = Size(*(header.word(t, d) for t, d in (
        (0x00280010, 0), (0x00280011, 0), (0x00280002, 1),
        (0x00280100, {PIXELS: 0, FLOAT_PIXELS: 32, DOUBLE_PIXELS: 64}[tag]),
    )))  # fmt: skip
    if not size.is_known:
        size = mended(header, size)
    rows, columns, samples, allocated = size.rows, size.columns, size.samples, size.allocated
    stored = header.word(0x00280101, allocated) or allocated
    if not rows or not columns:
        raise UnsupportedPixelsError("the header gives no Rows or Columns", remedy="The file is damaged")
    if rows * columns * samples > max_pixels:
        raise UnsupportedPixelsError(
            f"the image of {rows} x {columns} x {samples} samples passes the limit of {max_pixels}",
            remedy="Raise the setting max_pixels",
        )
    if samples not in (1, 3) or allocated not in ((1, 8, 16, 32, 64) if kind == "u" else (32, 64)):
        raise UnsupportedPixelsError(f"{samples} samples of {allocated} bits a pixel are not read", remedy=READ)
    photometric = header.first(0x00280004).upper() or ("RGB" if samples == 3 else "MONOCHROME2")
    stored = min(stored, allocated)
    high_bit = header.word(0x00280102, stored - 1)
    shift = high_bit + 1 - stored if kind == "u" and stored <= high_bit + 1 <= allocated else 0
    signed = header.word(0x00280103, 0) == 1
    planar = samples == 3 and header.word(0x00280006, 0) == 1
    return Layout(rows, columns, samples, allocated, stored, shift, signed, photometric, planar, kind)


class Frames:
    """The frames of one instance, read one at a time."""

    def __init__(self, header: Header, layout: Layout, number_of_frames: int) -> None:
        self.header, self.layout, self.count = header, layout, number_of_frames
        self.element = cast(PixelElement, header.pixels)
        self.file, self.syntax = header.file, header.transfer_syntax
        self.available = min(self.element.stop, self.file.size) - self.element.start
        whole = layout.count * layout.allocated // 8 * number_of_frames
        # Archives that decompress on export sometimes leave the old transfer syntax in place, and private ones are not
        # always compressed.
        self.native = not self.element.undefined and (
            self.syntax in NATIVE or (self.syntax not in VIDEO and whole <= self.available <= whole + 1)
        )
        # Old GE archives turn the pixels around, and nothing else.
        self.order = ">" if self.syntax == _GE_BIG_ENDIAN_PIXELS else header.order
        self.subsampled = layout.photometric == "YBR_FULL_422" and self.available < whole
        self.cut = self.is_video = False
        self.by_frame: list[list[tuple[int, int]]] = []
        if self.native:
            return
        # Encapsulated although native: a lost file header. The codestream itself will tell what it is.
        self.is_video = self.syntax in VIDEO
        if self.syntax not in CODED | NATIVE and not (self.is_video and is_readable()):
            remedy = "Install the package av, then run `medsearch failures --retry`" if self.is_video else READ
            raise UnsupportedPixelsError(unread(self.syntax), remedy=remedy)
        if not self.element.undefined:
            raise UnsupportedPixelsError(
                f"the pixel data has a length although transfer syntax {self.syntax} is encapsulated", remedy=READ
            )
        fragments, table = self._fragments()
        # The frames of a video are one stream, of which the first is read.
        self.by_frame = [fragments] if self.is_video else self._grouped(fragments, table)

    def read(self, frame: int) -> tuple[NDArray[Any], Layout]:
        """Return a frame's stored values and how they are to be understood."""
        if self.native:
            return self._native(frame)
        if self.is_video:
            return self._video(frame)
        data = b"".join(self.file.read(start, stop) for start, stop in self._fragments_of(frame))
        samples, layout = decompress(data, self.layout, self.syntax)
        return samples, self._settled(samples, layout)

    def check(self, frame: int) -> None:
        """Raise what `read` would for a frame that is not there or not whole, without decoding it."""
        if self.native:
            self._extent(frame)
        else:
            self._fragments_of(frame)

    def _video(self, frame: int) -> tuple[NDArray[Any], Layout]:
        layout, parts, left = self.layout, list[bytes](), MOST_BYTES
        for start, stop in self._fragments_of(frame):
            parts.append(self.file.read(start, min(stop, start + left)))
            left -= len(parts[-1])
        pixels = first_pixels(b"".join(parts), self.syntax, rows=layout.rows, columns=layout.columns)
        found = replace(layout, allocated=8, stored=8, shift=0, samples=3, signed=False, planar=False)
        return pixels, replace(found, photometric="RGB")

    def _extent(self, frame: int) -> tuple[int, int, int]:
        """Return the bits of a native frame and its first and last byte."""
        bits = self.layout.count * self.layout.allocated
        if self.subsampled:
            bits = bits // 3 * 2
        first, last = frame * bits // 8, -(-(frame + 1) * bits // 8)
        if last > self.available:
            size, there = self.layout.size, self.available
            message = f"frame {frame + 1} of {size} needs {last} bytes of pixel data, {there} are there"
            if self.element.stop > self.file.size:
                raise self.file.truncated(message)
            raise UnsupportedPixelsError(message, remedy="The file is damaged; copy it again from its origin")
        return bits, first, last

    def _native(self, frame: int) -> tuple[NDArray[Any], Layout]:
        layout, order = self.layout, self.order
        bits, first, last = self._extent(frame)
        swapped = order == ">" and layout.allocated == 8 and self.element.vr == "OW"
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
            layout = self._settled(samples, layout)
        if self.subsampled:
            if layout.columns % 2 or layout.allocated != 8:
                raise UnsupportedPixelsError("YBR_FULL_422 needs 8 bits and an even number of columns", remedy=READ)
            first_y, second_y, blue, red = samples.reshape(-1, 4).T
            samples = np.stack((first_y, blue, red, second_y, blue, red), axis=1).reshape(-1)
            layout = replace(layout, planar=False)
        return layout.arranged(samples), layout

    def _settled(self, samples: NDArray[Any], layout: Layout) -> Layout:
        """Return `layout`, or where HighBit promises samples at the top of their containers in vain, at the bottom.

        Bits below those at the top may be an overlay's (PS3.5 8.1.2).
        """
        if not layout.shift or samples.dtype.kind not in "ui" or self.has_overlay_in_pixels:
            return layout
        unsigned = samples.view(f"{samples.dtype.byteorder}u{samples.dtype.itemsize}")
        if not int(np.bitwise_or.reduce(unsigned, axis=None)) & ((1 << layout.shift) - 1):
            return layout
        if layout.signed:
            # From the sign on all bits are alike.
            above = samples.view(f"{samples.dtype.byteorder}i{samples.dtype.itemsize}") >> (layout.stored - 1)
            at_bottom = int(above.min()) >= -1 and int(above.max()) <= 0
        else:
            at_bottom = not int(unsigned.max()) >> layout.stored
        return replace(layout, shift=0) if at_bottom else layout

    @property
    def has_overlay_in_pixels(self) -> bool:
        """Whether an overlay without data of its own is declared: it lies in unused bits (PS3.3 C.9.2, retired)."""
        groups = range(0x60000000, 0x60200000, 0x20000)
        return any(g + 0x10 in self.header.elements and g + 0x3000 not in self.header.elements for g in groups)

    def _fragments_of(self, frame: int) -> list[tuple[int, int]]:
        if frame < len(self.by_frame):
            return self.by_frame[frame]
        if self.cut:
            raise self.file.truncated(f"frame {frame + 1} of the pixel data is cut off")
        if self.is_video and self.by_frame[0]:
            raise UnsupportedPixelsError("only the first frame of a video is read", remedy="Open it in a video player")
        raise UnsupportedPixelsError(f"the pixel data holds no frame {frame + 1}", remedy="The file is damaged")

    def _fragments(self) -> tuple[list[tuple[int, int]], bytes]:
        """Return the fragments of PS3.5 A.4 and the basic offset table; set `cut` if the file ends first.

        Walked here rather than by pydicom.encaps: where a file ends inside an item's head, that names no
        fragment at all; where it ends inside an item, that passes the rest for a whole one; it believes
        a wrong offset table; and it reads every fragment on the way to one frame.
        """
        position, fragments, table, odd = self.element.start, list[tuple[int, int]](), None, False
        while position + 8 <= self.file.size and len(fragments) < MAX_ELEMENTS:
            buffer, base = self.file.window(position)
            group, number, length = struct.unpack_from("<HHI", buffer, position - base)
            if odd and group << 16 | number not in (ITEM, SEQUENCE_END):
                # The writer padded to an even length and did not count the padding.
                position, odd = position + 1, False
                continue
            position, odd = position + 8, length % 2 == 1
            if group << 16 | number == SEQUENCE_END:
                return fragments, table or b""
            if group << 16 | number != ITEM:
                raise UnsupportedPixelsError(f"byte {position - 8} starts no pixel data item", remedy=READ)
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
            if len(fragments) != self.count and self.syntax not in UNMARKED:
                # The short mark of JPEG XL may stand in the middle of the others.
                marks = JPEG_XL_STARTS if self.syntax in JPEG_XL else (JPEG_START, *JPEG_2000_STARTS)
                heads = [self.file.read(start, min(stop, start + 12)) for start, stop in fragments]
                firsts = [i for i, head in enumerate(heads) if head.startswith(marks)]
            if len(firsts) != self.count and not self.cut:
                raise UnsupportedPixelsError(
                    f"{self.count} frames lie in {len(fragments)} fragments without a sound offset table", remedy=READ
                )
        return [fragments[i:j] for i, j in zip(firsts, [*firsts[1:], len(fragments)], strict=True)]


def rendering_of(header: Header, layout: Layout, frame: int) -> Rendering:
    groups = groups_of(header, frame)
    transform = group_of(groups, 0x00289145) or header
    values = group_of(groups, 0x00289132) or header
    intercept = transform.decimal(0x00281052) or 0.0
    padding = header.words(0x00280120, signed=layout.signed)[:1]
    limit = header.words(0x00280121, signed=layout.signed)[:1]
    center, width = values.decimal(0x00281050), values.decimal(0x00281051)
    function = values.first(0x00281056).upper() or "LINEAR"
    window = Window(center, width, function) if center is not None and width is not None else None
    slope = transform.decimal(0x00281053) or 1.0
    highest = (1 << (layout.stored - layout.signed)) - 1
    # That of angiography gives intensities to measure by and is not for display (PS3.3 C.8.7.1.1.2).
    shown = not header.uid(0x00080016).startswith(_ANGIOGRAPHY)
    modality = _table(header.item(0x00283000), *_TABLE, signed=layout.signed, highest=highest) if shown else None
    # Rescaling can make values negative, and then the table's first value is signed.
    signed = modality is None and (layout.signed or intercept < 0)
    return Rendering(
        photometric_interpretation=layout.photometric,
        bits_stored=layout.stored,
        signed=layout.signed,
        shift=layout.shift,
        slope=slope,
        intercept=intercept,
        modality_lut=modality,
        voi_lut=_table(
            values.item(0x00283010) or header.item(0x00283010),
            *_TABLE,
            signed=signed,
            highest=highest * abs(slope) + intercept,
        ),
        window=window if window and window.usable else preset_window(header, transform),
        padding=(min(padding + limit), max(padding + limit)) if padding else None,
        inverse=header.first(0x20500020).upper() == "INVERSE",
        palette=_palette(header, layout) if layout.photometric == "PALETTE COLOR" else None,
    )


def groups_of(header: Header, frame: int) -> tuple[Header | None, Header | None]:
    """Return the functional groups of a frame and those that all frames share (PS3.3 C.7.6.16)."""
    return header.item(0x52009230, frame), header.item(0x52009229)


def group_of(groups: Sequence[Header | None], tag: int) -> Header | None:
    """Return one functional group, that of the frame before the shared one."""
    return next((item for group in groups if group and (item := group.item(tag))), None)


def _table(item: Header | None, described: int, held: int, *, signed: bool, highest: float) -> LookupTable | None:
    """Return a usable table of PS3.3 C.11.1.1.1 or None.

    Its values may be negative if `signed`, and reach up to `highest`.
    """
    descriptor = item.words(described) if item else ()
    if item is None or len(descriptor) != 3:
        return None
    count, first, bits = descriptor[0] or 1 << 16, descriptor[1], min(max(descriptor[2], 1), 16)
    vr = item.vr(described)
    # Many writers say US whatever the values are: a table that begins above all of them begins below 0.
    if first >= 1 << 15 and (vr == "SS" or (signed and (vr != "US" or first > highest))):
        first -= 1 << 16
    data = item.value(held)
    if len(data) >= 2 * count:
        values = np.frombuffer(data, f"{item.order}u2", count).astype(np.uint16)
    elif len(data) >= count:
        values = np.frombuffer(_bytes_of(item, held, data), "u1", count).astype(np.uint16)
    else:
        return None
    return LookupTable(first, values, bits)


def _bytes_of(item: Header, tag: int, data: bytes) -> bytes:
    """Return bytes that lie two in a word in their order: in big-endian words the second comes first."""
    if item.order == "<" or item.vr(tag) == "OB" or len(data) % 2:
        return data
    return np.frombuffer(data, "u2").byteswap().tobytes()


def _palette(header: Header, layout: Layout) -> tuple[LookupTable, LookupTable, LookupTable]:
    tables, highest = [], (1 << (layout.stored - layout.signed)) - 1
    for channel in range(3):
        described, plain, segmented = 0x00281101 + channel, 0x00281201 + channel, 0x00281221 + channel
        table = _table(header, described, plain, signed=layout.signed, highest=highest)
        descriptor = header.words(described)
        if table is None and len(descriptor) == 3 and (segments := header.value(segmented)):
            form = "u1" if descriptor[2] <= 8 else f"{header.order}u2"
            segments = _bytes_of(header, segmented, segments) if form == "u1" else segments
            width = np.dtype(form).itemsize
            numbers = np.frombuffer(segments[: len(segments) // width * width], form).tolist()
            values = _unfolded(numbers, width, descriptor[0] or 1 << 16)
            if values:
                table = LookupTable(descriptor[1], np.array(values, np.uint16), descriptor[2])
        if table is None:
            raise UnsupportedPixelsError("the palette is missing or incomplete", remedy=READ)
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
