"""JPEG XL beyond the matrix: what the codestream claims, damage, bombs, and the process that decodes it."""

from __future__ import annotations

import itertools
import os
import signal
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from imagecodecs import jpegxl_encode, jpegxl_encode_jpeg
from numpy.typing import NDArray
from phantoms_made import (
    COLOUR,
    JXL,
    JXL_JPEG,
    JXL_LOSSLESS,
    Form,
    baseline,
    header,
    items,
    jxl,
    phantom,
    stored,
    written,
)

from medsearch_desktop import bounded
from medsearch_desktop.errors import DecodeError, TruncatedFileError, UnsupportedPixelsError
from medsearch_desktop.image import aside
from medsearch_desktop.image.codecs import Layout, decompress, stream_size
from medsearch_desktop.image.jpeg_xl import JpegXlStream

TWELVE = Form(16, 12)
RGB = COLOUR[0]


@pytest.fixture(autouse=True, scope="module")
def _end_of_process() -> Iterator[None]:
    yield
    aside.HELPER.close()


def layout(rows: int, columns: int, samples: int = 1, bits: int = 12) -> Layout:
    photometric = "MONOCHROME2" if samples == 1 else "RGB"
    return Layout(rows, columns, samples, 8 if bits <= 8 else 16, bits, 0, False, photometric, False)


def noise(rows: int, columns: int, bits: int = 12, samples: int = 1) -> NDArray:
    shape = (rows, columns) if samples == 1 else (rows, columns, samples)
    return np.random.default_rng(4).integers(0, 1 << bits, shape).astype("u1" if bits <= 8 else "u2")


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (8, 8), (40, 34), (64, 64), (7, 9001), (90, 160), (120, 100)])
def test_the_headers_are_read_as_they_were_written(rows: int, columns: int) -> None:
    for bits, samples, lossless, boxed in itertools.product((8, 10, 12, 16), (1, 3), (True, False), (True, False)):
        flat = np.zeros((rows, columns) if samples == 1 else (rows, columns, 3), "u1" if bits == 8 else "u2")
        data = jpegxl_encode(flat, lossless=lossless, bitspersample=bits, usecontainer=boxed, effort=3)
        found = JpegXlStream.read(data)
        assert (found.rows, found.columns, found.samples, found.precision) == (rows, columns, samples, bits)
        assert found.is_converted is not lossless
        assert stream_size(data[:4096]) == (rows, columns, samples, bits)


def test_lossy_colour_is_near_what_it_was() -> None:
    pixels = phantom(RGB)[0].astype("u1")
    data = jpegxl_encode(pixels, lossless=False, distance=0.1)
    found, seen = decompress(data, layout(*pixels.shape, bits=8), JXL)
    assert np.abs(found.astype(int) - pixels).mean() < 4
    assert seen.photometric == "RGB"


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL_422", "XYB"])
def test_a_jpeg_file_packed_anew_looks_as_it_did(photometric: str) -> None:
    ds = header(Form(8, 8, False, 3, photometric), JXL_JPEG)
    frames = [baseline(frame, RGB) for frame in phantom(RGB)]
    items(ds, [jpegxl_encode_jpeg(frame) for frame in frames])
    for found, source in zip(stored(written(ds)), phantom(RGB), strict=True):
        assert np.abs(found - source).max() <= 8


def test_frames_in_several_fragments_without_an_offset_table() -> None:
    ds = header(TWELVE, JXL_LOSSLESS)
    frames = [jxl(frame, TWELVE) for frame in phantom(TWELVE)]
    items(ds, [part for frame in frames for part in (frame[:40], frame[40:])], table=False)
    for found, source in zip(stored(written(ds)), phantom(TWELVE), strict=True):
        assert np.array_equal(found, source)


def test_a_size_that_the_header_leaves_out_is_read_off_the_codestream() -> None:
    ds = header(TWELVE, JXL_LOSSLESS)
    items(ds, [jxl(frame, TWELVE) for frame in phantom(TWELVE)])
    del ds.Rows, ds.Columns, ds.BitsAllocated
    for found, source in zip(stored(written(ds)), phantom(TWELVE), strict=True):
        assert np.array_equal(found, source)


def test_deeper_in_the_codestream_than_in_the_header() -> None:
    pixels = phantom(Form(16, 12, True))[0]
    data = jpegxl_encode(pixels.astype("i2").view("u2"), lossless=True, bitspersample=16)
    found, seen = decompress(data, Layout(*pixels.shape, 1, 16, 12, 0, True, "MONOCHROME2", False), JXL_LOSSLESS)
    assert seen.stored == 12
    assert np.array_equal(found.view("i2"), pixels)


@pytest.mark.parametrize("claimed", [(41, 64, 1), (64, 41, 1), (64, 64, 3)])
def test_a_codestream_that_is_not_what_the_header_says(claimed: tuple[int, int, int]) -> None:
    data = jpegxl_encode(noise(64, 64), lossless=True, bitspersample=12)
    with pytest.raises(UnsupportedPixelsError, match="64 x 64 x 1 where the header says"):
        decompress(data, layout(*claimed), JXL_LOSSLESS)


