"""A real ingest that is disturbed: nothing lost, nothing twice, and indexes that heal."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from contents import contents
from makers import Film, dataset, register_model, write_department

from medsearch_desktop.image.models import find_model
from medsearch_desktop.library import Library, open_library


def check_sound(library: Library) -> None:
    """The next open has healed: indexes agree with the database, no row is there twice or without its owner."""
    read = library._database.read
    totals = library.totals()
    assert library.vectors.count == totals.vectors == totals.images
    assert library.fulltext.document_count == library.catalogue.document_count()
    for table, key in (
        ("images", "image_id"),
        ("vectors", "image_no, model_id"),
        ("reports", "report_id"),
        ("files", "path"),
    ):
        assert read(f"SELECT {key} FROM {table} GROUP BY {key} HAVING count(*) > 1") == [], table
    assert read("SELECT count(*) FROM images WHERE path NOT IN (SELECT path FROM files)") == [(0,)]
    assert read("SELECT count(*) FROM entities WHERE report_no NOT IN (SELECT report_no FROM reports)") == [(0,)]
    assert read("SELECT count(*) FROM vectors WHERE image_no NOT IN (SELECT image_no FROM images)") == [(0,)]
    numbers = library.catalogue.images_where("true", {})
    if len(numbers):
        vectors = library.vectors.vectors_of(numbers)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_film_that_is_written_while_it_is_read_is_taken_up_later(tmp_path: Path) -> None:
    source = write_department(tmp_path / "source", studies=2)
    film = min(source.rglob("image1.dcm"))
    content = film.read_bytes()
    film.write_bytes(content[: len(content) // 2])
    with open_library(tmp_path / "library", create=True) as library:
        assert library.ingest([source]).failed == 1
        film.write_bytes(content)
        assert library.ingest([source]).updated == 1
        assert library.failures() == []
        check_sound(library)


def test_deleted_indexes_are_made_anew(tmp_path: Path) -> None:
    source = write_department(tmp_path / "source", studies=4)
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source])
        before = contents(library)
        hits = [hit.report_id for hit in library.search("effusion").hits]
    shutil.rmtree(tmp_path / "library" / "indexes")
    shutil.rmtree(tmp_path / "library" / "thumbnails")
    with open_library(tmp_path / "library") as library:
        check_sound(library)
        assert contents(library) == before
        assert [hit.report_id for hit in library.search("effusion").hits] == hits
        picture = library.thumbnail(before["images"][0][0])
        assert picture is not None
        assert picture[:4] == b"RIFF"


def test_an_image_saved_under_a_new_uid_is_a_new_image(tmp_path: Path) -> None:
    source = write_department(tmp_path / "source", studies=1)
    film = min(source.rglob("image1.dcm"))
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source])
        dataset(Film(patient=1, study=1, image=77)).save_as(film, enforce_file_format=True)
        assert library.ingest([source]).updated == 1
        check_sound(library)
        assert library.totals().images == 2


@pytest.mark.slow
def test_a_switch_of_models_survives_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    register_model(tmp_path / "data", "own-96", size=96)
    source, path = write_department(tmp_path / "source", studies=300, size=64), tmp_path / "library"
    shipped = find_model().model_id
    with open_library(path, create=True) as library:
        library.ingest([source])
        before = contents(library)
        asked = [hit.image_id for hit in library.similar(before["images"][0][0], k=20).hits]
    command = [sys.executable, "-m", "medsearch_desktop", "model", "use", "own-96", "--library", str(path)]
    rng = random.Random(3)
    embedded = kills = 0
    while kills < 3:
        process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
        log = path / "library.duckdb.wal"
        # At any moment after its first commit of vectors; a clean end leaves no log behind.
        while process.poll() is None and not (log.exists() and log.stat().st_size > 64 * 4096):
            time.sleep(0.002)
        # The first time at once, for a fast machine has the rest of it done in that time.
        time.sleep(rng.uniform(0, 0.3) if kills else 0)
        if process.poll() is not None:
            break
        # The first time as someone presses Ctrl-C, then without a word.
        os.killpg(process.pid, signal.SIGKILL if kills else signal.SIGINT)
        assert process.wait(60) in (0, 1, -signal.SIGKILL)
        with open_library(path) as library:
            if library.model_id != shipped:
                break
            kills += 1
            assert contents(library) == before
            assert [hit.image_id for hit in library.similar(before["images"][0][0], k=20).hits] == asked
            held = {model.model_id: model.vectors for model in library.models()}
            assert held[shipped] == 600
            assert held["own-96"] >= embedded + 64
            embedded = held["own-96"]
            assert library._embeddings.index_of("own-96").count == embedded
    assert kills, "the switch ends before it can be killed"
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with open_library(path) as library:
        assert library.model_id == "own-96"
        check_sound(library)
        survived = contents(library)
        assert library._database.read(
            "SELECT model_id, count(*), count(DISTINCT image_no) FROM vectors GROUP BY 1 ORDER BY 1"
        ) == [(shipped, 600, 600), ("own-96", 600, 600)]
        library.use_model(shipped)
        assert contents(library) == before
    with open_library(tmp_path / "fresh", create=True, model="own-96") as library:
        library.ingest([source])
        assert contents(library) == survived
