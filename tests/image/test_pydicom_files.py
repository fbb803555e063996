"""Every file that pydicom tests itself with, through the decoder."""

from __future__ import annotations

import warnings

import numpy as np
import pydicom
import pytest
from decoding_made import PYDICOM_FILES, run, shown, tags
from pydicom.dataset import Dataset

from medsearch_desktop.errors import (
    DecodeError,
    NoPixelsError,
    NotAnImageError,
    TruncatedFileError,
)
from medsearch_desktop.image.preprocess import Rendering, Window, to_display

NO_PIXELS, NO_IMAGE = (NoPixelsError, "holds no pixel data"), (NotAnImageError, "neither DICOM nor PNG nor JPEG")
# The exact table of what does not decode, and why; an error type means that nothing is indexed.
NOT_DECODED: dict[str, tuple[type[DecodeError] | None, str]] = {
    "MR_truncated.dcm": (None, "needs 8192 bytes of pixel data, 8130 are there"),
    # Made to hide a delimiter in the codestream; its size marker was overwritten on the way.
    "JPEG2000-embedded-sequence-delimiter.dcm": (
        None,
        "frame is 1024 x 3722445056 x 1 where the header says 1024 x 256",
    ),
    "meta_missing_tsyntax.dcm": (None, "no Rows or Columns"),
    "nested_priv_SQ.dcm": (None, "no Rows or Columns"),
    "rtplan_truncated.dcm": (TruncatedFileError, r"element \(300A,00B0\) claims 976 bytes where 711 are left"),
    "no_meta.dcm": NO_IMAGE,
    "crayons.icc": NO_IMAGE,
    "zipMR.gz": NO_IMAGE,
    "test1.json": NO_IMAGE,
    "test_PN.json": NO_IMAGE,
    "rtplan.dump": NO_IMAGE,
    "rtstruct.dump": NO_IMAGE,
    "README.txt": NO_IMAGE,
    "dicomdirtests/README.txt": NO_IMAGE,
    "dicomdirtests/TINY_ALPHA/README": NO_IMAGE,
    "ExplVR_BigEndNoMeta.dcm": NO_PIXELS,
    "ExplVR_LitEndNoMeta.dcm": NO_PIXELS,
    "UN_sequence.dcm": NO_PIXELS,
    "empty_charset_LEI.dcm": NO_PIXELS,
    "no_meta_group_length.dcm": NO_PIXELS,
    "priv_SQ.dcm": NO_PIXELS,
    "reportsi.dcm": NO_PIXELS,
    "reportsi_with_empty_number_tags.dcm": NO_PIXELS,
    "rtplan.dcm": NO_PIXELS,
    "rtstruct.dcm": NO_PIXELS,
    "test-SR.dcm": NO_PIXELS,
    "waveform_ecg.dcm": NO_PIXELS,
    **{f"dicomdirtests/DICOMDIR{end}": NO_PIXELS for end in ("", "-bigEnd", "-empty.dcm", "-implicit", "-nooffset")},
    **{f"dicomdirtests/DICOMDIR{end}": NO_PIXELS for end in ("-nopatient", "-reordered")},
    "dicomdirtests/TINY_ALPHA/DICOMDIR": NO_PIXELS,
}
ALL_FILES = sorted(
    path.relative_to(PYDICOM_FILES).as_posix()
    for path in PYDICOM_FILES.rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
)
# Fifty files without pixels, all alike.
TINY = [name for name in ALL_FILES if name.startswith("dicomdirtests/TINY_ALPHA/PT")]
# 12-bit JPEG, for which pydicom needs a codec of another licence.
BY_GDCM = ("JPGExtended.dcm", "JPEG-lossy.dcm")
DECODED = [name for name in ALL_FILES if name not in NOT_DECODED and name not in TINY and name not in BY_GDCM]


def test_the_table_names_files_that_exist() -> None:
    assert set(NOT_DECODED) <= set(ALL_FILES)
    assert len(DECODED) > 80


@pytest.mark.parametrize("name", [*NOT_DECODED, *TINY[:2]])
def test_what_does_not_decode_says_exactly_why(name: str) -> None:
    error, reason = NOT_DECODED.get(name, NO_PIXELS)
    if error is not None:
        with pytest.raises(error, match=reason):
            run(PYDICOM_FILES / name)
        return
    decoded = run(PYDICOM_FILES / name)
    assert decoded.displays == (None,)
    assert reason in decoded.images[0].pixel_error


