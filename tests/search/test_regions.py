"""Scores and boxes of regions against plain loops that compute the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from medsearch_desktop.search.regions import WHOLE_WEIGHT, best, boxes, in_pixels, likeness, standing_out

GRID, SCALE = 32, 127


@dataclass
class Asked:
    vectors: NDArray[np.float32]
    weights: NDArray[np.float32]
    offsets: NDArray[np.float32]
    size: tuple[float, float] = (0.1, 0.2)
    share: float = 0.02


def units(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    values = rng.normal(size=shape).astype(np.float32)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


@pytest.fixture
def made() -> tuple[Asked, NDArray[np.uint16], NDArray[np.int8]]:
    rng = np.random.default_rng(5)
    weights = rng.uniform(0.1, 1, 4).astype(np.float32)
    asked = Asked(units(rng, 4, 16), weights / weights.sum(), rng.uniform(-0.1, 0.1, (4, 2)).astype(np.float32))
    places = np.stack([rng.permutation(GRID * GRID)[:9] for _ in range(7)]).astype(np.uint16)
    vectors = np.rint(units(rng, 7, 9, 16) * SCALE).astype(np.int8)
    return asked, places, vectors


def test_likeness_is_the_weighted_mean_of_the_best_cosine_of_each_point(
    made: tuple[Asked, NDArray[np.uint16], NDArray[np.int8]],
) -> None:
    asked, _, vectors = made
    naive = []
    for image in vectors:
        total = 0.0
        for weight, point in zip(asked.weights, asked.vectors, strict=True):
            total += weight * max(float(np.dot(own.astype(float) / SCALE, point)) for own in image)
        naive.append(total)
    assert likeness(asked, vectors, scale=SCALE) == pytest.approx(naive, abs=1e-5)


def test_a_box_stands_where_most_points_agree(made: tuple[Asked, NDArray[np.uint16], NDArray[np.int8]]) -> None:
    asked, places, vectors = made
    # The first image holds the question's points in their order, around the place (20, 11) of the grid.
    middle = np.array([20.5, 11.5]) / GRID
    cells = np.floor((middle + asked.offsets) * GRID).astype(int)
    asked.offsets = ((cells + 0.5) / GRID - middle).astype(np.float32)
    places[0, :4] = cells[:, 1] * GRID + cells[:, 0]
    vectors[0, :4] = np.rint(asked.vectors * SCALE)
    box = boxes(asked, places, vectors, scale=SCALE, grid=GRID)[0]
    assert box == pytest.approx([middle[0] - 0.05, middle[1] - 0.1, 0.1, 0.2], abs=1e-5)


def test_boxes_never_reach_out_of_the_image(made: tuple[Asked, NDArray[np.uint16], NDArray[np.int8]]) -> None:
    asked, places, vectors = made
    for size in ((0.1, 0.2), (0.9, 0.05), (1.0, 1.0), (1 / 5000, 1 / 5000)):
        asked.size = size
        found = boxes(asked, places, vectors, scale=SCALE, grid=GRID)
        assert (found[:, :2] >= 0).all()
        assert (found[:, :2] + found[:, 2:] <= 1 + 1e-6).all()
        for box in found:
            for width, height in ((1, 1), (7, 3), (2048, 2500)):
                x, y, across, down = in_pixels(box, width, height)
                assert min(x, y) >= 0 < min(across, down)
                assert (x + across <= width, y + down <= height) == (True, True)


def test_without_images_there_are_no_boxes(made: tuple[Asked, NDArray[np.uint16], NDArray[np.int8]]) -> None:
    asked, places, vectors = made
    assert boxes(asked, places[:0], vectors[:0], scale=SCALE, grid=GRID).shape == (0, 4)
    assert likeness(asked, vectors[:0], scale=SCALE).shape == (0,)


def test_a_small_region_goes_by_its_points_and_a_large_one_by_the_whole_image() -> None:
    points, whole = np.array([3, 2, 1], np.float32), np.array([1, 2, 3], np.float32)
    deviations = (points - 2) / np.std(points)
    assert standing_out(points, whole, share=0.0) == pytest.approx(deviations)
    assert standing_out(points, whole, share=0.5) == pytest.approx(-deviations)
    assert standing_out(points, whole, share=0.01) == pytest.approx(deviations * (1 - 2 * WHOLE_WEIGHT * 0.1))


def test_images_that_are_all_alike_or_of_unknown_whole_do_not_stand_out() -> None:
    alike = np.full(4, 0.5, np.float32)
    assert standing_out(alike, alike, share=0.1).tolist() == [0, 0, 0, 0]
    whole = np.array([np.nan, 0.2, 0.4, np.nan], np.float32)
    assert standing_out(alike, whole, share=1.0) == pytest.approx([0, -1, 1, 0])
    assert standing_out(alike, np.full(4, np.nan, np.float32), share=1.0).tolist() == [0, 0, 0, 0]


def test_what_is_rough_is_made_exact_before_the_best_are_chosen() -> None:
    rng = np.random.default_rng(3)
    exact = rng.normal(0.4, 0.05, 5000).astype(np.float32)
    error = 0.004
    rough = exact + rng.normal(0, error, 5000).astype(np.float32)
    whole, numbers = rng.normal(0.6, 0.1, 5000).astype(np.float32), rng.permutation(5000)
    for share, wanted in ((0.0, np.ones(5000, np.bool_)), (0.04, numbers % 3 == 0), (1.0, numbers % 3 == 0)):
        looked_at: list[int] = []

        def exactly(chosen: NDArray[np.int64], looked_at: list[int] = looked_at) -> NDArray[np.float32]:
            looked_at.extend(chosen.tolist())
            return exact[chosen]

        places, scores = best(
            rough, whole, numbers=numbers, wanted=wanted, k=10, share=share, error=error, exactly=exactly
        )
        weight = min(1.0, WHOLE_WEIGHT * share**0.5)
        true = (1 - weight) * (exact - rough.mean()) / rough.std() + weight * (whole - whole.mean()) / whole.std()
        true[~wanted] = -9
        assert places.tolist() == np.argsort(-true)[:10].tolist()
        assert scores == pytest.approx(true[places], abs=1e-4)
        assert len(looked_at) <= 2000
        assert len(set(looked_at)) == len(looked_at)
    # Rough likenesses alone would not have done.
    assert np.argsort(-rough)[:10].tolist() != np.argsort(-exact)[:10].tolist()


def test_equals_go_by_number_and_without_images_nothing_is_found() -> None:
    alike, numbers = np.full(4, 0.5, np.float32), np.array([9, 2, 7, 4])
    everything = {"numbers": numbers, "share": 0.1, "error": 0.0, "exactly": lambda chosen: alike[chosen]}
    places, scores = best(alike, alike, wanted=np.ones(4, np.bool_), k=3, **everything)
    assert (numbers[places].tolist(), scores.tolist()) == ([2, 4, 7], [0, 0, 0])
    for wanted, k in ((np.zeros(4, np.bool_), 3), (np.ones(4, np.bool_), 0)):
        places, scores = best(alike, alike, wanted=wanted, k=k, **everything)
        assert len(places) == len(scores) == 0
