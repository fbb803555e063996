"""Instances and pictures that tests of the decoder make, and the decoder as they ask it."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from openjpeg.utils import encode_array
from PIL import Image as Raster
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from medsearch_desktop.image.decode import Decoded, decode, read_tags
from medsearch_desktop.records import Image

SHA = "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"
PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def run(source: Any, **options: Any) -> Decoded:
    if isinstance(source, bytes | bytearray):
        source = io.BytesIO(bytes(source))
    return decode(source, name="the file", sha256=SHA, **({"max_frames": 8, "max_pixels": 50_000_000} | options))


def shown(source: Any, **options: Any) -> np.ndarray:
    decoded = run(source, **options)
    assert decoded.images[0].pixel_error == ""
    assert decoded.displays[0] is not None
    return decoded.displays[0]


def tags(source: Any, **options: Any) -> Image:
    if isinstance(source, bytes | bytearray):
        source = io.BytesIO(bytes(source))
    return read_tags(source, name="the file", **({"sha256": SHA} | options))


def dataset(pixels: np.ndarray, *, frames: int = 1, syntax: str = ExplicitVRLittleEndian, **values: Any) -> Dataset:
    """An image of `pixels`: (H, W), (H, W, 3) or, with `frames`, one more axis in front."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3.1"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = "1.2.3.3", "1.2.3.2", "DX"
    shape = pixels.shape[1:] if frames > 1 else pixels.shape
    ds.Rows, ds.Columns, ds.SamplesPerPixel = shape[0], shape[1], shape[2] if len(shape) == 3 else 1
    ds.PhotometricInterpretation = "RGB" if len(shape) == 3 else "MONOCHROME2"
    if len(shape) == 3:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = pixels.dtype.itemsize * 8
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(pixels.dtype.kind == "i")
    if frames > 1:
        ds.NumberOfFrames = frames
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    ds.add_new(0x7FE00010, "OB" if ds.BitsAllocated == 8 else "OW", data + b"\0" * (len(data) % 2))
    with warnings.catch_warnings():
        # pydicom warns about the very values under test.
        warnings.simplefilter("ignore")
        for name, value in values.items():
            setattr(ds, name, value)
    return ds


def compress(ds: Dataset, syntax: str) -> None:
    """Compress every frame losslessly, in place."""
    if syntax != JPEG2000Lossless:
        ds.compress(syntax, generate_instance_uid=False)
        return
    frames = int(ds.get("NumberOfFrames", 1))
    pixels = ds.pixel_array if frames > 1 else ds.pixel_array[None]
    streams = [encode_array(p, ds.BitsStored, 1 if p.ndim == 3 else 2, use_mct=p.ndim == 3) for p in pixels]
    ds.PixelData = encapsulate(streams)
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = syntax
    if ds.SamplesPerPixel == 3:
        ds.PhotometricInterpretation = "YBR_RCT"


def written(ds: Dataset, *, preamble: bool = True) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # pydicom warns about the very values under test.
        warnings.simplefilter("ignore")
        if preamble:
            ds.save_as(buffer, enforce_file_format=True)
        else:
            syntax = ds.file_meta.TransferSyntaxUID
            bare = Dataset(ds)
            bare.save_as(
                buffer, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian
            )
    return buffer.getvalue()


def grey(height: int = 40, width: int = 30, dtype: str = "u2", top: int = 4095) -> np.ndarray:
    return np.linspace(0, top, height * width).reshape(height, width).astype(dtype)


WINDOW = {"WindowCenter": "2048", "WindowWidth": "4096"}


def picture(array: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Raster.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()
