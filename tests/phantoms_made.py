"""One phantom in every form that DICOM stores: its samples, its header, its frames, and what is read of them."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from imagecodecs import jpegxl_encode, jpegxl_encode_jpeg
from numpy.typing import NDArray
from PIL import Image as Raster
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from medsearch_desktop.image.codecs import RLE
from medsearch_desktop.image.dataset import Header, opened
from medsearch_desktop.image.frames import Frames, layout_of
from medsearch_desktop.image.preprocess import Rendering, stored_values

IMPLICIT, EXPLICIT, DEFLATED, BIG = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
)
FRAMED, DEFLATED_FRAMES = "1.2.840.10008.1.2.1.98", "1.2.840.10008.1.2.8.1"
BASELINE, LOSSLESS, LOSSLESS_SV1 = (f"1.2.840.10008.1.2.4.{number}" for number in (50, 57, 70))
JPEG_LS, JPEG_LS_NEAR, J2K_LOSSLESS, J2K = (f"1.2.840.10008.1.2.4.{number}" for number in (80, 81, 90, 91))
JXL_LOSSLESS, JXL_JPEG, JXL = (f"1.2.840.10008.1.2.4.{number}" for number in (110, 111, 112))
# Even in number, for GDCM encodes no other.
ROWS, COLUMNS = 41, 34
FRAMES = 2


@dataclass(frozen=True)
class Form:
    """How samples are stored: (allocated, stored, signed, samples, photometric interpretation)."""

    allocated: int
    stored: int
    signed: bool = False
    samples: int = 1
    photometric: str = "MONOCHROME2"

    def __str__(self) -> str:
        sign = "s" if self.signed else "u"
        return f"{self.photometric}-{sign}{self.stored}in{self.allocated}".replace(" ", "")


GREY = [Form(a, s, sign) for a, s in ((8, 8), (16, 10), (16, 12), (16, 16)) for sign in (False, True)]
DEEP = [Form(32, 24), Form(32, 32), Form(32, 32, True)]
COLOUR = [Form(8, 8, False, 3, photometric) for photometric in ("RGB", "YBR_FULL")] + [Form(16, 12, False, 3, "RGB")]
OTHER = [
    Form(8, 8, photometric="MONOCHROME1"),
    Form(8, 8, photometric="PALETTE COLOR"),
    Form(16, 12, photometric="PALETTE COLOR"),
]
ONE_BIT = [Form(1, 1)]


def phantom(form: Form) -> NDArray[np.int64]:
    """Frames of ramps and rings that reach both ends of the range, (frames, rows, columns[, samples])."""
    low = -(1 << (form.stored - 1)) if form.signed else 0
    span = (1 << form.stored) - 1
    y, x = np.mgrid[0 : 1 : ROWS * 1j, 0 : 1 : COLUMNS * 1j]
    planes = []
    for number in range(FRAMES * form.samples):
        rings = 0.5 + 0.5 * np.cos(6 * np.hypot(x - 0.4, y - 0.5) + number)
        rings = (rings - rings.min()) / np.ptp(rings)
        planes.append(low + np.rint(rings * span).astype(np.int64))
    stack = np.stack(planes).reshape(FRAMES, form.samples, ROWS, COLUMNS).transpose(0, 2, 3, 1)
    return stack if form.samples > 1 else stack[..., 0]


def container(form: Form, order: str = "<") -> np.dtype:
    return np.dtype(f"{order}{'i' if form.signed else 'u'}{form.allocated // 8}")


def header(form: Form, syntax: str) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7.2", "1.2.3.1"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = "1.2.3.3", "1.2.3.2", "OT"
    ds.Rows, ds.Columns, ds.NumberOfFrames = ROWS, COLUMNS, FRAMES
    ds.SamplesPerPixel, ds.PhotometricInterpretation = form.samples, form.photometric
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = form.allocated, form.stored, form.stored - 1
    ds.PixelRepresentation = int(form.signed)
    if form.samples > 1:
        ds.PlanarConfiguration = 0
    if form.photometric == "PALETTE COLOR":
        for colour, step in (("Red", 1), ("Green", 3), ("Blue", 7)):
            entries = (np.arange(1 << form.stored) * step * 257) % 65536
            setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [(1 << form.stored) % 65536, 0, 16])
            setattr(ds, f"{colour}PaletteColorLookupTableData", entries.astype("<u2").tobytes())
    return ds


def native(ds: Dataset, pixels: NDArray[np.int64], form: Form) -> None:
    if form.allocated == 1:
        data = np.packbits(pixels.astype("u1").reshape(-1), bitorder="little").tobytes()
    else:
        data = pixels.astype(container(form, ">" if ds.file_meta.TransferSyntaxUID == BIG else "<")).tobytes()
    ds.add_new(0x7FE00010, "OB" if form.allocated <= 8 else "OW", data + b"\0" * (len(data) % 2))


def items(ds: Dataset, frames: list[bytes], *, table: bool = True) -> None:
    ds.PixelData = encapsulate(frames, has_bot=table)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True


def jxl(frame: NDArray[np.int64], form: Form) -> bytes:
    bits = (frame & ((1 << form.stored) - 1)).astype(f"u{form.allocated // 8}")
    return jpegxl_encode(bits, lossless=True, bitspersample=form.stored)


def jxl_lossy(frame: NDArray[np.int64], form: Form) -> bytes:
    return jpegxl_encode(frame.astype(container(form)), lossless=False, distance=0.1, bitspersample=form.stored)


def jxl_of_jpeg(frame: NDArray[np.int64], form: Form) -> bytes:
    return jpegxl_encode_jpeg(baseline(frame, form))


def baseline(frame: NDArray[np.int64], form: Form) -> bytes:
    buffer = io.BytesIO()
    picture = Raster.fromarray(frame.astype("u1"))
    if form.photometric == "YBR_FULL":
        picture = Raster.frombytes("YCbCr", picture.size, frame.astype("u1").tobytes())
    picture.save(buffer, "JPEG", quality=98, subsampling=0, keep_rgb=form.photometric == "RGB")
    return buffer.getvalue()


def written(ds: Dataset) -> bytes:
    buffer = io.BytesIO()
    syntax = ds.file_meta.TransferSyntaxUID
    # Syntaxes that pydicom has not heard of are written as what they are outside their frames.
    known = UID(syntax).is_transfer_syntax and syntax not in (FRAMED, DEFLATED_FRAMES)
    if not known:
        ds.file_meta.TransferSyntaxUID = UID(RLE)
    ds.save_as(buffer, enforce_file_format=True)
    data = buffer.getvalue()
    if known:
        return data
    old, new = RLE.encode() + b"\0", syntax.encode() + b"\0" * (len(syntax) % 2)
    return data.replace(b"UI" + struct.pack("<H", len(old)) + old, b"UI" + struct.pack("<H", len(new)) + new, 1)


def stored(data: bytes) -> Iterator[NDArray[np.float64]]:
    """The stored values of every frame as the decoder finds them."""
    with opened(io.BytesIO(data), "phantom") as file:
        found = Header.read(file, inflate_limit=1 << 24)
        frames = Frames(found, layout_of(found, 1 << 24), FRAMES)
        for number in range(FRAMES):
            pixels, layout = frames.read(number)
            if pixels.dtype.kind == "i":
                pixels = pixels.view(f"u{pixels.dtype.itemsize}")
            bits = Rendering(bits_stored=layout.stored, signed=layout.signed, shift=layout.shift)
            yield stored_values(pixels, bits)
