"""Real DICOM, PNG and JPEG bytes, whole and damaged, through the decoder."""

from __future__ import annotations

import base64
import io
import random
import struct
import sys
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import phantoms_made
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openjpeg.utils import encode_array
from PIL import Image as Raster
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from medsearch_desktop.errors import (
    DecodeError,
    NoPixelsError,
    NotAnImageError,
    TruncatedFileError,
    UnsupportedPixelsError,
)
from medsearch_desktop.image import selftest
from medsearch_desktop.image.dataset import Header, Source
from medsearch_desktop.image.decode import Decoded, decode, read_tags, select_frames
from medsearch_desktop.image.preprocess import Rendering, Window, to_display
from medsearch_desktop.image.selftest import decoders
from medsearch_desktop.records import Image

SHA = "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"
PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def run(source: Any, **options: Any) -> Decoded:
    if isinstance(source, bytes | bytearray):
        source = io.BytesIO(bytes(source))
    return decode(source, name="the file", sha256=SHA, **({"max_frames": 8, "max_pixels": 50_000_000} | options))


def shown(source: Any, **options: Any) -> np.ndarray:
    decoded = run(source, **options)
    assert decoded.images[0].pixel_error == ""
    assert decoded.displays[0] is not None
    return decoded.displays[0]


def tags(source: Any, **options: Any) -> Image:
    if isinstance(source, bytes | bytearray):
        source = io.BytesIO(bytes(source))
    return read_tags(source, name="the file", **({"sha256": SHA} | options))


