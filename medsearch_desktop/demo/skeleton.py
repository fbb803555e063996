"""The bones of a frontal film: ribs, clavicles, scapulae, spine, humeri."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.demo.anatomy import Field, Person, Sheet, X, Y, curve, spline, step

CAGE = (
    (4.6, 3.0),
    (5.2, 5.4),
    (5.9, 7.2),
    (7.2, 8.9),
    (9.5, 10.5),
    (12.5, 11.9),
    (16.0, 13.0),
    (20.0, 13.8),
    (25.0, 14.3),
    (30.0, 14.5),
    (38.0, 14.4),
)
"""Half the inner width of the rib cage at each height."""


def ribs(person: Person, *, front: bool) -> Field:
    """Return the thickness of rib in centimetres: the arcs behind the lungs, or those in front of them."""
    rng = np.random.default_rng([person.seed, 21])
    slope = rng.normal(1.0, 0.07)
    sheet = Sheet()
    # Upwards, so that each rib covers the one below it, as its lower edge is the sharper one.
    for number in range(11, 0, -1):
        start = 3.9 + 2.52 * (number - 1) + 0.35 * max(0, number - 7) * 0.4
        drop = (3.2, 5.6, 7.4, 8.6, 9.4, 9.9, 10.2, 10.0, 9.4, 8.6, 7.4)[number - 1] * slope
        end = (168, 160, 154, 150, 146, 143, 140, 132, 118, 100, 88)[number - 1]
        wall = float(curve(np.array([start + drop * 0.5], np.float32), CAGE)[0]) + 0.45
        if number == 1:
            wall = 6.1
        turn = np.radians(np.linspace(90 if front else 6, end if front else 96, 40))
        height = start + drop * (1 - np.cos(turn)) / 2 - 0.5 * np.sin(np.clip(turn * 2.2, 0, np.pi))
        width = (0.85 + 0.05 * min(number, 7)) * (np.linspace(1.0, 1.3, 40) if front else np.linspace(0.85, 1.0, 40))
        for side in (-1, 1):
            tilt = rng.normal(0, 0.06)
            sheet.tube(np.column_stack([side * wall * np.sin(turn), height + tilt]), width, marrow=0.66)
    bone = sheet.field(blur=0.15)
    if front:
        # The ribs end in cartilage, which the beam hardly sees.
        return bone * np.float32(0.95) * step(np.abs(X) - np.float32(6.2), 5.0)
    return bone * np.float32(1.15) * (np.float32(0.45) + np.float32(0.55) * step(np.abs(X) - np.float32(3.4), 4.0))


def shoulders(person: Person, *, view: str, turn: float) -> Field:
    """Return the thickness in centimetres of clavicles, scapulae and humeri."""
    rng = np.random.default_rng([person.seed, 22])
    lift = rng.normal(0.0, 0.4) + (-0.7 if view == "AP" else 0.0)
    inward = 1.9 if view == "AP" else 0.0
    blades, arms, collars = Sheet(), Sheet(), Sheet()
    for side in (-1, 1):
        shift = turn * 0.9
        middle = spline(
            [
                (side * 1.9 + shift, 7.7),
                (side * 5.0 + shift * 0.6, 7.2 + 0.3 * lift),
                (side * 9.5, 5.7 + lift),
                (side * 14.0, 4.9 + lift),
                (side * 17.6, 5.6 + lift),
            ]
        )
        girth = 1.15 + 0.45 * np.abs(np.linspace(-1, 1, len(middle))) ** 2
        collars.tube(middle, girth, marrow=0.62)
        blade = spline(
            [
                (side * (14.6 - inward), 7.4),
                (side * 18.2, 6.4),
                (side * 18.6, 9.6),
                (side * (17.4 - inward * 0.5), 15.0),
                (side * (15.6 - inward), 20.4),
                (side * (14.5 - inward), 18.0),
                (side * (14.0 - inward), 12.0),
                (side * (14.6 - inward), 7.4),
            ]
        )
        blades.area(blade, 0.22)
        blades.line(blade, 0.28, 0.5)
        blades.tube(spline([(side * (14.4 - inward), 9.6), (side * 17.0, 7.4), (side * 19.6, 5.9)]), 0.9, marrow=0.6)
        arms.disc(side * 20.2, 8.6, 2.35, 0.75)
        shaft = [(side * 20.4, 8.8), (side * 21.9, 16.0), (side * 23.2, 26.0)]
        if view == "AP":
            shaft = [(side * 20.6, 8.8), (side * 21.3, 17.0), (side * 21.6, 34.0)]
        arms.tube(spline(shaft), 2.1, marrow=0.55)
    bone: Field = (
        collars.field() * np.float32(1.15)
        + blades.field(blur=0.22) * np.float32(0.95)
        + arms.field(blur=0.22) * np.float32(1.4)
    )
    return bone


def spine(person: Person, *, turn: float) -> Field:
    """Return the thickness in centimetres of vertebrae: bodies, discs between them, pedicles and processes."""
    rng = np.random.default_rng([person.seed, 23])
    bend = rng.normal(0, 0.25 + max(0, person.age - 50) * 0.012)
    middle = curve(Y, [(-3, 0), (8, 0.3 * bend), (20, bend), (32, 0.2 * bend), (45, -0.4 * bend)])
    half = curve(Y, [(-3, 1.25), (6, 1.45), (20, 1.65), (32, 1.95), (45, 2.2)])
    off = np.abs(X - middle)
    phase = (Y - np.float32(3.9)) / np.float32(2.55)
    within = np.abs(phase - np.round(phase))
    plate = np.exp(-(((within - np.float32(0.40)) / np.float32(0.05)) ** 2))
    body = np.float32(1.0) - np.float32(0.32) * step(within - np.float32(0.44), 0.06) + np.float32(0.22) * plate
    column = step(half - off, 0.4) * body * np.float32(0.85)
    rim = np.exp(-(((off - half + np.float32(0.12)) / np.float32(0.2)) ** 2)) * np.float32(0.3)
    pedicles = _ovals(off - np.float32(1.05), within, 0.32, 0.2) * np.float32(0.55)
    processes = _ovals(X - middle - np.float32(0.35 * turn), within - np.float32(0.12), 0.26, 0.24) * np.float32(0.5)
    bone: Field = column + rim + pedicles + processes
    return bone


def _ovals(across: Field, along: Field, rx: float, ry: float) -> Field:
    distance: NDArray[np.float32] = (across / np.float32(rx)) ** 2 + (along / np.float32(ry)) ** 2
    return np.sqrt(np.clip(1 - distance, 0, None))
