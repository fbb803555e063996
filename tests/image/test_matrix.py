"""One phantom in every transfer syntax, colour model, depth and sign for which an encoder is at hand, and back.

Of 12-bit lossy JPEG and HTJ2K there is none; those are read off pydicom's files and the built-in samples.
"""

from __future__ import annotations

import io
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from openjpeg.utils import encode_array
from phantoms_made import (
    BASELINE,
    BIG,
    COLOUR,
    COLUMNS,
    DEEP,
    DEFLATED,
    DEFLATED_FRAMES,
    EXPLICIT,
    FRAMED,
    FRAMES,
    GREY,
    IMPLICIT,
    J2K,
    J2K_LOSSLESS,
    JPEG_LS,
    JPEG_LS_NEAR,
    JXL,
    JXL_JPEG,
    JXL_LOSSLESS,
    LOSSLESS,
    LOSSLESS_SV1,
    ONE_BIT,
    OTHER,
    ROWS,
    Form,
    baseline,
    container,
    header,
    items,
    jxl,
    jxl_lossy,
    jxl_of_jpeg,
    native,
    phantom,
    stored,
    written,
)
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.uid import UID

from medsearch_desktop.image import selftest
from medsearch_desktop.image.codecs import RLE, Layout, decompress
from medsearch_desktop.image.decode import decode

Encoder = Callable[[Dataset, NDArray[np.int64], Form], None]


def by_frame(encode: Callable[[NDArray[np.int64], Form], bytes]) -> Encoder:
    def encoder(ds: Dataset, pixels: NDArray[np.int64], form: Form) -> None:
        items(ds, [encode(frame, form) for frame in pixels])

    return encoder


def rle(ds: Dataset, pixels: NDArray[np.int64], form: Form) -> None:
    native(ds, pixels, form)
    ds.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    # GDCM, the other encoder, ends the process at odd lengths.
    ds.compress(UID(RLE), generate_instance_uid=False, encoding_plugin="pydicom")


def rle_by_hand(frame: NDArray[np.int64], form: Form) -> bytes:
    """Literal runs alone, one segment a byte plane, the most significant first (PS3.5 G)."""
    planes = frame.astype(container(form, ">")).reshape(-1, 1).view("u1").T
    segments = []
    for plane in planes:
        runs = [plane[start : start + 128].tobytes() for start in range(0, len(plane), 128)]
        segment = b"".join(bytes((len(run) - 1,)) + run for run in runs)
        segments.append(segment + b"\0" * (len(segment) % 2))
    offsets = [64 + sum(map(len, segments[:number])) for number in range(len(segments))]
    return struct.pack("<16I", len(segments), *offsets, *[0] * (15 - len(segments))) + b"".join(segments)


def jpeg_ls(ds: Dataset, pixels: NDArray[np.int64], form: Form, *, near: int = 0) -> None:
    native(ds, pixels, form)
    target = ds.file_meta.TransferSyntaxUID
    ds.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    options = {"jls_error": near} if near else {}
    ds.compress(target, generate_instance_uid=False, **options)


def j2k(frame: NDArray[np.int64], form: Form, **options: list[float]) -> bytes:
    samples = np.ascontiguousarray(frame, container(form))
    return bytes(encode_array(samples, form.stored, 1 if form.samples == 3 else 2, use_mct=False, **options))


def j2k_lossy(frame: NDArray[np.int64], form: Form) -> bytes:
    return j2k(frame, form, signal_noise_ratios=[50.0])


def deflate(frame: NDArray[np.int64], form: Form) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data = packer.compress(plain(frame, form)) + packer.flush()
    return data + b"\0" * (len(data) % 2)


def plain(frame: NDArray[np.int64], form: Form) -> bytes:
    data = frame.astype(container(form)).tobytes()
    return data + b"\0" * (len(data) % 2)


def by_gdcm(ds: Dataset, pixels: NDArray[np.int64], form: Form) -> None:
    import gdcm

    kinds = gdcm.TransferSyntax
    kind = {
        LOSSLESS: kinds.JPEGLosslessProcess14,
        LOSSLESS_SV1: kinds.JPEGLosslessProcess14_1,
    }[str(ds.file_meta.TransferSyntaxUID)]
    frames = []
    for frame in pixels:
        one = header(form, EXPLICIT)
        # GDCM writes no multi-frame instance of classes that it does not know to have several.
        one.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
        del one.NumberOfFrames
        native(one, frame, form)
        with tempfile.TemporaryDirectory() as folder:
            source, target = f"{folder}/plain.dcm", f"{folder}/packed.dcm"
            one.save_as(source, enforce_file_format=True)
            reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
            reader.SetFileName(source)
            assert reader.Read()
            change.SetTransferSyntax(kinds(kind))
            change.SetInput(reader.GetImage())
            assert change.Change()
            writer.SetFile(reader.GetFile())
            writer.SetImage(change.GetOutput())
            writer.SetFileName(target)
            assert writer.Write()
            frames += list(generate_frames(dcmread(target).PixelData, number_of_frames=1))
    items(ds, frames)


