"""What a region of an image is compared by: the most striking points of an image, and those inside a rectangle.

The network of `models/regions.py` turns a picture, squashed to 256 x 256, into 32 x 32 places of 128 values each,
whitened over chest films: the length of a place's vector says how unusual it is, its direction in which way. Of
every image the 64 most unusual places are kept, as unit vectors of whole numbers: 8,320 bytes. A rectangle asks by the
16 places in it that are most unusual and nearest to its middle, so that what is drawn around the mark, generously or
not, hardly matters.

Pictures are the thumbnails that a library has anyway: regions can be indexed without the source files, and were
measured to be found as well by them as by the full image. The network always runs on onnxruntime, whatever engine
the embedding model uses, so its points are comparable within one kind of processor to the last bit.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Raster

from medsearch_desktop.errors import DecodeError, ModelError, ModelMissingError
from medsearch_desktop.image.embed import network_failed, open_session
from medsearch_desktop.image.models import ModelSpec, read_entry, shipped_dir
from medsearch_desktop.image.preprocess import to_tensor

REGION_ID = "regions1"
"""Names the space of the points: those of two networks never mix."""
GRID = 32
VALUES = 128
POINTS = 64
ASKED = 16
SCALE = 127
# How far, in widths of the rectangle, the weight of its places has fallen to 0.6 of that in the middle.
_SPREAD = 0.35
_REMEDY = "Install MedSearch Desktop again"

Rectangle = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class RegionPoints:
    """The most unusual places of one image, most unusual first.

    `places` (64,) uint16 counts the grid row by row, `vectors` (64, 128) int8 are unit vectors times `SCALE`.
    """

    places: NDArray[np.uint16]
    vectors: NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class RegionQuery:
    """What a rectangle asks by: up to 16 unit vectors (m, 128) float32 and their weights (m,), which sum to one.

    `offsets` (m, 2) says where each stands, x and y from the rectangle's middle, and `size` (2,) is the rectangle's
    width and height, all as shares of the image's. `share` is that of the image's area which it covers.
    """

    vectors: NDArray[np.float32]
    weights: NDArray[np.float32]
    offsets: NDArray[np.float32]
    size: tuple[float, float]
    share: float


class RegionEncoder:
    """The network of regions, loaded; may be shared between threads.

    Raises ModelMissingError, ModelAlteredError or ModelError when the shipped file is not what it should be.
    """

    def __init__(self, *, threads: int) -> None:
        self._spec = region_spec()
        self._session, self._errors = open_session(self._spec, threads=threads)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self._input, self._output = inputs[0].name, outputs[0].name

    def maps(self, pictures: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the places of pictures (H, W) or (H, W, 3), whatever their sizes: (n, 1024, 128), row by row.

        Raises ModelError when the network fails.
        """
        batch = np.stack([to_tensor(picture, self._spec.preprocessing) for picture in pictures])
        try:
            (values,) = self._session.run([self._output], {self._input: batch})
        except self._errors as error:
            raise network_failed(self._spec, error) from error
        if values.shape != (len(pictures), VALUES, GRID, GRID) or not np.isfinite(values).all():
            raise ModelError("the network of regions made no sound values", item=REGION_ID, remedy=_REMEDY)
        flat = values.reshape(len(pictures), VALUES, GRID * GRID).transpose(0, 2, 1)
        return cast(NDArray[np.float32], np.ascontiguousarray(flat))


def region_spec() -> ModelSpec:
    """Return what describes the shipped network of regions. Raises ModelMissingError, ModelError."""
    path = shipped_dir() / f"{REGION_ID}.json"
    try:
        return read_entry(json.loads(path.read_text("utf-8")), path.parent, shipped=True)
    except FileNotFoundError as error:
        raise ModelMissingError("the network of regions is missing", item=str(path), remedy=_REMEDY) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError("the description of the network of regions is unsound", item=str(path), remedy=_REMEDY) from (
            error
        )


