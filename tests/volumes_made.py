"""CT series of a made-up body, as single slices and as one enhanced instance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from makers import Film, dataset
from pydicom.dataset import Dataset

CT, ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"


def series_uid(number: int) -> str:
    return f"1.2.826.0.1.3680043.10.7.{number}"


def slice_uid(series: int, place: int) -> str:
    return f"{series_uid(series)}.{place + 1}"


def body(series: int, height: float, size: int = 48) -> np.ndarray:
    """A cut through a body at `height` from 0 to 1, in Hounsfield units: an ellipse with two organs that change."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    wide = 0.6 + 0.3 * np.sin(np.pi * height + series)
    units = np.where((x / wide) ** 2 + (y / 0.7) ** 2 < 1, 40.0, -1000.0)
    units[(x - 0.3 * np.cos(series)) ** 2 + (y - 0.5 * height) ** 2 < 0.05 + 0.05 * height] = 400
    units[(x + 0.35) ** 2 + (y + 0.2) ** 2 < 0.1 * (1 - height)] = -700
    return units.astype(np.int16)


def slice_dataset(series: int, place: int, count: int, **values: object) -> Dataset:
    """Slice `place` of `count`, 5 mm apart, its instance number counted from the other end."""
    ds = dataset(Film(patient=series, study=series, modality="CT"))
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CT
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = slice_uid(series, place)
    ds.SeriesInstanceUID, ds.InstanceNumber = series_uid(series), count - place
    ds.BodyPartExamined = "ABDOMEN"
    del ds.ViewPosition, ds.WindowCenter, ds.WindowWidth
    ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-100, -100, 5 * place]
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    pixels = body(series, place / max(1, count - 1)) + 1024
    ds.Rows, ds.Columns = pixels.shape
    ds.PixelData = pixels.astype("<u2").tobytes()
    for name, value in values.items():
        setattr(ds, name, value)
    return ds


def write_series(folder: Path, series: int, count: int, *, places: range | list[int] | None = None) -> list[Path]:
    """Write slices of one series under names that say nothing of their order."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for place in range(count) if places is None else places:
        path = folder / f"{place * 37 % 101:03d}-{series}-{place}.dcm"
        slice_dataset(series, place, count).save_as(path, enforce_file_format=True)
        written.append(path)
    return written


def enhanced_dataset(series: int, count: int) -> Dataset:
    """All slices in one instance, stored from the top down, each frame with its place, window and scale."""
    ds = slice_dataset(series, 0, count)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = ENHANCED_CT
    del ds.ImageOrientationPatient, ds.ImagePositionPatient, ds.RescaleSlope, ds.RescaleIntercept
    ds.NumberOfFrames = count
    frames, groups = [], []
    for place in reversed(range(count)):
        frames.append(body(series, place / max(1, count - 1)) + 1024)
        plane, window, scale, group = Dataset(), Dataset(), Dataset(), Dataset()
        plane.ImagePositionPatient = [-100, -100, 5 * place]
        window.WindowCenter, window.WindowWidth = 40 + place, 400
        scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = 1, -1024, "HU"
        group.PlanePositionSequence, group.FrameVOILUTSequence = [plane], [window]
        group.PixelValueTransformationSequence = [scale]
        groups.append(group)
    shared, turned, measures = Dataset(), Dataset(), Dataset()
    turned.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing = [0.7, 0.8]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [turned], [measures]
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], groups
    ds.PixelData = np.stack(frames).astype("<u2").tobytes()
    return ds