UNSIGNED = [form for form in GREY if not form.signed]
# Syntax, encoder, the forms it takes, and how far off a stored value may come back.
MATRIX: list[tuple[str, Encoder, list[Form], int]] = [
    (IMPLICIT, native, GREY + DEEP + COLOUR + OTHER + ONE_BIT, 0),
    (EXPLICIT, native, GREY + DEEP + COLOUR + OTHER + ONE_BIT, 0),
    (BIG, native, [f for f in GREY + DEEP + COLOUR if f.allocated > 8], 0),
    (DEFLATED, native, GREY + DEEP + COLOUR + OTHER, 0),
    (FRAMED, by_frame(plain), GREY + DEEP + COLOUR + OTHER, 0),
    (DEFLATED_FRAMES, by_frame(deflate), GREY + DEEP + COLOUR + OTHER, 0),
    (RLE, rle, GREY + COLOUR + OTHER, 0),
    (RLE, by_frame(rle_by_hand), DEEP, 0),
    (BASELINE, by_frame(baseline), [GREY[0], OTHER[0], *COLOUR[:2]], 6),
    (LOSSLESS, by_gdcm, [*UNSIGNED, GREY[3], GREY[5], GREY[7], COLOUR[0], *OTHER], 0),
    (LOSSLESS_SV1, by_gdcm, [*UNSIGNED, GREY[3], GREY[5], GREY[7], COLOUR[0], *OTHER], 0),
    (JPEG_LS, jpeg_ls, GREY + COLOUR + OTHER, 0),
    (JPEG_LS_NEAR, lambda ds, pixels, form: jpeg_ls(ds, pixels, form, near=2), [*UNSIGNED, COLOUR[0]], 2),
    (J2K_LOSSLESS, by_frame(j2k), GREY + COLOUR + OTHER, 0),
    (J2K, by_frame(j2k_lossy), [GREY[0], GREY[4], COLOUR[0]], 120),
    (JXL_LOSSLESS, by_frame(jxl), GREY + COLOUR + OTHER, 0),
    (JXL, by_frame(jxl), [GREY[0], COLOUR[0]], 0),
    (JXL, by_frame(jxl_lossy), [GREY[0]], 8),
    (JXL, by_frame(jxl_lossy), [GREY[2], GREY[4]], 120),
    (JXL_JPEG, by_frame(jxl_of_jpeg), [GREY[0], OTHER[0], *COLOUR[:2]], 6),
]  # fmt: skip
CASES = [
    pytest.param(syntax, encoder, form, bound, id=f"{syntax.removeprefix('1.2.840.10008.1.2') or '.0'}-{form}")
    for syntax, encoder, forms, bound in MATRIX
    for form in forms
]


@pytest.mark.parametrize(("syntax", "encoder", "form", "bound"), CASES)
def test_what_was_stored_comes_back(syntax: str, encoder: Encoder, form: Form, bound: int) -> None:
    pixels = phantom(form)
    ds = header(form, syntax)
    encoder(ds, pixels, form)
    data = written(ds)
    if not (syntax in (BASELINE, JXL_JPEG) and form.photometric == "YBR_FULL"):
        # Its decoder gives colours, which the display below is compared by.
        for frame, source in zip(stored(data), pixels, strict=True):
            assert frame.shape == source.shape
            assert np.abs(frame - source).max() <= bound
    plain_ds = header(form, EXPLICIT)
    native(plain_ds, pixels, form)
    shown = decode(io.BytesIO(data), name="phantom", sha256="", max_frames=8, max_pixels=1 << 24)
    expected = decode(io.BytesIO(written(plain_ds)), name="plain", sha256="", max_frames=8, max_pixels=1 << 24)
    assert [image.pixel_error for image in shown.images] == [""] * FRAMES
    most = 0 if bound == 0 else 40 if form.photometric in ("YBR_FULL",) else 8
    for one, other in zip(shown.displays, expected.displays, strict=True):
        assert one is not None
        assert other is not None
        assert one.shape == other.shape
        assert np.abs(one.astype(int) - other.astype(int)).max() <= most
        assert np.ptp(one) > 200


def jpeg_ls_of(form: Form) -> Dataset:
    ds = header(form, JPEG_LS)
    jpeg_ls(ds, phantom(form), form)
    return ds


def frames_of(ds: Dataset) -> list[bytes]:
    return list(generate_frames(ds.PixelData, number_of_frames=FRAMES))


TWELVE = Form(16, 12)


