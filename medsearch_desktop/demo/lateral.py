"""The lateral chest, patient facing the left of the picture, and what the findings do to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medsearch_desktop.demo.anatomy import (
    LUNG_DENSITY,
    MU_BONE,
    MU_SOFT,
    Exposure,
    Field,
    Mark,
    Person,
    Projection,
    Sheet,
    X,
    Y,
    cloud,
    curve,
    dome,
    mottle,
    spline,
    step,
)
from medsearch_desktop.demo.disease import NODULE_RADII, ZONES
from medsearch_desktop.demo.truth import Finding
from medsearch_desktop.demo.vessels import branches, draw_branches

FRONT = ((4, -2.6), (6, -4.4), (9, -6.8), (13, -8.8), (18, -10.0), (24, -10.5), (30, -10.4), (36, -9.8), (45, -9.4))
"""Where the lungs end behind the breastbone at each height."""
BACK = ((4, 5.8), (7, 7.2), (11, 8.7), (16, 9.7), (22, 10.1), (28, 9.9), (34, 9.2), (38, 8.4), (45, 7.6))
"""Where the lungs end in front of the ribs of the back, beside the spine."""


def draw_lateral(person: Person, exposure: Exposure, findings: Sequence[Finding]) -> Projection:
    """Return the left lateral projection of `person` with `findings`, one mark for each."""
    rng = np.random.default_rng([person.seed, 61])
    front, back = curve(Y, FRONT), curve(Y, BACK)
    floors = _floors(person, exposure, rng)
    grown = {"small": 1.22, "moderate": 1.32, "large": 1.42}
    factor = person.heart * next((grown[item.size] for item in findings if item.name == "Cardiomegaly"), 1.0)
    across = np.clip(1 - ((2 * X - front - back) / (back - front)) ** 2, 0, 1)
    depth = curve(Y, [(4, 0), (6, 7), (9, 13), (14, 18), (20, 22), (30, 23), (45, 22)])
    side_air = depth * across ** np.float32(0.38) / 2
    densities: dict[int, Field] = {-1: np.full_like(side_air, LUNG_DENSITY), 1: np.full_like(side_air, LUNG_DENSITY)}
    airs: dict[int, Field] = {}
    for side, floor in floors.items():
        airs[side] = side_air * (1 - step(Y - floor, 0.4))
    heart, heart_mark = _heart(factor, person, exposure)
    middle = np.maximum(heart, _mediastinum())
    for side in airs:
        airs[side] = airs[side] * (1 - middle)
    solid = _inside(person, airs[-1] + airs[1], any(item.name == "Edema" for item in findings))
    marks = []
    for finding in findings:
        own = np.random.default_rng([person.seed, 41, sum(map(ord, finding.name + finding.side + finding.place))])
        if finding.name == "Cardiomegaly":
            marks.append(heart_mark)
        else:
            mark, more = _apply(finding, airs, densities, floors, own)
            solid += more
            marks.append(mark)
    attenuation = np.float32(MU_SOFT) * (_tissue(person) + solid)
    for side, air in airs.items():
        attenuation -= np.float32(MU_SOFT) * air * (1 - np.clip(densities[side], 0, 1))
    attenuation += np.float32(MU_BONE) * _bones(rng)
    attenuation *= 1 + np.float32(0.006) * mottle(rng, (40, 90, 160))
    # A lateral beam is harder, or nothing would come through the shoulders.
    return Projection(attenuation=np.clip(attenuation * np.float32(0.86), 0, None), marks=tuple(marks))


def _floors(person: Person, exposure: Exposure, rng: np.random.Generator) -> dict[int, Field]:
    lift = person.domes - exposure.breath
    knots = [(-24, 33.0), (-11, 31.4), (-7, 29.6), (-3, 29.0), (1, 29.6), (5, 31.8), (8, 34.6), (10.2, 37.4), (24, 42)]
    gap, lean = rng.uniform(0.6, 1.6), rng.uniform(-0.6, 0.6)
    right = [(x, y + lift) for x, y in knots]
    left = [(x + lean, y + lift + gap * (1 if x < 6 else 0.6)) for x, y in knots]
    return {-1: curve(X, right), 1: curve(X, left)}


def _tissue(person: Person) -> Field:
    rng = np.random.default_rng([person.seed, 62])
    fat = np.float32(person.fat)
    belly = 0.5 * person.fat
    chest = curve(Y, [(-3, -4.4), (2, -4.0), (5, -5.2), (9, -9.0), (14, -11.6), (22, -12.9), (30, -12.9), (45, -12.6)])
    chest = chest - 0.5 * fat - np.float32(belly) * step(Y - np.float32(33), 12)
    rear = curve(Y, [(-3, 6.0), (2, 7.4), (6, 10.0), (12, 12.6), (20, 13.5), (28, 12.8), (36, 11.2), (45, 10.4)])
    rear = rear + 0.5 * fat
    across = np.clip(1 - ((2 * X - chest - rear) / (rear - chest)) ** 2, 0, None)
    wide = curve(Y, [(-3, 11), (2, 12), (5, 25), (8, 33), (12, 32), (18, 30), (28, 29.5), (34, 30), (45, 30)])
    tissue = (wide + 1.5 * fat) * across ** np.float32(0.40)
    if person.sex == "F":
        size, sag = rng.uniform(0.8, 1.2), rng.uniform(-1.0, 2.0)
        low = 25.0 + sag
        cup = dome(-11.6, low, 5.2 * size, 5.4 * size, turned=20)
        tissue += np.float32(5.5 * size) * cup * step(Y - np.float32(low - 0.5), 9.0)
    # The raised arms leave the picture at its upper corner.
    body: Field = tissue + 9.0 * dome(-8.5, -1.5, 11.0, 4.6, turned=-38)
    return body


def _heart(factor: float, person: Person, exposure: Exposure) -> tuple[Field, Mark]:
    sink = 0.6 * (person.domes - exposure.breath)
    x, y = -5.6 + 1.6 * (factor - 1), 25.0 + sink
    rx, ry = 6.4 * factor, 8.0 * (1 + 0.5 * (factor - 1))
    body = np.clip(np.float32(0.85) * dome(x, y, rx, ry, turned=-30), 0, 0.6)
    # In front it fades into the fat behind the breastbone; only its back is drawn sharply.
    body *= np.float32(0.55) + np.float32(0.45) * step(X - np.float32(x - 2.0), 7.0)
    atria = np.float32(0.38) * dome(x + 3.6 * factor, y - 3.6, 3.9 * factor, 4.4)
    shape = np.maximum(body, atria) * step(Y - np.float32(13.5), 4.0)
    return shape, Mark(left=x - rx * 0.8, top=y - ry, right=x + rx * 1.05, bottom=y + ry * 0.9)


def _mediastinum() -> Field:
    arch = Sheet()
    arch.line(
        spline([(-3.6, 19.0), (-4.2, 15.0), (-2.2, 11.6), (1.6, 10.8), (4.8, 13.0), (6.4, 18.0), (7.4, 30.0)]), 2.3, 1
    )
    front = step(Y * np.float32(-1) + np.float32(12.5), 5.0) * (1 - step(np.abs(X + np.float32(1.0)), 8.0))
    return np.clip(np.float32(0.10) * arch.field(blur=0.4) + np.float32(0.32) * front, 0, 1)


def _inside(person: Person, air: Field, wet: bool) -> Field:
    rng = np.random.default_rng([person.seed, 63])
    roots = ((78.0, 0.5), (40.0, 0.45), (5.0, 0.4), (-35.0, 0.55), (-62.0, 0.7), (-80.0, 0.6))
    sheet = Sheet()
    for side in (-1, 1):
        draw_branches(sheet, branches(rng, (0.6, 16.2), side, roots=roots, upper=1.6 if wet else 1.0))
    lit = np.clip(air / 9, 0, 1)
    hilum = dome(0.2, 16.4, 2.0, 2.6, turned=20) + np.float32(0.7) * dome(1.2, 18.8, 1.3, 2.6)
    tree = sheet.field(blur=0.3 if wet else 0.14)
    grain = mottle(rng, (70, 130))
    solid: Field = lit * (np.float32(3.2) * tree + np.float32(2.6) * hilum + np.float32(0.1) * grain)
    pipe = Sheet()
    pipe.line([(-1.0, -3.0), (-0.2, 6.0), (1.2, 14.6)], 1.7, 1)
    pipe.disc(1.3, 16.2, 0.75, 1)
    return solid - np.float32(3.0) * pipe.field(blur=0.3)


def _bones(rng: np.random.Generator) -> Field:
    spine_x = curve(Y, [(-3, 3.6), (4, 6.0), (10, 8.6), (17, 10.0), (25, 10.0), (33, 8.6), (45, 6.6)])
    half = curve(Y, [(-3, 1.0), (8, 1.35), (20, 1.6), (32, 1.9), (45, 2.1)])
    off = X - spine_x
    phase = (Y + np.float32(0.12) * off - np.float32(3.9)) / np.float32(2.55)
    within = np.abs(phase - np.round(phase))
    plate = np.exp(-(((within - np.float32(0.39)) / np.float32(0.05)) ** 2))
    body = 1 - np.float32(0.5) * step(within - np.float32(0.43), 0.06) + np.float32(0.3) * plate
    bones = step(half - np.abs(off), 0.3) * body * np.float32(1.7)
    arches = Sheet()
    for number in range(16):
        y = 3.9 + 2.55 * number
        x = float(np.interp(y, Y[:, 0], spine_x[:, 0]))
        arches.line([(x + 1.5, y - 0.2), (x + 2.9, y + 0.9), (x + 4.0, y + 2.2)], 0.7, 0.6)
    ribs = Sheet()
    for side in (0.0, 0.7):
        for number in range(1, 11):
            y = 4.6 + 2.5 * (number - 1) + side
            start = float(np.interp(y, Y[:, 0], spine_x[:, 0])) + 2.2
            drop = (3.0, 5.0, 7.0, 8.6, 9.6, 10.2, 10.4, 10.0, 9.0, 7.6)[number - 1]
            end = float(np.interp(y + drop, Y[:, 0], curve(Y, FRONT)[:, 0])) + (
                1.0 if number < 8 else 2.2 * (number - 6)
            )
            points = [(start, y - 0.4), (start - 0.1, y + 1.0), ((start * 0.55 + end * 0.45), y + drop * 0.62)]
            ribs.tube(spline([*points, (end, y + drop)]), 0.95, marrow=0.6)
    plate_x = curve(Y, FRONT)
    breast = step(Y - np.float32(7.5), 1.0) * (1 - step(Y - np.float32(26.0), 1.5))
    sternum = np.exp(-(((X - plate_x + np.float32(0.75)) / np.float32(0.42)) ** 2)) * breast * np.float32(1.5)
    blade = Sheet()
    for lean in (0.0, rng.uniform(0.8, 2.0)):
        blade.line(spline([(4.0 + lean, 3.0), (7.0 + lean, 10.0), (9.6 + lean, 17.5)]), 0.5, 0.5)
    total: Field = bones + sternum + arches.field(blur=0.3) + ribs.field(blur=0.15) + blade.field(blur=0.25)
    return total


def _apply(
    finding: Finding,
    airs: dict[int, Field],
    densities: dict[int, Field],
    floors: dict[int, Field],
    rng: np.random.Generator,
) -> tuple[Mark, Field]:
    sides = (-1, 1) if finding.side == "bilateral" else ((-1,) if finding.side == "right" else (1,))
    nothing = np.zeros_like(airs[-1])
    if finding.name == "Effusion":
        tops = []
        for side in sides:
            bottom = float(np.interp(9.0, X[0], floors[side][0]))
            level, climb = {"small": (3.2, 2.2), "moderate": (7.2, 3.5), "large": (15.5, 4.0)}[finding.size]
            back, front = curve(Y, BACK), curve(Y, FRONT)
            surface = np.float32(bottom - level) - np.float32(climb) * np.exp(-np.clip(back - X, 0, None) / 2.0)
            if finding.size != "small":
                surface = surface - np.float32(climb * 0.5) * np.exp(-np.clip(X - front, 0, None) / 2.0)
            airs[side] *= 1 - np.float32(0.92) * step(Y - surface, 1.1)
            tops.append(bottom - level - climb * 0.8)
        left = 3.5 if finding.size == "small" else -10.5
        return Mark(left=left, top=min(tops), right=10.3, bottom=37.0), nothing
    if finding.name == "Pneumothorax":
        # From the side little shows but a thin line behind the breastbone and under the top.
        inset = {"small": 0.9, "moderate": 1.8, "large": 4.0}[finding.size]
        gap = np.minimum(X - curve(Y, FRONT), Y - np.float32(5.0)) - np.float32(inset)
        densities[sides[0]] = np.where(gap < 0, 0, densities[sides[0]]).astype(np.float32)
        line = np.exp(-((gap / np.float32(0.14)) ** 2)) * np.float32(0.9) * np.clip(airs[sides[0]] / 4, 0, 1)
        return Mark(left=-10.5, top=4.5, right=4.0, bottom=26.0), line
    if finding.name == "Nodule":
        radius = NODULE_RADII[finding.size] * rng.uniform(0.95, 1.05)
        top, bottom = ZONES[finding.place]
        y = rng.uniform(top, bottom)
        x = rng.uniform(-4.5, -1.5) if y < 14 else rng.uniform(2.6, 6.8)
        ball = np.float32(4.2 * radius**0.6) * dome(x, y, radius, radius)
        reach = radius * 1.25
        return Mark(left=x - reach, top=y - reach, right=x + reach, bottom=y + reach), ball
    if finding.name == "Consolidation":
        x, y, rx, ry = {
            "upper": (-1.2, 10.6, 5.4, 4.4),
            "middle": (-5.6, 23.0, 5.2, 3.0),
            "lower": (5.2, 26.6, 4.2, 5.4),
        }[finding.place]
        grown = {"small": 0.66, "moderate": 0.86, "large": 1.1}[finding.size]
        rx, ry = rx * grown, ry * grown
        ragged = np.float32(0.26) * mottle(rng, (12, 24, 48))
        blob = step(np.float32(1.0) - ((X - np.float32(x)) / rx) ** 2 - ((Y - np.float32(y)) / ry) ** 2 + ragged, 1.7)
        airs[sides[0]] *= 1 - np.float32(0.85) * blob
        return Mark(left=x - rx, top=y - ry, right=x + rx, bottom=y + ry), nothing
    strength = {"small": 0.16, "moderate": 0.28, "large": 0.40}[finding.size]
    wings = np.clip(cloud(0.8, 17.8, 6.5, 7.5) + np.float32(0.3), 0, 1.1)
    haze = np.float32(strength) * wings * (1 + np.float32(0.15) * mottle(rng, (12, 24, 48)))
    for side in (-1, 1):
        densities[side] = densities[side] + np.clip(haze, 0, 0.6)
    return Mark(left=-8.0, top=9.0, right=8.0, bottom=28.0), nothing
