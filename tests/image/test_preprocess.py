"""The pixel path against the formulas of DICOM PS3.3, written out one value at a time."""

from __future__ import annotations

import io
import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Raster
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, convert_color_space
from pydicom.sequence import Sequence

from medsearch_desktop.errors import MedSearchError, ModelError, UnsupportedPixelsError
from medsearch_desktop.image.preprocess import (
    LookupTable,
    Preprocessing,
    Rendering,
    Window,
    thumbnail,
    to_display,
    to_tensor,
)

SQUASH = Preprocessing(32, "squash", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
CROP = Preprocessing(32, "crop", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def linear(x: float, c: float, w: float) -> float:
    if x <= c - 0.5 - (w - 1) / 2:
        return 0.0
    if x > c - 0.5 + (w - 1) / 2:
        return 1.0
    return (x - (c - 0.5)) / (w - 1) + 0.5


def linear_exact(x: float, c: float, w: float) -> float:
    if x <= c - w / 2:
        return 0.0
    if x > c + w / 2:
        return 1.0
    return (x - c) / w + 0.5


def sigmoid(x: float, c: float, w: float) -> float:
    return 1 / (1 + math.exp(-4 * (x - c) / w))


FUNCTIONS = {"LINEAR": linear, "LINEAR_EXACT": linear_exact, "SIGMOID": sigmoid}


def eight_bit(fraction: float) -> int:
    return math.floor(min(max(fraction, 0.0), 1.0) * 255 + 0.5)


def ramp(bits: int, signed: bool) -> np.ndarray:
    low = -(1 << (bits - 1)) if signed else 0
    values = np.linspace(low, low + (1 << bits) - 1, 400).round().astype(np.int64)
    return values.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}").reshape(20, 20)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("bits", "signed", "photometric"),
    list(itertools.product((8, 10, 12, 16), (False, True), ("MONOCHROME1", "MONOCHROME2"))),
)
def test_windows_follow_the_standard(bits: int, signed: bool, photometric: str, function: str) -> None:
    stored = ramp(bits, signed)
    slope, intercept = 1.5, -20.25
    center, width = float(np.median(stored)) * slope + intercept + 3, 0.4 * slope * (1 << bits)
    shown = to_display(
        stored,
        Rendering(
            photometric_interpretation=photometric,
            bits_stored=bits,
            signed=signed,
            slope=slope,
            intercept=intercept,
            window=Window(center, width, function),
        ),
    )
    expected = [eight_bit(FUNCTIONS[function](float(v) * slope + intercept, center, width)) for v in stored.ravel()]
    if photometric == "MONOCHROME1":
        expected = [255 - level for level in expected]
    assert shown.dtype == np.uint8
    assert shown.flags.c_contiguous
    assert shown.ravel().tolist() == expected


@pytest.mark.parametrize("function", FUNCTIONS)
def test_windows_agree_with_pydicom(function: str) -> None:
    stored = ramp(12, True)
    ds = Dataset()
    ds.PhotometricInterpretation, ds.BitsStored, ds.PixelRepresentation = "MONOCHROME2", 12, 1
    ds.RescaleSlope, ds.RescaleIntercept = "2", "-100"
    ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = "40", "900", function
    low, high = -2048 * 2 - 100, 2047 * 2 - 100
    reference = (apply_voi_lut(apply_modality_lut(stored, ds), ds) - low) / (high - low) * 255
    rendering = Rendering(bits_stored=12, signed=True, slope=2, intercept=-100, window=Window(40, 900, function))
    assert np.abs(to_display(stored, rendering) - reference).max() <= 0.51


def test_a_window_of_width_one_is_a_threshold() -> None:
    shown = to_display(np.arange(10, dtype=np.uint8).reshape(2, 5), Rendering(bits_stored=8, window=Window(5, 1)))
    assert shown.ravel().tolist() == [0] * 5 + [255] * 5


@pytest.mark.parametrize("window", [Window(50, 0), Window(50, 0.5), Window(math.nan, 10), Window(5, -1, "SIGMOID")])
def test_an_impossible_window_counts_as_none(window: Window) -> None:
    stored = np.arange(100, dtype=np.uint8).reshape(10, 10)
    without = to_display(stored, Rendering(bits_stored=8))
    assert np.array_equal(to_display(stored, Rendering(bits_stored=8, window=window)), without)


