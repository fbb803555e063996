"""Reports in every format that tests write for themselves: DICOM SR, PDF, HL7, FHIR."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian
from reportlab.pdfgen import canvas

ENHANCED_SR, COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.22", "1.2.840.10008.5.1.4.1.1.88.33"
BASIC_TEXT_SR, ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.840.10008.5.1.4.1.1.104.1"
SECTIONS = (
    ("121060", "History", "Cough for two weeks."),
    ("121070", "Findings", "Large left pleural effusion.\nNo pneumothorax."),
    ("121072", "Impressions", "Left pleural effusion."),
)


def hl7(
    *lines: str,
    filler: str = "A00001",
    status: str = "F",
    changed: str = "20240315101000",
    sent: str = "20240315101500",
    patient: str = "P0001",
    day: str = "20240315",
    charset: str = "UNICODE UTF-8",
    kind: str = "ORU^R01",
    after: Sequence[str] = (),
) -> bytes:
    """One message; `lines` are the values of its OBX segments, or whole segments where they begin with OBX."""
    segments = [
        f"MSH|^~\\&|RIS|H|MS|H|{sent}||{kind}|M{filler}|P|2.5.1||||||{charset}",
        f"PID|1||{patient}^^^H^MR||Doe^Jane||19600101|F",
        f"ORC|RE|PL-{filler}|{filler}",
        f"OBR|1|PL-{filler}|{filler}^RIS|71046^Chest 2 views^L|||{day}093000|||||||||||||||{changed}||CR|{status}",
    ]
    for number, line in enumerate(lines, start=1):
        segments.append(line if line.startswith("OBX|") else f"OBX|{number}|TX|71046^Chest||{line}||||||{status}")
    return ("\r".join([*segments, *after]) + "\r").encode("utf-8" if "UTF" in charset else "latin-1")


def concept(code: str, meaning: str, scheme: str = "DCM") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, scheme, meaning
    return item


def content(kind: str, code: str, meaning: str, *, relation: str = "CONTAINS", **values: Any) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = relation, kind
    item.ConceptNameCodeSequence = Items([concept(code, meaning)])
    for name, value in values.items():
        setattr(item, name, value)
    return item


def sections(*parts: tuple[str, str, str]) -> list[Dataset]:
    """Containers of TID 2000, each with one text."""
    singular = {"121070": ("121071", "Finding"), "121072": ("121073", "Impression"), "121060": ("121060", "History")}
    found = []
    for code, name, text in parts:
        inner = content("TEXT", *singular.get(code, (code, name)), TextValue=text)
        found.append(content("CONTAINER", code, name, ContentSequence=Items([inner])))
    return found


def sr(
    *items: Dataset,
    uid: str = "1.2.826.0.1.3680043.10.2.1",
    study: str = "1.2.826.0.1.3680043.10.1.1.1",
    before: Sequence[str] = (),
    written: str = "20240315101000",
    sop_class: str = ENHANCED_SR,
    **values: Any,
) -> Dataset:
    """A structured report with a root container; `before` are the UIDs of the documents that it takes up."""
    ds = header(uid=uid, study=study, sop_class=sop_class, modality="SR", written=written)
    ds.CompletionFlag, ds.VerificationFlag = "COMPLETE", "VERIFIED"
    ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
    ds.ConceptNameCodeSequence = Items([concept("11528-7", "Radiology Report", "LN")])
    observer = content("PNAME", "121008", "Person Observer Name", relation="HAS OBS CONTEXT", PersonName="Reader^Rita")
    ds.ContentSequence = Items([observer, *(items or sections(*SECTIONS))])
    if before:
        reference = Dataset()
        reference.StudyInstanceUID = study
        series = Dataset()
        series.SeriesInstanceUID = f"{study}.9"
        instances = []
        for each in before:
            instance = Dataset()
            instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = sop_class, each
            instances.append(instance)
        series.ReferencedSOPSequence = Items(instances)
        reference.ReferencedSeriesSequence = Items([series])
        ds.PredecessorDocumentsSequence = Items([reference])
    for name, value in values.items():
        setattr(ds, name, value)
    return ds


def header(*, uid: str, study: str, sop_class: str, modality: str, written: str = "20240315101000") -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = sop_class
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = uid
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, f"{study}.9"
    ds.PatientID, ds.PatientName, ds.PatientSex = "P0001", "Test^Patient", "F"
    ds.StudyDate, ds.AccessionNumber, ds.StudyID = "20240315", "A00001", "50000001"
    ds.Modality, ds.InstanceNumber = modality, 1
    ds.ContentDate, ds.ContentTime = written[:8], written[8:]
    return ds


def saved(ds: Dataset) -> bytes:
    """A data set as the bytes of a file."""
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def pdf(*lines: str, pages: int = 1) -> bytes:
    """A PDF file with a text layer of these lines, on each page anew."""
    stream = io.BytesIO()
    drawing = canvas.Canvas(stream, invariant=1)
    for _ in range(pages):
        for number, line in enumerate(lines):
            drawing.drawString(50, 800 - 15 * number, line)
        drawing.showPage()
    drawing.save()
    return stream.getvalue()


def scanned_pdf() -> bytes:
    """A PDF file whose only page is a drawing."""
    stream = io.BytesIO()
    drawing = canvas.Canvas(stream, invariant=1)
    drawing.rect(100, 100, 300, 300, fill=1)
    drawing.save()
    return stream.getvalue()


def diagnostic_report(
    text: str = "", /, *, number: str = "A00001", status: str = "final", **values: Any
) -> dict[str, Any]:
    """A DiagnosticReport whose text is a presented form."""
    report: dict[str, Any] = {
        "resourceType": "DiagnosticReport",
        "id": f"r-{number}",
        "identifier": [{"system": "urn:ris", "value": number}],
        "status": status,
        "code": {"text": "Chest radiograph"},
        "subject": {"reference": "Patient/p1", "identifier": {"value": "P0001"}},
        "effectiveDateTime": "2024-03-15T09:30:00+01:00",
        "issued": "2024-03-15T10:10:00+01:00",
    }
    if text:
        report["presentedForm"] = [presented("text/plain", text.encode())]
    return {**report, **values}


def presented(kind: str, data: bytes) -> dict[str, Any]:
    return {"contentType": kind, "data": base64.b64encode(data).decode()}


def bundle(*resources: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": each} for each in resources]}


def as_bytes(resource: dict[str, Any]) -> bytes:
    return json.dumps(resource).encode()
