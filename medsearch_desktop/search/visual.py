"""Questions by image: the nearest vectors, and whether the nearest is near at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.store.vectors import VectorIndex


@dataclass(frozen=True, slots=True)
class Nearest:
    """Image numbers and cosines, best first; `nothing_close` as in `nearest`."""

    numbers: NDArray[np.int64]
    scores: NDArray[np.float32]
    nothing_close: bool


def nearest(
    index: VectorIndex,
    query: NDArray[np.float32],
    *,
    k: int,
    allowed: NDArray[np.int64] | None = None,
    without: int | None = None,
) -> Nearest:
    """Return the `k` images of `index` nearest to `query`, a normalised vector of shape (1024,).

    `allowed` restricts the answer to those image numbers and makes it exact; `without` leaves one
    image out, the query itself. `nothing_close` is set when the best answer is further away
    than the nearest neighbour of 98 in 100 images of this library: the query is not of their kind.
    A fixed cosine cannot tell that, for what is near depends on what the library holds.
    """
    numbers, scores = index.search(query, k + (without is not None), allowed=allowed)
    if without is not None:
        others = numbers != without
        numbers, scores = numbers[others], scores[others]
    numbers, scores = numbers[:k], scores[:k]
    nothing_close = not len(scores) or float(scores[0]) < index.isolation()
    return Nearest(numbers, scores, nothing_close)