def lut_item(first: int, values: list[int], bits: int, vr: str = "US") -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, vr, [len(values), first, bits])
    item.add_new(0x00283006, "US", values)
    return item


@pytest.mark.parametrize("first", [0, 30, -30])
def test_lookup_tables_agree_with_pydicom(first: int) -> None:
    stored = np.arange(-100, 100, dtype=np.int16).reshape(10, 20)
    modality, voi = [3 * i for i in range(120)], [(i * i) % 4096 for i in range(300)]
    ds = Dataset()
    ds.PixelRepresentation, ds.BitsStored, ds.PhotometricInterpretation = 1, 16, "MONOCHROME2"
    ds.ModalityLUTSequence = Sequence([lut_item(first, modality, 16, "SS")])
    ds.VOILUTSequence = Sequence([lut_item(20, voi, 12)])
    reference = apply_voi_lut(apply_modality_lut(stored, ds), ds)
    shown = to_display(
        stored,
        Rendering(
            signed=True,
            modality_lut=LookupTable(first, np.array(modality, np.uint16), 16),
            voi_lut=LookupTable(20, np.array(voi, np.uint16), 12),
            window=Window(0, 1),
        ),
    )
    assert shown.ravel().tolist() == [eight_bit(int(v) / 4095) for v in reference.ravel()]


def test_a_table_deeper_than_it_declares_does_not_wrap() -> None:
    table = LookupTable(0, np.arange(1024, dtype=np.uint16), 8)
    shown = to_display(np.arange(1024, dtype=np.uint16).reshape(32, 32), Rendering(voi_lut=table))
    assert (np.diff(shown.ravel().astype(int)) >= 0).all()


def test_without_a_window_outliers_do_not_set_the_range() -> None:
    stored = np.tile(np.linspace(1000, 2000, 100).astype(np.uint16), (100, 1))
    stored[0, 0], stored[0, 1] = 0, 65535
    shown = to_display(stored, Rendering())
    assert shown[50, 0] == 0
    assert shown[50, -1] == 255
    assert 126 <= shown[50, 50] <= 130
    assert (shown[0, 0], shown[0, 1]) == (0, 255)


@pytest.mark.parametrize("container", ["i2", "i4", "f4"])
def test_padding_does_not_set_the_range(container: str) -> None:
    stored = np.tile(np.linspace(0, 1000, 100), (100, 1)).astype(container)
    stored[:, :40] = -2000
    rendering = Rendering(bits_stored=32 if container != "i2" else 16, signed=True, padding=(-2000, -2000))
    shown = to_display(stored, rendering)
    assert (shown[:, :40] == 0).all()
    assert shown[0, 41] < 10
    assert shown[0, -1] == 255
    ranged = Rendering(bits_stored=rendering.bits_stored, signed=True, padding=(-2100, -1500))
    assert np.array_equal(to_display(stored, ranged), shown)


def test_an_image_of_padding_alone_is_still_shown() -> None:
    stored = np.tile(np.array([5, 6], np.uint16), (8, 8))
    assert set(to_display(stored, Rendering(padding=(5, 6))).ravel().tolist()) == {0, 255}


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_the_inverse_shape_inverts_once(photometric: str) -> None:
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    shown = to_display(stored, Rendering(photometric, 8, window=Window(128, 256), inverse=True))
    assert shown.ravel().tolist() == list(range(255, -1, -1))


def test_unused_and_shifted_bits_are_left_out() -> None:
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    rendering = Rendering(bits_stored=12, window=Window(2048, 4096))
    plain = to_display(values, rendering)
    overlaid = to_display(values | 0x9000, rendering)
    shifted = to_display(values << 4, Rendering(bits_stored=12, shift=4, window=Window(2048, 4096)))
    assert np.array_equal(plain, overlaid)
    assert np.array_equal(plain, shifted)
    signed = to_display(values, Rendering(bits_stored=12, signed=True, window=Window(0, 4096)))
    assert signed.ravel()[2048] == 0
    assert signed.ravel()[2047] == 255


