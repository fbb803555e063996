"""One film as a DICOM file: the only module of the demo that imports pydicom."""

from __future__ import annotations

import io
import uuid
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from openjpeg.utils import PhotometricInterpretation, encode_array
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from medsearch_desktop.demo.detector import FILM, FULL

_SPACE = uuid.UUID("6f2f5f0a-5a0e-5d6a-9b5e-8f0f3d1c7a42")
_PLUGINS = {JPEGLSLossless: "pyjpegls", RLELossless: "gdcm"}
_VIEW_CODES = {
    "PA": ("272479007", "postero-anterior"),
    "AP": ("399348003", "antero-posterior"),
    "LL": ("399173006", "left lateral"),
}
_VIEW_NAMES = {"PA": "Chest PA", "AP": "Chest AP portable", "LL": "Chest lateral"}


@dataclass(frozen=True, slots=True)
class FilmHeader:
    """What identifies one film, and the choices in which real departments differ.

    `number` counts all films of the demo from 0 and picks transfer syntax, photometric
    interpretation and window; `order` is the film's place in its study, from 0.
    """

    seed: int
    number: int
    order: int
    view: str
    study_uid: str
    sop_instance_uid: str
    patient_id: str
    patient_name: str
    sex: str
    age: int
    study_date: date
    study_id: str
    accession_number: str
    study_description: str

    @property
    def transfer_syntax(self) -> UID:
        """The transfer syntax: mostly JPEG-LS, for the sake of the disk, and each other one now and then."""
        return {
            1: RLELossless,
            3: ExplicitVRLittleEndian,
            6: JPEG2000Lossless,
            9: ImplicitVRLittleEndian,
            12: RLELossless,
            15: DeflatedExplicitVRLittleEndian,
            18: RLELossless,
            26: RLELossless,
        }.get(self.number % 32, JPEGLSLossless)

    @property
    def photometric_interpretation(self) -> str:
        """MONOCHROME1 for one film in sixteen, as older plate readers write it."""
        return "MONOCHROME1" if self.number % 16 == 5 else "MONOCHROME2"


def derived_uid(*parts: object) -> str:
    """Return a UID under 2.25 that is the same for the same `parts` (PS3.5, B.2)."""
    return f"2.25.{uuid.uuid5(_SPACE, '/'.join(map(str, parts))).int}"


def encode_film(pixels: NDArray[np.uint16], header: FilmHeader) -> bytes:
    """Return the DICOM file of `pixels` (size, size), 12 bits with dense bone bright."""
    ds = Dataset()
    ds.file_meta = _file_meta(header)
    # By study, since all images of a series are of one modality.
    digital = int(header.study_id) % 3 != 1
    _patient_and_study(ds, header, digital=digital)
    _film(ds, header, pixels.shape[0], digital=digital)
    stored = _stored_values(ds, pixels, header, digital=digital)
    if header.transfer_syntax in _PLUGINS:
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.set_pixel_data(stored, ds.PhotometricInterpretation, 12, generate_instance_uid=False)
        ds.compress(
            header.transfer_syntax, encoding_plugin=_PLUGINS[header.transfer_syntax], generate_instance_uid=False
        )
    else:
        ds.set_pixel_data(stored, ds.PhotometricInterpretation, 12, generate_instance_uid=False)
    if header.transfer_syntax == JPEG2000Lossless:
        ds.PixelData = encapsulate([_jpeg_2000(stored)])
        ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = header.transfer_syntax
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, enforce_file_format=True, **_encoding(header.transfer_syntax))
    return buffer.getvalue()


def bundled_images() -> list[Path]:
    """Return the DICOM image files that the installed pydicom carries, sorted; none when it carries none.

    The folder is listed and nothing asked for by name, since pydicom downloads what it lacks.
    """
    root = Path(pydicom.__file__).parent / "data" / "test_files"
    found = [path for path in root.glob("*.dcm") if path.is_file()]
    found += [path for path in (root / "dicomdirtests").rglob("*") if _is_image(path)]
    return sorted(found)


def bundled_root() -> Path:
    """Return the folder below which `bundled_images` looks."""
    return Path(pydicom.__file__).parent / "data" / "test_files"


def _is_image(path: Path) -> bool:
    if not path.is_file() or path.name.startswith("DICOMDIR"):
        return False
    head = path.read_bytes()
    return head[128:132] == b"DICM" and b"\xe0\x7f\x10\x00" in head


def _jpeg_2000(stored: NDArray[np.uint16]) -> bytes:
    # Straight from the encoder: pydicom reaches it only through a further package.
    encoded: bytes = encode_array(
        stored, photometric_interpretation=PhotometricInterpretation.MONOCHROME2, bits_stored=12
    )
    return encoded


def _encoding(syntax: UID) -> dict[str, bool]:
    return {"implicit_vr": syntax == ImplicitVRLittleEndian, "little_endian": True}


