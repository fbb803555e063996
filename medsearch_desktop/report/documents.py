"""A report file of any format to the reports in it: one table of formats, told by their first bytes.

Files of one report (text, RTF, HTML, PDF, DICOM) and of many (HL7, FHIR, tables) are read alike. A report
that cannot be read is told apart from the others of its file, which are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from medsearch_desktop.errors import ReportError
from medsearch_desktop.report import fhir, hl7, pdf, refused, rows
from medsearch_desktop.report.formats import clean_text, read_text
from medsearch_desktop.statements import Written

Found = Written | ReportError


@dataclass(frozen=True, slots=True)
class Limits:
    """What a report and a file of reports may have, in bytes; `columns` names those of tables, see `rows`."""

    report: int
    file: int
    columns: str = ""


@dataclass(frozen=True, slots=True)
class _Format:
    """One format: whether a file may be of it, by its beginning and its name, and what reads it."""

    title: str
    is_likely: Callable[[bytes, str, Limits], bool]
    read: Callable[[bytes, str, Limits], Iterator[Found]]


def read_documents(data: bytes, *, name: str, limits: Limits) -> Iterator[Found]:
    """Yield the reports of a file, in its order, and a ReportError in the place of each that cannot be read.

    Their texts are clean, as they are stored. Raises ReportError when nothing of the file can be read.
    """
    form = next((each for each in _FORMATS if each.is_likely(data[:4096], name, limits)), None)
    if form is None:
        yield Written(*read_text(data, name=name, max_bytes=limits.report))
        return
    yield from _read(form, data, name, limits)


def read_dicom_report(data: bytes, *, name: str, limits: Limits) -> Iterator[Found]:
    """Yield the report in a file that is known to be DICOM. Raises ReportError when there is none."""
    yield from _read(_FORMATS[0], data, name, limits)


def _read(form: _Format, data: bytes, name: str, limits: Limits) -> Iterator[Found]:
    if len(data) > limits.file:
        raise ReportError(
            f"{len(data)} bytes, more than the {limits.file} that a file of reports may have",
            item=name,
            remedy="Raise the setting max_feed_bytes, or split the file",
        )
    for found in form.read(data, name, limits):
        yield Written(clean_text(found.text), found.encoding, found.stated) if isinstance(found, Written) else found


def read_attached(data: bytes, name: str, limits: Limits) -> str:
    """Return the text of a document that a message carries. Raises ReportError."""
    if pdf.is_pdf(data):
        return clean_text(pdf.pdf_text(data, name=name, max_characters=limits.report))
    return read_text(data, name=name, max_bytes=limits.report)[0]


def is_document(head: bytes, name: str, limits: Limits) -> bool:
    """Whether a file that begins so is of a format of reports that its content tells."""
    return any(each.is_likely(head, name, limits) for each in _FORMATS)


def _attached(limits: Limits) -> Callable[[bytes, str], str]:
    """Return what reads the documents that one file's messages carry; after one that takes too long it reads no PDF."""
    slow = False

    def read(data: bytes, name: str) -> str:
        nonlocal slow
        if slow and pdf.is_pdf(data):
            raise ReportError(
                "is not read, as another document of the file took too long", item=name, remedy="Give it on its own"
            )
        began = time.monotonic()
        try:
            return read_attached(data, name, limits)
        finally:
            slow = slow or time.monotonic() - began >= pdf.MAX_SECONDS

    return read


def _read_pdf(data: bytes, name: str, limits: Limits) -> Iterator[Found]:
    yield Written(pdf.pdf_text(data, name=name, max_characters=limits.report))


def _read_hl7(data: bytes, name: str, limits: Limits) -> Iterator[Found]:
    return hl7.read_hl7(data, name=name, max_characters=limits.report, attached=_attached(limits))


def _read_fhir(data: bytes, name: str, limits: Limits) -> Iterator[Found]:
    return fhir.read_fhir(data, name=name, max_characters=limits.report, attached=_attached(limits))


def _read_dicom(data: bytes, name: str, limits: Limits) -> Iterator[Found]:
    # pydicom takes a fifth of a second to import, which most files of reports do not need.
    from medsearch_desktop.report import dicom

    written = dicom.read_dicom(data, name=name, max_characters=limits.report, attached=_attached(limits))
    if written is None:
        raise ReportError("is DICOM without the text of a report", item=name, remedy="Give a structured report or PDF")
    yield written


def _read_table(data: bytes, name: str, limits: Limits) -> Iterator[Found]:
    return rows.read_table(data, name=name, max_characters=limits.report, columns=limits.columns)


def _refuse(data: bytes, name: str, _: Limits) -> Iterator[Found]:
    return refused.refuse(data, name=name)


_FORMATS = (
    _Format("DICOM", lambda head, *_: head[128:132] == b"DICM", _read_dicom),
    _Format("PDF", lambda head, name, _: pdf.is_pdf(head, name), _read_pdf),
    _Format("HL7 version 2", lambda head, *_: hl7.is_hl7(head), _read_hl7),
    _Format("FHIR", lambda head, *_: fhir.is_fhir(head), _read_fhir),
    _Format("XML", lambda head, *_: refused.is_refused(head), _refuse),
    _Format("table", lambda head, name, limits: rows.is_table(head, name, columns=limits.columns), _read_table),
)
