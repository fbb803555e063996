"""What a library keeps of its models, on a real database."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from makers import write_department

from medsearch_desktop.library import open_library
from medsearch_desktop.records import MatchCurve, ModelRole
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.models import Models

CURVE = MatchCurve(
    model_id="m",
    scores=(0.1, 0.9),
    precision=(0.25, 0.75),
    errors=(0.01, 0.02),
    pairs=(50, 51),
    chance=0.3,
    chance_score=-0.2,
    queries=40,
    images=100,
    labelled=90,
    measured=date(2024, 2, 29),
    pipeline_version="rules-1",
    calibration_error=0.05,
    reliability=((0.2, 0.25, 10),),
)


@pytest.fixture
def models(tmp_path: Path):
    database = Database(tmp_path / "library.duckdb")
    yield Models(database)
    database.close()


def roles(models: Models) -> dict[str, ModelRole]:
    return {held.model_id: held.role for held in models.held()}


def test_one_model_is_in_use_and_one_at_most_is_next(models: Models) -> None:
    models.adopt("a", sha256="1")
    assert roles(models) == {"a": ModelRole.IN_USE}
    models.begin("b", sha256="2")
    models.begin("c", sha256="3")
    # What is neither in use nor next is told of for its vectors only.
    assert roles(models) == {"a": ModelRole.IN_USE, "c": ModelRole.NEXT}
    assert models.finish("c", after=-1)
    assert roles(models) == {"c": ModelRole.IN_USE}
    models.begin("c", sha256="other")
    assert [(held.role, held.sha256) for held in models.held()] == [(ModelRole.IN_USE, "3")]
    models.adopt("a", sha256="")
    assert [(held.role, held.sha256) for held in models.held()] == [(ModelRole.IN_USE, "1")]


def test_a_curve_comes_back_as_it_was(models: Models) -> None:
    assert models.curve("m") is None
    models.set_curve(CURVE)
    assert models.curve("m") == CURVE
    newer = replace(CURVE, chance=0.5)
    models.set_curve(newer)
    assert models.curve("m") == newer
    assert models.measured() == ["m"]
    models.drop("m")
    assert models.curve("m") is None


def test_vectors_of_images_that_are_gone_or_done_are_left_out(tmp_path: Path) -> None:
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([write_department(tmp_path / "source", studies=1)])
        models = library._models
        numbers = library.catalogue.images_where("true", {}).tolist()
        vectors = np.eye(3, 1024, dtype=np.float32)
        assert models.count_lacking("m") == 2
        (first, second) = models.lacking("m", after=-1, retry=True, limit=10)
        assert (first.image_nos, second.image_nos) == ((numbers[0],), (numbers[1],))
        assert models.lacking("m", after=numbers[0], retry=True, limit=10) == [second]
        assert models.lacking("m", after=-1, retry=True, limit=1) == [first]
        assert models.add_vectors("m", [numbers[0], 999_999], vectors[:2]) == 1
        assert models.add_vectors("m", [numbers[0]], vectors[2:]) == 0
        assert not models.finish("m", after=-1)
        assert models.add_vectors("m", [], vectors[:0], failed=[(numbers[1], "why"), (numbers[0], "done")]) == 0
        assert [failure.reason for failure in models.unembedded("m")] == ["why"]
        assert (models.count_lacking("m"), models.count_lacking("m", retry=False)) == (1, 0)
        assert models.finish("m", after=numbers[1])
        (held, _) = models.held()
        assert (held.model_id, held.vectors) == ("m", 1)


def test_labels_are_what_the_reports_call_present(tmp_path: Path) -> None:
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([write_department(tmp_path / "source", studies=4)])
        labelled = library._models.labelled(library.model_id)
        assert len(labelled.image_nos) == 8
        # Studies 1 and 2 are of one patient, 3 and 4 of another; two films each.
        assert labelled.patients.tolist() == [0] * 4 + [1] * 4
        # The second of the four reports finds nothing, and no finding is a column of its own.
        assert labelled.findings[:, -1].tolist().count(True) == 2
        assert labelled.findings.any(axis=1).all()
        by_study = labelled.findings[::2].astype(int)
        assert (by_study @ by_study.T > 0).sum() == 4