def _file_meta(header: FilmHeader) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPInstanceUID = UID(header.sop_instance_uid)
    meta.TransferSyntaxUID = header.transfer_syntax
    # pydicom's own would change with its release, and the bytes with it.
    meta.ImplementationClassUID = UID(derived_uid("implementation"))
    meta.ImplementationVersionName = "MEDSEARCH_DEMO"
    return meta


def _patient_and_study(ds: Dataset, header: FilmHeader, *, digital: bool) -> None:
    day = header.study_date.strftime("%Y%m%d")
    clock = 8 * 3600 + (int(header.study_id) * 641) % (10 * 3600)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation if digital else ComputedRadiographyImageStorage
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.SOPInstanceUID = header.sop_instance_uid
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = day
    ds.StudyTime = _clock(clock)
    ds.AcquisitionTime = ds.ContentTime = _clock(clock + 90 * (header.order + 1))
    ds.AccessionNumber = header.accession_number
    ds.Modality = "DX" if digital else "CR"
    ds.Manufacturer = "MedSearch synthetic"
    ds.ManufacturerModelName = "Drawn radiograph"
    ds.InstitutionName = "Synthetic Department of Radiology"
    ds.DeviceSerialNumber = "SYNTHETIC"
    ds.SoftwareVersions = "demo"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = header.study_description
    ds.PatientName = header.patient_name
    ds.PatientID = header.patient_id
    ds.PatientBirthDate = ""
    ds.PatientSex = header.sex
    ds.PatientAge = f"{header.age:03d}Y"
    ds.PatientComments = "Synthetic: drawn by software, not a real patient"
    ds.StudyInstanceUID = header.study_uid
    # Some departments put both views into one series, others each into its own.
    own_series = int(header.study_id) % 2 == 0
    series = header.order if own_series else 0
    ds.SeriesInstanceUID = derived_uid(header.seed, "series", header.study_uid, series)
    ds.StudyID = header.study_id
    ds.SeriesNumber = series + 1
    ds.SeriesTime = _clock(clock + 90 * (series + 1))
    ds.SeriesDescription = _VIEW_NAMES[header.view] if own_series else "Chest"
    ds.InstanceNumber = 1 if own_series else header.order + 1


def _film(ds: Dataset, header: FilmHeader, size: int, *, digital: bool) -> None:
    spacing = [f"{FILM * 10 / size:.6f}"] * 2
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""] if digital else ["ORIGINAL", "PRIMARY"]
    ds.BodyPartExamined = "CHEST"
    ds.ViewPosition = header.view
    ds.PatientOrientation = ["P", "F"] if header.view == "LL" else ["L", "F"]
    ds.BurnedInAnnotation = "YES"
    ds.LossyImageCompression = "00"
    ds.KVP = {"PA": "120", "AP": "95", "LL": "125"}[header.view]
    ds.ImagerPixelSpacing = spacing
    ds.PixelSpacing = spacing
    if not digital:
        ds.PlateID = "SYNTHETIC"
        return
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.ImageLaterality = "U"
    ds.AnatomicRegionSequence = [_code("816094009", "Chest")]
    view = _code(*_VIEW_CODES[header.view])
    view.ViewModifierCodeSequence = []
    ds.ViewCodeSequence = [view]
    ds.AcquisitionContextSequence = []
    ds.PositionerType = "NONE"
    ds.DetectorType = "SCINTILLATOR"
    ds.DetectorID = "SYNTHETIC"


def _stored_values(ds: Dataset, pixels: NDArray[np.uint16], header: FilmHeader, *, digital: bool) -> NDArray[np.uint16]:
    low, high = ((0, FULL), (300, 3500), (150, 3000))[header.number % 3]
    stored = (low + pixels.astype(np.uint32) * (high - low) // FULL).astype(np.uint16)
    inverse = header.photometric_interpretation == "MONOCHROME1"
    if inverse:
        stored = (FULL - stored).astype(np.uint16)
        low, high = FULL - high, FULL - low
    slope, intercept = 1.0, 0.0
    if not digital and header.number % 2 == 0:
        slope, intercept = 0.5, -200.0
    ds.PhotometricInterpretation = header.photometric_interpretation
    ds.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"
    # The brighter a pixel is stored, the less radiation reached it, unless the film is inverted.
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = 1 if inverse else -1
    if digital or slope != 1.0:
        ds.RescaleIntercept = f"{intercept:g}"
        ds.RescaleSlope = f"{slope:g}"
        ds.RescaleType = "US"
    centre, width = slope * (low + high) / 2 + intercept, slope * (high - low)
    if header.number % 7 == 2:
        ds.WindowCenter = [f"{centre:g}", f"{centre:g}"]
        ds.WindowWidth = [f"{width:g}", f"{width * 0.7:g}"]
        ds.WindowCenterWidthExplanation = ["NORMAL", "HARDER"]
    else:
        ds.WindowCenter = f"{centre:g}"
        ds.WindowWidth = f"{width:g}"
    return stored


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = "SCT"
    item.CodeMeaning = meaning
    return item


def _clock(seconds: int) -> str:
    return f"{seconds // 3600 % 24:02d}{seconds // 60 % 60:02d}{seconds % 60:02d}"
