"""How like the points of very many images are to a region: in whole numbers, fast, and within a known error.

The question's vectors are rounded to seven bits, of which no processor's sums of products overflow. That moves the
likeness of an image by some thousandths, so it tells which images are worth comparing as they are.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.errors import ModelError
from medsearch_desktop.image.embed import first_line, session_of
from medsearch_desktop.image.regions import SCALE, RegionQuery

OFFSET = 128
"""What is added to the signed values of points, which are then bytes without a sign."""
# Two products of 255 x 63 fit into the 16 bits in which processors without VNNI add them up.
_LEVELS = 63
_NAME = "likeness1.onnx"
_REMEDY = "Install MedSearch Desktop again"

Scores = NDArray[np.float32]


class PointProducts:
    """The sum of `models/likeness.py`, loaded; computes on the thread that calls, for as many threads as call.

    Raises ModelError when onnxruntime or the shipped file is not what it should be.
    """

    def __init__(self) -> None:
        try:
            content = resources.files("medsearch_desktop.image").joinpath("data", _NAME).read_bytes()
        except OSError as error:
            raise ModelError("cannot be read", item=_NAME, remedy=_REMEDY) from error
        self._session, self._errors = session_of(content, item=_NAME, remedy=_REMEDY, threads=1)

    def asked_by(self, asked: RegionQuery) -> RoundedQuery:
        """Return a region's question as points are compared with it here."""
        return RoundedQuery(self._session, self._errors, asked)


class RoundedQuery:
    """A region's question in whole numbers.

    `error` is the standard deviation by which rounding moves a likeness.
    """

    def __init__(self, session: Any, errors: tuple[type[BaseException], ...], asked: RegionQuery) -> None:
        self._session, self._errors = session, errors
        rounded = np.rint(asked.vectors * _LEVELS)
        self._inputs = {"asked": np.ascontiguousarray(rounded.T.astype(np.int8)), "weights": asked.weights}
        self._offset = np.float32(OFFSET * float(rounded.sum(axis=1) @ asked.weights.astype(np.float64)))
        # A remainder has some length, and about any angle to a point.
        left = np.linalg.norm(asked.vectors - rounded / _LEVELS, axis=1) / np.sqrt(asked.vectors.shape[1])
        self.error = float(np.linalg.norm(left * asked.weights))

    def likeness(self, points: NDArray[np.uint8]) -> Scores:
        """Return about how like points (n, 64, 128), each value `OFFSET` above its own, are to the question: (n,).

        Raises ModelError when onnxruntime fails, as for want of memory.
        """
        try:
            (sums,) = self._session.run(None, {"points": points, **self._inputs})
        except self._errors as error:
            raise ModelError(f"points cannot be compared ({first_line(error)})", item=_NAME, remedy=_REMEDY) from error
        return np.asarray((sums - self._offset) / np.float32(SCALE * _LEVELS), dtype=np.float32)
