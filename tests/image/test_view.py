"""Frames for a viewer: stored values as the header means them, and windows over them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from makers import Film, dataset
from PIL import Image

from medsearch_desktop.errors import MedSearchError, NotFoundError, UnsupportedPixelsError
from medsearch_desktop.image.decode import decode
from medsearch_desktop.image.view import picture_of_frame, stored_frame

LIMIT = 1 << 24


def levels(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)))


def scan(folder: Path) -> tuple[Path, np.ndarray]:
    """A signed image of three frames in Hounsfield units."""
    ds = dataset(Film(modality="CT"))
    values = np.random.default_rng(3).integers(-1024, 2000, (3, 20, 30)).astype(np.int16)
    ds.Rows, ds.Columns, ds.NumberOfFrames = 20, 30, 3
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept = 2, -100
    ds.WindowCenter, ds.WindowWidth = 40, 400
    ds.PixelData = values.tobytes()
    ds.save_as(folder / "scan.dcm", enforce_file_format=True)
    return folder / "scan.dcm", values


@pytest.mark.parametrize("frame", [0, 1, 2])
def test_signed_values_of_any_frame_come_with_their_scale(tmp_path: Path, frame: int) -> None:
    path, values = scan(tmp_path)
    stored = stored_frame(str(path), frame=frame, max_pixels=LIMIT)
    assert np.array_equal(stored.values, values[frame])
    assert stored.values.dtype == np.dtype("<i2")
    assert (stored.slope, stored.intercept, stored.window) == (2.0, -100.0, (40.0, 400.0))


def test_a_window_is_in_the_unit_of_the_modality(tmp_path: Path) -> None:
    path, values = scan(tmp_path)
    seen = levels(picture_of_frame(str(path), frame=1, max_pixels=LIMIT, window=(-600, 1500)))
    units = values[1].astype(float) * 2 - 100
    expected = np.floor(np.clip((units + 600.5) / 1499 + 0.5, 0, 1) * 255 + 0.5)
    assert np.array_equal(seen, expected)


def test_without_a_window_it_is_what_is_embedded(tmp_path: Path) -> None:
    path, _ = scan(tmp_path)
    decoded = decode(str(path), name="scan", sha256="", max_frames=3, max_pixels=LIMIT)
    for frame, display in enumerate(decoded.displays):
        assert np.array_equal(levels(picture_of_frame(str(path), frame=frame, max_pixels=LIMIT)), display)


def test_dark_is_high_is_told_and_done(tmp_path: Path) -> None:
    ds = dataset(Film())
    ds.PhotometricInterpretation = "MONOCHROME1"
    ds.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    path = str(tmp_path / "film.dcm")
    stored = stored_frame(path, frame=0, max_pixels=LIMIT)
    assert stored.dark_is_high
    seen = levels(picture_of_frame(path, frame=0, max_pixels=LIMIT, window=(1000, 500)))
    assert seen[stored.values.argmax() // 96, stored.values.argmax() % 96] == 0


def test_a_table_in_place_of_a_scale_is_applied(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    ds = dataset(Film())
    table = Dataset()
    table.add_new(0x00283002, "US", [4096, 0, 16])
    table.add_new(0x00283003, "LO", "made up")
    table.add_new(0x00283006, "OW", (np.arange(4096, dtype="<u2") * 3 + 7).tobytes())
    ds.ModalityLUTSequence = Sequence([table])
    ds.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    plain = np.frombuffer(ds.PixelData, "<u2").reshape(96, 96)
    stored = stored_frame(str(tmp_path / "film.dcm"), frame=0, max_pixels=LIMIT)
    assert np.array_equal(stored.values, plain * 3 + 7)
    assert (stored.slope, stored.intercept) == (1.0, 0.0)


@pytest.mark.parametrize("frame", [-1, 3, 1000])
def test_a_frame_that_is_not_there_is_told(tmp_path: Path, frame: int) -> None:
    path, _ = scan(tmp_path)
    for read in (stored_frame, picture_of_frame):
        with pytest.raises(NotFoundError, match="3 frames"):
            read(str(path), frame=frame, max_pixels=LIMIT)


def test_colour_and_pictures_have_no_stored_values(tmp_path: Path) -> None:
    ds = dataset(Film(size=16))
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    colours = np.random.default_rng(1).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    ds.PixelData = colours.tobytes()
    ds.save_as(tmp_path / "colour.dcm", enforce_file_format=True)
    Image.fromarray(colours).save(tmp_path / "colour.png")
    for name in ("colour.dcm", "colour.png"):
        path = str(tmp_path / name)
        with pytest.raises(UnsupportedPixelsError) as caught:
            stored_frame(path, frame=0, max_pixels=LIMIT)
        assert "rendered frame" in caught.value.remedy
        assert np.array_equal(levels(picture_of_frame(path, frame=0, max_pixels=LIMIT)), colours)


@pytest.mark.parametrize("window", [(0.0, 0.5), (0.0, -1.0), (float("nan"), 10.0), (0.0, float("inf"))])
def test_a_window_that_shows_nothing_is_refused(tmp_path: Path, window: tuple[float, float]) -> None:
    path, _ = scan(tmp_path)
    with pytest.raises(MedSearchError, match="width"):
        picture_of_frame(str(path), frame=0, max_pixels=LIMIT, window=window)


def test_an_image_above_the_limit_is_not_decoded(tmp_path: Path) -> None:
    path, _ = scan(tmp_path)
    with pytest.raises(UnsupportedPixelsError, match="limit of 100") as caught:
        picture_of_frame(str(path), frame=0, max_pixels=100)
    assert caught.value.item == str(path)


@pytest.mark.parametrize(
    ("object_plane", "detector", "spacing", "at_detector"),
    [
        (None, None, None, False),
        (None, [0.2, 0.1], (0.2, 0.1), True),
        ([0.15, 0.15], None, (0.15, 0.15), False),
        # Calibrated on something of known size; and only copied from the detector's.
        ([0.15, 0.15], [0.2, 0.2], (0.15, 0.15), False),
        ([0.2, 0.2], [0.2, 0.2], (0.2, 0.2), True),
        ([0, 0.2], None, None, False),
    ],
)
def test_lengths_say_where_they_were_measured(
    object_plane: list[float] | None,
    detector: list[float] | None,
    spacing: tuple[float, float] | None,
    at_detector: bool,
    tmp_path: Path,
) -> None:
    ds = dataset(Film())
    if object_plane:
        ds.PixelSpacing = object_plane
    if detector:
        ds.ImagerPixelSpacing = detector
    ds.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    stored = stored_frame(str(tmp_path / "film.dcm"), frame=0, max_pixels=LIMIT)
    assert (stored.spacing, stored.at_detector) == (spacing, at_detector)
