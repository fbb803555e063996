"""The demo folder: layout, repeatability, and DICOM files that a reader accepts."""

from __future__ import annotations

import hashlib
import json
import socket
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import UID

from medsearch_desktop.demo.build import TRUTH_FILE, build_demo_source, draw_film
from medsearch_desktop.demo.casebook import cases
from medsearch_desktop.demo.detector import FULL
from medsearch_desktop.demo.instance import FilmHeader, bundled_images, derived_uid, encode_film
from medsearch_desktop.demo.truth import DRAWN_FINDINGS, DemoTruth, read_truth
from medsearch_desktop.errors import ConfigError, SourceError

STUDIES, SIZE = 10, 96


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoTruth]:
    folder = tmp_path_factory.mktemp("demo")
    return folder, build_demo_source(folder, studies=STUDIES, size=SIZE)


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    built: tuple[Path, DemoTruth], tmp_path: Path
) -> None:
    folder, truth = built
    again = build_demo_source(tmp_path / "again", studies=STUDIES, size=SIZE)
    assert again == truth
    assert digests(tmp_path / "again") == digests(folder)
    other = build_demo_source(tmp_path / "other", studies=2, size=SIZE, seed=8)
    assert not {film.sop_instance_uid for film in other.films} & {film.sop_instance_uid for film in truth.films}


def test_the_layout_is_that_of_a_report_beside_its_studys_folder(built: tuple[Path, DemoTruth]) -> None:
    folder, truth = built
    first = truth.studies[0]
    assert first.report == "synthetic/p10/p10000032/s50000032.txt"
    for study in truth.studies:
        report = folder / study.report
        assert report.read_text("utf-8").startswith("SYNTHETIC REPORT - NOT A REAL PATIENT\n")
        films = truth.films_of(study.study_uid)
        assert {folder / film.path for film in films} == set((report.parent / report.stem).iterdir())
        assert all(Path(film.path).stem == film.sop_instance_uid for film in films)
    on_disk = {path for path in digests(folder) if path != TRUTH_FILE}
    assert on_disk == set(truth.files)
    assert {path: (folder / path).stat().st_size for path in on_disk} == truth.files


def test_truth_is_read_back_from_its_file(built: tuple[Path, DemoTruth]) -> None:
    folder, truth = built
    text = (folder / TRUTH_FILE).read_text("utf-8")
    assert read_truth(text) == truth
    content = json.loads(text)
    assert {film["view"] for film in content["films"]} <= {"PA", "AP", "LL"}


def test_a_complete_folder_is_left_alone_and_a_torn_one_is_mended(tmp_path: Path) -> None:
    truth = build_demo_source(tmp_path, studies=2, size=SIZE)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert build_demo_source(tmp_path, studies=2, size=SIZE) == truth
    assert {path: path.stat().st_mtime_ns for path in before} == before
    whole = digests(tmp_path)
    (tmp_path / truth.films[0].path).write_bytes(b"torn")
    (tmp_path / truth.studies[1].report).unlink()
    build_demo_source(tmp_path, studies=2, size=SIZE)
    assert digests(tmp_path) == whole


def test_other_arguments_replace_the_demo_and_nothing_else(tmp_path: Path) -> None:
    build_demo_source(tmp_path, studies=3, size=SIZE)
    (tmp_path / "mine.txt").write_text("kept")
    truth = build_demo_source(tmp_path, studies=1, size=SIZE)
    assert set(digests(tmp_path)) == {*truth.files, TRUTH_FILE, "mine.txt"}


def test_a_tampered_truth_file_cannot_have_other_files_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    truth = build_demo_source(folder, studies=1, size=SIZE)
    outside = tmp_path / "outside.txt"
    outside.write_text("kept")
    for evil in ("../outside.txt", str(outside), "a/../../outside.txt", "C:outside.txt", "..\\outside.txt"):
        tampered = replace(truth, seed=99, files={**truth.files, evil: 4})
        with pytest.raises(ValueError, match="not a truth file"):
            read_truth(tampered.to_json())
        (folder / TRUTH_FILE).write_text(tampered.to_json())
        build_demo_source(folder, studies=1, size=SIZE)
        assert outside.read_text() == "kept"


