"""DICOM files that no scanner wrote: sound ones, and what accidents and malice make of them; the same for one seed."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
from makers import Film, dataset
from openjpeg.utils import encode_array
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import UID
from volumes_made import enhanced_dataset, slice_dataset

RLE, JPEG_LS, J2K, BIG, DEFLATED = (
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
)
EXPLICIT = "1.2.840.10008.1.2.1"
_EXPLICIT_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0"


def _bytes(ds: Dataset) -> bytes:
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _film(**values: object) -> Dataset:
    ds = dataset(Film(size=40))
    for name, value in values.items():
        setattr(ds, name, value)
    return ds


def _compressed(syntax: str) -> Dataset:
    ds = _film()
    if syntax == J2K:
        pixels = np.frombuffer(ds.PixelData, "<u2").reshape(40, 40)
        ds.PixelData = encapsulate([bytes(encode_array(pixels, 12, 2))])
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = UID(J2K)
    else:
        ds.compress(
            UID(syntax), generate_instance_uid=False, encoding_plugin="pydicom" if syntax == RLE else "pyjpegls"
        )
    return ds


def _nested_dataset() -> Dataset:
    inner = Dataset()
    for level in range(20):
        outer = Dataset()
        outer.CodeMeaning = f"level {level}"
        outer.ConceptCodeSequence = Sequence([inner])
        inner = outer
    return _film(AnatomicRegionSequence=Sequence([inner]))


def _palette() -> Dataset:
    ds = _film(PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [4096, 0, 16])
        setattr(ds, f"{colour}PaletteColorLookupTableData", np.arange(4096, dtype="<u2").tobytes())
    return ds


def sound_files() -> list[bytes]:
    """Return small sound files, one of each way of writing."""
    big = _film()
    big.file_meta.TransferSyntaxUID = UID(BIG)
    big.PixelData = np.frombuffer(big.PixelData, "<u2").astype(">u2").tobytes()
    deflated = _film()
    deflated.file_meta.TransferSyntaxUID = UID(DEFLATED)
    several = [slice_dataset(1, 3, 9), enhanced_dataset(2, 6), big, deflated, _nested_dataset(), _palette()]
    return [_bytes(ds) for ds in (_film(), *map(_compressed, (RLE, JPEG_LS, J2K)), *several)]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    # Half of them where the header is, which is a small part of most files.
    reach = len(data) if rng.random() < 0.5 else min(len(data), 2000)
    for _ in range(rng.choice((1, 3, 30, 300))):
        changed[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _huge_length(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 5))):
        place = rng.randrange(132, len(data) - 8)
        value = rng.choice((0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFF, 0x80000000, 0x00FFFFFF, len(data)))
        changed[place : place + 4] = struct.pack("<I", value)
    return bytes(changed)


def _moved(data: bytes, rng: random.Random) -> bytes:
    start, stop = sorted(rng.sample(range(len(data)), 2))
    place = rng.randrange(len(data))
    how = rng.randrange(3)
    if how == 0:
        return data[:start] + data[stop:]
    if how == 1:
        return data[:place] + data[start:stop][:5000] + data[place:]
    return data[:start] + rng.randbytes(min(stop - start, 2000)) + data[stop:]


def _values(data: bytes, rng: random.Random) -> bytes:
    """Numbers of the image description that do not fit together."""
    changed = data
    for number in rng.sample((0x0002, 0x0008, 0x0010, 0x0011, 0x0100, 0x0101, 0x0102, 0x0103, 0x0006), 3):
        head = struct.pack("<HH", 0x0028, number)
        place = changed.find(head)
        if place > 0:
            value = struct.pack("<H", rng.choice((0, 1, 2, 7, 255, 4096, 32768, 65535)))
            changed = changed[: place + 8] + value + changed[place + 10 :]
    return changed


def _nested(data: bytes, rng: random.Random) -> bytes:
    """Sequences ten thousand deep, of undefined and of given length, in front of the pixels or inside an item."""
    deep = rng.choice((1000, 10_000))
    if rng.random() < 0.5:
        opening = b"\x40\x00\x60\xa1SQ\0\0\xff\xff\xff\xff" + _EXPLICIT_ITEM + b"\xff\xff\xff\xff"
        body = opening * deep
        if rng.random() < 0.5:
            body += (b"\xfe\xff\x0d\xe0\0\0\0\0" + _END) * deep
    else:
        body = b""
        for _ in range(min(deep, 2000)):
            body = _EXPLICIT_ITEM + struct.pack("<I", len(body)) + body
            body = b"\x40\x00\x60\xa1SQ\0\0" + struct.pack("<I", len(body)) + body
    place = data.find(b"\x28\x00\x02\x00")
    return data[:place] + body + data[place:] if place > 0 else data + body


def _bomb(data: bytes, rng: random.Random) -> bytes:
    """What grows a thousandfold: deflated zeros, and sizes that a few bytes claim."""
    which = rng.randrange(4)
    if which == 0:
        ds = _film()
        ds.file_meta.TransferSyntaxUID = UID(DEFLATED)
        head = _bytes(ds)[:132]
        packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
        meta = b"\x02\x00\x10\x00UI" + struct.pack("<H", len(DEFLATED)) + DEFLATED.encode()
        body = packer.compress(b"\x08\x00\x05\x00CS\x02\0  " * 10)
        for _ in range(rng.choice((8, 64, 400))):
            body += packer.compress(bytes(1 << 20))
        return head + meta + body + packer.flush()
    ds = _compressed((RLE, JPEG_LS, J2K)[which - 1])
    ds.Rows = ds.Columns = rng.choice((20_000, 60_000))
    content = bytearray(_bytes(ds))
    start = content.find(b"\xff\x4f\xff\x51")
    if start > 0:
        content[start + 8 : start + 16] = struct.pack(">II", ds.Columns, ds.Rows)
    sof = content.find(b"\xff\xf7")
    if sof > 0:
        content[sof + 5 : sof + 9] = struct.pack(">HH", ds.Rows, ds.Columns)
    return bytes(content)


def _frames(data: bytes, rng: random.Random) -> bytes:
    """More frames than there are, and offset tables that lead nowhere."""
    ds = _compressed(rng.choice((RLE, JPEG_LS, J2K)))
    ds.NumberOfFrames = rng.choice((0, 2, 10_000, 2_000_000_000))
    content = bytearray(_bytes(ds))
    place = content.find(_EXPLICIT_ITEM)
    content[place + 8 : place + 8] = rng.randbytes(40)
    content[place + 4 : place + 8] = struct.pack("<I", 40)
    return bytes(content)


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _cut, _flip, _flip, _huge_length, _huge_length, _moved, _values, _nested, _bomb, _frames,
)  # fmt: skip


def mutated(count: int, *, seed: int) -> list[tuple[str, bytes]]:
    """Return `count` (what was done, file), every way of damage in turn."""
    sound = sound_files()
    made = []
    for number in range(count):
        rng = random.Random(seed * 1_000_003 + number)
        change = MUTATIONS[number % len(MUTATIONS)]
        made.append((change.__name__.strip("_"), change(rng.choice(sound), rng)))
    return made


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return bytes of any format with some of them cut, moved, repeated, flipped, or made into odd numbers."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        start = rng.randrange(max(1, len(data)))
        end = start + rng.choice((1, 2, 4, 40))
        before, some, after = data[:start], data[start:end], data[end:]
        odd = rng.choice((b"\xff" * 4, bytes(4), b"\xff\xff\xff\x7f", b"\n", b"[" * 900))
        flipped = bytes(byte ^ 1 << rng.randrange(8) for byte in some)
        ways = (before, before + after, before + some * rng.choice((2, 50)) + after, before + odd + after)
        data = rng.choice((*ways, some + after + before, before + flipped + after))
    return data
