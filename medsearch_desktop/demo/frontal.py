"""The frontal chest: body, lungs, heart, diaphragm, vessels, and what the findings do to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    curve,
    dome,
    mottle,
    step,
)
from medsearch_desktop.demo.disease import Chest, apply_findings
from medsearch_desktop.demo.skeleton import CAGE, ribs, shoulders, spine
from medsearch_desktop.demo.truth import Finding
from medsearch_desktop.demo.vessels import branches, draw_branches


def draw_frontal(person: Person, exposure: Exposure, findings: Sequence[Finding]) -> Projection:
    """Return the PA or AP projection of `person` with `findings`, one mark for each."""
    chest = _healthy(person, exposure, findings)
    marks = apply_findings(chest, person, exposure, findings)
    rng = np.random.default_rng([person.seed, 31])
    air = chest.air
    density = np.clip(chest.density, 0.0, 1.0)
    attenuation = np.float32(MU_SOFT) * (chest.tissue - air * (1 - density))
    attenuation += np.float32(MU_SOFT) * chest.solid
    attenuation += np.float32(MU_BONE) * (
        ribs(person, front=False) + ribs(person, front=True) + shoulders(person, view=exposure.view, turn=exposure.turn)
    )
    attenuation += np.float32(MU_BONE) * spine(person, turn=exposure.turn)
    attenuation *= 1 + np.float32(0.006) * mottle(rng, (40, 90, 160))
    if exposure.view == "AP":
        attenuation += _leads(np.random.default_rng([exposure.seed, 32]))
    return Projection(attenuation=np.clip(attenuation, 0, None), marks=marks)


@dataclass(frozen=True, slots=True)
class _Heart:
    shape: Field
    mark: Mark


def _healthy(person: Person, exposure: Exposure, findings: Sequence[Finding]) -> Chest:
    large = [finding.size for finding in findings if finding.name == "Cardiomegaly"]
    grown = {"small": 1.36, "moderate": 1.50, "large": 1.64}[large[0]] if large else 1.0
    heart = _middle(person, exposure, grown)
    tissue = _tissue(person, exposure)
    cage = curve(Y, CAGE)
    depth = curve(Y, [(4.6, 0), (5.2, 2.5), (6.2, 6.0), (8, 9.5), (11, 12), (16, 14.5), (22, 16), (30, 16.5), (44, 16)])
    round_ = np.sqrt(np.clip(1 - (X / cage) ** 2, 0, None))
    floor = diaphragm(person, exposure)
    below = Y - floor
    # The lung reaches deep behind the diaphragm: below its dome some air is left that thins out.
    lungs = 1 - step(below, 0.35) * (1 - np.float32(0.16) * np.exp(-np.clip(below, 0, None) / np.float32(2.2)))
    open_ = 1 - heart.shape
    air = depth * round_ * lungs * open_
    solid = _vessels_and_airways(person, exposure, findings, np.clip(air / 6, 0, 1))
    return Chest(
        tissue=tissue,
        air=air,
        density=np.full_like(air, LUNG_DENSITY),
        solid=solid,
        cage=cage,
        floor=floor,
        depth=depth * round_,
        open=open_,
        heart=heart.mark,
    )


def diaphragm(person: Person, exposure: Exposure) -> Field:
    """Return the height (1, GRID) at which the domes stand, in centimetres from the top."""
    rng = np.random.default_rng([person.seed, 33])
    flat = rng.normal(1.0, 0.1)
    peak_right = 29.6 + person.domes - exposure.breath
    peak_left = peak_right + rng.uniform(0.6, 1.8)
    right = [(-24, 12.0), (-14.4, 5.2), (-13.0, 2.9), (-10.5, 0.8), (-7.4, 0), (-4, 0.5), (-1.5, 1.6), (0, 2.2)]
    left = [(0, 2.0), (1.5, 1.5), (4, 0.5), (7.4, 0), (10.5, 0.8), (13.0, 2.9), (14.4, 5.2), (24, 12.0)]
    knots = [(x, peak_right + flat * y) for x, y in right[:-1]] + [(x, peak_left + flat * y) for x, y in left[1:]]
    return curve(X, knots)


def _tissue(person: Person, exposure: Exposure) -> Field:
    rng = np.random.default_rng([person.seed, 34])
    fat = np.float32(person.fat)
    torso = curve(
        Y, [(-3, 6.0), (1, 6.2), (3, 7.5), (5, 12), (7, 16.0), (10, 16.6), (16, 16.2), (28, 16.4), (45, 16.8)]
    )
    girth = curve(Y, [(-3, 11.5), (3, 12), (6, 14), (10, 17.5), (18, 20.5), (30, 21.5), (34, 22.5), (45, 22)])
    around = np.clip(1 - (X / (torso + fat)) ** 2, 0, None) ** np.float32(0.42)
    tissue = (girth + fat) * around
    shoulder_x, arm = (18.6, 8.0) if exposure.view == "PA" else (19.4, 9.0)
    for side in (-1, 1):
        cap = 10.0 * dome(side * shoulder_x, 8.6, 5.6, 4.6)
        limb_x = curve(Y, [(5, 20.0), (10, 20.6), (20, 22.6), (30, 24.5)])
        if exposure.view == "AP":
            limb_x = curve(Y, [(5, 20.2), (10, 20.8), (20, 21.6), (45, 22.0)])
        limb = np.sqrt(np.clip(1 - ((X - side * (limb_x + 0.5 * fat)) / (4.3 + 0.3 * fat)) ** 2, 0, None))
        limb = arm * limb * step(Y - np.float32(7.5), 4.0)
        slope = 7.5 * dome(side * 9.5, 7.0, 9.5, 3.6, turned=side * 14.0)
        tissue = np.maximum(tissue, np.sqrt(tissue**2 * 0.4 + np.maximum(np.maximum(cap, limb), slope) ** 2))
        # The folds of the armpits run down into the side of the chest.
        tissue += 1.6 * dome(side * 15.6, 13.5, 2.2, 6.0, turned=side * 12.0)
    if person.sex == "F":
        size, sag = rng.uniform(0.85, 1.1), rng.uniform(-0.5, 1.0)
        low = 25.5 + sag + (1.2 if exposure.view == "AP" else 0)
        for side in (-1, 1):
            cup = dome(side * 8.8, low, 6.6, 6.2 * size, turned=side * 12.0)
            tissue += np.float32(2.3 * size) * cup * step(Y - np.float32(low - 1.0), 11.0)
    # The abdomen is fuller than the chest above it and swallows nearly all of the beam.
    body: Field = tissue * (1 + np.float32(0.05) * step(Y - np.float32(34), 8.0))
    return body


def _middle(person: Person, exposure: Exposure, grown: float) -> _Heart:
    rng = np.random.default_rng([person.seed, 35])
    portable = exposure.view == "AP"
    knob = 0.016 * (person.age - 45) + rng.normal(0, 0.15) + (0.35 if portable else 0)
    trunk = rng.normal(0, 0.2)
    wide = 0.35 if portable else 0.0
    sink = 0.6 * (person.domes - exposure.breath)
    factor = person.heart * grown * (1.1 if portable else 1.0)
    # The heart grows mostly to the left and downwards; the right border moves less.
    out_left, out_right = factor, 1 + 0.8 * (factor - 1)
    tip = sink + 1.2 * (factor - 1)
    left = [(4, 3.0), (6, 2.5), (8.6, 2.4), (10.2, 2.9 + 0.7 * knob), (11.8, 3.4 + knob), (13.4, 3.0 + 0.5 * knob)]
    left += [(14.4, 3.0), (15.8, 3.6 + trunk), (17.6 + 0.5 * sink, 4.1 + trunk + 0.8 * (factor - 1))]
    left += [(y + tip, x * out_left) for y, x in ((20.0, 5.5), (23.0, 7.5), (25.6, 8.6), (27.6, 8.5), (29.3, 7.3))]
    left += [(30.8 + tip, 4.6), (33, 2.4), (45, 2.3)]
    right = [(4, 3.2), (6, 2.6), (9, 2.3), (12, 2.6), (15, 2.8), (17.6 + 0.5 * sink, 3.1 + 0.5 * (factor - 1))]
    right += [(y + tip, x * out_right) for y, x in ((20.5, 3.9), (23.5, 4.5), (26.5, 4.2), (28.8, 3.3))]
    right += [(31 + tip, 2.2), (33, 2.0), (45, 2.0)]
    shift = 0.6 * exposure.turn
    edge_left, edge_right = curve(Y, left) + wide + shift, shift - curve(Y, right) - wide
    half = (edge_left - edge_right) / 2
    across = (X - (edge_left + edge_right) / 2) / half
    # Of round things the beam meets little at the rim, so that borders are crisp but not cut out.
    shape = np.clip(np.float32(1.75) * np.sqrt(np.clip(1 - across * across, 0, None)), 0, 1)
    shape *= curve(Y, [(4, 0.7), (9, 0.8), (12, 0.86), (18, 0.9), (24, 0.93), (45, 0.95)])
    mark = Mark(left=-4.5 * out_right + shift, top=16.5 + sink, right=8.6 * out_left + shift, bottom=30.0 + tip)
    return _Heart(shape=shape, mark=mark)


def _vessels_and_airways(person: Person, exposure: Exposure, findings: Sequence[Finding], lit: Field) -> Field:
    rng = np.random.default_rng([person.seed, 36])
    wet = any(finding.name == "Edema" for finding in findings)
    sheet = Sheet()
    for side in (-1, 1):
        origin = (side * 3.0 + 0.4 * exposure.turn, 15.6 if side < 0 else 14.9)
        draw_branches(sheet, branches(rng, origin, side, upper=1.7 if wet else 1.0), gain=1.25 if wet else 1.0)
    tree = sheet.field(blur=0.3 if wet else 0.14)
    hila = sum(
        (
            np.float32(weight) * dome(side * x + 0.4 * exposure.turn, y, rx, ry, turned=side * -20.0)
            for side, x, y, rx, ry, weight in (
                (-1, 3.5, 15.4, 1.5, 2.2, 1.7),
                (-1, 4.2, 18.4, 0.9, 3.0, 1.5),
                (1, 3.5, 14.6, 1.5, 1.8, 1.7),
                (1, 4.0, 17.6, 0.9, 2.8, 1.2),
            )
        ),
        np.zeros_like(tree),
    )
    solid = lit * (tree * np.float32(2.9) + hila * np.float32(1.15) * (1 + 0.5 * wet))
    solid += lit * np.float32(0.09) * mottle(rng, (70, 130))
    pipes = Sheet()
    lean = 0.35 * exposure.turn
    pipes.line([(0.0, -3.0), (0.15 + lean, 6.0), (0.35 + lean, 13.4)], 1.75, 0.95)
    pipes.line([(0.35 + lean, 13.0), (-1.2 + lean, 15.2), (-2.6 + lean, 17.2)], 1.25, 0.75)
    pipes.line([(0.35 + lean, 13.0), (2.0 + lean, 14.9), (3.9 + lean, 16.2)], 1.1, 0.65)
    solid -= np.float32(3.2) * pipes.field(blur=0.35)
    bubble_y = 31.0 + 2.2 + person.domes - exposure.breath
    bubble = dome(6.0 + rng.normal(0, 0.8), bubble_y, rng.uniform(1.9, 3.2), rng.uniform(1.0, 1.9))
    gas = bubble * (1 - step(Y - np.float32(bubble_y + 0.5), 0.2)) * np.float32(rng.uniform(2.5, 5.5))
    for _ in range(int(rng.integers(0, 5))):
        loop = dome(rng.uniform(7, 13), bubble_y + rng.uniform(2, 6), rng.uniform(0.9, 1.8), rng.uniform(0.7, 1.2))
        gas = np.maximum(gas, loop * np.float32(2.2))
    return solid - gas


def _leads(rng: np.random.Generator) -> Field:
    sheet = Sheet()
    for side, x, y in ((-1, 11.5, 12.0), (1, 11.0, 11.0), (1, 12.5, 28.0)):
        px, py = side * x + rng.normal(0, 1.0), y + rng.normal(0, 1.2)
        sheet.disc(px, py, 0.75, 0.35)
        sheet.disc(px, py, 0.3, 1.0)
        far = 16 + rng.normal(0, 2)
        line = np.linspace(0, 1, 30)[:, None]
        start, end = np.array([px, py]), np.array([px * 0.6 + rng.normal(0, 3), 46.0])
        sag = np.column_stack([side * far * 0.2 * np.sin(np.pi * line[:, 0]), np.zeros(30)])
        sheet.line(start + (end - start) * line + sag, 0.14, 0.75)
    return sheet.field() * np.float32(0.55)