@pytest.mark.parametrize(
    ("name", "value"), [("studies", 0), ("studies", 5001), ("size", 63), ("size", 4097), ("seed", -1)]
)
def test_arguments_out_of_range_are_named(tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: must be from") as caught:
        build_demo_source(tmp_path, **{name: value})
    assert caught.value.item == name
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(SourceError, match="cannot be written") as caught:
        build_demo_source(tmp_path / "taken", studies=1, size=SIZE)
    assert isinstance(caught.value.__cause__, OSError)


def test_no_network_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    truth = build_demo_source(tmp_path, studies=1, size=SIZE)
    copied = [path for path in truth.files if path.startswith("pydicom/")]
    assert len(copied) == len(bundled_images()) > 50
    assert not [path for path in copied if Path(path).suffix in (".py", ".json", ".txt", ".zip", ".gz", ".icc")]
    assert sum(truth.files[path] for path in copied) < 5_000_000


def test_every_film_is_a_sound_dicom_file(built: tuple[Path, DemoTruth]) -> None:
    folder, truth = built
    study_of = {study.study_uid: study for study in truth.studies}
    uids, numbers_in_series = set(), set()
    series: dict[str, tuple[str, ...]] = {}
    for film in truth.films:
        ds = pydicom.dcmread(folder / film.path)
        study = study_of[film.study_uid]
        assert (ds.SOPInstanceUID, ds.StudyInstanceUID, ds.ViewPosition) == (
            film.sop_instance_uid, film.study_uid, film.view,
        )  # fmt: skip
        assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
        assert ds.file_meta.MediaStorageSOPClassUID == ds.SOPClassUID
        assert ds.file_meta.TransferSyntaxUID == film.transfer_syntax_uid
        assert ds.Modality == {"Computed": "CR", "Digital ": "DX"}[UID(ds.SOPClassUID).name[:8]]
        assert all(UID(uid).is_valid for uid in (ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID))
        assert ds.PatientID == study.patient_id == Path(film.path).parts[2]
        assert f"s{ds.StudyID}" == Path(film.path).parts[3]
        assert ds.AccessionNumber == study.accession_number
        assert len(ds.AccessionNumber) <= 16
        assert str(ds.PatientName).startswith("Synthetic^Demo ")
        assert (ds.PatientSex, ds.PatientAge) == (study.sex, f"{study.age:03d}Y")
        assert date.fromisoformat(study.study_date).strftime("%Y%m%d") == ds.StudyDate
        assert "20230101" <= ds.StudyDate <= "20251231"
        assert (ds.BodyPartExamined, ds.BurnedInAnnotation, ds.Manufacturer) == ("CHEST", "YES", "MedSearch synthetic")
        assert "Laterality" not in ds
        assert (ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit) == (SIZE, SIZE, 16, 12, 11)
        assert ds.PixelSpacing[0] == pytest.approx(430 / SIZE)
        assert ds.pixel_array.shape == (SIZE, SIZE)
        assert ds.pixel_array.max() <= FULL
        assert len(np.unique(ds.pixel_array)) > 500
        if ds.Modality == "DX":
            # PS3.3 C.8.11: required of the DX image, module by module.
            assert ds.PresentationIntentType == "FOR PRESENTATION"
            assert (ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType) == (1, 0, "US")
            assert ds.ImageLaterality == "U"
            for name in ("AnatomicRegionSequence", "ViewCodeSequence", "DetectorType", "PixelIntensityRelationship"):
                assert getattr(ds, name)
        for box in (finding.box for finding in film.findings):
            x, y, width, height = box
            assert 0 <= x < x + width <= SIZE
            assert 0 <= y < y + height <= SIZE
        # What PS3.3 C.7.3.1 gives to the series is the same in all of its images.
        own = (ds.Modality, ds.SeriesDescription, ds.SeriesTime, str(ds.SeriesNumber), ds.StudyInstanceUID)
        assert series.setdefault(ds.SeriesInstanceUID, own) == own
        uids.add(ds.SOPInstanceUID)
        numbers_in_series.add((ds.SeriesInstanceUID, ds.InstanceNumber))
    assert len(uids) == len(numbers_in_series) == len(truth.films)


def test_every_way_of_encoding_shows_the_film_that_was_drawn() -> None:
    pixels = draw_film(next(cases(studies=1, seed=7)), order=0, seed=7, size=SIZE).pixels
    seen = set()
    for number in range(48):
        header = FilmHeader(
            seed=7, number=number, order=0, view="PA", study_uid=derived_uid("study"),
            sop_instance_uid=derived_uid("film", number), patient_id="p1", patient_name="Synthetic^Demo 001",
            sex="F", age=50, study_date=date(2024, 2, 29), study_id=str(50000032 + 41 * (number // 2)),
            accession_number="SYN00700000", study_description="CHEST (PA)",
        )  # fmt: skip
        ds = pydicom.dcmread(pydicom.filebase.DicomBytesIO(encode_film(pixels, header)))
        shown = apply_voi_lut(apply_modality_lut(ds.pixel_array, ds), ds).astype(np.float64)
        low, high = (float(ds.WindowCenter[0]), float(ds.WindowWidth[0])) if "HARDER" in ds.get(
            "WindowCenterWidthExplanation", ()
        ) else (float(ds.WindowCenter), float(ds.WindowWidth))  # fmt: skip
        raw = apply_modality_lut(ds.pixel_array, ds).astype(np.float64)
        fraction = (raw - (low - high / 2)) / high
        if ds.PhotometricInterpretation == "MONOCHROME1":
            fraction, shown = 1 - fraction, -shown
        assert np.abs(fraction - pixels / FULL).max() < 2e-3, number
        # The window must not clip what was drawn, nor turn it over.
        assert np.corrcoef(shown.ravel(), pixels.ravel())[0, 1] > 0.9999, number
        seen.add((str(header.transfer_syntax), ds.PhotometricInterpretation, ds.Modality, "RescaleSlope" in ds))
    assert len({syntax for syntax, *_ in seen}) == 6
    assert {photometric for _, photometric, *_ in seen} == {"MONOCHROME1", "MONOCHROME2"}
    assert {modality for _, _, modality, _ in seen} == {"CR", "DX"}


def test_120_studies_are_balanced() -> None:
    listed = list(cases(studies=120, seed=7))
    assert len(listed) == 120
    counts = {name: sum(any(item.name == name for item in case.findings) for case in listed) for name in DRAWN_FINDINGS}
    assert min(counts.values()) >= 12
    assert 0.3 <= sum(not case.findings for case in listed) / 120 <= 0.4
    for name in ("Effusion", "Pneumothorax", "Nodule", "Consolidation"):
        sides = [item.side for case in listed for item in case.findings if item.name == name]
        assert min(sides.count("left"), sides.count("right")) >= 4
        assert len({item.size for case in listed for item in case.findings if item.name == name}) == 3
    visits = [case.visit for case in listed]
    assert visits.count(1) >= 20
    assert visits.count(2) >= 5
    assert all(case.prior_date is None or case.prior_date < case.study_date for case in listed)
    assert 160 <= sum(len(case.views) for case in listed) <= 200


def test_another_number_of_studies_begins_alike() -> None:
    few, many = list(cases(studies=9, seed=7)), list(cases(studies=260, seed=7))
    assert many[:9] == few
    assert len(many) == 260
    assert {item.name for case in few for item in case.findings} == set(DRAWN_FINDINGS)
