"""PNG and JPEG films, whole and damaged, through the decoder."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from decoding_made import SHA, grey, picture, run, shown, tags
from PIL import Image as Raster

from medsearch_desktop.errors import (
    DecodeError,
    NotAnImageError,
    TruncatedFileError,
    UnsupportedPixelsError,
)


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
