"""Real films and real reports through the whole arch; nothing of them is kept."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
from makers import Film, dataset
from PIL import Image

from medsearch_desktop.library import Library, open_library

STUDIES = 80


@pytest.fixture(scope="module")
def home(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of real films as DICOM, with real reports beside them by accident of order."""
    folder = tmp_path_factory.mktemp("real")
    with (test_data / "cxr" / "manifest.csv").open(encoding="utf-8", newline="") as file:
        films = random.Random(1).sample(list(csv.DictReader(file)), STUDIES)
    with (test_data / "openi" / "reports.jsonl").open(encoding="utf-8") as file:
        reports = [json.loads(line)["text_full"] for line, _ in zip(file, films, strict=False)]
    for number, (row, report) in enumerate(zip(films, reports, strict=True), start=1):
        grey = np.asarray(Image.open(test_data / "cxr" / row["file"]).convert("L"))
        ds = dataset(Film(patient=number, study=number, view=(row["view"] or "AP")[:2]))
        ds.Rows, ds.Columns = grey.shape
        ds.BitsAllocated = ds.BitsStored = 8
        ds.HighBit, ds.WindowCenter, ds.WindowWidth = 7, 128, 256
        ds.PixelData = grey.tobytes() + b"\0" * (grey.size % 2)
        home = folder / "source" / f"p{number:08d}" / f"s{50_000_000 + number}"
        home.mkdir(parents=True)
        ds.save_as(home / "film.dcm", enforce_file_format=True)
        home.with_suffix(".txt").write_text(report, "utf-8")
    with open_library(folder / "library", create=True) as library:
        summary = library.ingest([folder / "source"])
    assert (summary.images, summary.reports, summary.failed) == (STUDIES, STUDIES, 0)
    return folder


@pytest.fixture
def library(home: Path):
    with open_library(home / "library") as opened:
        yield opened


def test_every_report_has_its_study(library: Library) -> None:
    assert library._database.read("SELECT count(*) FROM reports WHERE study_uid IS NULL") == [(0,)]


def test_states_of_findings_are_told_apart(library: Library) -> None:
    absent = library.search("absent:pneumothorax", k=STUDIES)
    present = library.search("present:pneumothorax", k=STUDIES)
    assert absent.total > 10 * max(1, present.total)
    for hit in absent.hits:
        assert any(e.finding == "Pneumothorax" and e.assertion == "absent" for e in hit.entities)


def test_a_film_finds_itself_whatever_its_format(library: Library, test_data: Path, home: Path) -> None:
    for film in sorted((home / "source").rglob("film.dcm"))[:10]:
        hit = library.similar(film, k=1).hits[0]
        assert hit.path == str(film)
        assert hit.score > 0.9999


def test_new_films_are_of_the_kind_and_noise_is_not(library: Library, test_data: Path, tmp_path: Path) -> None:
    films = random.Random(2).sample(sorted((test_data / "cxr" / "images").iterdir()), 20)
    assert sum(library.similar(film).nothing_close for film in films) <= 3
    noise = np.random.default_rng(0).integers(0, 255, (300, 300), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    assert library.similar(tmp_path / "noise.png").nothing_close
