"""Likeness in whole numbers against the same sum in float32."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pytest
from numpy.typing import NDArray

from medsearch_desktop.errors import ModelError
from medsearch_desktop.image.products import OFFSET, PointProducts
from medsearch_desktop.image.regions import SCALE, RegionQuery
from medsearch_desktop.search.regions import likeness


def asked(vectors: NDArray[np.float32], weights: NDArray[np.float32]) -> RegionQuery:
    return RegionQuery(vectors, weights, np.zeros((len(vectors), 2), np.float32), (0.1, 0.1), 0.01)


def units(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    values = rng.normal(size=shape).astype(np.float32)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


@pytest.mark.parametrize("count", [1, 5, 16])
def test_rough_likenesses_are_within_their_error(count: int) -> None:
    rng = np.random.default_rng(count)
    weights = rng.uniform(0.1, 1, count).astype(np.float32)
    query = asked(units(rng, count, 128), weights / weights.sum())
    vectors = np.rint(units(rng, 700, 64, 128) * SCALE).astype(np.int8)
    vectors[:10, :count] = np.rint(query.vectors * SCALE)
    rounded = PointProducts().asked_by(query)
    rough = rounded.likeness(vectors.view(np.uint8) ^ OFFSET)
    off = rough - likeness(query, vectors, scale=SCALE)
    assert rough.dtype == np.float32
    assert rough[:10] == pytest.approx(1, abs=0.02)
    assert 0 < rounded.error < 0.006
    assert np.abs(off).max() < 6 * rounded.error
    # Not far too large either, or far too many images would be compared twice.
    assert off.std() > 0.2 * rounded.error


def test_the_largest_values_do_not_overflow() -> None:
    for sign in (-1, 1):
        vectors = np.full((3, 64, 128), sign * SCALE, np.int8)
        query = asked(np.ones((16, 128), np.float32), np.full(16, 1 / 16, np.float32))
        rough = PointProducts().asked_by(query).likeness(vectors.view(np.uint8) ^ OFFSET)
        assert rough == pytest.approx(128 * sign, rel=1e-4)


def test_what_does_not_fit_is_told_and_nothing_gives_nothing() -> None:
    query = asked(np.ones((2, 128), np.float32), np.full(2, 0.5, np.float32))
    rounded = PointProducts().asked_by(query)
    assert rounded.likeness(np.empty((0, 64, 128), np.uint8)).shape == (0,)
    with pytest.raises(ModelError, match="cannot be compared"):
        rounded.likeness(np.zeros((2, 64, 100), np.uint8))


def test_the_shipped_graph_is_that_of_its_script() -> None:
    pytest.importorskip("onnx", reason="needs onnx: pip install 'medsearch-desktop[export]'")
    from models.likeness import build

    shipped = resources.files("medsearch_desktop.image").joinpath("data", "likeness1.onnx").read_bytes()
    assert build() == shipped
