"""The match meter: how often images at a given cosine have a finding in common, by the library's own reports.

A cosine says nothing to a person, and what is near depends on the model and on the archive. So each
of a sample of images asks for its nearest ones of other patients, the reports say which of these share
a finding, and isotonic regression makes of it a share for every cosine. That share also says when
the best answer is no better than any image would be.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.errors import MeterError
from medsearch_desktop.records import MatchCurve
from medsearch_desktop.store.models import Labelled, Models
from medsearch_desktop.store.vectors import VectorIndex

QUERIES, NEIGHBOURS = 2000, 10
LEAST_QUERIES, LEAST_PAIRS = 30, 200
# Fewer pairs a knot, and its share is one of chance; more knots, and no one could read the curve.
PAIRS_PER_KNOT, MOST_KNOTS = 50, 100
RESAMPLES = 200
RELIABILITY_BINS = 10
# A library that has grown or shrunk by more has other neighbours.
GROWTH = 1.25

Floats = NDArray[np.float64]


class Meter:
    """A curve, ready to be read at any cosine."""

    def __init__(self, curve: MatchCurve) -> None:
        self.curve = curve
        self._scores, self._precision = _down_to_chance(
            np.array(curve.scores), np.array(curve.precision), curve.chance, curve.chance_score
        )
        self._errors = np.zeros(len(self._scores))
        self._errors[-len(curve.errors) :] = curve.errors

    def expected(self, scores: NDArray[np.float32]) -> Floats:
        """Return the share of images at these cosines that have a finding in common with the query, from 0 to 1."""
        return np.interp(scores, self._scores, self._precision)

    def above_chance(self, score: float) -> bool:
        """Whether images at this cosine share more than any would, by more than the curve's standard error."""
        error = float(np.interp(score, self._scores, self._errors))
        return float(np.interp(score, self._scores, self._precision)) > self.curve.chance + error

    def stale(self, *, images: int, pipeline_version: str) -> str:
        """Return why the curve may not hold any more, or "".

        `images` and `pipeline_version` are what the library has now.
        """
        if self.curve.pipeline_version != pipeline_version:
            return "the reports have been read by another version since it was measured"
        if not self.curve.images / GROWTH < images < self.curve.images * GROWTH:
            return f"it was measured on {self.curve.images} images, the library has {images}"
        return ""


class Meters:
    """The match meters of a library's models, looked up once and not for every question; for several threads."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._meters: dict[str, Meter | None] = {}
        self._notes: dict[tuple[str, int], str] = {}

    def forget(self) -> None:
        """Look everything up anew, after something was written."""
        self._meters.clear()
        self._notes.clear()

    def of(self, model_id: str) -> Meter | None:
        """Return the meter of a model, or None where it was not measured."""
        # Held in a local name: another thread may `forget` between any two steps.
        meter = self._meters.get(model_id)
        if meter is None and model_id not in self._meters:
            curve = self._models.curve(model_id)
            meter = self._meters[model_id] = Meter(curve) if curve else None
        return meter

    def note(self, model_id: str, *, images: int) -> str:
        """Return why a model's meter, for now `images` vectors, should be measured again, or "" where it need not."""
        key = model_id, images
        if (why := self._notes.get(key)) is None:
            if (meter := self.of(model_id)) is not None:
                why = meter.stale(images=images, pipeline_version=self._models.pipeline_version())
            else:
                others = ", ".join(self._models.measured())
                why = f"it was measured with the model {others}" if others else ""
            self._notes[key] = why
        return why

    def calibrate(self, model_id: str, index: VectorIndex) -> MatchCurve:
        """Measure the meter of a model and keep its curve. Raises MeterError."""
        labelled = self._models.labelled(model_id)
        curve = measure(
            index,
            labelled,
            model_id=model_id,
            pipeline_version=self._models.pipeline_version(),
            today=date.today(),
        )
        self._models.set_curve(curve)
        self.forget()
        return curve


