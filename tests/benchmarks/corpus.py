"""What the benchmarks measure with: films, headers, vectors and a large library, all drawn from seeds."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Raster

from medsearch_desktop.image.models import find_model
from medsearch_desktop.library import Library, open_library
from medsearch_desktop.records import (
    Assertion,
    Category,
    Entity,
    FileKind,
    Image,
    LinkRule,
    Report,
    Section,
    SourceFile,
)
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.intake import INDEXED, Intake, Outcome
from tests.benchmarks.bench_text import documents
from tests.makers import Film, dataset, uid

DIM = 1024
CLUSTERS = 200
BETWEEN_CLUSTERS = 0.7
ROOT = "/archive"


def write_films(folder: Path, count: int, *, size: int, seed: int = 1) -> list[Path]:
    """Write `count` uncompressed CR films of 12 bits in 16, size x size, two a study, and return their paths.

    Smooth shapes with the grain of a real detector (12 of 4,096 levels), so that packing them into PNG
    costs what it costs with real ones.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    reach = size // 4
    grain = rng.normal(0, 12, (size + reach, size + reach)).astype(np.float32)
    paths = []
    for number in range(count):
        shapes = Raster.fromarray(rng.uniform(300, 3600, (12, 12)).astype(np.float32))
        smooth = np.asarray(shapes.resize((size, size), Raster.Resampling.BICUBIC))
        y, x = rng.integers(0, reach, 2)
        pixels = (smooth + grain[y : y + size, x : x + size]).clip(0, 4095).astype("<u2")
        ds = dataset(Film(patient=seed * 10_000 + number // 4, study=number // 2, image=1 + number % 2, size=8))
        ds.Rows = ds.Columns = size
        ds.PixelData = pixels.tobytes()
        paths.append(folder / f"film{number:05d}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths


def write_headers(folder: Path, count: int, *, size: int = 128) -> None:
    """Write `count` small DICOM files in folders of 100, which differ in their identifiers only."""
    pixels = dataset(Film(size=size)).PixelData
    for number in range(count):
        home = folder / f"p{number // 400:05d}" / f"s{number // 100:05d}"
        home.mkdir(parents=True, exist_ok=True)
        ds = dataset(Film(patient=1 + number // 400, study=1 + number // 4, image=1 + number % 4, size=8))
        ds.Rows = ds.Columns = size
        ds.PixelData = pixels
        ds.save_as(home / f"IM{number:06d}.dcm", enforce_file_format=True)


def vectors(count: int, *, seed: int) -> NDArray[np.float32]:
    """Return `count` vectors of length one that lie as those of real chest films do.

    A mixture of 200 Gaussians of unequal weight, 70 % of the variance between their centres, both
    with the eigenvalues (1 + k/8)^-2.5, around a common mean. Set against the shipped model's
    vectors of 2,400 public chest films (in brackets): median cosine of a pair 0.59 (0.51), to
    the nearest 0.93 (0.95), to the tenth 0.88 (0.92), 95 % of the variance in 57 dimensions (49),
    intrinsic dimension around a point 8.7 (8.6). Every `seed` draws from the same mixture.
    """
    spectrum = (1 + np.arange(DIM) / 8.0) ** -2.5
    spread = np.sqrt(spectrum / spectrum.sum())
    mixture = np.random.default_rng(5)
    centres = mixture.standard_normal((CLUSTERS, DIM)) * spread * np.sqrt(BETWEEN_CLUSTERS)
    centres += np.sqrt(0.55 / 0.45 / DIM)
    weights = 1 / (np.arange(CLUSTERS) + 3.0)
    rng = np.random.default_rng([17, seed])
    drawn = np.empty((count, DIM), np.float32)
    for start in range(0, count, 8192):
        part = drawn[start : start + 8192]
        own = rng.standard_normal(part.shape, dtype=np.float32) * (spread * np.sqrt(1 - BETWEEN_CLUSTERS))
        part[:] = own + centres[rng.choice(CLUSTERS, len(part), p=weights / weights.sum())]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return drawn


def large_library(work: Path, *, images: int, reports: int, **settings: Any) -> tuple[Library, dict[str, Any]]:
    """Return the open library of `images` images and as many reports, and what making it took, in seconds.

    The records go into the database as an ingest leaves them, in large batches; the indexes are
    then built by the library itself. Made once for a folder `work`. Reports beyond `images` have no study.
    """
    path = work / f"library-{images}-{reports}"
    notes = path.with_suffix(".json")
    if not notes.exists():
        open_library(path, create=True, **settings).close()
        taken = {"records": fill(path, first=0, images=images, reports=reports)}
        started = time.perf_counter()
        library = open_library(path, **settings)
        taken["text and flat index"] = time.perf_counter() - started
        started = time.perf_counter()
        library.vectors.extend_graph()
        taken["graph"] = time.perf_counter() - started
        notes.write_text(json.dumps({name: round(seconds, 1) for name, seconds in taken.items()}), "utf-8")
        library.close()
    return open_library(path, **settings), json.loads(notes.read_text("utf-8"))


def add_reports(path: Path, *, first: int, count: int) -> float:
    """Append `count` reports without a study to a library that is closed; return the seconds taken."""
    return fill(path, first=first, images=0, reports=count, seed=8)


def image_id(number: int) -> str:
    """Return the identifier of image `number`, from 0, of a large library."""
    return uid(9, number, 1)


def fill(path: Path, *, first: int, images: int, reports: int, seed: int = 7, batch: int = 4096) -> float:
    """Append images with vectors, and reports, to a library that is closed; return the seconds taken."""
    model_id = find_model().model_id
    drawn = vectors(images, seed=1)
    started = time.perf_counter()
    database = Database(path / "library.duckdb")
    try:
        intake = Intake(database)
        made = enumerate(documents(max(images, reports), seed=seed), start=first)
        while chunk := list(islice(made, batch)):
            outcomes = []
            for number, document in chunk:
                if number - first < images:
                    outcomes.append(image_outcome(number, document, drawn[number]))
                if number - first < reports:
                    outcomes.append(report_outcome(number, document, linked=number - first < images))
            intake.write(outcomes, model_id=model_id, pipeline_version="benchmark")
        database.checkpoint()
    finally:
        database.close()
    return time.perf_counter() - started


def _file(name: str, kind: FileKind) -> SourceFile:
    return SourceFile(f"{ROOT}/{name}", ROOT, 8_000_000, 1_700_000_000_000_000_000, kind, f"{name}-digest")


def image_outcome(number: int, document: dict[str, Any], vector: NDArray[np.float32]) -> Outcome:
    """Return image `number` of a study as an ingest commits it."""
    image = Image(
        image_id=image_id(number),
        sop_instance_uid=image_id(number),
        study_uid=document["study_uid"],
        series_uid=uid(9, number, 0),
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        patient_id=document["patient_id"],
        patient_sex=document["patient_sex"],
        patient_age=document["patient_age"],
        accession_number=document["accession_number"],
        study_id=document["study_id"],
        study_date=document["study_date"],
        study_description=document["study_description"],
        modality=document["modalities"][0],
        view_position=document["view_positions"][0],
        body_part="CHEST",
        manufacturer=document["manufacturers"][0],
        rows=2048,
        columns=2048,
        bits_stored=12,
        photometric_interpretation="MONOCHROME2",
    )
    file = _file(f"s{number}/film.dcm", FileKind.DICOM)
    return Outcome(file, INDEXED, file.mtime_ns, images=(image,), vectors=(vector,))


def report_outcome(number: int, document: dict[str, Any], *, linked: bool) -> Outcome:
    """Return report `number` as an ingest commits it, of the document's study where it is `linked`."""
    text = document["text"]
    report = Report(
        report_id=f"r{number}",
        text=text,
        sections=tuple(Section(*part) for part in document["sections"]),
        entities=tuple(_entities(text, document)),
        study_uid=document["study_uid"] if linked else None,
        link_rule=LinkRule.STUDY_ID if linked else None,
    )
    file = _file(f"s{number}.txt", FileKind.REPORT)
    return Outcome(file, INDEXED, file.mtime_ns, reports=(report,))


def _entities(text: str, document: dict[str, Any]) -> Iterator[Entity]:
    lower = text.lower()
    after: dict[str, int] = {}
    for code, title, finding, assertion, category, what in document["entities"]:
        start = lower.find(what, after.get(what, 0))
        start = start if start >= 0 else lower.find(what)
        after[what] = end = start + len(what)
        yield Entity(
            text=text[start:end],
            start=start,
            end=end,
            section=next((name for name, low, high in document["sections"] if low <= start < high), ""),
            category=Category(category),
            assertion=Assertion(assertion),
            finding=finding,
            icd10cm=code,
            title=title,
            score=0.97,
        )