@pytest.mark.parametrize(
    ("form", "reason"), [("alpha", "with more than"), ("float", "of floating"), ("deep", "of 32 bits")]
)
def test_forms_that_are_no_radiograph(form: str, reason: str) -> None:
    if form == "alpha":
        data = jpegxl_encode(noise(20, 30, 8, 4))
    else:
        data = jpegxl_encode(np.linspace(0, 1, 600, dtype="f4").reshape(20, 30))
    if form == "deep":
        # Six rows and columns, and integers of 1 + 31 bits, by hand: see ISO/IEC 18181-1 D.3.
        bits = "0" + "00" + "101000000" + "000" + "00" + "101000000" + "0" + "0" + "0" + "11" + "111110"
        value = int(bits[::-1], 2)
        data = b"\xff\x0a" + value.to_bytes(8, "little") + bytes(30)
    with pytest.raises(UnsupportedPixelsError, match=f"JPEG XL {reason}"):
        decompress(data, layout(20, 30, 3 if form == "alpha" else 1), JXL_LOSSLESS)


@pytest.mark.parametrize("boxed", [False, True])
def test_damage_is_told_and_harms_nothing(boxed: bool) -> None:
    whole = jpegxl_encode(noise(64, 48), lossless=True, bitspersample=12, usecontainer=boxed)
    for cut in (1, 3, len(whole) // 2, len(whole) - 20, len(whole) - 3):
        with pytest.raises(DecodeError):
            decompress(whole[:-cut], layout(64, 48), JXL_LOSSLESS)
    with pytest.raises(TruncatedFileError):
        decompress(whole[: len(whole) // 2], layout(64, 48), JXL_LOSSLESS)
    chance = np.random.default_rng(9)
    for _ in range(60):
        altered = bytearray(whole)
        for place in chance.integers(0, len(whole), 8):
            altered[place] = chance.integers(0, 256)
        try:
            samples, _ = decompress(bytes(altered), layout(64, 48), JXL_LOSSLESS)
        except DecodeError:
            continue
        assert samples.shape == (64, 48)
    assert np.array_equal(decompress(whole + b"\0", layout(64, 48), JXL_LOSSLESS)[0], noise(64, 48))


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\x0a",
        b"\0\0\0\x0cJXL \r\n\x87\n",
        b"\0\0\0\x0cJXL \r\n\x87\n" + struct.pack(">I4s", 4, b"jxlc") + b"\xff\x0a" * 40,
        b"\0\0\0\x0cJXL \r\n\x87\n" + struct.pack(">I4sQ", 1, b"jxlc", 2),
        b"\0\0\0\x0cJXL \r\n\x87\n" + struct.pack(">I4s", 8, b"free") * 5000,
        b"\0\0\0\x0cJXL \r\n\x87\n" + struct.pack(">I4sI", 12, b"jxlp", 0) * 20,
    ],
    ids=["mark", "signature", "short box", "short long box", "boxes", "empty parts"],
)
def test_no_codestream_at_all(data: bytes) -> None:
    with pytest.raises(UnsupportedPixelsError):
        decompress(data, layout(64, 48), JXL_LOSSLESS)


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside.HELPER, "ask", lambda *_, **__: pytest.fail("it was decoded"))
    # Some fifty bytes of black.
    data = jpegxl_encode(np.zeros((1200, 1200), "u1"), lossless=True, effort=3)
    assert len(data) < 200
    with pytest.raises(UnsupportedPixelsError, match="1200 x 1200 x 1 where the header says"):
        decompress(data, layout(64, 48, bits=8), JXL_LOSSLESS)
    with pytest.raises(UnsupportedPixelsError, match="claim an image"):
        decompress(data, layout(60_000, 60_000, bits=8), JXL_LOSSLESS)


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot bound the memory of a process; run it elsewhere")
def test_memory_is_bounded_whatever_a_codestream_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpegxl_encode(noise(1200, 1200, 8, 3), lossless=True, effort=3)
    aside.HELPER.close()
    monkeypatch.setattr(aside, "_SECONDS", 120.0)
    # As if its header had said less: the process may not take what the picture needs.
    real = aside.HELPER.ask

    def stingy(head: dict, data: bytes, *, seconds: float) -> bounded.Message:
        return real({**head, "most": head["most"] - (1 << 24)}, data, seconds=seconds)

    monkeypatch.setattr(aside.HELPER, "ask", stingy)
    with pytest.raises(UnsupportedPixelsError, match=r"JPEG XL frame"):
        aside.decode_aside("JPEG XL", data, most_samples=64)
    monkeypatch.undo()
    small = noise(16, 16)
    frame = jpegxl_encode(small, lossless=True, bitspersample=12)
    assert np.array_equal(aside.decode_aside("JPEG XL", frame, most_samples=256), small)


@pytest.mark.skipif(os.name == "nt", reason="there no test can stop a process for a while; run it elsewhere")
def test_a_frame_that_takes_too_long_costs_its_process_alone() -> None:
    data = jpegxl_encode(noise(1500, 1500), lossless=True, bitspersample=12, effort=3)
    assert aside.decode_aside("JPEG XL", data, most_samples=4_000_000).shape == (1500, 1500)
    assert aside.HELPER._process is not None
    # No machine is quick enough then.
    os.kill(aside.HELPER._process.pid, signal.SIGSTOP)
    with pytest.raises(UnsupportedPixelsError, match=r"takes more than 0 s"):
        aside.decode_aside("JPEG XL", data, most_samples=4_000_000, max_seconds=0.2)
    assert aside.decode_aside("JPEG XL", data, most_samples=4_000_000).shape == (1500, 1500)


def test_nothing_is_imported_from_the_folder_that_one_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imagecodecs.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    aside.HELPER.close()
    frame = noise(16, 16, 8)
    assert np.array_equal(aside.decode_aside("JPEG XL", jpegxl_encode(frame, lossless=True), most_samples=256), frame)


def test_without_the_codec_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpegxl_encode(noise(20, 30), lossless=True, bitspersample=12)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(UnsupportedPixelsError, match="imagecodecs"):
        decompress(data, layout(20, 30), JXL_LOSSLESS)
