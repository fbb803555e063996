"""The match meter: the regression on known cases, the measurement on drawn archives whose truth is known."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from medsearch_desktop.errors import MeterError
from medsearch_desktop.search.meter import Meter, isotonic, measure
from medsearch_desktop.store.models import Labelled
from medsearch_desktop.store.vectors import VectorIndex

DIM = 32


@pytest.mark.parametrize(
    ("values", "weights", "fitted"),
    [
        ([], [], []),
        ([3], [1], [3]),
        ([1, 2, 3], [1, 1, 1], [1, 2, 3]),
        ([3, 2, 1], [1, 1, 1], [2, 2, 2]),
        ([1, 3, 2, 4], [1, 1, 1, 1], [1, 2.5, 2.5, 4]),
        ([1, 3, 2, 4], [1, 3, 1, 1], [1, 2.75, 2.75, 4]),
        # One late fall reaches back over pools that stood.
        ([1, 2, 3, 4, 0], [1, 1, 1, 1, 1], [1, 2, 7 / 3, 7 / 3, 7 / 3]),
        ([0, 0, 1, 0, 1, 1], [1, 1, 1, 1, 1, 1], [0, 0, 0.5, 0.5, 1, 1]),
    ],
)
def test_isotonic_regression_of_known_cases(values: list[float], weights: list[float], fitted: list[float]) -> None:
    assert isotonic(np.array(values, float), np.array(weights, float)) == pytest.approx(fitted)


def test_isotonic_regression_is_the_least_squares_one() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        values, weights = rng.normal(size=12), rng.uniform(0.5, 2, 12)
        fitted = isotonic(values, weights)
        assert (np.diff(fitted) >= -1e-12).all()
        least = (weights * (fitted - values) ** 2).sum()
        # No monotone neighbour of it is better.
        for _ in range(200):
            other = np.sort(fitted + rng.normal(scale=0.05, size=12))
            assert (weights * (other - values) ** 2).sum() >= least - 1e-12


def archive(folder: Path, *, patients: int, telling: float, seed: int = 1) -> tuple[VectorIndex, Labelled]:
    """An archive of two findings and none, one study of two images a patient; `telling` is how far vectors show it."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(3, patients, p=[0.5, 0.3, 0.2])
    centres = rng.standard_normal((3, DIM))
    owners = np.repeat(np.arange(patients), 2)
    vectors = telling * centres[kinds[owners]] + rng.standard_normal((2 * patients, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = VectorIndex(folder, model_id="m", dim=DIM, exact_below=100_000, breadth=100, threads=1)
    numbers = np.arange(2 * patients) * 3
    index.update(numbers, vectors.astype(np.float32), removed=np.empty(0, np.int64), watermark=1)
    return index, Labelled(numbers, owners, np.eye(3, dtype=bool)[kinds[owners]])


def curve_of(index: VectorIndex, labelled: Labelled):
    return measure(index, labelled, model_id="m", pipeline_version="v", today=date(2024, 1, 2))


def test_vectors_that_tell_findings_apart_are_worth_more_the_nearer(tmp_path: Path) -> None:
    index, labelled = archive(tmp_path, patients=300, telling=0.8)
    curve = curve_of(index, labelled)
    assert (curve.queries, curve.labelled, curve.images, sum(curve.pairs)) == (600, 600, 600, 6000)
    assert list(curve.scores) == sorted(curve.scores)
    assert list(curve.precision) == sorted(curve.precision)
    assert curve.chance == pytest.approx(0.5**2 + 0.3**2 + 0.2**2, abs=0.03)
    meter = Meter(curve)
    assert meter.above_chance(curve.scores[-1])
    assert curve.precision[-1] > curve.chance + 0.3
    assert curve.calibration_error < 0.05
    assert sum(pairs for _, _, pairs in curve.reliability) == 6000
    far, low, near = meter.expected(np.array([-1, curve.scores[0], 2], np.float32))
    assert (far, low, near) == pytest.approx((curve.chance, curve.precision[0], curve.precision[-1]))
    assert curve.chance_score < curve.scores[0]
    assert not meter.above_chance(curve.chance_score)


def test_the_expectation_holds_on_images_that_come_later(tmp_path: Path) -> None:
    index, labelled = archive(tmp_path, patients=900, telling=0.5)
    early = Labelled(labelled.image_nos[:600], labelled.patients[:600], labelled.findings[:600])
    meter = Meter(curve_of(index, early))
    kinds = labelled.findings.argmax(axis=1)
    expected, observed = [], []
    for row in range(600, 1800):
        query = index.vectors_of(labelled.image_nos[[row]])[0]
        numbers, scores = index.search(query, 10, allowed=early.image_nos)
        expected.append(meter.expected(scores))
        observed.append(kinds[numbers // 3] == kinds[row])
    expected, observed = np.concatenate(expected), np.concatenate(observed)
    assert expected.mean() == pytest.approx(observed.mean(), abs=0.03)
    for part in np.array_split(np.argsort(expected, kind="stable"), 4):
        assert expected[part].mean() == pytest.approx(observed[part].mean(), abs=0.06)


def test_vectors_that_tell_nothing_are_not_above_chance(tmp_path: Path) -> None:
    curve = curve_of(*archive(tmp_path, patients=200, telling=0.0))
    meter = Meter(curve)
    above = [meter.above_chance(score) for score in curve.scores]
    assert np.mean(above) < 0.35
    assert max(curve.precision) < curve.chance + 0.2


def test_the_same_library_gives_the_same_curve(tmp_path: Path) -> None:
    index, labelled = archive(tmp_path, patients=60, telling=0.5)
    assert curve_of(index, labelled) == curve_of(index, labelled)


def test_neighbours_are_of_other_patients(tmp_path: Path) -> None:
    index, labelled = archive(tmp_path, patients=100, telling=0.0)
    # Every image has a twin of its own patient at cosine 1; none may count.
    vectors = index.vectors_of(labelled.image_nos)
    vectors[1::2] = vectors[::2]
    index.reset()
    index.update(labelled.image_nos, vectors, removed=np.empty(0, np.int64), watermark=1)
    assert max(curve_of(index, labelled).scores) < 0.9


def test_a_large_archive_is_sampled(tmp_path: Path) -> None:
    index, labelled = archive(tmp_path, patients=2500, telling=0.5)
    curve = curve_of(index, labelled)
    assert (curve.queries, curve.labelled, sum(curve.pairs)) == (2000, 5000, 20_000)
    assert len(curve.scores) == 100


@pytest.mark.parametrize("patients", [0, 1, 2, 10, 14])
def test_too_few_images_are_told_with_what_is_missing(tmp_path: Path, patients: int) -> None:
    with pytest.raises(MeterError, match="needs 30 images with a report and 200 pairs") as caught:
        curve_of(*archive(tmp_path, patients=patients, telling=0.5))
    assert f"there are {2 * patients} images of {patients} patients" in str(caught.value)


def test_a_curve_goes_out_of_date(tmp_path: Path) -> None:
    meter = Meter(curve_of(*archive(tmp_path, patients=100, telling=0.5)))
    assert meter.stale(images=200, pipeline_version="v") == ""
    assert meter.stale(images=249, pipeline_version="v") == ""
    assert "measured on 200 images, the library has 250" in meter.stale(images=250, pipeline_version="v")
    assert "library has 150" in meter.stale(images=150, pipeline_version="v")
    assert "another version" in meter.stale(images=200, pipeline_version="w")
