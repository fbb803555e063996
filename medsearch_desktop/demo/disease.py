"""What each finding does to a frontal chest; each function returns where it did so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medsearch_desktop.demo.anatomy import (
    LUNG_DENSITY,
    Exposure,
    Field,
    Mark,
    Person,
    Sheet,
    X,
    Y,
    cloud,
    curve,
    dome,
    mottle,
    step,
)
from medsearch_desktop.demo.truth import Finding
from medsearch_desktop.demo.vessels import branches, draw_branches


@dataclass(slots=True)
class Chest:
    """A frontal chest in the making; fields are (GRID, GRID) and in centimetres unless said.

    `air` is the depth of lung along the beam, `density` its density (1 is water), `tissue` the
    depth of the whole body, `solid` what comes on top of it (vessels; gas is negative). `cage`
    (GRID, 1) is half the inner width of the ribs, `floor` (1, GRID) the height of the diaphragm,
    `depth` the depth between the ribs, `open` the fraction of it that heart and mediastinum leave.
    """

    tissue: Field
    air: Field
    density: Field
    solid: Field
    cage: Field
    floor: Field
    depth: Field
    open: Field
    heart: Mark


ZONES = {"upper": (9.0, 13.0), "middle": (15.5, 19.5), "lower": (22.0, 25.5)}
"""The heights between which a nodule of each zone lies."""
NODULE_RADII = {"small": 0.75, "moderate": 1.15, "large": 1.5}
"""In centimetres; `phrases.NODULE_MM` states the diameters."""


def apply_findings(chest: Chest, person: Person, exposure: Exposure, findings: Sequence[Finding]) -> tuple[Mark, ...]:
    """Change `chest` by each of `findings` and return their marks in the same order."""
    marks = []
    for finding in findings:
        # Seeded by what it is, not by its turn: a nodule stays where it was on the next film.
        rng = np.random.default_rng([person.seed, 41, sum(map(ord, finding.name + finding.side + finding.place))])
        side = -1 if finding.side == "right" else 1
        if finding.name == "Effusion":
            sides = (-1, 1) if finding.side == "bilateral" else (side,)
            marks.append(_union([_effusion(chest, exposure, each, finding.size) for each in sides]))
        elif finding.name == "Pneumothorax":
            marks.append(_pneumothorax(chest, side, finding.size))
        elif finding.name == "Nodule":
            marks.append(_nodule(chest, rng, side, finding))
        elif finding.name == "Consolidation":
            marks.append(_consolidation(chest, rng, side, finding))
        elif finding.name == "Edema":
            marks.append(_edema(chest, rng, finding.size))
        else:
            marks.append(chest.heart)
    return tuple(marks)


def _union(marks: Sequence[Mark]) -> Mark:
    return Mark(
        left=min(mark.left for mark in marks),
        top=min(mark.top for mark in marks),
        right=max(mark.right for mark in marks),
        bottom=max(mark.bottom for mark in marks),
    )


def _half(side: int) -> Field:
    return step(X * side, 0.3)


def _fill(chest: Chest, fraction: Field) -> None:
    keep = 1 - np.clip(fraction, 0, 1)
    chest.air *= keep
    # Vessels drown in fluid: their outline goes with the air around them. Gas below the diaphragm stays.
    chest.solid = np.where(chest.solid > 0, chest.solid * keep, chest.solid)


def _effusion(chest: Chest, exposure: Exposure, side: int, size: str) -> Mark:
    base = float(np.min(chest.floor[0][X[0] * side > 0]))
    rim = base + 5.0
    level, climb = {"small": (rim - 4.2, 3.8), "moderate": (base - 3.0, 4.5), "large": (base - 11.5, 5.5)}[size]
    reach = np.clip(chest.cage - X * side, 0, None)
    inner = np.clip(X * side - 2.0, 0, None)
    surface = np.float32(level) - np.float32(climb) * np.exp(-reach / np.float32(2.2))
    if size != "small":
        surface = surface - np.float32(climb * 0.35) * np.exp(-inner / np.float32(1.6))
    # In bed the fluid runs out behind the lung, and its upper border blurs.
    soft = 0.9 if exposure.view == "PA" else {"small": 1.3, "moderate": 2.5, "large": 2.5}[size]
    fluid = step(Y - surface, soft) * _half(side)
    fluid *= {"small": np.float32(0.95), "moderate": np.float32(0.96), "large": np.float32(0.97)}[size]
    haze = np.float32(0.3) * step(Y - surface + np.float32(2.0), 6.0) * _half(side)
    if size == "large":
        # What is left of the lung above a large effusion is squeezed.
        haze += np.float32(0.1) * _half(side)
    _fill(chest, np.maximum(fluid, haze))
    # It pushes lung and diaphragm away, so that more lies in the beam than the lung whose place it took.
    chest.solid += np.float32(2.5) * fluid * np.clip(chest.depth / 6, 0, 1) * chest.open
    wall = float(np.interp(level, Y[:, 0], chest.cage[:, 0]))
    left, right = sorted((side * 2.0, side * (wall + 0.3)))
    return Mark(left=left, top=level - climb * 0.8, right=right, bottom=rim + 0.4)


def _pneumothorax(chest: Chest, side: int, size: str) -> Mark:
    knots, dense = {
        "small": ([(4.6, 3.6), (7, 3.5), (10, 2.7), (14, 1.7), (18, 0.8), (22, -0.5), (45, -0.6)], 1.15),
        "moderate": ([(4.6, 5.8), (8, 5.2), (12, 4.4), (18, 3.5), (25, 2.9), (31, 2.2), (36, 1.2), (45, 1.2)], 1.45),
        "large": ([(4.6, 9.0), (8, 8.4), (12, 7.4), (18, 6.6), (25, 6.8), (31, 7.2), (36, 7.6), (45, 7.6)], 2.0),
    }[size]
    gap = curve(Y, knots)
    apex = {"small": 6.9, "moderate": 8.6, "large": 11.0}[size]
    # The collapsed lung keeps a round top that leans on the mediastinum.
    rise = np.clip((Y - np.float32(apex)) / np.float32(7.0), 0, 1)
    edge = np.float32(2.6) + np.maximum(chest.cage - gap - np.float32(2.6), 0) * np.sqrt(1 - (1 - rise) ** 2)
    outside = step(X * side - edge, 0.12) * _half(side)
    half = _half(side)
    lung = half * (1 - outside)
    chest.density = np.where(outside > 0.5, 0.0, chest.density * (1 + (np.float32(dense) - 1) * lung))
    chest.air *= 1 + np.float32(0.08) * outside
    chest.solid = np.where(chest.solid > 0, chest.solid * (1 - outside), chest.solid)
    line = np.exp(-(((X * side - edge) / np.float32(0.13)) ** 2)) * half * step(Y - np.float32(apex), 0.4)
    shown = line * (gap > 0.25) * np.clip(chest.air / 3, 0, 1)
    chest.solid += np.float32(0.75) * shown
    low = {"small": 18.0, "moderate": 30.0, "large": 32.0}[size]
    wall = float(np.interp(low, Y[:, 0], chest.cage[:, 0]))
    left, right = sorted((side * 2.5, side * (wall + 0.3)))
    return Mark(left=left, top=4.8, right=right, bottom=low)


def _nodule(chest: Chest, rng: np.random.Generator, side: int, finding: Finding) -> Mark:
    radius = NODULE_RADII[finding.size] * rng.uniform(0.95, 1.05)
    top, bottom = ZONES[finding.place]
    y = rng.uniform(top, bottom)
    wall = float(np.interp(y, Y[:, 0], chest.cage[:, 0]))
    # Clear of the heart, which reaches further to the left.
    inner = 4.5 if y < 14 or side < 0 else 6.0 + (2.6 if y > 20 else 0.0)
    x = side * rng.uniform(max(inner, 0.52 * wall), 0.75 * wall)
    ball = dome(x, y, radius, radius * rng.uniform(0.9, 1.08), turned=rng.uniform(0, 90))
    wisp = cloud(x, y, radius * 1.5, radius * 1.5) * np.float32(0.25)
    chest.solid += np.float32(4.0 * radius**0.6) * (ball + wisp)
    reach = radius * 1.25
    return Mark(left=x - reach, top=y - reach, right=x + reach, bottom=y + reach)


def _consolidation(chest: Chest, rng: np.random.Generator, side: int, finding: Finding) -> Mark:
    grown = {"small": 0.85, "moderate": 1.05, "large": 1.25}[finding.size]
    x, y, rx, ry = {
        "upper": (7.2, 12.2, 5.2, 4.6),
        "middle": (7.6, 22.8, 5.6, 4.0),
        "lower": (8.2, 26.2, 5.6, 4.8),
    }[finding.place]
    if side > 0 and finding.place != "upper":
        x += 1.8
    x = side * x + rng.normal(0, 0.25)
    y += rng.normal(0, 0.25)
    rx, ry = rx * grown, ry * grown
    ragged = np.float32(0.26) * mottle(rng, (12, 24, 48))
    blob = step(np.float32(1.0) - ((X - np.float32(x)) / rx) ** 2 - ((Y - np.float32(y)) / ry) ** 2 + ragged, 1.9)
    if finding.place == "upper" and side < 0:
        # The minor fissure stops it: its lower border is a ruled line.
        blob *= 1 - step(Y - np.float32(16.6) - np.float32(0.03) * X, 0.3)
    if finding.place == "middle" and side < 0:
        blob *= step(Y - np.float32(17.4) - np.float32(0.03) * X, 0.3)
    dense = np.float32({"small": 0.86, "moderate": 0.9, "large": 0.93}[finding.size])
    patch = blob * dense * (1 + np.float32(0.06) * mottle(rng, (30, 60)))
    sheet = Sheet()
    hilum = (side * 3.2, 15.4)
    angle = np.degrees(np.arctan2(hilum[1] - y, abs(x) - abs(hilum[0])))
    roots = [(angle + spread, 0.62) for spread in (-22, -4, 14, 30)]
    draw_branches(sheet, branches(rng, hilum, side, roots=roots, finest=0.2), thickest=0.5)
    patch = patch * (1 - np.float32(0.32) * sheet.field(blur=0.2) * step(blob - np.float32(0.5), 0.4))
    _fill(chest, patch)
    wall = float(np.interp(y, Y[:, 0], chest.cage[:, 0]))
    left, right = max(x - rx, -wall), min(x + rx, wall)
    return Mark(left=left, top=max(y - ry, 5.0), right=right, bottom=y + ry)


def _edema(chest: Chest, rng: np.random.Generator, size: str) -> Mark:
    strength = {"small": 0.26, "moderate": 0.40, "large": 0.54}[size]
    patches = 1 + np.float32(0.15) * mottle(rng, (12, 24, 48))
    wings = sum(
        (cloud(side * 5.6, 17.6, 4.6, 6.6) + np.float32(0.75) * cloud(side * 6.6, 23.0, 5.2, 5.2) for side in (-1, 1)),
        np.zeros_like(chest.air),
    )
    haze = np.float32(strength) * (np.clip(wings, 0, 1.15) * patches + np.float32(0.22))
    chest.density = chest.density + np.clip(haze, 0, 0.7) * (1 - LUNG_DENSITY)
    fine = mottle(rng, (110, 180)) * np.clip(chest.air / 8, 0, 1)
    chest.solid += np.float32(0.45 * strength) * fine * np.clip(wings + 0.3, 0, 1)
    lines = Sheet()
    for side in (-1, 1):
        # Kerley's B lines: short, level, from the pleura at the base.
        for row in range(9):
            y = 24.0 + row * 0.85 + rng.normal(0, 0.12)
            wall = float(np.interp(y, Y[:, 0], chest.cage[:, 0])) - 0.35
            length = rng.uniform(1.0, 2.0)
            tip = (side * (wall - length), y + rng.normal(0, 0.15))
            lines.line([(side * wall, y), tip], 0.1, 0.9)
        for _ in range(7):
            y, x = rng.uniform(11, 21), rng.uniform(4.5, 7.5)
            tip = (side * (x + rng.uniform(2, 3.5)), y - rng.uniform(-1.5, 1.5))
            lines.line([(side * x, y), tip], 0.1, 0.6)
    lit = np.clip(chest.air / 5, 0, 1)
    chest.solid += np.float32(0.75 + strength) * lines.field() * lit
    return Mark(left=-12.0, top=9.0, right=12.0, bottom=29.0)