def dataset(pixels: np.ndarray, *, frames: int = 1, syntax: str = ExplicitVRLittleEndian, **values: Any) -> Dataset:
    """An image of `pixels`: (H, W), (H, W, 3) or, with `frames`, one more axis in front."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3.1"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = "1.2.3.3", "1.2.3.2", "DX"
    shape = pixels.shape[1:] if frames > 1 else pixels.shape
    ds.Rows, ds.Columns, ds.SamplesPerPixel = shape[0], shape[1], shape[2] if len(shape) == 3 else 1
    ds.PhotometricInterpretation = "RGB" if len(shape) == 3 else "MONOCHROME2"
    if len(shape) == 3:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = pixels.dtype.itemsize * 8
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(pixels.dtype.kind == "i")
    if frames > 1:
        ds.NumberOfFrames = frames
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    ds.add_new(0x7FE00010, "OB" if ds.BitsAllocated == 8 else "OW", data + b"\0" * (len(data) % 2))
    with warnings.catch_warnings():
        # pydicom warns about the very values under test.
        warnings.simplefilter("ignore")
        for name, value in values.items():
            setattr(ds, name, value)
    return ds


def compress(ds: Dataset, syntax: str) -> None:
    """Compress every frame losslessly, in place."""
    if syntax != JPEG2000Lossless:
        ds.compress(syntax, generate_instance_uid=False)
        return
    frames = int(ds.get("NumberOfFrames", 1))
    pixels = ds.pixel_array if frames > 1 else ds.pixel_array[None]
    streams = [encode_array(p, ds.BitsStored, 1 if p.ndim == 3 else 2, use_mct=p.ndim == 3) for p in pixels]
    ds.PixelData = encapsulate(streams)
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = syntax
    if ds.SamplesPerPixel == 3:
        ds.PhotometricInterpretation = "YBR_RCT"


def written(ds: Dataset, *, preamble: bool = True) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # pydicom warns about the very values under test.
        warnings.simplefilter("ignore")
        if preamble:
            ds.save_as(buffer, enforce_file_format=True)
        else:
            syntax = ds.file_meta.TransferSyntaxUID
            bare = Dataset(ds)
            bare.save_as(
                buffer, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian
            )
    return buffer.getvalue()


def grey(height: int = 40, width: int = 30, dtype: str = "u2", top: int = 4095) -> np.ndarray:
    return np.linspace(0, top, height * width).reshape(height, width).astype(dtype)


WINDOW = {"WindowCenter": "2048", "WindowWidth": "4096"}


def picture(array: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Raster.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


# ---- every file that pydicom tests itself with ----

NO_PIXELS, NO_IMAGE = (NoPixelsError, "holds no pixel data"), (NotAnImageError, "neither DICOM nor PNG nor JPEG")
# The exact table of what does not decode, and why; an error type means that nothing is indexed.
NOT_DECODED: dict[str, tuple[type[DecodeError] | None, str]] = {
    "MR_truncated.dcm": (None, "needs 8192 bytes of pixel data, 8130 are there"),
    # Made to hide a delimiter in the codestream; its size marker was overwritten on the way.
    "JPEG2000-embedded-sequence-delimiter.dcm": (
        None,
        "frame is 1024 x 3722445056 x 1 where the header says 1024 x 256",
    ),
    "meta_missing_tsyntax.dcm": (None, "no Rows or Columns"),
    "nested_priv_SQ.dcm": (None, "no Rows or Columns"),
    "rtplan_truncated.dcm": (TruncatedFileError, r"element \(300A,00B0\) claims 976 bytes where 711 are left"),
    "no_meta.dcm": NO_IMAGE,
    "crayons.icc": NO_IMAGE,
    "zipMR.gz": NO_IMAGE,
    "test1.json": NO_IMAGE,
    "test_PN.json": NO_IMAGE,
    "rtplan.dump": NO_IMAGE,
    "rtstruct.dump": NO_IMAGE,
    "README.txt": NO_IMAGE,
    "dicomdirtests/README.txt": NO_IMAGE,
    "dicomdirtests/TINY_ALPHA/README": NO_IMAGE,
    "ExplVR_BigEndNoMeta.dcm": NO_PIXELS,
    "ExplVR_LitEndNoMeta.dcm": NO_PIXELS,
    "UN_sequence.dcm": NO_PIXELS,
    "empty_charset_LEI.dcm": NO_PIXELS,
    "no_meta_group_length.dcm": NO_PIXELS,
    "priv_SQ.dcm": NO_PIXELS,
    "reportsi.dcm": NO_PIXELS,
    "reportsi_with_empty_number_tags.dcm": NO_PIXELS,
    "rtplan.dcm": NO_PIXELS,
    "rtstruct.dcm": NO_PIXELS,
    "test-SR.dcm": NO_PIXELS,
    "waveform_ecg.dcm": NO_PIXELS,
    **{f"dicomdirtests/DICOMDIR{end}": NO_PIXELS for end in ("", "-bigEnd", "-empty.dcm", "-implicit", "-nooffset")},
    **{f"dicomdirtests/DICOMDIR{end}": NO_PIXELS for end in ("-nopatient", "-reordered")},
    "dicomdirtests/TINY_ALPHA/DICOMDIR": NO_PIXELS,
}
ALL_FILES = sorted(
    path.relative_to(PYDICOM_FILES).as_posix()
    for path in PYDICOM_FILES.rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
)
# Fifty files without pixels, all alike.
TINY = [name for name in ALL_FILES if name.startswith("dicomdirtests/TINY_ALPHA/PT")]
# 12-bit JPEG, for which pydicom needs a codec of another licence.
BY_GDCM = ("JPGExtended.dcm", "JPEG-lossy.dcm")
DECODED = [name for name in ALL_FILES if name not in NOT_DECODED and name not in TINY and name not in BY_GDCM]


def test_the_table_names_files_that_exist() -> None:
    assert set(NOT_DECODED) <= set(ALL_FILES)
    assert len(DECODED) > 80


@pytest.mark.parametrize("name", [*NOT_DECODED, *TINY[:2]])
def test_what_does_not_decode_says_exactly_why(name: str) -> None:
    error, reason = NOT_DECODED.get(name, NO_PIXELS)
    if error is not None:
        with pytest.raises(error, match=reason):
            run(PYDICOM_FILES / name)
        return
    decoded = run(PYDICOM_FILES / name)
    assert decoded.displays == (None,)
    assert reason in decoded.images[0].pixel_error


def reference(ds: Dataset, frame: int) -> np.ndarray:
    """What pydicom's decoders and this module's rendering make of a frame."""
    pixels = pydicom.pixels.pixel_array(ds, index=frame)
    photometric = ds.PhotometricInterpretation
    if pixels.ndim == 3:
        bits = pixels.dtype.itemsize * 8
        return (pixels >> (bits - 8)).astype(np.uint8)
    if photometric == "PALETTE COLOR":
        return (pydicom.pixels.apply_color_lut(pixels, ds) >> 8).astype(np.uint8)
    first = {name: ds.get(name) for name in ("WindowCenter", "WindowWidth")}
    center, width = (v[0] if isinstance(v, pydicom.multival.MultiValue) else v for v in first.values())
    if center is None and ds.get("Modality") == "CT" and "RescaleIntercept" in ds:
        # The file of this sort names no part of the body: soft tissue.
        center, width = 40, 400
    padding = ds.get("PixelPaddingValue")
    rendering = Rendering(
        photometric_interpretation=photometric,
        bits_stored=pixels.dtype.itemsize * 8,
        signed=pixels.dtype.kind == "i",
        slope=float(ds.get("RescaleSlope") or 1),
        intercept=float(ds.get("RescaleIntercept") or 0),
        window=None if center is None else Window(float(center), float(width)),
        padding=None if padding is None else (int(padding), int(padding)),
    )
    return to_display(pixels, rendering)


@pytest.mark.parametrize("name", DECODED)
def test_pixels_agree_with_those_of_pydicom(name: str) -> None:
    decoded = run(PYDICOM_FILES / name, max_frames=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(PYDICOM_FILES / name, force=True)
        if name == "badVR.dcm":
            ds.NumberOfFrames = 1
        expected = [reference(ds, image.frame) for image in decoded.images]
    for image, display, wanted in zip(decoded.images, decoded.displays, expected, strict=True):
        assert image.pixel_error == ""
        assert display is not None
        assert display.shape == wanted.shape
        # Colour conversions differ in their rounding.
        assert np.abs(display.astype(int) - wanted.astype(int)).max() <= (2 if display.ndim == 3 else 0)
        assert len(np.unique(display)) > 1


@pytest.mark.parametrize("name", BY_GDCM)
def test_twelve_bit_jpeg_agrees_with_a_whole_file_reader(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    import gdcm

    display = shown(PYDICOM_FILES / name)
    # Nothing that a caller parses may be mixed with a codec's chatter.
    assert capfd.readouterr().out == ""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(PYDICOM_FILES / name))
    assert reader.Read()
    pixels = np.frombuffer(reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape"), "<u2").reshape(1024, 256)
    assert (pixels[420, 140], pixels[230, 120]) == (244, 95)
    ds = pydicom.dcmread(PYDICOM_FILES / name)
    window = Window(float(ds.WindowCenter), float(ds.WindowWidth)) if "WindowCenter" in ds else None
    rendering = Rendering(ds.PhotometricInterpretation, 12, slope=float(ds.get("RescaleSlope", 1)), window=window)
    assert np.array_equal(display, to_display(pixels, rendering))


KEYWORDS = {
    "sop_class_uid": "SOPClassUID",
    "patient_id": "PatientID",
    "patient_sex": "PatientSex",
    "accession_number": "AccessionNumber",
    "study_id": "StudyID",
    "study_description": "StudyDescription",
    "series_description": "SeriesDescription",
    "series_number": "SeriesNumber",
    "instance_number": "InstanceNumber",
    "modality": "Modality",
    "manufacturer": "Manufacturer",
    "rows": "Rows",
    "columns": "Columns",
    "bits_stored": "BitsStored",
    "photometric_interpretation": "PhotometricInterpretation",
}


@pytest.mark.parametrize("name", [n for n in ALL_FILES if n not in TINY[2:] and NOT_DECODED.get(n) != NO_IMAGE])
def test_tags_agree_with_those_of_pydicom(name: str) -> None:
    if name == "rtplan_truncated.dcm":
        with pytest.raises(TruncatedFileError):
            tags(PYDICOM_FILES / name)
        return
    record = tags(PYDICOM_FILES / name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(PYDICOM_FILES / name, force=True, stop_before_pixels=True)
        for field, keyword in KEYWORDS.items():
            expected = ds.get(keyword)
            empty = (
                None
                if field.endswith("number") and field != "accession_number"
                else 0
                if field in ("rows", "columns", "bits_stored")
                else ""
            )
            assert getattr(record, field) == (empty if expected in (None, "") else expected), field
        for field, keyword in (("study_uid", "StudyInstanceUID"), ("sop_instance_uid", "SOPInstanceUID")):
            assert getattr(record, field) == ds.get(keyword) or getattr(record, field).startswith("2.25.")


# ---- transfer syntaxes and layouts that those files lack ----


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("preamble", [True, False])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4"])
def test_native_pixels_of_every_width(syntax: str, preamble: bool, dtype: str) -> None:
    pixels = (grey(31, 17, "f8", 200) - (100 if dtype[0] == "i" else 0)).astype(dtype)
    ds = dataset(pixels, syntax=syntax, WindowCenter="10", WindowWidth="90", RescaleSlope="0.5", RescaleIntercept="-4")
    bits = pixels.dtype.itemsize * 8
    expected = to_display(
        pixels, Rendering(bits_stored=bits, signed=dtype[0] == "i", slope=0.5, intercept=-4, window=Window(10, 90))
    )
    data = written(ds, preamble=preamble)
    assert np.array_equal(shown(data), expected)
    assert tags(data).transfer_syntax_uid == syntax


def test_deflated_data_sets() -> None:
    pixels = grey()
    data = written(dataset(pixels, syntax=DeflatedExplicitVRLittleEndian, **WINDOW))
    assert np.array_equal(shown(data), to_display(pixels, Rendering(window=Window(2048, 4096))))
    cut = run(data[:-200])
    assert cut.displays == (None,)
    assert "bytes of pixel data" in cut.images[0].pixel_error


def test_a_deflated_bomb_stops_at_the_limit() -> None:
    bomb = zlib.compressobj(9, wbits=-15)
    head = written(dataset(grey(4, 4), syntax=DeflatedExplicitVRLittleEndian))
    start = head.index(b"1.2.840.10008.1.2.1.99") + 22
    body = struct.pack("<HH2sH8s", 8, 0x60, b"CS", 8, b"DX      ") + struct.pack("<HH2sHI", 9, 0x10, b"OB", 0, 1 << 29)
    data = head[:start] + bomb.compress(body + bytes(1 << 28)) + bomb.flush()
    tracemalloc.start()
    with pytest.raises(TruncatedFileError):
        run(data, max_pixels=1_000_000)
    assert tracemalloc.get_traced_memory()[1] < 60_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "rgb"])
def test_lossless_codecs_give_back_what_was_stored(syntax: str, kind: str) -> None:
    rng = np.random.default_rng(5)
    shape = (3, 40, 36, 3) if kind == "rgb" else (3, 40, 36)
    pixels = rng.integers(0, 200, shape).astype("u1" if kind == "rgb" else kind)
    if kind == "i2":
        pixels -= 100
    ds = dataset(pixels, frames=3, **({} if kind == "rgb" else {"WindowCenter": "50", "WindowWidth": "120"}))
    plain = [display.tolist() for display in run(written(ds)).displays if display is not None]
    compress(ds, syntax)
    decoded = run(written(ds))
    assert [image.image_id for image in decoded.images] == ["1.2.3.1#1", "1.2.3.1#2", "1.2.3.1#3"]
    assert [display.tolist() for display in decoded.displays if display is not None] == plain
    assert len(plain) == 3


@pytest.mark.parametrize(("dtype", "stored"), [("u1", 8), ("u2", 12), ("u2", 16)])
def test_lossless_jpeg_gives_back_what_was_stored(tmp_path: Path, dtype: str, stored: int) -> None:
    import gdcm

    pixels = np.random.default_rng(6).integers(0, 1 << stored, (40, 33)).astype(dtype)
    ds = dataset(pixels, BitsStored=stored, HighBit=stored - 1, **WINDOW)
    plain, packed = tmp_path / "plain.dcm", tmp_path / "packed.dcm"
    plain.write_bytes(written(ds))
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(plain))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(packed))
    assert writer.Write()
    assert run(packed).images[0].transfer_syntax_uid == JPEGLosslessSV1
    assert np.array_equal(shown(packed), shown(plain))


def test_a_compressed_file_without_its_file_header_is_still_read() -> None:
    ds = dataset(grey(), **WINDOW)
    plain = shown(written(ds))
    compress(ds, JPEGLSLossless)
    data = written(ds)
    assert np.array_equal(shown(data[data.index(b"\x08\x00\x16\x00UI") :]), plain)


def test_pixels_decompressed_under_an_old_transfer_syntax_are_read() -> None:
    data = written(dataset(grey(), **WINDOW))
    old = ExplicitVRLittleEndian.encode() + b"\0"
    new = RLELossless.encode() + b"\0"
    assert len(old) == len(new)
    assert np.array_equal(shown(data.replace(old, new)), shown(data))


@pytest.mark.parametrize("number", ["94", "204", "113", "203.9"])
def test_transfer_syntaxes_without_a_codec_keep_their_metadata(number: str) -> None:
    ds = dataset(grey(), PatientID="A1")
    ds.PixelData = encapsulate([b"\0\0\1\xba" * 10])
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = RLELossless
    old, new = RLELossless.encode() + b"\0", f"1.2.840.10008.1.2.4.{number}".encode()
    new += b"\0" * (len(new) % 2)
    data = written(ds).replace(b"UI" + struct.pack("<H", len(old)) + old, b"UI" + struct.pack("<H", len(new)) + new)
    decoded = run(data)
    assert decoded.displays == (None,)
    assert f"1.2.840.10008.1.2.4.{number} is not read" in decoded.images[0].pixel_error
    assert decoded.images[0].patient_id == "A1"


def test_planar_colour_and_subsampled_chrominance() -> None:
    rgb = np.random.default_rng(8).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    ds = dataset(rgb)
    assert np.array_equal(shown(written(ds)), rgb)
    ds.PlanarConfiguration, ds.PixelData = 1, rgb.transpose(2, 0, 1).tobytes()
    assert np.array_equal(shown(written(ds)), rgb)
    ybr = rgb.copy()
    ybr[:, 1::2, 1:] = ybr[:, ::2, 1:]
    pairs = np.stack([ybr[:, ::2, 0], ybr[:, 1::2, 0], ybr[:, ::2, 1], ybr[:, ::2, 2]], axis=-1)
    ds.PlanarConfiguration, ds.PhotometricInterpretation = 0, "YBR_FULL_422"
    ds.PixelData = pairs.tobytes()
    subsampled = shown(written(ds))
    ds.PhotometricInterpretation, ds.PixelData = "YBR_FULL", ybr.tobytes()
    assert np.array_equal(subsampled, shown(written(ds)))


def test_one_bit_frames_that_start_inside_a_byte() -> None:
    masks = np.random.default_rng(9).integers(0, 2, (5, 7, 9), dtype=np.uint8)
    ds = dataset(masks, frames=5, BitsAllocated=1, BitsStored=1, HighBit=0)
    packed = np.packbits(masks.reshape(-1), bitorder="little").tobytes()
    ds.PixelData = packed + b"\0" * (len(packed) % 2)
    displays = run(written(ds)).displays
    assert all(np.array_equal(display, mask * 255) for display, mask in zip(displays, masks, strict=True))


@pytest.mark.parametrize("depth", [4, 8])
def test_floating_point_pixels(depth: int) -> None:
    ds = dataset(grey(), BitsAllocated=depth * 8, SOPClassUID="1.2.840.10008.5.1.4.1.1.30")
    del ds.PixelData, ds.PixelRepresentation, ds.BitsStored, ds.HighBit
    values = np.linspace(-1, 1, 1200, dtype=f"f{depth}").reshape(40, 30)
    if depth == 4:
        ds.FloatPixelData = values.tobytes()
    else:
        ds.DoubleFloatPixelData = values.tobytes()
    display = shown(written(ds))
    assert (display[0, 0], display[-1, -1]) == (0, 255)
    assert abs(int(display[20, 0]) - 128) <= 2


def test_lookup_tables_and_palettes_of_a_header() -> None:
    pixels = grey(16, 16, "u1", 255)
    item = Dataset()
    item.add_new(0x00283002, "US", [256, 0, 16])
    item.add_new(0x00283006, "US", [65535 - 257 * i for i in range(256)])
    ds = dataset(pixels, WindowCenter="1", WindowWidth="1", VOILUTSequence=Sequence([item]))
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        ds.file_meta.TransferSyntaxUID = syntax
        assert np.array_equal(shown(written(ds)), 255 - pixels)
    ds = dataset(pixels, PhotometricInterpretation="PALETTE COLOR")
    for name in ("Red", "Green", "Blue"):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
    # Two plain entries, then a line up to 65535 over the other 254; green repeats the line by reference.
    line = [0, 2, 0, 257, 1, 254, 65535]
    for name, segments in (("Red", line), ("Green", line), ("Blue", [0, 1, 65535, 1, 255, 0])):
        setattr(ds, f"Segmented{name}PaletteColorLookupTableData", struct.pack(f"<{len(segments)}H", *segments))
    display = shown(written(ds))
    assert np.abs(display[..., 0].astype(int) - pixels).max() <= 1
    assert np.array_equal(display[..., 0], display[..., 1])
    assert np.abs(display[..., 2].astype(int) - (255 - pixels)).max() <= 1
    ds.SegmentedBluePaletteColorLookupTableData = b"\x09\0\x01\0"
    assert "palette" in run(written(ds)).images[0].pixel_error


# ---- what decodes here ----

FAMILIES = {
    "Uncompressed": ("numpy",),
    "Deflated": ("zlib",),
    "RLE Lossless": ("pylibjpeg-rle",),
    "JPEG Baseline": ("Pillow",),
    "JPEG Extended 12-bit": ("python-gdcm",),
    "JPEG Lossless": ("python-gdcm",),
    "JPEG-LS": ("pyjpegls",),
    "JPEG 2000": ("pylibjpeg-openjpeg",),
    "HTJ2K": ("pylibjpeg-openjpeg",),
    "JPEG XL": ("imagecodecs",),
}


def test_every_family_of_transfer_syntaxes_decodes() -> None:
    assert decoders() == FAMILIES


def test_a_missing_codec_decodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jpeg_ls", None)
    assert decoders() == FAMILIES | {"JPEG-LS": ()}


def test_a_codec_that_gives_other_pixels_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    by_family = {sample.family: sample for sample in selftest._SAMPLES}
    rle = bytearray(base64.b85decode(by_family["RLE Lossless"].stream))
    rle[70] ^= 1
    altered = replace(by_family["RLE Lossless"], stream=base64.b85encode(bytes(rle)))
    # The baseline picture is off by one somewhere, as lossy pictures are.
    strict = replace(by_family["JPEG Baseline"], tolerance=0)
    monkeypatch.setattr(selftest, "_SAMPLES", (altered, strict, by_family["JPEG 2000"]))
    found = decoders()
    assert (found["RLE Lossless"], found["JPEG Baseline"]) == ((), ())
    assert found["JPEG 2000"] == ("pylibjpeg-openjpeg",)


def test_samples_are_read_as_whole_files_too() -> None:
    picture = np.add.outer(np.arange(8) * 20, np.arange(8) * 11)
    for sample in selftest._SAMPLES:
        ds = dataset((picture << (sample.depth - 8)).astype("u1" if sample.depth == 8 else "u2"))
        ds.BitsStored, ds.HighBit = sample.depth, sample.depth - 1
        ds.WindowCenter, ds.WindowWidth = str(1 << (sample.depth - 1)), str(1 << sample.depth)
        ds.PixelData = encapsulate([base64.b85decode(sample.stream)])
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = UID(sample.syntax)
        assert np.abs(shown(phantoms_made.written(ds)).astype(int) - picture).max() <= 2, sample.family


# ---- frames ----


@given(st.integers(1, 10**9), st.integers(1, 200))
@settings(derandomize=True, deadline=None)
def test_frames_are_spread_evenly_around_the_middle(number_of_frames: int, max_frames: int) -> None:
    frames = select_frames(number_of_frames, max_frames)
    assert len(frames) == min(number_of_frames, max_frames)
    assert list(frames) == sorted(set(frames))
    assert number_of_frames // 2 in frames
    assert frames[0] >= 0
    assert frames[-1] < number_of_frames
    if number_of_frames > max_frames > 1:
        gaps = np.diff(frames)
        assert gaps.max() <= 2 * number_of_frames / max_frames + 1


def test_only_the_selected_frames_are_read() -> None:
    pixels = np.stack([grey(64, 64, "u2", 50 * (i + 1)) for i in range(100)])
    data = written(dataset(pixels, frames=100))

    class Counted(io.BytesIO):
        got = 0

        def read(self, size: int | None = -1) -> bytes:
            value = super().read(size)
            self.got += len(value)
            return value

    source = Counted(data)
    decoded = run(source, max_frames=4)
    assert [image.frame for image in decoded.images] == list(select_frames(100, 4))
    assert [image.image_id for image in decoded.images] == [f"1.2.3.1#{frame + 1}" for frame in select_frames(100, 4)]
    assert {image.number_of_frames for image in decoded.images} == {100}
    assert source.got < 5 * 64 * 64 * 2 + 100_000
    source = Counted(data)
    record = tags(source)
    assert record.image_id == "1.2.3.1#51"
    assert source.got < 100_000
    assert len(run(data, max_frames=100, max_pixels=64 * 64 * 3).images) == 3


def test_frames_behind_a_cut_are_named_and_the_others_shown() -> None:
    pixels = np.stack([grey(64, 64)] * 10)
    data = written(dataset(pixels, frames=10))
    decoded = run(data[: len(data) - 3 * 64 * 64 * 2 - 10], max_frames=10)
    assert [display is not None for display in decoded.displays] == [True] * 6 + [False] * 4
    assert "frame 7 of 64 x 64 x 1 needs" in decoded.images[6].pixel_error
    ds = dataset(pixels, frames=10)
    compress(ds, JPEGLSLossless)
    data = written(ds)
    decoded = run(data[: len(data) * 2 // 3], max_frames=10)
    good = [display is not None for display in decoded.displays]
    assert 4 <= sum(good) <= 7
    assert good == sorted(good, reverse=True)
    assert "cut off" in decoded.images[-1].pixel_error


@pytest.mark.parametrize("with_table", [True, False])
def test_frames_of_several_fragments(with_table: bool) -> None:
    arrays = [grey(64, 64, "u1", 100 + 50 * i) for i in range(3)]
    frames = [picture(array, "JPEG", quality=95) for array in arrays]
    ds = dataset(np.stack(arrays), frames=3, syntax=JPEGBaseline8Bit, WindowCenter="128", WindowWidth="256")
    ds.PixelData = encapsulate(frames, fragments_per_frame=3, has_bot=with_table)
    ds["PixelData"].is_undefined_length = True
    displays = run(written(ds)).displays
    for array, display in zip(arrays, displays, strict=True):
        assert display is not None
        assert np.abs(display.astype(int) - array).max() < 8
    ds.NumberOfFrames = 2
    if not with_table:
        assert "2 frames lie in 9 fragments" in run(written(ds)).images[0].pixel_error


def test_enhanced_frames_have_their_own_window_and_rescaling() -> None:
    pixels = np.stack([grey(20, 20)] * 3)
    ds = dataset(pixels, frames=3)

    def group(center: float | None, slope: float | None) -> Dataset:
        outer = Dataset()
        if center is not None:
            inner = Dataset()
            inner.WindowCenter, inner.WindowWidth = str(center), "1000"
            outer.FrameVOILUTSequence = Sequence([inner])
        if slope is not None:
            inner = Dataset()
            inner.RescaleSlope, inner.RescaleIntercept = str(slope), "5"
            outer.PixelValueTransformationSequence = Sequence([inner])
        return outer

    ds.SharedFunctionalGroupsSequence = Sequence([group(700, 2)])
    ds.PerFrameFunctionalGroupsSequence = Sequence([group(None, None), group(1500, None), group(900, 0.5)])
    for undefined in (False, True):
        for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
            ds[name].is_undefined_length = undefined
            for item in ds[name].value:
                item.is_undefined_length_sequence_item = undefined
        displays = run(written(ds)).displays
        for display, (center, slope) in zip(displays, [(700, 2), (1500, 2), (900, 0.5)], strict=True):
            rendering = Rendering(slope=slope, intercept=5, window=Window(center, 1000))
            assert np.array_equal(display, to_display(pixels[0], rendering))


def test_an_empty_element_of_no_known_kind_costs_no_frame() -> None:
    ds = dataset(np.stack([grey(20, 20)] * 2), frames=2)
    group = Dataset()
    group.ImageComments = ""
    ds.PerFrameFunctionalGroupsSequence = Sequence([group, group])
    content = written(ds)
    assert content.count(b"\x20\0\0\x40LT\0\0") == 2
    content = content.replace(b"\x20\0\0\x40LT\0\0", b"\x20\0\0\x40CQ\0\0")
    assert [image.pixel_error for image in run(content).images] == ["", ""]


@pytest.mark.parametrize("missing", ["Rows", "Columns"])
def test_a_header_that_counts_no_samples_is_an_error_of_the_file(missing: str) -> None:
    ds = dataset(grey(20, 20))
    ds.SamplesPerPixel = 0
    del ds[missing]
    assert "no Rows or Columns" in run(written(ds)).images[0].pixel_error


# ---- metadata ----


@pytest.mark.parametrize(
    ("age", "born", "studied", "years"),
    [
        ("045Y", "", "", 45.0), ("006M", "", "", 0.5), ("010W", "", "", 0.192), ("003D", "", "", 0.008),
        ("45", "", "", 45.0), ("45Y ", "", "", 45.0), ("", "19500101", "20200101", 70.0),
        ("", "20200101", "19500101", None),
        ("abc", "", "", None), ("", "19500101", "", None), ("999Y", "", "", None), ("-05Y", "", "", None),
    ],
)  # fmt: skip
def test_ages_are_years(age: str, born: str, studied: str, years: float | None) -> None:
    ds = dataset(grey(), PatientAge=age, PatientBirthDate=born, StudyDate=studied)
    assert tags(written(ds)).patient_age == years


@pytest.mark.parametrize(
    ("text", "expected"),
    [("20200229", date(2020, 2, 29)), ("2020.02.29", date(2020, 2, 29)), ("20210229", None), ("2020", None),
     ("", None), ("00000000", None), ("20201301", None), ("garbage!", None)],
)  # fmt: skip
def test_malformed_dates_are_none(text: str, expected: date | None) -> None:
    data = written(dataset(grey(), StudyDate="20200101"))
    raw = text.encode() + b" " * (len(text) % 2)
    old = b"\x08\x00\x20\x00DA\x08\x0020200101"
    assert tags(data.replace(old, b"\x08\x00\x20\x00DA" + struct.pack("<H", len(raw)) + raw)).study_date == expected


@pytest.mark.parametrize(
    ("character_set", "text"),
    [
        ("ISO_IR 100", "Thorax Übersicht"), ("ISO_IR 101", "Hrudník žena"), ("ISO_IR 144", "Люкceмбypг"),
        ("ISO_IR 126", "Διονυσιος"), ("ISO_IR 127", "لنزار"), ("ISO_IR 138", "שרון"), ("ISO_IR 192", "胸部 Röntgen"),
        ("GB18030", "胸部正位片"), ("ISO_IR 166", "ทรวงอก"), ("ISO_IR 13", "ﾔﾏﾀﾞ"),
        (["", "ISO 2022 IR 87"], "Chest 胸部正面"), (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ 山田"),
        (["", "ISO 2022 IR 149"], "Chest 흉부"), ("", "Thorax AP"),
    ],
)  # fmt: skip
def test_text_is_read_in_its_character_set(character_set: str | list[str], text: str) -> None:
    ds = dataset(grey(), SpecificCharacterSet=character_set, StudyDescription=text)
    data = written(ds)
    assert tags(data).study_description == text
    assert pydicom.dcmread(io.BytesIO(data)).StudyDescription == text


def test_simplified_chinese_behind_an_escape_sequence() -> None:
    # pydicom writes this character set without its escape sequence, and cannot read it back.
    ds = dataset(grey(), SpecificCharacterSet=["", "ISO 2022 IR 58"], StudyDescription="Chest ????????")
    data = written(ds)
    for coded in (b"\x1b$)A\xd0\xd8\xb2\xbf", b"\xd0\xd8\xb2\xbf    "):
        assert tags(data.replace(b"????????", coded)).study_description == "Chest 胸部"


@pytest.mark.parametrize("character_set", [None, "ISO_IR 999", "nonsense", "ISO_IR 6"])
def test_undeclared_text_is_read_as_utf_8_or_else_latin_1(character_set: str | None) -> None:
    declared = {"SpecificCharacterSet": character_set} if character_set else {}
    data = written(dataset(grey(), StudyDescription="Thorax ???", **declared))
    assert tags(data.replace(b"???", "ß.".encode())).study_description == "Thorax ß."
    assert tags(data.replace(b"???", b"\xdf. ")).study_description == "Thorax ß."


def test_text_is_trimmed_and_holds_no_control_characters() -> None:
    data = written(dataset(grey(), PatientID="  AB 1 ", StudyDescription="A????B"))
    assert tags(data).patient_id == "AB 1"
    assert tags(data.replace(b"A????B", b"A\x07\xc3\xa9\x7fB")).study_description == "AéB"


def test_unknown_escape_sequences_and_character_sets_are_no_obstacle(caplog: pytest.LogCaptureFixture) -> None:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "R-1", "SRT", "left lateral"
    item.SpecificCharacterSet = "ISO_IR 192"
    ds = dataset(grey(), StudyDescription="Chest ????AP", SpecificCharacterSet="ISO_IR 192")
    ds.ViewCodeSequence = Sequence([item])
    data = written(ds).replace(b"ISO_IR 192", b"ISO\xff IR 77")
    with warnings.catch_warnings():
        # As in the running program, where the decoder's own filter stands in front.
        warnings.filterwarnings("ignore", module=r"pydicom\.")
        record = tags(data.replace(b"????", b"\x1b%~ "))
        assert tags(data.replace(b"????", b"\xff\x1b-Q")).study_description.startswith("Chest ")
    assert record.study_description.startswith("Chest ")
    assert record.study_description.endswith("AP")
    assert record.view_position == "LL"
    assert not caplog.records


def test_items_are_in_the_character_set_around_them() -> None:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "R-1", "SRT", "лево left lateral"
    ds = dataset(grey(), SpecificCharacterSet="ISO_IR 144", ViewCodeSequence=Sequence([item]))
    header = Header.read(Source(io.BytesIO(written(ds)), "the file"), inflate_limit=1)
    inner = header.item(0x00540220)
    assert inner is not None
    assert inner.text(0x00080104) == "лево left lateral"


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_long_headers_are_read_on(syntax: str) -> None:
    ds = dataset(grey(), syntax=syntax, **WINDOW)
    plain = shown(written(ds))
    ds.private_block(0x0011, "MAKER", create=True)
    # Values of every size around that up to which they are read at once, and one longer than a window.
    rng = np.random.default_rng(12)
    values = {n: rng.bytes(2 * int(size)) for n, size in enumerate(rng.integers(0, 2100, 250))} | {250: bytes(500_000)}
    for n, value in values.items():
        ds.add_new(0x00111000 + n, "OB", value)
    data = written(ds)
    assert np.array_equal(shown(data), plain)
    assert tags(data).rows == 40
    if syntax != DeflatedExplicitVRLittleEndian:
        header = Header.read(Source(io.BytesIO(data), "the file"), inflate_limit=1)
        assert all(header.value(0x00111000 + n) == value for n, value in values.items())


@pytest.mark.parametrize(
    ("values", "view"),
    [
        ({"ViewPosition": "pa"}, "PA"), ({"ViewPosition": "LL", "SeriesDescription": "Chest AP"}, "LL"),
        ({"SeriesDescription": "CHEST_AP_PORTABLE"}, "AP"), ({"SeriesDescription": "Chest Lateral"}, "LATERAL"),
        ({"SeriesDescription": "CAP protocol, paper"}, ""), ({"SeriesDescription": "AP scout", "Modality": "CT"}, ""),
        ({"SeriesDescription": "L MLO", "Modality": "MG"}, "MLO"), ({"code": "postero-anterior"}, "PA"),
        ({"code": "left lateral", "SeriesDescription": "PA"}, "LL"),
    ],
)  # fmt: skip
def test_the_view_comes_from_where_it_is_stated(values: dict[str, Any], view: str) -> None:
    meaning = values.get("code", "")
    ds = dataset(grey(), **{name: value for name, value in values.items() if name != "code"})
    if meaning:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "R-1", "SRT", meaning
        ds.ViewCodeSequence = Sequence([item])
    assert tags(written(ds)).view_position == view


def test_missing_identifiers_come_from_the_content() -> None:
    ds = dataset(grey())
    del ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID
    data = written(ds, preamble=False)
    first, again = tags(data), tags(data)
    other = tags(data, sha256=SHA[::-1])
    assert first == again
    uids = {first.sop_instance_uid, first.series_uid, first.study_uid}
    assert len(uids) == 3
    assert not uids & {other.sop_instance_uid, other.series_uid, other.study_uid}
    assert all(pydicom.uid.UID(uid).is_valid and uid.startswith("2.25.") for uid in uids)


def test_numbers_that_are_none_are_left_out() -> None:
    data = written(dataset(grey(), SeriesNumber="1234", InstanceNumber="99"))
    record = tags(data.replace(b"1234", b"1.5x").replace(b"IS\x02\x0099", b"IS\x02\x00 \0"))
    assert (record.series_number, record.instance_number) == (None, None)


def test_reading_tags_takes_no_pixels() -> None:
    data = written(dataset(grey(500, 500)))
    header = data[: data.index(b"\xe0\x7f\x10\x00") + 12]
    whole, cut = tags(data), tags(header)
    assert whole == cut == run(data).images[0]


def test_a_report_is_told_from_an_image_but_has_tags() -> None:
    ds = dataset(grey(), Modality="SR", AccessionNumber="A7")
    del ds.PixelData
    with pytest.raises(NoPixelsError, match="the file"):
        run(written(ds))
    assert tags(written(ds)).accession_number == "A7"


# ---- hostile and damaged files ----


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"DICM", b"hello world" * 100, bytes(10_000), b"\xff" * 10_000, b"%PDF-1.7\n" * 50, b"PK\3\4" * 100,
     bytes(128) + b"DICM", bytes(128) + b"DICM" + bytes(50_000), bytes(128) + b"DICM" + b"\xff" * 5000,
     b"\x08\0\x05\0CS\x0a\0ISO_IR 100", b"\x08\0" * 5000, b"\x02\0\x10\0UI\xff\xff"],
)  # fmt: skip
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises((NotAnImageError, TruncatedFileError), match="the file"):
        run(data)
    with pytest.raises((NotAnImageError, TruncatedFileError), match="the file"):
        tags(data)


def compressed(syntax: str) -> bytes:
    ds = dataset(grey(48, 48), **WINDOW)
    compress(ds, syntax)
    return written(ds)


@pytest.mark.parametrize(
    "make",
    [
        lambda: written(dataset(grey(48, 48), **WINDOW)),
        lambda: written(dataset(grey(48, 48), syntax=ImplicitVRLittleEndian, **WINDOW)),
        lambda: compressed(JPEGLSLossless),
        lambda: compressed(JPEG2000Lossless),
        lambda: compressed(RLELossless),
        lambda: (PYDICOM_FILES / "SC_rgb_jpeg_gdcm.dcm").read_bytes(),
        lambda: (PYDICOM_FILES / "SC_rgb_jpeg_dcmtk.dcm").read_bytes(),
        lambda: (PYDICOM_FILES / "examples_overlay.dcm").read_bytes(),
    ],
)
def test_a_cut_file_is_never_half_a_picture(make: Callable[[], bytes]) -> None:
    data = make()
    trailer = 8 if b"\xfe\xff\xdd\xe0" in data[-8:] else 0
    for i in range(20):
        cut = data[: (len(data) - trailer - 2) * i // 19]
        try:
            decoded = run(cut)
        except (NotAnImageError, TruncatedFileError, NoPixelsError):
            continue
        assert decoded.displays == (None,), f"cut at {len(cut)} of {len(data)}"
        assert decoded.images[0].pixel_error
        assert decoded.images[0].rows == run(data).images[0].rows


def test_a_codestream_cut_inside_its_item_is_noticed() -> None:
    for syntax in (JPEGLSLossless, JPEG2000Lossless, RLELossless):
        ds = dataset(grey(48, 48), **WINDOW)
        compress(ds, syntax)
        frame = next(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1))
        ds.PixelData = encapsulate([frame[: len(frame) // 2]])
        ds["PixelData"].is_undefined_length = True
        assert run(written(ds)).images[0].pixel_error


def test_lengths_past_the_end_are_named() -> None:
    data = written(dataset(grey(), PatientID="ABCD"))
    with pytest.raises(TruncatedFileError, match=r"element \(0010,0020\) claims 65534 bytes where \d+ are left"):
        run(data.replace(b"\x10\0\x20\0LO\x04\0", b"\x10\0\x20\0LO\xfe\xff"))
    giant = data.replace(b"\x10\0\x20\0LO\x04\0ABCD", b"\x10\0\x20\0UN\0\0\xfe\xff\xff\xff")
    tracemalloc.start()
    with pytest.raises(TruncatedFileError, match="claims 4294967294 bytes"):
        run(giant)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("syntax", "frames", "limit"),
    [
        (ExplicitVRLittleEndian, 1, 50_000_000),
        (ExplicitVRLittleEndian, 1, 10**10),
        (ExplicitVRLittleEndian, 2**31 - 1, 10**10),
        (RLELossless, 1, 50_000_000),
        (RLELossless, 2**31 - 1, 50_000_000),
    ],
)
def test_a_header_that_claims_gigabytes_allocates_none(syntax: str, frames: int, limit: int) -> None:
    ds = dataset(grey(), Rows=65535, Columns=65535, NumberOfFrames=frames)
    if syntax == RLELossless:
        ds.PixelData = encapsulate([b"\1\0\0\0\x40" + bytes(200)])
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = syntax
    data = written(ds)
    tracemalloc.start()
    decoded = run(data, max_pixels=limit)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    assert decoded.displays == (None,)
    assert ("max_pixels" if limit < 65535**2 else "bytes of pixel data") in decoded.images[0].pixel_error


@pytest.mark.parametrize("implicit", [True, False])
def test_nesting_costs_no_stack(implicit: bool) -> None:
    depth = 50_000
    start = (
        struct.pack("<HHI", 0x0040, 0xA730, 0xFFFFFFFF)
        if implicit
        else struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF)
    )
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    ends = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    data = written(dataset(grey(), syntax=ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian, **WINDOW))
    at = data.index(b"\xe0\x7f\x10\x00")
    nested = data[:at] + (start + item) * depth + ends * depth + data[at:]
    assert np.array_equal(shown(nested), shown(data))
    with pytest.raises(TruncatedFileError, match="has no end"):
        run(data[:at] + (start + item) * depth)


@pytest.mark.parametrize("undefined", [True, False])
def test_a_sequence_nested_too_deeply_to_read_costs_no_image(undefined: bool) -> None:
    depth = 3_000
    start, item = struct.pack("<HH2sH", 0x0040, 0xA730, b"SQ", 0), struct.pack("<HH", 0xFFFE, 0xE000)
    if undefined:
        ends = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
        value = (item + b"\xff" * 4 + start + b"\xff" * 4) * depth + ends[8:] + ends * depth
    else:
        value = b""
        for _ in range(depth):
            value = item + struct.pack("<I", len(value) + 12) + start + struct.pack("<I", len(value)) + value
    data = written(dataset(grey(), **WINDOW))
    at = data.index(b"\x28\x00\x02\x00US")
    for tag in (b"\x20\x00\x11\x92", b"\x28\x00\x00\x30"):
        # Behind the first of these tags nobody looks, behind the second the decoder does.
        length = b"\xff" * 4 if undefined else struct.pack("<I", len(value))
        nested = data[:at] + tag + b"SQ\0\0" + length + value + data[at:]
        assert np.array_equal(shown(nested), shown(data))


def test_a_sequence_of_countless_empty_items_takes_no_memory() -> None:
    data = written(dataset(grey(), **WINDOW))
    at = data.index(b"\x28\x00\x02\x00US")
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 150_000
    for length, end in ((len(items), b""), (0xFFFFFFFF, struct.pack("<HHI", 0xFFFE, 0xE0DD, 0))):
        crowded = data[:at] + struct.pack("<HH2sHI", 0x28, 0x3000, b"SQ", 0, length) + items + end + data[at:]
        tracemalloc.start()
        assert np.array_equal(shown(crowded), shown(data))
        # A few copies of the file itself; its items would take a hundred megabytes.
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
        tracemalloc.stop()


def test_a_header_of_nothing_but_elements_is_given_up() -> None:
    data = written(dataset(grey()))
    at = data.index(b"\x28\x00\x02\x00US")
    for element in (b"\x09\x00\x10\x00LO\0\0", b"\x08\x00\x05\x00CS\0\0"):
        with pytest.raises(NotAnImageError, match="too many elements"):
            run(data[:at] + element * 200_000 + data[at:])


@pytest.mark.parametrize(
    "name",
    ["CT_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm",
     "JPGExtended.dcm", "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_jpeg_dcmtk.dcm", "examples_palette.dcm", "image_dfl.dcm",
     "liver_expb_1frame.dcm", "rtdose_rle.dcm", "nested_priv_SQ.dcm", "test-SR.dcm"],
)  # fmt: skip
def test_damage_anywhere_is_survived(name: str) -> None:
    data = (PYDICOM_FILES / name).read_bytes()
    rng = random.Random(name)
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 3, 10))):
            damaged[rng.randrange(len(damaged))] = rng.choice((0, 255, rng.randrange(256)))
        if rng.random() < 0.2:
            start = rng.randrange(len(damaged))
            del damaged[start : start + rng.randrange(1, 64)]
        try:
            decoded = run(damaged, max_pixels=4_000_000)
        except DecodeError:
            continue
        assert len(decoded.images) == len(decoded.displays) >= 1
        for image, display in zip(decoded.images, decoded.displays, strict=True):
            assert (display is None) == bool(image.pixel_error)


def test_colour_hints_that_would_end_the_process_are_survived() -> None:
    data = (PYDICOM_FILES / "SC_rgb_jpeg_gdcm.dcm").read_bytes()
    expected = shown(data)
    at = data.index(b"Adobe")
    for transform in (1, 2, 47, 220, 255):
        assert np.array_equal(shown(data[: at + 11] + bytes((transform,)) + data[at + 12 :]), expected)
    tables = data.index(b"\xff\xc4")
    for stray in (b"\xff\xd4", b"\xff\xff", b"\xff\xcc", b"\xff\xc1"):
        assert "damaged" in run(data[:tables] + stray + data[tables + 2 :]).images[0].pixel_error


def test_threads_give_what_one_thread_gives() -> None:
    names = ["CT_small.dcm", "MR_small_jp2klossless.dcm", "SC_rgb_jpeg_gdcm.dcm", "JPGExtended.dcm", "MR_truncated.dcm"]
    names += ["SC_rgb_jpeg_dcmtk.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_RLE.dcm", "badVR.dcm"]

    def outcome(name: str) -> tuple[Any, ...]:
        decoded = run(PYDICOM_FILES / name)
        return decoded.images, tuple(display is not None and display.tobytes() for display in decoded.displays)

    single = [outcome(name) for name in names]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(outcome, names * 4)) == single * 4


# ---- PNG and JPEG ----


def test_a_picture_is_shown_as_it_is() -> None:
    array = grey(33, 44, "u1", 200)
    decoded = run(picture(array))
    assert np.array_equal(shown(picture(array)), array)
    image = decoded.images[0]
    assert (image.rows, image.columns, image.photometric_interpretation) == (33, 44, "MONOCHROME2")
    assert image.image_id == image.sop_instance_uid
    assert tags(picture(array)) == image
    jpeg = picture(array, "JPEG", quality=95)
    assert np.abs(shown(jpeg).astype(int) - array).max() < 6


def test_pictures_of_one_hint_share_a_study() -> None:
    data = picture(grey(8, 8, "u1", 255))
    first, second = tags(data, study_hint="folder/7"), tags(data, sha256=SHA[::-1], study_hint="folder/7")
    assert first.study_uid == second.study_uid
    assert first.image_id != second.image_id
    assert tags(data).study_uid not in (first.study_uid, tags(data, study_hint="folder/8").study_uid)
    assert tags(data).study_uid.startswith("2.25.")


def test_sixteen_bit_pictures_are_stretched() -> None:
    display = shown(picture(grey(64, 64, "u2", 4095)))
    assert (display.min(), display.max()) == (0, 255)
    assert run(picture(grey(64, 64, "u2", 4095))).images[0].bits_stored == 16


def test_colour_models_of_pictures() -> None:
    rgb = np.random.default_rng(2).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert np.array_equal(shown(picture(rgb)), rgb)
    buffer = io.BytesIO()
    Raster.fromarray(rgb).quantize(256).save(buffer, "PNG")
    assert shown(buffer.getvalue()).shape == (16, 16, 3)
    flat = np.full((16, 16, 3), (200, 30, 90), np.uint8)
    buffer = io.BytesIO()
    Raster.fromarray(flat).convert("CMYK").save(buffer, "JPEG", quality=100)
    assert np.abs(shown(buffer.getvalue()).astype(int) - flat).max() < 12
    buffer = io.BytesIO()
    Raster.fromarray(grey(9, 9, "u1", 255)).convert("1").save(buffer, "PNG")
    assert set(shown(buffer.getvalue()).ravel().tolist()) == {0, 255}


def test_transparent_parts_are_dark() -> None:
    rgba = np.full((4, 4, 4), 200, np.uint8)
    rgba[:2, :, 3], rgba[2:, :, 3] = 0, 255
    display = shown(picture(rgba))
    assert not display[:2].any()
    assert (display[2:] == 200).all()
    layered = np.dstack([np.full((4, 4), 99, np.uint8), rgba[..., 3]])
    display = shown(picture(layered))
    assert display.shape == (4, 4)
    assert (display[2:] == 99).all()
    buffer = io.BytesIO()
    Raster.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) + 10).save(buffer, "PNG", transparency=25)
    assert shown(buffer.getvalue()).ravel().tolist() == [*range(10, 25), 0]


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_orientation_of_a_camera_is_followed(turn: int, kind: str) -> None:
    array = np.zeros((40, 64), np.uint8)
    array[:16, :16], array[:16, -16:], array[-16:, :16] = 250, 150, 80
    exif = Raster.Exif()
    exif[0x0112] = turn
    data = picture(array, kind, exif=exif)
    with Raster.open(io.BytesIO(data)) as raster:
        from PIL import ImageOps

        expected = np.asarray(ImageOps.exif_transpose(raster))
    assert np.array_equal(shown(data), expected)
    record = tags(data)
    assert (record.rows, record.columns) == expected.shape


def test_a_broken_camera_header_costs_no_picture() -> None:
    data = picture(grey(8, 8, "u1", 255), "JPEG", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff")
    assert shown(data).shape == (8, 8)


def test_picture_bombs_are_refused_before_they_open(recwarn: pytest.WarningsRecorder) -> None:
    data = picture(np.zeros((10, 10), np.uint8))
    size = struct.pack(">II", 60000, 60000)
    ihdr = b"IHDR" + size + data[24:29]
    bomb = data[:12] + ihdr + struct.pack(">I", zlib.crc32(ihdr)) + data[33:]
    tracemalloc.start()
    with pytest.raises(UnsupportedPixelsError, match=r"60000 x 60000.*max_pixels"):
        run(bomb)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    # Larger than Pillow's own limit, which is not this program's.
    wide = picture(np.zeros((1000, 90_000), np.uint8))
    assert shown(wide, max_pixels=100_000_000).shape == (1000, 90_000)
    assert not recwarn.list


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_cut_and_junk_pictures_are_refused(kind: str) -> None:
    data = picture(np.random.default_rng(4).integers(0, 256, (64, 64), dtype=np.uint8), kind)
    for i in range(1, 19):
        with pytest.raises((NotAnImageError, TruncatedFileError)):
            run(data[: (len(data) - 16) * i // 19])
    rng = random.Random(kind)
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(3):
            damaged[rng.randrange(8, len(damaged))] = rng.randrange(256)
        try:
            decoded = run(damaged)
        except DecodeError:
            continue
        assert decoded.displays[0] is not None
