"""The table of kinds, and what follows from a row: what is indexed how, and through which window it is seen."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import Film, dataset
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID_dictionary
from volumes_made import enhanced_dataset, slice_dataset

from medsearch_desktop.errors import NotAPictureError
from medsearch_desktop.image.dataset import Header, opened
from medsearch_desktop.image.decode import Decoded, decode
from medsearch_desktop.image.frames import layout_of, rendering_of
from medsearch_desktop.image.kinds import KINDS, OTHER, Role, kind_of
from medsearch_desktop.image.places import place_of, spacing_of
from medsearch_desktop.image.preprocess import Window
from medsearch_desktop.image.view import stored_frame
from medsearch_desktop.library import open_library

STORAGE = "1.2.840.10008.5.1.4.1.1."


def written(ds: Dataset) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def as_ingested(ds: Dataset) -> Decoded:
    return decode(io.BytesIO(written(ds)), name="f", sha256="", max_frames=8, max_pixels=1 << 24, key_slices=12)


def window_of(ds: Dataset, frame: int = 0) -> Window | None:
    with opened(io.BytesIO(written(ds)), "f") as file:
        header = Header.read(file, inflate_limit=1 << 20)
        return rendering_of(header, layout_of(header, 1 << 24), frame).window


def test_every_storage_class_of_the_standard_has_a_row() -> None:
    classes = [uid for uid, row in UID_dictionary.items() if uid.startswith(STORAGE) and row[0].endswith("Storage")]
    # Security scanning, non-destructive testing, and what was retired before there were files of it.
    foreign = (f"{STORAGE}501.", f"{STORAGE}601.", f"{STORAGE}8", f"{STORAGE}129", f"{STORAGE}9")
    without = [uid for uid in classes if kind_of(uid, "") is OTHER and not uid.startswith(foreign)]
    assert without == [f"{STORAGE}10", f"{STORAGE}11"]
    assert len(classes) > 150


@pytest.mark.parametrize(
    ("uid", "modality", "name", "role"),
    [
        ("1.1", "DX", "digital radiograph", Role.IMAGE),
        ("1.2", "MG", "mammogram", Role.IMAGE),
        ("13.1.3", "MG", "volume of projections", Role.SLICE),
        ("2", "CT", "CT", Role.SLICE),
        ("4.1", "MR", "MR", Role.SLICE),
        ("128", "PT", "PET", Role.SLICE),
        ("7", "CT", "secondary capture", Role.IMAGE),
        ("3.1", "US", "ultrasound", Role.IMAGE),
        ("12.1", "XA", "angiography or fluoroscopy", Role.IMAGE),
        ("66.4", "SEG", "segmentation", Role.RECORD),
        ("481.1", "RTIMAGE", "radiotherapy image", Role.IMAGE),
        ("481.3", "RTSTRUCT", "radiotherapy structures", Role.RECORD),
        ("481.2", "RTDOSE", "radiotherapy dose", Role.RECORD),
        ("481.8", "RTPLAN", "radiotherapy plan or record", Role.RECORD),
        ("11.1", "PR", "presentation state", Role.RECORD),
        ("88.59", "KO", "key object selection", Role.RECORD),
        ("88.67", "SR", "structured report", Role.RECORD),
        ("9.1.1", "ECG", "waveform", Role.RECORD),
        ("104.1", "DOC", "encapsulated document", Role.RECORD),
        ("104.3", "M3D", "encapsulated document", Role.RECORD),
    ],
)
def test_the_class_decides(uid: str, modality: str, name: str, role: Role) -> None:
    kind = kind_of(STORAGE + uid, modality)
    assert (kind.name, kind.role) == (name, role)
    assert kind_of(STORAGE + uid, "XX") is kind


def test_without_a_class_the_modality_decides_and_else_it_is_an_image() -> None:
    assert kind_of("", "CT").role is Role.SLICE
    assert kind_of("1.2.3.4", "SEG").role is Role.RECORD
    assert kind_of("", "") is OTHER
    assert len({kind.name for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize(
    "uid", ["66.4", "481.2", "481.3", "11.1", "88.59", "88.11", "9.1.1", "104.1", "104.3", "481.5"]
)
@pytest.mark.parametrize("pixels", [True, False])
def test_what_is_no_picture_is_a_record_and_no_failure(tmp_path: Path, uid: str, pixels: bool) -> None:
    ds = dataset(Film(patient=7))
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = STORAGE + uid
    if not pixels:
        del ds.PixelData
    with pytest.raises(NotAPictureError, match="not an image"):
        as_ingested(ds)
    if uid != "66.4":
        return
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "record.dcm").write_bytes(written(ds))
    with open_library(tmp_path / "library", create=True) as library:
        summary = library.ingest([tmp_path / "in"])
        assert (summary.indexed, summary.failed, summary.images) == (1, 0, 1)
        assert library.failures() == []
        assert (library.vectors.count, library.waiting_images()) == (0, 0)
        assert library.search("patient:P0007").total == 1
        assert library.thumbnail(ds.SOPInstanceUID) is None
        again = library.ingest([tmp_path / "in"])
        assert (again.unchanged, again.failed) == (1, 0)


@pytest.mark.parametrize(
    ("part", "window"),
    [
        ("CHEST", (-600, 1500)), ("LUNG", (-600, 1500)), ("ABDOMEN", (40, 400)), ("CHESTABDPELVIS", (40, 400)),
        ("", (40, 400)), ("HEAD", (40, 80)), ("LSPINE", (500, 2000)), ("KNEE", (500, 2000)), ("HEADNECK", (40, 400)),
    ],
)  # fmt: skip
def test_ct_without_a_window_is_seen_by_body_part(part: str, window: tuple[float, float]) -> None:
    ds = slice_dataset(1, 3, 9, BodyPartExamined=part)
    assert window_of(ds) == Window(*window)


def test_a_window_of_its_own_goes_first_and_numbers_without_a_unit_have_none() -> None:
    ds = slice_dataset(1, 3, 9, WindowCenter=7, WindowWidth=70)
    assert window_of(ds) == Window(7, 70)
    del ds.WindowCenter, ds.WindowWidth, ds.RescaleIntercept
    assert window_of(ds) is None
    assert window_of(slice_dataset(1, 3, 9, SOPClassUID=f"{STORAGE}4", Modality="MR")) is None


def pet(**values: Any) -> Dataset:
    ds = slice_dataset(1, 3, 9, SOPClassUID=f"{STORAGE}128", Modality="PT", Units="BQML", PatientWeight=80)
    tracer = Dataset()
    tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = 400e6, 6600
    tracer.RadiopharmaceuticalStartTime = "100000"
    ds.RadiopharmaceuticalInformationSequence = Sequence([tracer])
    ds.SeriesTime, ds.DecayCorrection = "115000.00", "START"
    for name, value in values.items():
        setattr(ds, name, value)
    return ds


def test_pet_is_seen_as_uptake() -> None:
    # One half-life after injection: 200 MBq in 80 kg are 2,500 Bq a gram.
    assert window_of(pet()) == Window(8750, 17500, "LINEAR_EXACT")
    assert window_of(pet(DecayCorrection="ADMIN")) == Window(17500, 35000, "LINEAR_EXACT")
    assert window_of(pet(Units="GML")) == Window(3.5, 7, "LINEAR_EXACT")
    assert window_of(pet(Units="CNTS")) is None
    assert window_of(pet(PatientWeight=0)) is None
    assert window_of(pet(SeriesTime="")) is None


def test_frames_of_an_enhanced_instance_have_places_windows_and_spacing(tmp_path: Path) -> None:
    ds = enhanced_dataset(1, 6)
    with opened(io.BytesIO(written(ds)), "f") as file:
        header = Header.read(file, inflate_limit=1 << 20)
        assert [place_of(header, frame).position for frame in range(6)] == [25, 20, 15, 10, 5, 0]
        assert spacing_of(header, 0) == ((0.7, 0.8), False)
    assert [window_of(ds, frame) for frame in (0, 5)] == [Window(45, 400), Window(40, 400)]
    (tmp_path / "f.dcm").write_bytes(written(ds))
    assert stored_frame(str(tmp_path / "f.dcm"), frame=2, max_pixels=1 << 20).spacing == (0.7, 0.8)


def test_places_follow_the_normal_whatever_the_plane() -> None:
    ds = slice_dataset(1, 3, 9, ImageOrientationPatient=[0, 1, 0, 0, 0, -1], ImagePositionPatient=[12.5, 3, 4])
    (image,) = as_ingested(ds).images
    assert image.place is not None
    assert image.place.position == -12.5
    for name, value in (("ImagePositionPatient", None), ("ImageOrientationPatient", [1, 0, 0])):
        setattr(ds, name, value)
        (image,) = as_ingested(ds).images
        assert image.place is not None
        assert image.place.position is None


def test_a_picture_of_a_volume_class_is_not_drawn_but_a_film_is() -> None:
    assert as_ingested(slice_dataset(1, 3, 9)).displays == (None,)
    film = as_ingested(dataset(Film()))
    assert film.displays[0] is not None
    assert film.images[0].place is None


def region(**values: Any) -> Dataset:
    item = Dataset()
    item.RegionSpatialFormat, item.PhysicalUnitsXDirection, item.PhysicalUnitsYDirection = 1, 3, 3
    item.PhysicalDeltaX, item.PhysicalDeltaY = 0.05, 0.04
    for name, value in values.items():
        setattr(item, name, value)
    return item


@pytest.mark.parametrize(
    ("regions", "spacing"),
    [
        ([region()], (0.4, 0.5)),
        ([region(), region(RegionSpatialFormat=3, PhysicalDeltaX=9)], (0.4, 0.5)),
        ([region(), region()], (0.4, 0.5)),
        ([region(), region(PhysicalDeltaX=0.06)], None),
        ([region(PhysicalUnitsXDirection=4)], None),
        ([region(PhysicalDeltaX=float("nan"))], None),
        ([region(PhysicalDeltaX=-0.05)], (0.4, 0.5)),
        ([], None),
    ],
)
def test_ultrasound_is_calibrated_by_its_regions(
    tmp_path: Path, regions: list[Dataset], spacing: tuple[float, float] | None
) -> None:
    ds = dataset(Film(modality="US"))
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = f"{STORAGE}6.1"
    ds.SequenceOfUltrasoundRegions = Sequence(regions)
    (tmp_path / "us.dcm").write_bytes(written(ds))
    found = stored_frame(str(tmp_path / "us.dcm"), frame=0, max_pixels=1 << 20).spacing
    assert found == (pytest.approx(spacing) if spacing else None)


def test_a_cine_loop_is_indexed_by_evenly_spaced_frames() -> None:
    ds = dataset(Film(modality="US", size=16))
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = f"{STORAGE}3.1"
    ds.NumberOfFrames = 40
    ds.PixelData = np.random.default_rng(1).integers(0, 4096, (40, 16, 16), dtype=np.uint16).tobytes()
    decoded = as_ingested(ds)
    assert len(decoded.images) == 8
    assert all(display is not None for display in decoded.displays)
