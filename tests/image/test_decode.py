"""Transfer syntaxes, layouts and frames through the decoder."""

from __future__ import annotations

import base64
import io
import struct
import sys
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import phantoms_made
import pytest
from decoding_made import WINDOW, compress, dataset, grey, picture, run, shown, tags, written
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
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
    TruncatedFileError,
)
from medsearch_desktop.image import selftest
from medsearch_desktop.image.decode import select_frames
from medsearch_desktop.image.preprocess import Rendering, Window, to_display
from medsearch_desktop.image.selftest import decoders

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
