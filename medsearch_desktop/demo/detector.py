"""From attenuation to the stored pixels of a film: scatter, exposure, noise, the curve of the plate, markings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medsearch_desktop.demo.anatomy import PITCH, SPAN, TOP, Exposure, Field, Mark, Person, soften

FILM = 43.0
"""Centimetres along one side of the film."""
FULL = 4095
"""The largest value of twelve stored bits."""

_GLYPHS = {
    "S": (0x0F, 0x10, 0x10, 0x0E, 0x01, 0x01, 0x1E),
    "Y": (0x11, 0x11, 0x0A, 0x04, 0x04, 0x04, 0x04),
    "N": (0x11, 0x19, 0x15, 0x13, 0x11, 0x11, 0x11),
    "T": (0x1F, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04),
    "H": (0x11, 0x11, 0x11, 0x1F, 0x11, 0x11, 0x11),
    "E": (0x1F, 0x10, 0x10, 0x1E, 0x10, 0x10, 0x1F),
    "I": (0x0E, 0x04, 0x04, 0x04, 0x04, 0x04, 0x0E),
    "C": (0x0F, 0x10, 0x10, 0x10, 0x10, 0x10, 0x0F),
    "L": (0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x1F),
    "A": (0x0E, 0x11, 0x11, 0x1F, 0x11, 0x11, 0x11),
    "P": (0x1E, 0x11, 0x11, 0x1E, 0x10, 0x10, 0x10),
}
"""Five by seven letters, a row a byte. A font of the system would draw other pixels on the next machine."""


@dataclass(frozen=True, slots=True)
class Film:
    """Stored pixels (size, size) of 12 bits with dense bone bright, and a box (x, y, width, height) for each mark."""

    pixels: NDArray[np.uint16]
    boxes: tuple[tuple[int, int, int, int], ...]


def expose(attenuation: Field, marks: Sequence[Mark], person: Person, exposure: Exposure, *, size: int) -> Film:
    """Return the film of `size` by `size` pixels that `attenuation` leaves."""
    rng = np.random.default_rng([exposure.seed, 51])
    scatter = {"PA": 0.030, "AP": 0.050, "LL": 0.022}[exposure.view]
    beam = np.exp(-attenuation)
    # Scatter fills the dense parts of the body with light that carries no picture.
    signal = -np.log(beam + np.float32(scatter) * soften(np.minimum(beam, np.float32(0.35)), 7.0) + np.float32(0.0035))
    # Plate readers even out the large shades, which is why the heart is not a white hole.
    even = signal - np.float32(0.30) * soften(signal, 5.0)
    even += np.float32(0.45) * (signal - soften(signal, 0.5))
    place = _placement(rng, person, exposure)
    film = _cut(even, place, size)
    # Its own source, so that a film of another size differs in nothing but its size.
    noise = np.random.default_rng([exposure.seed, 52]).standard_normal((size, size), dtype=np.float32)
    noise += np.roll(noise, 1, axis=0)
    noise += np.roll(noise, 1, axis=1)
    dose = rng.uniform(0.006, 0.008) * (1.4 if exposure.view == "AP" else 1.0)
    film += noise * np.float32(dose / 2) * np.exp(np.float32(0.4) * (film - np.float32(1.4)))
    low, high = (
        np.float32(rng.normal(1.0 if exposure.view == "LL" else 0.75, 0.02)),
        np.float32({"PA": 3.55, "AP": 3.5, "LL": 3.6}[exposure.view]),
    )
    high += np.float32(rng.normal(0, 0.04))
    tone = np.clip((film - low) / (high - low), 0, 1.15)
    tone = tone ** np.float32(rng.normal(1.0, 0.02))
    tone = np.tanh(tone * np.float32(1.1)) / np.float32(np.tanh(1.1 * 1.1))
    tone = np.clip(tone, 0, 1)
    _letter(tone, exposure)
    pixels = np.round(tone * np.float32(FULL * 0.93) + np.float32(FULL * 0.02)).astype(np.uint16)
    return Film(pixels=pixels, boxes=tuple(_box(mark, place, size) for mark in marks))


@dataclass(frozen=True, slots=True)
class _Placement:
    """Where film centimetres lie on the board: board = centre + turn(film - middle) * scale."""

    scale_x: float
    scale_y: float
    centre_x: float
    centre_y: float
    angle: float


def _placement(rng: np.random.Generator, person: Person, exposure: Exposure) -> _Placement:
    zoom = rng.normal(1.09, 0.008) * {"PA": 1.0, "AP": 1.03, "LL": 1.07}[exposure.view]
    return _Placement(
        scale_x=1 / (person.width * zoom),
        scale_y=1 / (person.height * zoom),
        centre_x=rng.normal(0, 0.2),
        centre_y=20.8 + rng.normal(0, 0.25),
        angle=float(np.radians(rng.normal(0, 0.4 if exposure.view != "AP" else 0.7))),
    )


def _cut(field: Field, place: _Placement, size: int) -> Field:
    step = FILM / size
    cos, sin = np.cos(place.angle), np.sin(place.angle)
    a, b = cos * place.scale_x * step / PITCH, -sin * place.scale_x * step / PITCH
    d, e = sin * place.scale_y * step / PITCH, cos * place.scale_y * step / PITCH
    c = (place.centre_x + SPAN / 2) / PITCH - (a + b) * size / 2
    f = (place.centre_y - TOP) / PITCH - (d + e) * size / 2
    image = Image.fromarray(field)
    if step > 2 * PITCH:
        # The affine transform samples points; averaging first keeps ribs and vessels of a small film.
        factor = int(step // PITCH)
        small = field.shape[0] // factor
        image = image.resize((small, small), Image.Resampling.BOX)
        ratio = small / field.shape[0]
        a, b, c, d, e, f = (value * ratio for value in (a, b, c, d, e, f))
    cut = image.transform((size, size), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BICUBIC)
    return np.array(cut, dtype=np.float32)


def _box(mark: Mark, place: _Placement, size: int) -> tuple[int, int, int, int]:
    cos, sin = np.cos(place.angle), np.sin(place.angle)
    xs, ys = [], []
    for x, y in ((mark.left, mark.top), (mark.right, mark.top), (mark.left, mark.bottom), (mark.right, mark.bottom)):
        u, v = (x - place.centre_x) / place.scale_x, (y - place.centre_y) / place.scale_y
        xs.append((cos * u + sin * v + FILM / 2) * size / FILM)
        ys.append((-sin * u + cos * v + FILM / 2) * size / FILM)
    left, top = max(0, int(min(xs))), max(0, int(min(ys)))
    right, bottom = min(size, int(np.ceil(max(xs)))), min(size, int(np.ceil(max(ys))))
    return left, top, max(1, right - left), max(1, bottom - top)


def _letter(tone: Field, exposure: Exposure) -> None:
    size = tone.shape[0]
    dot = max(1, size // 340)
    margin = max(2, round(size * 0.05))
    word = _written("SYNTHETIC", dot)
    _stamp(tone, word, size - margin - word.shape[0], margin, 0.92)
    side = _written("L" if exposure.view != "AP" else "AP L", max(1, round(dot * 1.5)))
    _stamp(tone, side, margin, size - margin - side.shape[1], 1.0)


def _stamp(tone: Field, word: NDArray[np.bool_], top: int, left: int, value: float) -> None:
    height, width = min(word.shape[0], tone.shape[0] - top), min(word.shape[1], tone.shape[1] - left)
    if left >= 0 and top >= 0:
        area = tone[top : top + height, left : left + width]
        area[word[:height, :width]] = value


def _written(word: str, dot: int) -> NDArray[np.bool_]:
    blank = np.zeros((7, 1), bool)
    columns = []
    for letter in word:
        rows = _GLYPHS.get(letter, (0,) * 7)
        columns += [np.array([[bool(row >> (4 - bit) & 1) for bit in range(5)] for row in rows]), blank]
    return np.kron(np.hstack(columns[:-1]), np.ones((dot, dot), bool))