@pytest.mark.parametrize("table", ["none", "right", "wrong", "short", "extended", "extended wrong"])
def test_offset_tables_of_every_sort(table: str) -> None:
    ds = jpeg_ls_of(TWELVE)
    frames = frames_of(ds)
    if table.startswith("extended"):
        data, offsets, lengths = encapsulate_extended(frames)
        ds.PixelData = data
        ds.ExtendedOffsetTable = offsets if table == "extended" else b"\7" * len(offsets)
        ds.ExtendedOffsetTableLengths = lengths
    else:
        ds.PixelData = encapsulate(frames, has_bot=table != "none")
        content = bytearray(ds.PixelData)
        if table == "wrong":
            content[12:16] = struct.pack("<I", 12345)
        if table == "short":
            content = bytearray(b"\xfe\xff\x00\xe0\x04\0\0\0\0\0\0\0") + content[16:]
        ds.PixelData = bytes(content)
    ds["PixelData"].is_undefined_length = True
    for frame, source in zip(stored(written(ds)), phantom(TWELVE), strict=True):
        assert np.array_equal(frame, source)


@pytest.mark.parametrize("padded", [False, True])
def test_fragments_of_odd_length(padded: bool) -> None:
    ds = jpeg_ls_of(TWELVE)
    frames = [frame.rstrip(b"\0") for frame in frames_of(ds)]
    frames = [frame if len(frame) % 2 else frame[:2] + b"\xff\xfe\0\3x" + frame[2:] for frame in frames]
    assert all(len(frame) % 2 for frame in frames)
    body = b"\xfe\xff\x00\xe0\0\0\0\0"
    for frame in frames:
        body += b"\xfe\xff\x00\xe0" + struct.pack("<I", len(frame)) + frame + (b"\0" if padded else b"")
    marker = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff"
    data = written(ds)
    data = data[: data.index(marker)] + marker + body + b"\xfe\xff\xdd\xe0\0\0\0\0"
    for frame, source in zip(stored(data), phantom(TWELVE), strict=True):
        assert np.array_equal(frame, source)


@pytest.mark.parametrize(
    "missing",
    [("Rows",), ("Columns",), ("Rows", "Columns", "BitsAllocated"), ("BitsAllocated", "BitsStored", "HighBit")],
)
def test_a_size_that_the_header_leaves_out_is_read_off_the_codestream(missing: tuple[str, ...]) -> None:
    form = Form(16, 16)
    ds = jpeg_ls_of(form)
    for name in missing:
        delattr(ds, name)
    for frame, source in zip(stored(written(ds)), phantom(form), strict=True):
        assert np.array_equal(frame, source)


@pytest.mark.parametrize("missing", ["Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"])
def test_a_size_that_the_header_leaves_out_is_read_off_the_length(missing: str) -> None:
    form = Form(16, 16)
    ds = header(form, EXPLICIT)
    native(ds, phantom(form), form)
    delattr(ds, missing)
    data = written(ds)
    for frame, source in zip(stored(data), phantom(form), strict=True):
        assert np.array_equal(frame, source)
    images = decode(io.BytesIO(data), name="x", sha256="", max_frames=8, max_pixels=1 << 24).images
    assert {(image.rows, image.columns) for image in images} == {(ROWS, COLUMNS)}


def test_a_size_that_nothing_tells_is_not_guessed() -> None:
    form = Form(16, 16)
    ds = header(form, EXPLICIT)
    native(ds, phantom(form), form)
    del ds.Rows, ds.Columns
    (image,) = decode(io.BytesIO(written(ds)), name="x", sha256="", max_frames=8, max_pixels=1 << 24).images
    assert "no Rows or Columns" in image.pixel_error


@pytest.mark.parametrize("bits", [0, 17, 200])
def test_bits_stored_that_cannot_be_are_taken_for_all(bits: int) -> None:
    form = Form(16, 16)
    ds = header(form, EXPLICIT)
    native(ds, phantom(form), form)
    ds.BitsStored, ds.HighBit = bits, max(0, bits - 1)
    for frame, source in zip(stored(written(ds)), phantom(form), strict=True):
        assert np.array_equal(frame, source)


def test_planes_one_after_another(tmp_path: Path) -> None:
    form = Form(8, 8, False, 3, "RGB")
    pixels = phantom(form)
    ds = header(form, EXPLICIT)
    native(ds, pixels, form)
    ds.PlanarConfiguration, ds.PixelData = 1, pixels.astype("u1").transpose(0, 3, 1, 2).tobytes()
    for frame, source in zip(stored(written(ds)), pixels, strict=True):
        assert np.array_equal(frame, source)


def test_what_is_installed_gives_back_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert selftest.round_trips() == (36, [])

    def altered(data: bytes, layout: Layout, syntax: str) -> tuple[NDArray, Layout]:
        pixels, found = decompress(data, layout, syntax)
        return (pixels ^ 1 if syntax == RLE and layout.signed else pixels), found

    monkeypatch.setattr(selftest, "decompress", altered)
    assert selftest.round_trips() == (36, ["RLE, 12 bits signed", "RLE, 16 bits signed"])
    monkeypatch.setitem(sys.modules, "jpeg_ls", None)
    assert len(selftest.round_trips()[1]) == 2 + 6
