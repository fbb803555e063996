"""Questions by region: how like a rectangle some place of each image is, and where that is.

An image is as like as the best of its points to each point of the question, on the average; the points lie where
they like. The larger the rectangle, the more the whole image counts besides: what a small mark is, its own points tell
best, but a large heart has no edge or grain that others lack. Both likenesses are made comparable by the
library's own mean and deviation, so a score says by how many deviations an image stands out from the library's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# The share of the whole image's likeness is this times the square root of the share of area: a nodule of 2 cm on a
# film of 43 cm has 0.1, a heart 0.6, and from 44 % of the area on the whole image alone decides.
WHOLE_WEIGHT = 1.5
# Votes for one place agree when they lie this near, as a share of the image: one and a half places.
_AGREEMENT = 1.5 / 32
# Rough likenesses are made exact for the best that many images, and for all that may belong to the answer as far as six
# deviations of their error reach, up to a number that still takes less than a second.
_LEAST_EXACT, _MOST_EXACT = 1000, 20_000
_REACH = 6.0
# A spread of likenesses below this is that of rounding.
_ALIKE = 1e-6

Scores = NDArray[np.float32]


class Asked(Protocol):
    """A region's question, as `image.regions.RegionQuery` has it."""

    @property
    def vectors(self) -> NDArray[np.float32]: ...
    @property
    def weights(self) -> NDArray[np.float32]: ...
    @property
    def offsets(self) -> NDArray[np.float32]: ...
    @property
    def size(self) -> tuple[float, float]: ...
    @property
    def share(self) -> float: ...


def likeness(asked: Asked, vectors: NDArray[np.int8], *, scale: float) -> Scores:
    """Return how like each image's points (n, p, d) are to the question, (n,): a weighted mean of cosines."""
    return np.asarray(_best(asked, vectors, scale=scale)[1] @ asked.weights, dtype=np.float32)


def boxes(
    asked: Asked, places: NDArray[np.uint16], vectors: NDArray[np.int8], *, scale: float, grid: int
) -> NDArray[np.float32]:
    """Return where in each image the like region is: (n, 4), x, y, width, height as shares of the image's sides.

    Each point of the question votes for a middle by the image's point most like it. Where most agree, weighted by
    likeness, is the middle of a box of the question's size, moved inside the image where it would reach out.
    """
    if not len(vectors):
        return np.empty((0, 4), np.float32)
    found, cosines = _best(asked, vectors, scale=scale)
    place = np.take_along_axis(places.astype(np.int64), found, axis=1)
    middles = np.stack([(place % grid + 0.5) / grid, (place // grid + 0.5) / grid], axis=2) - asked.offsets
    apart = ((middles[:, :, None] - middles[:, None]) ** 2).sum(axis=3)
    support = (np.exp(-apart / (2 * _AGREEMENT**2)) * (asked.weights * np.maximum(cosines, 0))[:, None]).sum(axis=2)
    middle = middles[np.arange(len(middles)), support.argmax(axis=1)]
    size = np.minimum(np.asarray(asked.size), 1.0)
    corner = np.clip(middle - size / 2, 0, 1 - size)
    return np.asarray(np.concatenate([corner, np.broadcast_to(size, corner.shape)], axis=1), dtype=np.float32)


def standing_out(points: Scores, whole: Scores, *, share: float) -> Scores:
    """Return by how many deviations images stand out, (n,): likeness of points, and of whole images by `share`.

    Not finite values of `whole` are of images whose whole is not known: they count as average.
    """
    weight = whole_weight(share)
    return np.asarray((1 - weight) * _deviations(points) + weight * _deviations(whole), dtype=np.float32)


def best(
    rough: Scores,
    whole: Scores,
    *,
    numbers: NDArray[np.int64],
    wanted: NDArray[np.bool_],
    k: int,
    share: float,
    error: float,
    exactly: Callable[[NDArray[np.int64]], Scores],
) -> tuple[NDArray[np.int64], Scores]:
    """Return the places, in these arrays, of the `k` images that stand out most, best first, and by how much.

    `rough` (n,) are likenesses of points with the standard deviation `error` from what `exactly` returns for some
    places; `whole` and `share` as for `standing_out`, by which images compare; equals go by `numbers`. Images that
    are not `wanted` count for the average alone.
    """
    scores = standing_out(rough, whole, share=share)
    places = np.flatnonzero(wanted)
    spread, weight = float(rough.astype(np.float64).std()) if len(rough) else 0.0, 1 - whole_weight(share)
    if k <= 0 or not len(places):
        return places[:0], scores[:0]
    if spread > _ALIKE and weight > 0:
        order = places[np.argsort(-scores[places], kind="stable")]
        floor = scores[order[min(k, len(order)) - 1]] - 2 * _REACH * error * weight / spread
        near = int((scores[order] >= floor).sum())
        order = order[: max(_LEAST_EXACT, 2 * k, min(near, _MOST_EXACT))]
        scores[order] += np.float32(weight / spread) * (exactly(order) - rough[order])
        # Those that were not looked at more closely are further down than `k` that were.
        places = order
    first = np.lexsort((numbers[places], -scores[places]))[:k]
    return places[first], scores[places[first]]


def whole_weight(share: float) -> float:
    """Return the share that the likeness of whole images has in a score, by the share of area of a region."""
    return min(1.0, WHOLE_WEIGHT * float(np.sqrt(share)))


def in_pixels(box: NDArray[np.float32], width: int, height: int) -> tuple[int, int, int, int]:
    """Return a box of shares as (x, y, width, height) in pixels, at least one each and inside the image."""
    x, y, across, down = (float(value) for value in box)
    wide, high = max(1, min(width, round(across * width))), max(1, min(height, round(down * height)))
    return max(0, min(width - wide, round(x * width))), max(0, min(height - high, round(y * height))), wide, high


def _best(asked: Asked, vectors: NDArray[np.int8], *, scale: float) -> tuple[NDArray[np.int64], Scores]:
    """Return for each image and point of the question which of its points is most like it, and the cosine: (n, m)."""
    count, points, values = vectors.shape
    products = vectors.reshape(-1, values).astype(np.float32) @ (asked.vectors.T / np.float32(scale))
    cosines = products.reshape(count, points, len(asked.vectors))
    return cosines.argmax(axis=1), cosines.max(axis=1)


def _deviations(scores: Scores) -> NDArray[np.float64]:
    known = np.isfinite(scores)
    result = np.zeros(len(scores), np.float64)
    if known.any():
        wide = scores[known].astype(np.float64)
        spread = wide.std()
        # Of images that are all alike none stands out.
        result[known] = (wide - wide.mean()) / spread if spread > _ALIKE else 0.0
    return result