def isotonic(values: Floats, weights: Floats) -> Floats:
    """Return the non-decreasing sequence nearest to `values` in weighted least squares.

    Both have shape (n,), `weights` are above 0. Pool adjacent violators: a value below the one before
    is averaged with it, and the average with what now stands above it, until nothing falls.
    Source: Barlow, Bartholomew, Bremner and Brunk, Statistical Inference under Order Restrictions, 1972.
    """
    means: list[float] = []
    masses: list[float] = []
    lengths: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        means.append(value)
        masses.append(weight)
        lengths.append(1)
        while len(means) > 1 and means[-2] >= means[-1]:
            mass = masses[-2] + masses[-1]
            mean = (means[-2] * masses[-2] + means[-1] * masses[-1]) / mass
            length = lengths[-2] + lengths[-1]
            for stack in (means, masses, lengths):
                stack.pop()
            means[-1], masses[-1], lengths[-1] = mean, mass, length
    return np.repeat(np.array(means), lengths)


@dataclass(frozen=True)
class Pairs:
    """Queries and their neighbours, in the order of rising cosine: shapes (n,).

    `patients` is whose the query is, `shares` whether the two have a finding in common.
    """

    scores: Floats
    shares: NDArray[np.bool_]
    patients: NDArray[np.int64]

    def of(self, chosen: NDArray[np.bool_]) -> Pairs:
        """Return those that a mask of shape (n,) lets pass."""
        return Pairs(self.scores[chosen], self.shares[chosen], self.patients[chosen])


def measure(
    index: VectorIndex,
    labelled: Labelled,
    *,
    model_id: str,
    pipeline_version: str,
    today: date,
    seed: int = 0,
) -> MatchCurve:
    """Return the match curve of the images `labelled`, whose vectors `index` holds.

    Up to 2,000 of them ask, each for its 10 nearest of other patients. Raises MeterError when there are too few.
    """
    rng = np.random.default_rng(seed)
    count = len(labelled.image_nos)
    queries = np.sort(rng.choice(count, min(count, QUERIES), replace=False))
    pairs, (chance, chance_score), asked = _pairs(index, labelled, queries)
    if asked < LEAST_QUERIES or len(pairs.scores) < LEAST_PAIRS:
        patients = len(np.unique(labelled.patients))
        raise MeterError(
            f"the match meter needs {LEAST_QUERIES} images with a report and {LEAST_PAIRS} pairs of them from"
            f" different patients; there are {count} images of {patients} patients, which make"
            f" {len(pairs.scores)} pairs",
            remedy="`medsearch ingest` more films with their reports",
        )
    scores, precision, errors, sizes = _fit(pairs, rng)
    reliability, calibration_error = _cross_fit(pairs, chance, chance_score, rng)
    return MatchCurve(
        model_id=model_id,
        scores=tuple(scores.tolist()),
        precision=tuple(precision.tolist()),
        errors=tuple(errors.tolist()),
        pairs=tuple(sizes.astype(int).tolist()),
        chance=chance,
        chance_score=chance_score,
        queries=asked,
        images=index.count,
        labelled=count,
        measured=today,
        pipeline_version=pipeline_version,
        calibration_error=calibration_error,
        reliability=reliability,
    )