@given(
    seed=st.integers(0, 2**32 - 1),
    bits=st.sampled_from([8, 12, 16]),
    signed=st.booleans(),
    window=st.one_of(
        st.none(),
        st.builds(Window, st.floats(-3e4, 7e4), st.floats(1, 7e4), st.sampled_from(list(FUNCTIONS))),
    ),
    photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_table_and_the_direct_path_agree(
    seed: int, bits: int, signed: bool, window: Window | None, photometric: str
) -> None:
    low = -(1 << (bits - 1)) if signed else 0
    stored = np.random.default_rng(seed).integers(low, low + (1 << bits), (24, 31))
    rendering = Rendering(photometric, bits, signed, slope=0.5, intercept=7, window=window)
    narrow = to_display(stored.astype(f"{'i' if signed else 'u'}2"), rendering)
    wide = to_display(stored.astype(f"{'i' if signed else 'u'}4"), rendering)
    floating = to_display(stored.astype("f8"), rendering)
    assert np.array_equal(narrow, wide)
    assert np.array_equal(narrow, floating)


def test_the_extremes_of_64_bit_values_are_kept_apart() -> None:
    stored = np.array([[-(2**63), -(2**62), 0, 2**62, 2**63 - 1]], np.int64)
    shown = to_display(stored, Rendering(bits_stored=64, signed=True))
    assert shown.ravel().tolist() == [0, 64, 128, 191, 255]


@pytest.mark.parametrize("window", [None, Window(0.5, 1.0, "LINEAR_EXACT")])
def test_numbers_that_are_none_are_shown_dark(window: Window | None) -> None:
    stored = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    stored[3, 3], stored[4, 4], stored[5, 5] = np.nan, np.inf, -np.inf
    shown = to_display(stored, Rendering(bits_stored=32, window=window))
    assert shown[3, 3] == shown[4, 4] == shown[5, 5] == 0
    assert shown[19, 19] == 255
    assert not to_display(np.full((4, 4), np.nan, np.float32), Rendering(bits_stored=32, window=window)).any()


@pytest.mark.parametrize("container", ["u1", "u2", "u4", "f4"])
def test_a_window_beside_the_values_never_gives_a_blank_picture(container: str) -> None:
    stored = np.tile(np.linspace(10, 90, 100), (100, 1)).astype(container)
    bits = stored.dtype.itemsize * 8
    shown = to_display(stored, Rendering(bits_stored=bits, window=Window(5000, 10)))
    assert np.array_equal(shown, to_display(stored, Rendering(bits_stored=bits)))
    assert len(np.unique(shown)) > 50
    nearly = stored.copy()
    nearly[0, 0] = 250
    shown = to_display(nearly, Rendering(bits_stored=bits, window=Window(200, 10)))
    assert len(np.unique(shown)) > 50


@pytest.mark.parametrize("container", ["u2", "u4"])
def test_a_sparse_picture_keeps_its_few_pixels(container: str) -> None:
    stored = np.zeros((600, 600), container)
    stored[301, 302] = 7
    for window in (None, Window(5000, 10), Window(4, 2)):
        shown = to_display(stored, Rendering(bits_stored=16, window=window))
        assert shown[301, 302] == 255
        assert int(shown.sum()) == 255


def test_a_constant_image_is_constant() -> None:
    assert not to_display(np.full((5, 7), 300, np.uint16), Rendering()).any()
    assert not to_display(np.full((5, 7), 300, np.uint32), Rendering(bits_stored=32)).any()


def test_other_byte_orders_and_read_only_views_give_the_same() -> None:
    stored = ramp(16, False)
    rendering = Rendering(window=Window(30000, 20000))
    foreign = np.frombuffer(stored.astype(">u2").tobytes(), ">u2").reshape(20, 20)
    assert np.array_equal(to_display(foreign, rendering), to_display(stored, rendering))
    assert np.array_equal(to_display(stored[:, ::2], rendering), to_display(stored, rendering)[:, ::2])


@pytest.mark.parametrize(("container", "bits"), [("u1", 8), ("u2", 16), ("u2", 12), ("u4", 32)])
def test_colours_are_scaled_to_eight_bits(container: str, bits: int) -> None:
    top = (1 << bits) - 1
    stored = np.array([[[0, top, top // 2], [top // 3, 1, top - 1]]], container)
    shown = to_display(stored, Rendering("RGB", bits))
    assert shown.ravel().tolist() == [eight_bit(int(v) / top) for v in stored.ravel()]
    assert shown.flags.c_contiguous


@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422"])
def test_luminance_and_chrominance_become_rgb(photometric: str) -> None:
    stored = np.random.default_rng(7).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    reference = convert_color_space(stored.copy(), "YBR_FULL", "RGB").astype(int)
    assert np.abs(to_display(stored, Rendering(photometric, 8)).astype(int) - reference).max() <= 1


@pytest.mark.parametrize("photometric", ["HSV", "YBR_PARTIAL_420", "CMYK"])
def test_retired_colour_spaces_are_refused(photometric: str) -> None:
    with pytest.raises(UnsupportedPixelsError, match=photometric):
        to_display(np.zeros((2, 2, 3), np.uint8), Rendering(photometric, 8))


@pytest.mark.parametrize("first", [0, 20])
def test_palettes_agree_with_pydicom(first: int) -> None:
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rng = np.random.default_rng(3)
    tables = [rng.integers(0, 65536, 200, dtype=np.uint16) for _ in range(3)]
    ds = Dataset()
    ds.PixelRepresentation = 0
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [200, first, 16])
        setattr(ds, f"{name}PaletteColorLookupTableData", table.tobytes())
    reference = apply_color_lut(stored, ds) >> 8
    red, green, blue = (LookupTable(first, table, 16) for table in tables)
    shown = to_display(stored, Rendering("PALETTE COLOR", 8, palette=(red, green, blue)))
    assert np.array_equal(shown, reference)


def test_a_palette_that_declares_16_bits_and_holds_8_is_not_black() -> None:
    table = LookupTable(0, np.arange(256, dtype=np.uint16), 16)
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    shown = to_display(stored, Rendering("PALETTE COLOR", 8, palette=(table, table, table)))
    assert np.array_equal(shown[..., 0], stored)
    with pytest.raises(UnsupportedPixelsError, match="32"):
        to_display(stored.astype(np.uint32), Rendering("PALETTE COLOR", 8, palette=(table, table, table)))


def phantom(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return ((np.sin(x / 9) + np.cos(y / 13)) * 60 + 128).astype(np.uint8)


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((300, 600), 100, (100, 50)),
        ((600, 300, 3), 100, (50, 100)),
        ((40, 30), 384, (30, 40)),
        ((1, 5000), 384, (384, 1)),
        ((384, 384), 384, (384, 384)),
    ],
)
def test_thumbnails_keep_the_aspect_and_are_never_enlarged(
    shape: tuple[int, ...], size: int, expected: tuple[int, int]
) -> None:
    display = phantom(*shape[:2])
    if len(shape) == 3:
        display = np.stack([display] * 3, axis=-1)
    data = thumbnail(display, size=size)
    with Raster.open(io.BytesIO(data)) as raster:
        assert raster.format == "WEBP"
        assert raster.size == expected
        shown = np.asarray(raster.convert("L"), dtype=int)
    direct = np.asarray(Raster.fromarray(display).convert("L").resize(expected, Raster.Resampling.BOX), dtype=int)
    assert np.abs(shown - direct).mean() < 8


def test_tensors_are_grey_from_zero_to_one_less_the_mean_over_the_std() -> None:
    preprocessing = Preprocessing(8, "squash", (0.5, 0.25, 0.0), (0.5, 2.0, 1.0))
    tensor = to_tensor(np.full((50, 30), 51, np.uint8), preprocessing)
    assert tensor.shape == (3, 8, 8)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    assert tensor[:, 0, 0] == pytest.approx([(0.2 - 0.5) / 0.5, (0.2 - 0.25) / 2, 0.2], abs=1e-6)


def test_grey_in_colour_gives_the_same_tensor() -> None:
    display = phantom(90, 70)
    assert np.array_equal(to_tensor(display, SQUASH), to_tensor(np.stack([display] * 3, axis=-1), SQUASH))


def test_squash_takes_the_whole_and_crop_the_central_square() -> None:
    display = np.zeros((60, 120), np.uint8)
    display[:, :30] = display[:, 90:] = 255
    assert to_tensor(display, SQUASH)[0, :, 0].min() == 1.0
    assert not to_tensor(display, CROP).any()
    tall = display.T.copy()
    assert not to_tensor(tall, CROP).any()
    assert np.array_equal(to_tensor(display, CROP), to_tensor(display[:, 30:90].copy(), SQUASH))


def test_large_images_are_averaged_not_sampled() -> None:
    checkers = np.indices((1024, 1024)).sum(axis=0).astype(np.uint8) % 2 * 255
    assert np.abs(to_tensor(checkers, SQUASH) - 0.5).max() < 0.01


def test_a_region_is_the_same_as_its_cut_out() -> None:
    display = phantom(200, 300)
    roi = (37, 51, 101, 80)
    cut = display[51:131, 37:138].copy()
    for preprocessing in (SQUASH, CROP):
        assert np.array_equal(to_tensor(display, preprocessing, roi=roi), to_tensor(cut, preprocessing))
    whole = to_tensor(display, SQUASH, roi=(0, 0, 300, 200))
    assert np.array_equal(whole, to_tensor(display, SQUASH))


@pytest.mark.parametrize(
    "roi", [(-1, 0, 5, 5), (0, -1, 5, 5), (0, 0, 0, 5), (0, 0, 5, 0), (296, 0, 5, 5), (0, 196, 5, 5), (0, 0, 5, -5)]
)
def test_a_region_outside_the_image_is_refused(roi: tuple[int, int, int, int]) -> None:
    with pytest.raises(MedSearchError, match=r"300 x 200.*X,Y,W,H"):
        to_tensor(phantom(200, 300), SQUASH, roi=roi)


def test_every_run_in_every_thread_gives_the_same_bytes() -> None:
    stored = np.random.default_rng(11).integers(0, 4096, (700, 500), dtype=np.uint16)
    rendering = Rendering("MONOCHROME1", 12)

    def run(_: int) -> tuple[bytes, bytes, bytes]:
        display = to_display(stored, rendering)
        return display.tobytes(), thumbnail(display, size=128), to_tensor(display, CROP).tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(run, range(12)))) == 1


def test_preprocessing_survives_its_manifest() -> None:
    preprocessing = Preprocessing(224, "crop", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert Preprocessing.from_json(preprocessing.as_json()) == preprocessing


@pytest.mark.parametrize(
    "change",
    [{"size": 0}, {"size": True}, {"size": "224"}, {"resize": "stretch"}, {"mean": [0.5]}, {"std": [1, 1, 0]},
     {"mean": None}, {"std": ["a", 1, 1]}, {"mean": [math.nan, 0, 0]}],
)  # fmt: skip
def test_a_manifest_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="manifest"):
        Preprocessing.from_json(SQUASH.as_json() | change)
    with pytest.raises(ModelError, match="size"):
        Preprocessing.from_json({key: value for key, value in SQUASH.as_json().items() if key != "size"})


def test_one_channel_is_the_same_grey_once() -> None:
    random = np.random.default_rng(4)
    film = random.integers(0, 256, (70, 90), dtype=np.uint8)
    three = to_tensor(film, Preprocessing(32, "squash", (0.5,) * 3, (0.25,) * 3))
    one = to_tensor(film, Preprocessing(32, "squash", (0.5,), (0.25,), channels=1))
    assert one.shape == (1, 32, 32)
    np.testing.assert_array_equal(three, np.repeat(one, 3, axis=0))


def test_channels_go_into_a_manifest_only_where_they_are_unusual() -> None:
    usual = Preprocessing(32, "squash", (0.5,) * 3, (0.25,) * 3)
    grey = Preprocessing(32, "squash", (0.5,), (0.25,), channels=1)
    assert "channels" not in usual.as_json()
    assert grey.as_json()["channels"] == 1
    for preprocessing in (usual, grey):
        assert Preprocessing.from_json(preprocessing.as_json()) == preprocessing


@pytest.mark.parametrize("channels", [0, 2, 4, True, 1.0, "1", None])
def test_other_channels_are_refused(channels: object) -> None:
    fields = {"size": 32, "resize": "squash", "mean": [0.5], "std": [0.25], "channels": channels}
    with pytest.raises(ModelError, match="channels must be 1 or 3"):
        Preprocessing.from_json(fields)
    with pytest.raises(ModelError, match="needs 3 finite means"):
        Preprocessing.from_json({**fields, "channels": 3})
