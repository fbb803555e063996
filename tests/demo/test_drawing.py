"""Findings change the pixels where they should, on the side on which they are."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from medsearch_desktop.demo.anatomy import Exposure, Person
from medsearch_desktop.demo.detector import Film, expose
from medsearch_desktop.demo.frontal import draw_frontal
from medsearch_desktop.demo.lateral import draw_lateral
from medsearch_desktop.demo.truth import Finding

SIZE = 256
SEEDS = (1, 2, 3)


def film(*findings: Finding, view: str = "PA", seed: int = 1, size: int = SIZE) -> Film:
    person = Person.of(seed, sex="FM"[seed % 2], age=60)
    exposure = Exposure(view=view, seed=seed + 50, breath=0.2, turn=0.1)
    draw = draw_lateral if view == "LL" else draw_frontal
    drawn = draw(person, exposure, findings)
    return expose(drawn.attenuation, drawn.marks, person, exposure, size=size)


def change(finding: Finding, *, view: str = "PA", seed: int = 1) -> tuple[NDArray[np.float64], Film]:
    """Return how much brighter each pixel is with `finding` than without it, and the film with it."""
    shown = film(finding, view=view, seed=seed)
    return shown.pixels.astype(np.float64) - film(view=view, seed=seed).pixels, shown


def inside(box: tuple[int, int, int, int]) -> tuple[slice, slice]:
    x, y, width, height = box
    return slice(y, y + height), slice(x, x + width)


def test_the_film_is_repeatable_and_has_twelve_bits() -> None:
    first, second = film(), film()
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert first.pixels.dtype == np.uint16
    assert first.pixels.max() <= 4095
    assert first.pixels.max() > 3500
    assert first.pixels.min() < 300


@pytest.mark.parametrize("view", ["PA", "AP", "LL"])
@pytest.mark.parametrize("size", [64, 96, 512])
def test_any_size_shows_the_same_chest(view: str, size: int) -> None:
    small = film(view=view, size=size).pixels.astype(np.float64)
    assert small.shape == (size, size)
    blocks = [np.array([[part.mean() for part in np.array_split(row, 8, axis=1)] for row in np.array_split(image, 8)])
              for image in (small, film(view=view).pixels.astype(np.float64))]  # fmt: skip
    # Letters cannot shrink below a pixel a dot: on a small film they fill the margins above and below.
    assert np.corrcoef(blocks[0][2:6].ravel(), blocks[1][2:6].ravel())[0, 1] > 0.985


@pytest.mark.parametrize("seed", SEEDS)
def test_the_heart_lies_to_the_left_and_lungs_are_darker_than_belly(seed: int) -> None:
    pixels = film(seed=seed).pixels.astype(np.float64)
    row = slice(int(0.58 * SIZE), int(0.66 * SIZE))
    # The patient's left is on the right of the picture.
    right_of_spine = pixels[row, int(0.56 * SIZE) : int(0.64 * SIZE)].mean()
    left_of_spine = pixels[row, int(0.32 * SIZE) : int(0.40 * SIZE)].mean()
    assert right_of_spine > left_of_spine + 400
    assert pixels[int(0.93 * SIZE) :, int(0.4 * SIZE) : int(0.6 * SIZE)].mean() > left_of_spine + 800


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", ["small", "moderate", "large"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["Effusion", "Pneumothorax", "Nodule", "Consolidation"])
def test_a_finding_shows_on_its_own_side_and_in_its_own_box(name: str, side: str, size: str, seed: int) -> None:
    place = {"Nodule": "upper", "Consolidation": "lower"}.get(name, "")
    difference, shown = change(Finding(name, side, size, place), seed=seed)
    halves = np.abs(difference[:, : SIZE // 2]).sum(), np.abs(difference[:, SIZE // 2 :]).sum()
    mine, other = halves if side == "right" else halves[::-1]
    # Evening out the shades carries a trace of it to the other side.
    assert mine > 2.5 * other
    part = difference[inside(shown.boxes[0])]
    strong = np.abs(difference) > 350
    assert strong[inside(shown.boxes[0])].sum() > 0.75 * strong.sum() > 0
    if name == "Pneumothorax":
        assert np.percentile(part, 10) < -200
    else:
        assert np.percentile(part, 90) > 200


@pytest.mark.parametrize("seed", SEEDS)
def test_each_size_is_larger_than_the_one_before(seed: int) -> None:
    healthy = film(seed=seed).pixels.astype(np.float64)
    for name, side, place in (
        ("Effusion", "left", ""),
        ("Cardiomegaly", "", ""),
        ("Nodule", "right", "middle"),
        ("Consolidation", "right", "upper"),
        ("Edema", "bilateral", ""),
        ("Pneumothorax", "right", ""),
    ):
        films = [film(Finding(name, side, size, place), seed=seed) for size in ("small", "moderate", "large")]
        totals = [np.abs(shown.pixels - healthy).sum() for shown in films]
        assert totals[0] < totals[1] < totals[2], name


@pytest.mark.parametrize("seed", SEEDS)
def test_a_large_heart_is_wider_than_half_the_chest_and_a_normal_one_is_not(seed: int) -> None:
    def heart_width(*findings: Finding) -> int:
        pixels = film(*findings, seed=seed).pixels.astype(np.float64)
        row = pixels[int(0.60 * SIZE) : int(0.66 * SIZE)].mean(axis=0)
        middle = slice(int(0.2 * SIZE), int(0.8 * SIZE))
        threshold = (row[middle].min() + row[middle].max()) / 2
        return int((row[middle] > threshold).sum())

    assert heart_width(Finding("Cardiomegaly", size="large")) > 1.25 * heart_width()


@pytest.mark.parametrize("seed", SEEDS)
def test_oedema_clouds_both_lungs_about_the_hila(seed: int) -> None:
    difference, _ = change(Finding("Edema", "bilateral", "large"), seed=seed)
    rows = slice(int(0.32 * SIZE), int(0.58 * SIZE))
    for columns in (slice(int(0.26 * SIZE), int(0.40 * SIZE)), slice(int(0.62 * SIZE), int(0.72 * SIZE))):
        assert difference[rows, columns].mean() > 150


@pytest.mark.parametrize(
    "finding",
    [
        Finding("Effusion", "left", "moderate"),
        Finding("Effusion", "bilateral", "small"),
        Finding("Cardiomegaly", size="large"),
        Finding("Pneumothorax", "right", "large"),
        Finding("Nodule", "left", "large", "lower"),
        Finding("Consolidation", "right", "large", "lower"),
        Finding("Edema", "bilateral", "large"),
    ],
    ids=lambda finding: finding.name + finding.side,
)
def test_the_lateral_film_shows_the_finding_too(finding: Finding) -> None:
    difference, shown = change(finding, view="LL")
    strong = np.abs(difference) > 250
    assert strong.sum() > 20
    assert strong[inside(shown.boxes[0])].sum() > 0.6 * strong.sum()


def test_a_nodule_stays_where_it_was_on_the_next_film() -> None:
    person = Person.of(4, sex="F", age=70)
    finding = Finding("Nodule", "right", "moderate", "upper")
    marks = [
        draw_frontal(person, Exposure(view="PA", seed=seed, breath=breath, turn=0.0), [finding]).marks[0]
        for seed, breath in ((1, 0.0), (2, 0.9))
    ]
    assert marks[0] == marks[1]


def test_the_word_synthetic_is_burnt_in() -> None:
    for view in ("PA", "AP", "LL"):
        pixels = film(view=view, size=512).pixels
        left = slice(0, int(0.25 * 512))
        corners = pixels[int(0.03 * 512) : int(0.09 * 512), left], pixels[int(0.90 * 512) : int(0.97 * 512), left]
        ink = int(0.92 * 4095 * 0.93 + 4095 * 0.02)
        assert max((np.abs(corner.astype(int) - ink) <= 4).sum() for corner in corners) >= 100
