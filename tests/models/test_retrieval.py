from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def retrieval() -> ModuleType:
    sys.path.insert(0, str(REPOSITORY / "models"))
    try:
        return importlib.import_module("retrieval")
    finally:
        sys.path.pop(0)


def on_circle(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_measures_of_a_case_worked_by_hand(retrieval: ModuleType) -> None:
    # Asked by the first, the others come in the order given: relevant, not, relevant by half its labels.
    vectors = on_circle(0, 10, 20, 30)
    labels = np.array([[1, 0], [1, 0], [0, 1], [1, 1]], dtype=bool)
    scores = retrieval.score(vectors, labels, ["a", "b", "c", "d"])
    first = dict(zip(retrieval.MEASURES, scores.values[0], strict=True))
    assert first["mAP"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert first["P@1"] == 1.0
    discounts = 1 / np.log2([2, 3, 4])
    assert first["nDCG@10"] == pytest.approx(
        (1 * discounts[0] + 0.5 * discounts[2]) / (discounts[0] + 0.5 * discounts[1])
    )


def test_the_own_patient_is_no_answer(retrieval: ModuleType) -> None:
    # The nearest film of each is its own patient's, with the same label; the other patient's film has another.
    vectors = on_circle(0, 1, 90, 91)
    labels = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], dtype=bool)
    scores = retrieval.score(vectors, labels, ["a", "a", "b", "b"])
    assert scores.values[0].tolist()[1] == 0.0
    assert len(scores.values) == 3, "a query without any relevant film of another patient does not count"


def test_length_does_not_count_and_films_without_a_label_take_no_part(retrieval: ModuleType) -> None:
    random = np.random.default_rng(3)
    vectors, labels = random.normal(size=(40, 8)), random.random((40, 4)) < 0.4
    patients = [f"p{n // 2}" for n in range(40)]
    scores = retrieval.score(vectors, labels, patients)
    scaled = retrieval.score(vectors * random.uniform(0.1, 9, (40, 1)), labels, patients)
    np.testing.assert_allclose(scores.values, scaled.values)
    more = retrieval.score(
        np.vstack([vectors, random.normal(size=(5, 8))]),
        np.vstack([labels, np.zeros((5, 4), bool)]),
        [*patients, *"vwxyz"],
    )
    np.testing.assert_allclose(scores.values, more.values)


def test_perfect_order_scores_one_and_random_order_scores_chance(retrieval: ModuleType) -> None:
    classes = np.repeat(np.arange(4), 50)
    labels = np.eye(4, dtype=bool)[classes]
    patients = [str(n) for n in range(200)]
    perfect = retrieval.score(np.eye(4)[classes] + 1e-3, labels, patients)
    np.testing.assert_allclose(perfect.values, 1.0)
    random = retrieval.score(np.random.default_rng(0).normal(size=(200, 64)), labels, patients)
    assert random.mean("P@10") == pytest.approx(0.25, abs=0.04)


def test_the_interval_resamples_patients_not_films(retrieval: ModuleType) -> None:
    # One patient with ninety films and ten with one: films alone would give a narrow interval.
    values = np.zeros((100, 5))
    values[:90] = 1.0
    scores = retrieval.Scores(values, np.array([0] * 90 + list(range(1, 11))))
    low, high = scores.interval("mAP")
    assert low < 0.2
    assert high > 0.9
    assert scores.interval("mAP") == (low, high), "the same seed gives the same interval"


def test_bad_input_is_refused(retrieval: ModuleType) -> None:
    labels = np.ones((2, 1), dtype=bool)
    with pytest.raises(ValueError, match="zero or not finite"):
        retrieval.score(np.array([[1.0, 0.0], [0.0, 0.0]]), labels, ["a", "b"])
    with pytest.raises(ValueError, match="zero or not finite"):
        retrieval.score(np.array([[1.0, 0.0], [np.nan, 0.0]]), labels, ["a", "b"])
    with pytest.raises(ValueError, match="2 vectors, 2 label rows, 1 patients"):
        retrieval.score(np.ones((2, 2)), labels, ["a"])
