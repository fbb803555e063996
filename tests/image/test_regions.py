"""Striking points and rectangles: the real network on pictures that are drawn here, and the geometry by itself."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Raster

from medsearch_desktop.errors import DecodeError, ModelAlteredError, ModelError, ModelMissingError
from medsearch_desktop.image import regions
from medsearch_desktop.image.regions import (
    ASKED,
    GRID,
    POINTS,
    SCALE,
    VALUES,
    RegionEncoder,
    ask_by,
    read_picture,
    region_spec,
    striking_points,
)


@pytest.fixture(scope="module")
def encoder() -> RegionEncoder:
    return RegionEncoder(threads=2)


def film(x: float, y: float, *, width: int = 300, height: int = 400) -> NDArray[np.uint8]:
    """A smooth grey picture with one small round shadow, its middle at shares (x, y)."""
    row, column = np.mgrid[0:height, 0:width]
    base = 90 + 40 * np.sin(column / width * 3) + 20 * np.cos(row / height * 4)
    spot = 70 * np.exp(-(((column - x * width) ** 2 + (row - y * height) ** 2) / (2 * (0.015 * width) ** 2)))
    return (base + spot).clip(0, 255).astype(np.uint8)


def test_a_picture_alone_and_among_others_has_the_same_places(encoder: RegionEncoder) -> None:
    pictures = [film(0.3, 0.4), film(0.6, 0.2, width=64, height=64), np.stack([film(0.5, 0.5)] * 3, axis=2)]
    together = encoder.maps(pictures)
    assert together.shape == (3, GRID * GRID, VALUES)
    for picture, places in zip(pictures, together, strict=True):
        assert encoder.maps([picture])[0] == pytest.approx(places, abs=1e-3)


def test_the_only_mark_of_a_picture_is_among_its_most_striking_points(encoder: RegionEncoder) -> None:
    for x, y in ((0.3, 0.4), (0.7, 0.25)):
        points = striking_points(encoder.maps([film(x, y)])[0])
        assert (points.places.dtype, points.vectors.dtype) == (np.uint16, np.int8)
        assert points.vectors.shape == (POINTS, VALUES)
        assert len(set(points.places.tolist())) == POINTS
        column, row = points.places % GRID, points.places // GRID
        assert (np.hypot((column + 0.5) / GRID - x, (row + 0.5) / GRID - y) < 0.06).any()
        lengths = np.linalg.norm(points.vectors.astype(float), axis=1) / SCALE
        assert lengths == pytest.approx(np.ones(POINTS), abs=0.06)


@pytest.mark.parametrize(
    "roi",
    [(0, 0, 1, 1), (299, 399, 1, 1), (0, 0, 300, 400), (0, 0, 300, 1), (299, 0, 1, 400), (100, 120, 40, 40)],
)
def test_any_rectangle_asks_by_places_that_it_touches(encoder: RegionEncoder, roi: tuple[int, int, int, int]) -> None:
    places = encoder.maps([film(0.4, 0.35)])[0]
    asked = ask_by(places, roi, width=300, height=400)
    assert 1 <= len(asked.vectors) <= ASKED
    assert asked.weights.sum() == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(asked.vectors, axis=1) == pytest.approx(np.ones(len(asked.vectors)), abs=1e-4)
    assert asked.size == (roi[2] / 300, roi[3] / 400)
    assert asked.share == pytest.approx(roi[2] * roi[3] / 120_000)
    # No place further from the middle than half the rectangle and half a place.
    assert (np.abs(asked.offsets[:, 0]) <= roi[2] / 600 + 0.5 / GRID + 1e-6).all()
    assert (np.abs(asked.offsets[:, 1]) <= roi[3] / 800 + 0.5 / GRID + 1e-6).all()


def test_a_generous_rectangle_asks_first_by_the_same_place(encoder: RegionEncoder) -> None:
    places = encoder.maps([film(0.5, 0.5)])[0]
    tight = ask_by(places, (140, 186, 20, 28), width=300, height=400)
    wide = ask_by(places, (100, 140, 100, 120), width=300, height=400)
    assert (tight.vectors @ wide.vectors.T).max() == pytest.approx(1, abs=1e-5)
    assert (wide.vectors[:4] @ tight.vectors.T).max(axis=1).max() == pytest.approx(1, abs=1e-5)


def test_places_without_any_length_can_be_asked_by() -> None:
    asked = ask_by(np.zeros((GRID * GRID, VALUES), np.float32), (10, 10, 5, 5), width=100, height=100)
    assert np.isfinite(asked.vectors).all()
    assert asked.weights.tolist() == [1.0]


def test_the_network_describes_itself() -> None:
    spec = region_spec()
    assert (spec.model_id, spec.dim, spec.preprocessing.size) == (regions.REGION_ID, VALUES, 8 * GRID)


def test_a_network_that_is_missing_altered_or_undescribed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = region_spec()
    monkeypatch.setattr(regions, "shipped_dir", lambda: tmp_path)
    with pytest.raises(ModelMissingError, match=r"regions1\.json"):
        RegionEncoder(threads=1)
    (tmp_path / "regions1.json").write_text("{}")
    with pytest.raises(ModelError, match="unsound"):
        RegionEncoder(threads=1)
    (tmp_path / "regions1.json").write_bytes(spec.path.with_suffix(".json").read_bytes())
    with pytest.raises(ModelMissingError):
        RegionEncoder(threads=1)
    content = bytearray(spec.path.read_bytes())
    content[1000] ^= 1
    (tmp_path / "regions1.onnx").write_bytes(content)
    with pytest.raises(ModelAlteredError):
        RegionEncoder(threads=1)


def test_a_damaged_thumbnail_is_told() -> None:
    buffer = io.BytesIO()
    Raster.fromarray(film(0.2, 0.2)).save(buffer, "WEBP")
    assert read_picture(buffer.getvalue(), name="a").shape == (400, 300, 3)
    for data in (b"", b"RIFF", buffer.getvalue()[:60]):
        with pytest.raises(DecodeError, match="thumbnail"):
            read_picture(data, name="a")
