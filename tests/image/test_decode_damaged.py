"""Hostile and damaged DICOM files through the decoder."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pydicom
import pytest
from decoding_made import PYDICOM_FILES, WINDOW, compress, dataset, grey, run, shown, tags, written
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from medsearch_desktop.errors import (
    DecodeError,
    NoPixelsError,
    NotAnImageError,
    TruncatedFileError,
)


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
