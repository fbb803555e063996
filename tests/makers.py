"""A small department of DICOM and reports that tests write for themselves."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from medsearch_desktop.image.models import find_model


@dataclass(frozen=True)
class Film:
    """One test image: numbers that its identifiers and its looks follow from."""

    patient: int = 1
    study: int = 1
    image: int = 1
    view: str = "PA"
    modality: str = "CR"
    age: str = "045Y"
    sex: str = "F"
    date: str = "20240315"
    size: int = 96


def uid(*parts: int) -> str:
    return "1.2.826.0.1.3680043.10.1." + ".".join(str(part) for part in parts)


def pixels(film: Film) -> np.ndarray:
    rng = np.random.default_rng([film.patient, film.study, film.image])
    y, x = np.mgrid[0 : film.size, 0 : film.size] / film.size
    cx, cy, r = rng.uniform(0.2, 0.8, 3)
    blob = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (0.02 + 0.1 * r))
    return (3000 * blob + rng.normal(500, 40, (film.size, film.size))).clip(0, 4095).astype(np.uint16)


def dataset(film: Film) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = ComputedRadiographyImageStorage
    ds.SOPInstanceUID = uid(film.patient, film.study, film.image)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid(film.patient, film.study), uid(film.patient, film.study, 0)
    ds.PatientID, ds.PatientName = f"P{film.patient:04d}", "Test^Patient"
    ds.PatientSex, ds.PatientAge, ds.StudyDate = film.sex, film.age, film.date
    ds.Modality, ds.ViewPosition, ds.BodyPartExamined = film.modality, film.view, "CHEST"
    ds.StudyID, ds.AccessionNumber = str(50_000_000 + film.study), f"A{film.study:05d}"
    ds.InstanceNumber = film.image
    ds.Rows = ds.Columns = film.size
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.WindowCenter, ds.WindowWidth = 2048, 4096
    ds.PixelData = pixels(film).tobytes()
    return ds


REPORTS = (
    "FINDINGS: Large left pleural effusion. No pneumothorax.\nIMPRESSION: Left pleural effusion.",
    "FINDINGS: The lungs are clear. No pleural effusion or pneumothorax.\nIMPRESSION: Normal chest.",
    "FINDINGS: Small apical right pneumothorax. Heart size is normal.\nIMPRESSION: Right pneumothorax.",
    "FINDINGS: The heart is enlarged. Possible small pleural effusion.\nIMPRESSION: Cardiomegaly.",
)


def write_department(folder: Path, *, studies: int, first: int = 1, size: int = 96) -> Path:
    """Write `studies` studies of two films and one report each, in the layout of MIMIC-CXR."""
    for study in range(first, first + studies):
        patient = 1 + (study - 1) // 2
        home = folder / "files" / f"p{patient:08d}" / f"s{50_000_000 + study}"
        home.mkdir(parents=True, exist_ok=True)
        for image, view in ((1, "PA"), (2, "LL")):
            film = Film(
                patient=patient, study=study, image=image, view=view, size=size,
                date=f"2024{1 + study % 12:02d}10", age=f"{30 + study % 50:03d}Y", sex="MF"[study % 2],
            )  # fmt: skip
            dataset(film).save_as(home / f"image{image}.dcm", enforce_file_format=True)
        home.with_suffix(".txt").write_text(f"Study {study}.\n{REPORTS[study % len(REPORTS)]}\n", "utf-8")
    return folder


def register_model(data: Path, model_id: str, *, size: int = 64, content: bytes | None = None) -> Path:
    """Register the shipped network under another name and size in a user's data folder; return its file.

    The same weights at another size are another vector space, and at 64 pixels a fast one.
    """
    spec = find_model()
    content = spec.path.read_bytes() if content is None else content
    folder = data / "medsearch" / "models" / model_id
    folder.mkdir(parents=True)
    file = folder / "network.onnx"
    file.write_bytes(content)
    entry = {
        "model_id": model_id,
        "file": file.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "dim": spec.dim,
        "preprocessing": {**spec.preprocessing.as_json(), "size": size},
    }
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "models": [entry]}), "utf-8")
    return file