def _pairs(
    index: VectorIndex, labelled: Labelled, queries: NDArray[np.int64]
) -> tuple[Pairs, tuple[float, float], int]:
    """Return the pairs of `queries` (rows of `labelled`), chance, and how many queries had any.

    Chance is the share of all images of other patients that have a finding in common, and their mean cosine.
    """
    asking = index.vectors_of(labelled.image_nos[queries])
    findings = labelled.findings.astype(np.float32)
    patients = labelled.patients[queries]
    best = np.full((len(queries), NEIGHBOURS), -np.inf, np.float32)
    shares = np.zeros((len(queries), NEIGHBOURS), np.bool_)
    sharing, others, cosine = np.zeros(len(queries)), np.zeros(len(queries)), np.zeros(len(queries))
    # In blocks: all cosines of a large library at once would not fit into memory.
    for start in range(0, len(labelled.image_nos), 4096):
        block = slice(start, start + 4096)
        cosines = asking @ index.vectors_of(labelled.image_nos[block]).T
        shared = findings[queries] @ findings[block].T > 0
        own = patients[:, None] == labelled.patients[block][None, :]
        cosine += np.where(own, 0, cosines).sum(axis=1, dtype=np.float64)
        cosines[own] = -np.inf
        sharing += (shared & ~own).sum(axis=1)
        others += (~own).sum(axis=1)
        cosines, shared = np.hstack([best, cosines]), np.hstack([shares, shared])
        nearest = np.argpartition(-cosines, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
        best, shares = np.take_along_axis(cosines, nearest, 1), np.take_along_axis(shared, nearest, 1)
    found = np.isfinite(best)
    order = np.argsort(best[found], kind="stable")
    owners = np.broadcast_to(patients[:, None], best.shape)[found]
    pairs = Pairs(best[found][order].astype(np.float64), shares[found][order], owners[order])
    asked = others > 0
    if not asked.any():
        return pairs, (0.0, 0.0), 0
    chance = float((sharing[asked] / others[asked]).mean()), float((cosine[asked] / others[asked]).mean())
    return pairs, chance, int(asked.sum())


def _down_to_chance(scores: Floats, precision: Floats, chance: float, chance_score: float) -> tuple[Floats, Floats]:
    """Return a curve with a knot at chance before its first.

    The nearest alone were measured; what is far from everything must not be read off the first of them.
    """
    if chance_score >= scores[0]:
        return scores, precision
    return np.concatenate([[chance_score], scores]), np.concatenate([[min(chance, precision[0])], precision])


def _knots(pairs: Pairs) -> NDArray[np.int64]:
    """Return the knot of each pair: equally many a knot."""
    count = len(pairs.scores)
    knots = min(MOST_KNOTS, max(1, count // PAIRS_PER_KNOT))
    return np.arange(count) * knots // max(1, count)


def _fit(pairs: Pairs, rng: np.random.Generator) -> tuple[Floats, Floats, Floats, Floats]:
    """Return scores, precision, standard errors and numbers of pairs of the knots.

    The errors are those of drawing other patients: pairs of one patient are not independent.
    """
    knot = _knots(pairs)
    sizes = np.bincount(knot).astype(np.float64)
    scores = np.bincount(knot, pairs.scores) / sizes
    precision = isotonic(np.bincount(knot, pairs.shares) / sizes, sizes)
    owner = np.unique(pairs.patients, return_inverse=True)[1]
    place = owner * len(sizes) + knot
    shape = (int(owner.max()) + 1, len(sizes))
    counts = np.bincount(place, minlength=shape[0] * shape[1]).reshape(shape)
    hits = np.bincount(place, pairs.shares, minlength=shape[0] * shape[1]).reshape(shape)
    drawn = rng.multinomial(shape[0], np.full(shape[0], 1 / shape[0]), size=RESAMPLES).astype(np.float64)
    redrawn_counts, redrawn_hits = drawn @ counts, drawn @ hits
    # A knot that a drawing left empty keeps its share, at next to no weight.
    weights = np.maximum(redrawn_counts, 1e-9)
    means = np.where(redrawn_counts > 0, redrawn_hits / weights, precision)
    fits = np.stack([isotonic(mean, weight) for mean, weight in zip(means, weights, strict=True)])
    return scores, precision, fits.std(axis=0), sizes


def _cross_fit(
    pairs: Pairs, chance: float, chance_score: float, rng: np.random.Generator
) -> tuple[tuple[tuple[float, float, int], ...], float]:
    """Return (expected, observed, pairs) by rising score, each half of the patients judged by the other, and the error.

    The error is the mean of |expected - observed| over the bins, each weighted by its pairs.
    """
    owners = np.unique(pairs.patients)
    half = np.isin(pairs.patients, rng.permutation(owners)[: len(owners) // 2])
    expected = np.zeros(len(pairs.scores))
    for own in (half, ~half):
        other = pairs.of(~own)
        if not len(other.scores) or not own.any():
            return (), 0.0
        knot = _knots(other)
        sizes = np.bincount(knot).astype(np.float64)
        fitted = isotonic(np.bincount(knot, other.shares) / sizes, sizes)
        scores = np.bincount(knot, other.scores) / sizes
        expected[own] = np.interp(pairs.scores[own], *_down_to_chance(scores, fitted, chance, chance_score))
    bins = [part for part in np.array_split(np.arange(len(expected)), RELIABILITY_BINS) if len(part)]
    rows = tuple((float(expected[part].mean()), float(pairs.shares[part].mean()), len(part)) for part in bins)
    error = sum(abs(e - o) * n for e, o, n in rows) / len(expected)
    return rows, float(error)
