"""The demo folder: a small department's films and reports, written to disk."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np

from medsearch_desktop.demo.anatomy import Exposure
from medsearch_desktop.demo.casebook import Case, cases
from medsearch_desktop.demo.detector import Film, expose
from medsearch_desktop.demo.frontal import draw_frontal
from medsearch_desktop.demo.instance import FilmHeader, bundled_images, bundled_root, derived_uid, encode_film
from medsearch_desktop.demo.lateral import draw_lateral
from medsearch_desktop.demo.truth import DemoTruth, FilmTruth, FindingOnFilm, StudyTruth, read_truth
from medsearch_desktop.demo.wording import write_report
from medsearch_desktop.errors import ConfigError, SourceError, StorageFullError

VERSION = 2
"""Raised when the drawing or the wording changes, so that an older demo folder is written anew."""
TRUTH_FILE = "truth.json"
MAX_BUNDLED_BYTES = 400_000
_DESCRIPTIONS = {
    ("PA", "LL"): "CHEST (PA AND LAT)",
    ("PA",): "CHEST (PA)",
    ("AP",): "CHEST (PORTABLE AP)",
}


def build_demo_source(folder: Path, *, studies: int = 120, seed: int = 7, size: int = 1024) -> DemoTruth:
    """Write the synthetic department into `folder` and return what it shows.

    `synthetic/` holds the drawn films with their reports beside their study's folder, `pydicom/`
    the sample images that the pydicom package carries, `truth.json` the truth. The same arguments
    give the same bytes. A folder that is complete already is left as it is; files of an earlier
    demo with other arguments are removed, all others are kept. `size` is the side of a film in pixels.

    Raises ConfigError for arguments out of range, SourceError when the folder cannot be written,
    StorageFullError when the disk is full.
    """
    _check("studies", studies, 1, 5000)
    _check("size", size, 64, 4096)
    _check("seed", seed, 0, 2**31 - 1)
    try:
        before = _existing(folder)
        if before is not None and _complete(before, folder, studies=studies, seed=seed, size=size):
            return before
        truth = _build(folder, studies=studies, seed=seed, size=size)
        for path in set(before.files if before is not None else ()) - set(truth.files):
            (folder / path).unlink(missing_ok=True)
        # Last, as it is the mark of a complete folder.
        _write(folder / TRUTH_FILE, truth.to_json().encode())
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StorageFullError(
                "the disk is full", item=str(folder), remedy="Free some 200 MB or choose another folder"
            ) from error
        raise SourceError(
            f"the demo cannot be written there ({error.strerror})", item=str(folder), remedy="Choose another folder"
        ) from error
    return truth


def draw_film(case: Case, *, order: int, seed: int, size: int) -> Film:
    """Return the film of the view `case.views[order]`; `seed` is the demo's."""
    rng = np.random.default_rng([seed, 91, case.patient, case.visit, order])
    view = case.views[order]
    breath = abs(rng.normal(0, 0.3)) + (rng.uniform(1.4, 2.2) if view == "AP" else 0)
    turn = rng.normal(0, 0.3 if view == "AP" else 0.2)
    exposure = Exposure(view=view, seed=int(rng.integers(2**31)), breath=float(breath), turn=float(turn))
    draw = draw_lateral if view == "LL" else draw_frontal
    drawn = draw(case.person, exposure, case.findings)
    return expose(drawn.attenuation, drawn.marks, case.person, exposure, size=size)


def _check(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigError(f"must be from {low} to {high}", item=name)


def _existing(folder: Path) -> DemoTruth | None:
    try:
        return read_truth((folder / TRUTH_FILE).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _complete(truth: DemoTruth, folder: Path, *, studies: int, seed: int, size: int) -> bool:
    if (truth.version, truth.seed, truth.size, len(truth.studies)) != (VERSION, seed, size, studies):
        return False
    for path, length in truth.files.items():
        try:
            if (folder / path).stat().st_size != length:
                return False
        except FileNotFoundError:
            return False
    return True


def _build(folder: Path, *, studies: int, seed: int, size: int) -> DemoTruth:
    study_truths: list[StudyTruth] = []
    films: list[FilmTruth] = []
    files: dict[str, int] = {}
    for number, case in enumerate(cases(studies=studies, seed=seed)):
        patient = 10_000_032 + (case.patient % 10) * 1_000_000 + case.patient * 37
        study_id = str(50_000_032 + number * 41)
        study_uid = derived_uid(seed, "study", size, study_id)
        place = f"synthetic/p{patient // 1_000_000}/p{patient}/s{study_id}"
        accession = f"SYN{seed % 1000:03d}{number:05d}"
        for order, view in enumerate(case.views):
            header = FilmHeader(
                seed=seed,
                number=len(films),
                order=order,
                view=view,
                study_uid=study_uid,
                sop_instance_uid=derived_uid(seed, "film", size, study_id, order),
                patient_id=f"p{patient}",
                patient_name=f"Synthetic^Demo {case.patient + 1:03d}",
                sex=case.person.sex,
                age=case.person.age,
                study_date=case.study_date,
                study_id=study_id,
                accession_number=accession,
                study_description=_DESCRIPTIONS[case.views],
            )
            film = draw_film(case, order=order, seed=seed, size=size)
            path = f"{place}/{header.sop_instance_uid}.dcm"
            files[path] = _write(folder / path, encode_film(film.pixels, header))
            films.append(_film_truth(case, film, header, path))
        report = write_report(case, number=number, seed=seed)
        files[f"{place}.txt"] = _write(folder / f"{place}.txt", report.text.encode())
        study_truths.append(
            StudyTruth(
                study_uid=study_uid,
                study_id=study_id,
                patient_id=f"p{patient}",
                accession_number=accession,
                study_date=case.study_date.isoformat(),
                sex=case.person.sex,
                age=case.person.age,
                report=f"{place}.txt",
                style=report.style,
                findings=case.findings,
                stated=report.stated,
            )
        )
    for source in bundled_images():
        if source.stat().st_size <= MAX_BUNDLED_BYTES:
            path = f"pydicom/{source.relative_to(bundled_root()).as_posix()}"
            files[path] = _write(folder / path, source.read_bytes())
    return DemoTruth(
        version=VERSION, seed=seed, size=size, studies=tuple(study_truths), films=tuple(films), files=files
    )


def _film_truth(case: Case, film: Film, header: FilmHeader, path: str) -> FilmTruth:
    shown = zip(case.findings, film.boxes, strict=True)
    return FilmTruth(
        sop_instance_uid=header.sop_instance_uid,
        study_uid=header.study_uid,
        path=path,
        view=header.view,
        transfer_syntax_uid=str(header.transfer_syntax),
        photometric_interpretation=header.photometric_interpretation,
        findings=tuple(FindingOnFilm(item.name, item.side, item.size, item.place, box) for item, box in shown),
    )


def _write(path: Path, content: bytes) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    return len(content)
