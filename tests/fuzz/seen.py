"""The modules whose branches are counted while a target is fuzzed: to count those of all takes minutes to begin."""

from __future__ import annotations

_PACKAGE = "medsearch_desktop"
_DICOM = (f"{_PACKAGE}.image", "pydicom.filereader", "pydicom.charset", "pydicom.dataelem")
_REPORTS = (f"{_PACKAGE}.report.documents", f"{_PACKAGE}.report.formats", f"{_PACKAGE}.report.composing")

SEEN: dict[str, tuple[str, ...]] = {
    "dicom-header": _DICOM,
    "dicom-pixels": (*_DICOM, "pydicom.pixels", "pydicom.encaps"),
    "raster": (f"{_PACKAGE}.image", "PIL.PngImagePlugin", "PIL.JpegImagePlugin", "PIL.TiffImagePlugin"),
    "sniff": (f"{_PACKAGE}.source", f"{_PACKAGE}.report.hl7", f"{_PACKAGE}.report.rows", *_REPORTS),
    "archive": (f"{_PACKAGE}.source", "zipfile", "tarfile", "gzip"),
    "dicomdir": (f"{_PACKAGE}.source",),
    "hl7": (*_REPORTS, f"{_PACKAGE}.report.hl7", f"{_PACKAGE}.report.times", f"{_PACKAGE}.report.letters"),
    "mllp": (f"{_PACKAGE}.source",),
    "fhir": (*_REPORTS, f"{_PACKAGE}.report.fhir", f"{_PACKAGE}.report.times", "json", "base64"),
    "markup": (*_REPORTS, f"{_PACKAGE}.report.markup", "striprtf", "html"),
    "csv": (*_REPORTS, f"{_PACKAGE}.report.rows"),
    "parquet": (f"{_PACKAGE}.report.rows",),
    "sr": (*_REPORTS, f"{_PACKAGE}.report.dicom", *_DICOM[1:], "pydicom.values", "pydicom.sequence"),
    "pdf": (*_REPORTS, f"{_PACKAGE}.report.pdf"),
    "multipart": (f"{_PACKAGE}.serve.multipart", "email"),
    "query": (f"{_PACKAGE}.search",),
    "report": (f"{_PACKAGE}.report",),
}
