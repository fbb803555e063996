"""What the benchmarks measure with: films, headers, vectors and a large library, all drawn from seeds."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator
from functools import cache
from io import BytesIO
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
BETWEEN_CLUSTERS = 0.3
# Shares of the variance along the first directions.
LEADING = (0.383, 0.061, 0.045)
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


def write_archive(folder: Path, *, first: int, count: int) -> None:
    """Write the films `first` to `first + count` of an archive: four a study, three studies a patient, 1.4 kB a file.

    Patients, dates, ages, views and devices are drawn from seeds, the same for a film whatever else is written. The
    pixels are 8 x 8; the headers say 2048 x 2048 of 12 bits, as those of radiographs do. 15,000 a second.
    """
    for number in range(first, first + count):
        own, look = _header(number)
        pieces, order = _template(look)
        content = b"".join([part for piece, name in zip(pieces, order, strict=True) for part in (piece, own[name])])
        home = folder / f"p{number // 1200:05d}" / f"s{number // 12:06d}"
        if number % 12 == 0 or number == first:
            home.mkdir(parents=True, exist_ok=True)
        (home / f"IM{number:07d}.dcm").write_bytes(content)


@cache
def _template(look: tuple[str, str, str, str]) -> tuple[list[bytes], list[str]]:
    """Return a file in pieces, after each of which the value of that name stands; all values are equally long."""
    ds = dataset(Film(size=8))
    ds.PatientSex, ds.ViewPosition, ds.Manufacturer, ds.StudyDescription = look
    ds.Rows = ds.Columns = 2048
    marks = {name: value.decode() for name, value in _header(987_654_321)[0].items() if name}
    marks |= {"date": "18991231", "age": "987Y"}
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = marks["image"]
    ds.StudyInstanceUID, ds.SeriesInstanceUID = marks["study"], marks["series"]
    ds.PatientID, ds.AccessionNumber = marks["patient"], marks["accession"]
    ds.StudyDate, ds.PatientAge = marks["date"], marks["age"]
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    names = {mark.encode(): name for name, mark in marks.items()}
    parts = re.split(b"(" + b"|".join(map(re.escape, names)) + b")", buffer.getvalue())
    return [*parts[::2]], [*(names[mark] for mark in parts[1::2]), ""]


def archive_image(number: int) -> str:
    """Return the SOP Instance UID of a film of `write_archive`."""
    return uid(7, 1_000_000_000 + number, 3)


def archive_study(study: int) -> str:
    """Return the Study Instance UID of a study of `write_archive`."""
    return uid(7, 1_000_000_000 + study, 1)


def _header(number: int) -> tuple[dict[str, bytes], tuple[str, str, str, str]]:
    """Return what is a film's own, and sex, view, device and description."""
    study, patient = number // 4, number // 12
    person, visit = random.Random(patient), random.Random(-1 - study)
    born, year = person.randint(1930, 2000), visit.randint(2015, 2024)
    own = {
        "image": archive_image(number),
        "study": archive_study(study),
        "series": uid(7, 1_000_000_000 + study, 2),
        "patient": f"P{patient:08d}",
        "accession": f"A{study:09d}",
        "date": f"{year}{visit.randint(1, 12):02d}{visit.randint(1, 28):02d}",
        "age": f"0{year - born:02d}Y",
        "": "",
    }
    view = ("PA" if visit.random() < 0.7 else "AP") if number % 4 < 2 else "LL"
    device = visit.choice(("SIEMENS", "GE Healthcare", "Philips"))
    what = visit.choice(("CHEST 2 VIEWS", "CHEST PORTABLE"))
    return {name: value.encode() for name, value in own.items()}, (person.choice("MF"), view, device, what)


def vectors(count: int, *, seed: int) -> NDArray[np.float32]:
    """Return `count` vectors of length one that lie as those of real chest films do.

    A mixture of 200 Gaussians of unequal weight and width, 70 % of the variance within them. Three
    directions hold half of all variance, the rest fades slowly. Set against the shipped model's
    vectors of 3,400 public chest films (in brackets): cosine to the nearest 0.72 (0.72), to the tenth
    0.67 (0.67), to the hundredth 0.53 (0.63), 80 and 95 % of the variance in 158 and 455 dimensions
    (177, 482), intrinsic dimension around a point 42 (34): no easier to search than these.
    Every `seed` draws from the same mixture.
    """
    places = np.arange(DIM)
    spectrum = 0.0022 * np.exp(-places / 260) + 0.011 / (1 + places)
    spread = np.sqrt(spectrum / spectrum.sum() * (1 - sum(LEADING)))
    mixture = np.random.default_rng(5)
    centres = mixture.standard_normal((CLUSTERS, DIM)) * spread * np.sqrt(BETWEEN_CLUSTERS)
    # Adults and children, or whatever it is that a network sees first, fall into two camps.
    camps = mixture.choice([-1.3, 0.7], (CLUSTERS, 1), p=[0.35, 0.65])
    leading = np.concatenate([camps, mixture.standard_normal((CLUSTERS, 2))], axis=1)
    centres[:, :3] += leading / np.sqrt(np.square(leading).mean(axis=0)) * np.sqrt(LEADING)
    widths = np.exp(0.3 * mixture.standard_normal(CLUSTERS))
    weights = 1 / (np.arange(CLUSTERS) + 3.0)
    rng = np.random.default_rng([17, seed])
    drawn = np.empty((count, DIM), np.float32)
    for start in range(0, count, 8192):
        part = drawn[start : start + 8192]
        cluster = rng.choice(CLUSTERS, len(part), p=weights / weights.sum())
        own = rng.standard_normal(part.shape, dtype=np.float32) * (spread * np.sqrt(1 - BETWEEN_CLUSTERS))
        part[:] = own * widths[cluster, None] + centres[cluster]
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