def reference(ds: Dataset, frame: int) -> np.ndarray:
    """What pydicom's decoders and this module's rendering make of a frame."""
    pixels = pydicom.pixels.pixel_array(ds, index=frame)
    photometric = ds.PhotometricInterpretation
    if pixels.ndim == 3:
        bits = pixels.dtype.itemsize * 8
        return (pixels >> (bits - 8)).astype(np.uint8)
    if photometric == "PALETTE COLOR":
        return (pydicom.pixels.apply_color_lut(pixels, ds) >> 8).astype(np.uint8)
    first = {name: ds.get(name) for name in ("WindowCenter", "WindowWidth")}
    center, width = (v[0] if isinstance(v, pydicom.multival.MultiValue) else v for v in first.values())
    if center is None and ds.get("Modality") == "CT" and "RescaleIntercept" in ds:
        # The file of this sort names no part of the body: soft tissue.
        center, width = 40, 400
    padding = ds.get("PixelPaddingValue")
    rendering = Rendering(
        photometric_interpretation=photometric,
        bits_stored=pixels.dtype.itemsize * 8,
        signed=pixels.dtype.kind == "i",
        slope=float(ds.get("RescaleSlope") or 1),
        intercept=float(ds.get("RescaleIntercept") or 0),
        window=None if center is None else Window(float(center), float(width)),
        padding=None if padding is None else (int(padding), int(padding)),
    )
    return to_display(pixels, rendering)


@pytest.mark.parametrize("name", DECODED)
def test_pixels_agree_with_those_of_pydicom(name: str) -> None:
    decoded = run(PYDICOM_FILES / name, max_frames=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(PYDICOM_FILES / name, force=True)
        if name == "badVR.dcm":
            ds.NumberOfFrames = 1
        expected = [reference(ds, image.frame) for image in decoded.images]
    for image, display, wanted in zip(decoded.images, decoded.displays, expected, strict=True):
        assert image.pixel_error == ""
        assert display is not None
        assert display.shape == wanted.shape
        # Colour conversions differ in their rounding.
        assert np.abs(display.astype(int) - wanted.astype(int)).max() <= (2 if display.ndim == 3 else 0)
        assert len(np.unique(display)) > 1


@pytest.mark.parametrize("name", BY_GDCM)
def test_twelve_bit_jpeg_agrees_with_a_whole_file_reader(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    import gdcm

    display = shown(PYDICOM_FILES / name)
    # Nothing that a caller parses may be mixed with a codec's chatter.
    assert capfd.readouterr().out == ""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(PYDICOM_FILES / name))
    assert reader.Read()
    pixels = np.frombuffer(reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape"), "<u2").reshape(1024, 256)
    assert (pixels[420, 140], pixels[230, 120]) == (244, 95)
    ds = pydicom.dcmread(PYDICOM_FILES / name)
    window = Window(float(ds.WindowCenter), float(ds.WindowWidth)) if "WindowCenter" in ds else None
    rendering = Rendering(ds.PhotometricInterpretation, 12, slope=float(ds.get("RescaleSlope", 1)), window=window)
    assert np.array_equal(display, to_display(pixels, rendering))


KEYWORDS = {
    "sop_class_uid": "SOPClassUID",
    "patient_id": "PatientID",
    "patient_sex": "PatientSex",
    "accession_number": "AccessionNumber",
    "study_id": "StudyID",
    "study_description": "StudyDescription",
    "series_description": "SeriesDescription",
    "series_number": "SeriesNumber",
    "instance_number": "InstanceNumber",
    "modality": "Modality",
    "manufacturer": "Manufacturer",
    "rows": "Rows",
    "columns": "Columns",
    "bits_stored": "BitsStored",
    "photometric_interpretation": "PhotometricInterpretation",
}


@pytest.mark.parametrize("name", [n for n in ALL_FILES if n not in TINY[2:] and NOT_DECODED.get(n) != NO_IMAGE])
def test_tags_agree_with_those_of_pydicom(name: str) -> None:
    if name == "rtplan_truncated.dcm":
        with pytest.raises(TruncatedFileError):
            tags(PYDICOM_FILES / name)
        return
    record = tags(PYDICOM_FILES / name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(PYDICOM_FILES / name, force=True, stop_before_pixels=True)
        for field, keyword in KEYWORDS.items():
            expected = ds.get(keyword)
            empty = (
                None
                if field.endswith("number") and field != "accession_number"
                else 0
                if field in ("rows", "columns", "bits_stored")
                else ""
            )
            assert getattr(record, field) == (empty if expected in (None, "") else expected), field
        for field, keyword in (("study_uid", "StudyInstanceUID"), ("sop_instance_uid", "SOPInstanceUID")):
            assert getattr(record, field) == ds.get(keyword) or getattr(record, field).startswith("2.25.")
