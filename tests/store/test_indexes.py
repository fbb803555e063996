"""An index a model: each learns its own vectors only, in whatever order they come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medsearch_desktop.store.catalogue import Catalogue
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.indexes import VectorIndexes
from medsearch_desktop.store.models import Models


@pytest.fixture
def database(tmp_path: Path):
    opened = Database(tmp_path / "library.duckdb")
    opened.insert("images", {**{name: [""] * 60 for name in TEXTS}, **{name: [0] * 60 for name in NUMBERS}, **KEYS})
    yield opened
    opened.close()


TEXTS = (
    "sop_instance_uid", "study_uid", "series_uid", "path", "modality", "sop_class_uid", "transfer_syntax_uid",
    "view_position", "photometric_interpretation", "pixel_error",
)  # fmt: skip
NUMBERS = ("frame", "number_of_frames", "rows", "columns", "bits_stored")
KEYS = {"image_no": list(range(60)), "image_id": [str(no) for no in range(60)]}


def unit(count: int, *, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, 1024)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def open_indexes(folder: Path, database: Database) -> VectorIndexes:
    return VectorIndexes(folder, Catalogue(database), exact_below=1000, breadth=50, threads=1)


def test_each_index_learns_its_own_vectors(tmp_path: Path, database: Database) -> None:
    models, indexes = Models(database), open_indexes(tmp_path / "indexes", database)
    a, b = unit(60, seed=1), unit(60, seed=2)
    models.add_vectors("a", range(30, 60), a[30:])
    assert indexes.refresh("a").count == 30
    models.add_vectors("b", range(60), b)
    assert indexes.refresh("b").count == 60
    assert indexes.refresh("a").count == 30
    # Lower numbers, long after.
    models.add_vectors("a", range(30), a[:30])
    assert indexes.of("a").count == 30
    assert indexes.refresh("a").count == 60
    for model_id, vectors in (("a", a), ("b", b)):
        assert np.array_equal(indexes.of(model_id).vectors_of(np.arange(60)), vectors)
    indexes.close()
    again = open_indexes(tmp_path / "indexes", database)
    assert (again.of("a").count, again.of("b").count) == (60, 60)


def test_a_model_that_was_dropped_leaves_nothing(tmp_path: Path, database: Database) -> None:
    models, indexes = Models(database), open_indexes(tmp_path / "indexes", database)
    vectors = unit(60, seed=1)
    models.add_vectors("a", range(60), vectors)
    index = indexes.refresh("a")
    indexes.drop("a")
    assert index.search(vectors[0], 5)[0].size == 0
    assert list((tmp_path / "indexes").iterdir()) == []
    assert models.drop("a") == 60
    assert indexes.refresh("a").count == 0
    indexes.drop("never")


def test_an_image_that_is_gone_leaves_every_index(tmp_path: Path, database: Database) -> None:
    models, indexes = Models(database), open_indexes(tmp_path / "indexes", database)
    for model_id, seed in (("a", 1), ("b", 2)):
        models.add_vectors(model_id, range(60), unit(60, seed=seed))
        indexes.refresh(model_id)
    database.write("DELETE FROM vectors WHERE image_no < 3")
    database.write("DELETE FROM images WHERE image_no < 3")
    database.write("INSERT INTO changes SELECT nextval('change_seq'), 'image', unnest([0, 1, 2])")
    for model_id, seed in (("a", 1), ("b", 2)):
        found, _ = indexes.refresh(model_id).search(unit(60, seed=seed)[1], 60)
        assert sorted(found.tolist()) == list(range(3, 60))


def test_many_new_vectors_are_learnt_in_little_memory(tmp_path: Path) -> None:
    count = 24_000
    database = Database(tmp_path / "library.duckdb", memory_mib=96)
    vectors = unit(count, seed=1)
    texts = {name: [""] * count for name in TEXTS}
    keys = {"image_no": list(range(count)), "image_id": [str(no) for no in range(count)]}
    database.insert("images", {**texts, **{name: [0] * count for name in NUMBERS}, **keys})
    models, indexes = Models(database), open_indexes(tmp_path / "indexes", database)
    models.add_vectors("a", [0], vectors[:1])
    # The rest comes as changes, not as an index that is filled for the first time.
    assert indexes.refresh("a").count == 1
    for start in range(1, count, 4000):
        chosen = range(start, min(start + 4000, count))
        models.add_vectors("a", chosen, vectors[start : start + 4000])
    index = indexes.refresh("a")
    assert index.count == count
    assert np.array_equal(index.vectors_of(np.arange(0, count, 999)), vectors[::999])
    # And in a fresh index.
    index.reset()
    assert indexes.refresh("a").count == count
    assert list(Catalogue(database).vectors("a", image_nos=np.empty(0, np.int64))) == []
    database.close()
