"""The drawing board: lengths in centimetres, fields of tissue thickness, and who is being drawn.

A frontal board shows the patient from the front, so the patient's left is at positive x, on the
right of the picture. y grows downwards, 0 lying at the chin. What is drawn are thicknesses in
centimetres along the beam; `detector.py` turns their sum into pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Field = NDArray[np.float32]
Points = Sequence[tuple[float, float]] | NDArray[np.float64]

GRID = 600
"""Pixels along one side of the board."""
SPAN = 48.0
"""Centimetres along one side of the board: more than the film, which is cut out of it."""
TOP = -3.0
PITCH = SPAN / GRID

X: Field = ((np.arange(GRID, dtype=np.float32) + 0.5) * np.float32(PITCH) - np.float32(SPAN / 2))[None, :]
Y: Field = ((np.arange(GRID, dtype=np.float32) + 0.5) * np.float32(PITCH) + np.float32(TOP))[:, None]

MU_SOFT = 0.2
"""Attenuation of soft tissue per centimetre, at the energies of a chest film."""
MU_BONE = 0.27
"""What bone attenuates per centimetre beyond the soft tissue whose place it takes."""
LUNG_DENSITY = 0.27


@dataclass(frozen=True, slots=True)
class Person:
    """The body of one patient, the same in all of that patient's films.

    `width`, `height` and `heart` are factors around 1, `fat` is centimetres of tissue under the skin.
    """

    seed: int
    sex: str
    age: int
    width: float
    height: float
    fat: float
    heart: float
    domes: float

    @staticmethod
    def of(seed: int, *, sex: str, age: int) -> Person:
        """Return a body that varies with `seed` as people do."""
        rng = np.random.default_rng([seed, 11])
        slender = rng.normal(0.0, 1.0)
        female = sex == "F"
        return Person(
            seed=seed,
            sex=sex,
            age=age,
            width=float(np.clip((0.97 if female else 0.99) + 0.010 * slender + rng.normal(0, 0.005), 0.93, 1.03)),
            height=float(np.clip((0.965 if female else 0.98) - 0.005 * slender + rng.normal(0, 0.006), 0.93, 1.02)),
            fat=float(np.clip(1.4 + 0.35 * slender + rng.normal(0, 0.15), 0.5, 2.6)),
            heart=float(np.clip(rng.normal(0.97, 0.025), 0.90, 1.03)),
            domes=float(rng.normal(0.0, 0.35)),
        )


@dataclass(frozen=True, slots=True)
class Exposure:
    """How one film was taken: its view ("PA", "AP" or "LL") and how the patient stood.

    `turn` is the rotation of the chest in centimetres by which midline structures part,
    `breath` the centimetres by which the diaphragm stands higher than in full inspiration.
    """

    view: str
    seed: int
    breath: float
    turn: float


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a finding lies on the board: half-open ranges in centimetres."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Projection:
    """A drawn chest: attenuation (GRID, GRID), and one mark for each finding, in their order."""

    attenuation: Field
    marks: tuple[Mark, ...]


def curve(at: Field, knots: Sequence[tuple[float, float]]) -> Field:
    """Return the smooth curve through `knots` (position, value) at the positions `at`, flat beyond its ends."""
    xs = np.array([knot[0] for knot in knots])
    ys = np.array([knot[1] for knot in knots])
    flat = np.clip(at.ravel(), xs[0], xs[-1])
    slopes = np.gradient(ys, xs)
    place = np.clip(np.searchsorted(xs, flat, side="right") - 1, 0, len(xs) - 2)
    width = xs[place + 1] - xs[place]
    t = (flat - xs[place]) / width
    value = (
        (1 + 2 * t) * (1 - t) ** 2 * ys[place]
        + t * (1 - t) ** 2 * width * slopes[place]
        + t * t * (3 - 2 * t) * ys[place + 1]
        + t * t * (t - 1) * width * slopes[place + 1]
    )
    smooth: Field = value.reshape(at.shape).astype(np.float32)
    return smooth


def step(distance: Field, soft: float) -> Field:
    """Return 0 well below a distance of zero and 1 well above, over a width of `soft` centimetres."""
    s = np.clip(distance / np.float32(soft) + np.float32(0.5), 0, 1)
    return s * s * (3 - 2 * s)


def dome(cx: float, cy: float, rx: float, ry: float, *, turned: float = 0.0) -> Field:
    """Return the thickness, 1 in the middle, of an ellipsoid that is turned clockwise by `turned` degrees."""
    cos, sin = np.cos(np.radians(turned)), np.sin(np.radians(turned))
    # Only where it can be: most are small, and there are many.
    reach = max(rx, ry)
    columns = slice(max(0, int((cx - reach + SPAN / 2) / PITCH)), max(0, int((cx + reach + SPAN / 2) / PITCH) + 2))
    rows = slice(max(0, int((cy - reach - TOP) / PITCH)), max(0, int((cy + reach - TOP) / PITCH) + 2))
    x, y = X[:, columns] - np.float32(cx), Y[rows] - np.float32(cy)
    u = (x * np.float32(cos) + y * np.float32(sin)) / np.float32(rx)
    v = (y * np.float32(cos) - x * np.float32(sin)) / np.float32(ry)
    field = np.zeros((GRID, GRID), np.float32)
    field[rows, columns] = np.sqrt(np.clip(1 - u * u - v * v, 0, None))
    return field


def cloud(cx: float, cy: float, rx: float, ry: float) -> Field:
    """Return a soft spot, 1 in the middle, of these radii."""
    horizontal = np.exp(-(((X - np.float32(cx)) / np.float32(rx)) ** 2))
    spot: Field = horizontal * np.exp(-(((Y - np.float32(cy)) / np.float32(ry)) ** 2))
    return spot


def resized(field: Field, size: int, method: Image.Resampling) -> Field:
    """Return `field` scaled to `size` by `size` pixels."""
    return np.asarray(Image.fromarray(field).resize((size, size), method), dtype=np.float32)


def soften(field: Field, centimetres: float) -> Field:
    """Return `field` blurred over about `centimetres`, by way of a small copy."""
    # Pillow's filters refuse float images; a small copy and back is as smooth and quicker.
    small = max(4, round(SPAN / centimetres))
    return resized(resized(field, small, Image.Resampling.BOX), field.shape[0], Image.Resampling.BICUBIC)


def mottle(rng: np.random.Generator, cells: Sequence[int]) -> Field:
    """Return noise of unit deviation, its grains `SPAN / cell` centimetres wide for each of `cells`."""
    total = np.zeros((GRID, GRID), np.float32)
    for count in cells:
        total += resized(rng.standard_normal((count, count), np.float32), GRID, Image.Resampling.BICUBIC)
    return total / np.float32(0.75 * np.sqrt(len(cells)))


def spline(points: Points, *, steps: int = 12) -> NDArray[np.float64]:
    """Return a smooth line (n, 2) through `points`, for `Sheet.line` and `Sheet.area`."""
    knots = np.asarray(points, dtype=np.float64)
    padded = np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    parts = []
    for before, start, end, after in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        a = 2 * start
        b = end - before
        c = 2 * before - 5 * start + 4 * end - after
        d = 3 * (start - end) + after - before
        parts.append(0.5 * (a + b * t + c * t * t + d * t**3))
    return np.vstack([*parts, knots[-1:]])


class Sheet:
    """A transparency to draw on with pen and brush; later strokes cover earlier ones."""

    SCALE = 2

    def __init__(self) -> None:
        side = GRID * self.SCALE
        self._image = Image.new("L", (side, side))
        self._pen = ImageDraw.Draw(self._image)

    def _pixels(self, points: Points) -> list[float]:
        xy = (np.asarray(points, dtype=np.float64) - (-SPAN / 2, TOP)) * (self.SCALE / PITCH)
        flat: list[float] = xy.ravel().tolist()
        return flat

    def line(self, points: Points, width: float, value: float) -> None:
        """Draw a line of `width` centimetres and `value` from 0 to 1."""
        pixels = max(1, round(width * self.SCALE / PITCH))
        self._pen.line(self._pixels(points), fill=round(255 * value), width=pixels, joint="curve")

    def strokes(self, lines: NDArray[np.float64], widths: NDArray[np.float64], values: NDArray[np.float64]) -> None:
        """Draw straight lines (n, 2, 2) of `widths` and `values` (n), in this order."""
        ends = ((lines - (-SPAN / 2, TOP)) * (self.SCALE / PITCH)).reshape(-1, 4).tolist()
        pixels = np.maximum(1, np.rint(widths * self.SCALE / PITCH)).astype(int).tolist()
        inks = np.rint(255 * values).astype(int).tolist()
        for end, width, ink in zip(ends, pixels, inks, strict=True):
            self._pen.line(end, fill=ink, width=width)

    def area(self, points: Points, value: float) -> None:
        """Fill a polygon with `value` from 0 to 1."""
        self._pen.polygon(self._pixels(points), fill=round(255 * value))

    def disc(self, cx: float, cy: float, radius: float, value: float) -> None:
        """Fill a disc with `value` from 0 to 1."""
        box = self._pixels([(cx - radius, cy - radius), (cx + radius, cy + radius)])
        self._pen.ellipse(box, fill=round(255 * value))

    def tube(self, middle: NDArray[np.float64], width: float | NDArray[np.float64], *, marrow: float = 0.55) -> None:
        """Draw a long bone along the line `middle` (n, 2): a bright rim around a duller core."""
        along = np.gradient(middle, axis=0)
        normal = np.column_stack([-along[:, 1], along[:, 0]]) / np.maximum(np.hypot(*along.T), 1e-6)[:, None]
        half = (normal.T * (np.asarray(width) / 2)).T
        self.area(np.vstack([middle - half, (middle + half)[::-1]]), 1.0)
        self.area(np.vstack([middle - 0.72 * half, (middle + 0.72 * half)[::-1]]), marrow)

    def field(self, *, blur: float = 0.0) -> Field:
        """Return what was drawn as (GRID, GRID) from 0 to 1, blurred over `blur` centimetres."""
        reduced = np.asarray(self._image.reduce(self.SCALE), dtype=np.float32) / np.float32(255)
        return soften(reduced, blur) if blur else reduced