def read_picture(data: bytes, *, name: str) -> NDArray[np.uint8]:
    """Return the pixels of a thumbnail, (H, W, 3). Raises DecodeError when it is damaged."""
    try:
        with Raster.open(io.BytesIO(data), formats=("WEBP",)) as raster:
            return np.asarray(raster.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Raster.DecompressionBombError) as error:
        raise DecodeError("its thumbnail is damaged", item=name, remedy="Remove it: it is drawn anew") from error


def striking_points(places: NDArray[np.float32]) -> RegionPoints:
    """Return the 64 most unusual of an image's places (1024, 128); of equals the one further up and left."""
    lengths = np.linalg.norm(places, axis=1)
    kept = np.argsort(-lengths, kind="stable")[:POINTS]
    return RegionPoints(kept.astype(np.uint16), _whole_numbers(_units(places[kept])))


def has_marks(places: NDArray[np.float32], roi: Rectangle, *, width: int, height: int) -> bool:
    """Return whether any of the 64 most unusual of an image's places (1024, 128) lies at least in part in a rectangle.

    The rectangle is (x, y, width, height) in an image of `width` x `height` pixels.
    """
    x, y, across, down = roi
    marks = striking_points(places).places.astype(np.int64)
    columns, rows = marks % GRID, marks // GRID
    beside = (columns + 1 <= x / width * GRID) | (columns >= (x + across) / width * GRID)
    above = (rows + 1 <= y / height * GRID) | (rows >= (y + down) / height * GRID)
    return bool((~beside & ~above).any())


def ask_by(places: NDArray[np.float32], roi: Rectangle, *, width: int, height: int) -> RegionQuery:
    """Return the question of a rectangle (x, y, width, height) inside an image of `width` x `height` pixels.

    `places` (1024, 128) are those of the whole image. A rectangle smaller than a place asks by those it touches.
    """
    x, y, across, down = roi
    columns = _inside(x / width, across / width)
    rows = _inside(y / height, down / height)
    middles = (np.arange(GRID) + 0.5) / GRID
    centre = ((x + across / 2) / width, (y + down / 2) / height)
    nearness_x = np.exp(-(((middles - centre[0]) / (_SPREAD * max(across / width, 1 / GRID))) ** 2) / 2)
    nearness_y = np.exp(-(((middles - centre[1]) / (_SPREAD * max(down / height, 1 / GRID))) ** 2) / 2)
    weights = np.outer(rows * nearness_y, columns * nearness_x).ravel() * np.linalg.norm(places, axis=1)
    chosen = np.argsort(-weights, kind="stable")[:ASKED]
    chosen = chosen[weights[chosen] > 0]
    if not len(chosen):
        # A flat picture has no unusual place; any inside does.
        chosen = np.array([round(centre[1] * GRID - 0.5) * GRID + round(centre[0] * GRID - 0.5)])
    kept = weights[chosen] if weights[chosen].sum() > 0 else np.ones(len(chosen))
    offsets = np.stack([middles[chosen % GRID] - centre[0], middles[chosen // GRID] - centre[1]], axis=1)
    return RegionQuery(
        vectors=_units(places[chosen]),
        weights=(kept / kept.sum()).astype(np.float32),
        offsets=offsets.astype(np.float32),
        size=(across / width, down / height),
        share=across * down / (width * height),
    )


def _inside(start: float, length: float) -> NDArray[np.float64]:
    """Return how much of each place along one axis lies between `start` and `start + length`, the most being one."""
    edges = np.arange(GRID + 1) / GRID
    covered = np.clip(np.minimum(edges[1:], start + length) - np.maximum(edges[:-1], start), 0, None)
    return np.asarray(covered / max(covered.max(), 1e-12))


def _units(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def _whole_numbers(units: NDArray[np.float32]) -> NDArray[np.int8]:
    return np.asarray(np.rint(units * SCALE), dtype=np.int8)
