"""Structured reports and encapsulated PDF: the tree as text, what a document states, damaged and crafted ones."""

from __future__ import annotations

import zlib

import messages_made as made
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from medsearch_desktop.errors import ReportError
from medsearch_desktop.report.documents import Limits, read_documents
from medsearch_desktop.report.reader import ReportReader
from medsearch_desktop.statements import Statement, Written

LIMITS = Limits(report=100_000, file=30_000_000)
pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")


def only(data: bytes | Dataset) -> Written:
    data = made.saved(data) if isinstance(data, Dataset) else data
    (found,) = read_documents(data, name="sr", limits=LIMITS)
    assert isinstance(found, Written)
    return found


def stated(ds: Dataset) -> Statement:
    found = only(ds).stated
    assert found is not None
    return found


@pytest.mark.parametrize("sop_class", [made.BASIC_TEXT_SR, made.ENHANCED_SR, made.COMPREHENSIVE_SR])
def test_parts_become_headed_sections_in_their_order(sop_class: str) -> None:
    assert only(made.sr(sop_class=sop_class)).text == (
        "HISTORY: Cough for two weeks.\n\nFINDINGS:\nLarge left pleural effusion.\nNo pneumothorax.\n\n"
        "IMPRESSION: Left pleural effusion."
    )


def test_codes_numbers_and_unknown_parts_and_nobody_s_name() -> None:
    number = made.content("NUM", "410668003", "Length")
    measured = Dataset()
    measured.NumericValue = "12.5"
    measured.MeasurementUnitsCodeSequence = Items([made.concept("mm", "millimeter", "UCUM")])
    number.MeasuredValueSequence = Items([measured])
    code = made.content("CODE", "121071", "Finding", ConceptCodeSequence=Items([made.concept("1", "Nodule", "X")]))
    code.ContentSequence = Items([made.content("TEXT", "1", "Location", relation="HAS PROPERTIES", TextValue="Apex.")])
    findings = made.content("CONTAINER", "121070", "Findings", ContentSequence=Items([code, number]))
    other = made.content(
        "CONTAINER",
        "99",
        "Private Part",
        ContentSequence=Items([made.content("TEXT", "7", "Remark", TextValue="Seen.")]),
    )
    text = only(made.sr(findings, other)).text
    assert text == "FINDINGS: Finding: Nodule\nLocation: Apex.\nLength: 12.5 mm\n\nPRIVATE PART: Remark: Seen."
    assert "Rita" not in text


def qualifier(value: str, *below: Dataset, relation: str = "HAS CONCEPT MOD", code: str = "1") -> Dataset:
    item = made.content("CODE", code, "Name", relation=relation, ConceptCodeSequence=Items([made.concept("2", value)]))
    if below:
        item.ContentSequence = Items(list(below))
    return item


def finding(*below: Dataset) -> Dataset:
    code = made.content("CODE", "121071", "Finding", ConceptCodeSequence=Items([made.concept("1", "Lung nodule", "X")]))
    code.ContentSequence = Items(list(below))
    return code


def test_what_qualifies_a_finding_stands_with_it_and_a_denial_next_to_it() -> None:
    site = qualifier("Upper lobe", qualifier("Left"))
    assert only(made.sr(finding(site))).text == "FINDINGS: Finding: Lung nodule (Upper lobe; Left)"
    for relation in ("HAS CONCEPT MOD", "HAS PROPERTIES"):
        size = made.content("TEXT", "7", "Remark", relation="HAS PROPERTIES", TextValue="Seen.")
        assert only(made.sr(finding(qualifier("Solid", size, relation="HAS PROPERTIES")))).text == (
            "FINDINGS: Finding: Lung nodule (Solid)\nRemark: Seen."
        )
        denied = only(
            made.sr(finding(site, qualifier("Absent", relation=relation), qualifier("German", code="121049")))
        )
        assert denied.text == "FINDINGS: Finding: Lung nodule: Absent (Upper lobe; Left)"
        nodule, place = ReportReader().read(denied.text, report_id="r").entities
        assert (nodule.text, nodule.assertion, place.text) == ("Lung nodule", "absent", "Upper lobe")


@pytest.mark.parametrize("number", [40, 50, 65, 69, 70, 71, 73, 74, 75, 76])
def test_what_programs_and_devices_write_is_nobody_s_reading(number: int) -> None:
    with pytest.raises(ReportError, match="without the text of a report"):
        only(made.sr(sop_class=f"1.2.840.10008.5.1.4.1.1.88.{number}"))


def test_what_a_document_states() -> None:
    observer = Dataset()
    observer.VerificationDateTime, observer.VerifyingObserverName = "20240315120000+0100", "Reader^Rita"
    found = stated(made.sr(before=["1.2.3", "1.2.4"], VerifyingObserverSequence=Items([observer])))
    assert found == Statement(
        status=found.status.FINAL,
        names=("sr\x1f1.2.826.0.1.3680043.10.2.1", "sr\x1f1.2.3", "sr\x1f1.2.4"),
        number="1.2.826.0.1.3680043.10.2.1",
        effective="2024-03-15T11:00:00",
        sent="2024-03-15T10:10:00",
        study_uids=("1.2.826.0.1.3680043.10.1.1.1",),
        accession_numbers=("A00001",),
        study_ids=("50000001",),
        patient_ids=("P0001",),
        study_date="2024-03-15",
    )


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        ({}, "final"),
        ({"VerificationFlag": "UNVERIFIED"}, "preliminary"),
        ({"CompletionFlag": "PARTIAL"}, "preliminary"),
        ({"PreliminaryFlag": "PRELIMINARY"}, "preliminary"),
        ({"PreliminaryFlag": "FINAL", "VerificationFlag": "UNVERIFIED"}, "final"),
    ],
)
def test_statuses(flags: dict[str, str], status: str) -> None:
    assert stated(made.sr(**flags)).status == status


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192", "GB18030"])
def test_character_sets(charset: str) -> None:
    ds = made.sr(*made.sections(("121072", "Impressions", "Oedème.")), SpecificCharacterSet=charset)
    assert only(ds).text == "IMPRESSION: Oedème."


def test_an_encapsulated_pdf() -> None:
    ds = made.header(uid="1.2.9", study="1.2.3", sop_class=made.ENCAPSULATED_PDF, modality="DOC")
    ds.MIMETypeOfEncapsulatedDocument = "application/pdf"
    ds.EncapsulatedDocument = made.pdf("IMPRESSION: Effusion.")
    assert only(ds).text.strip() == "IMPRESSION: Effusion."
    ds.EncapsulatedDocument = made.scanned_pdf()
    with pytest.raises(ReportError, match="text layer"):
        only(ds)
    del ds.EncapsulatedDocument
    with pytest.raises(ReportError, match="no document"):
        only(ds)


def test_other_kinds_hold_no_report() -> None:
    for sop_class in ("1.2.840.10008.5.1.4.1.1.88.59", "1.2.840.10008.5.1.4.1.1.88.67", "1.2.840.10008.5.1.4.1.1.2"):
        with pytest.raises(ReportError, match="without the text of a report"):
            only(made.sr(sop_class=sop_class))


def deflated(ds: Dataset, more: bytes = b"") -> bytes:
    plain = made.saved(ds)
    (length,) = (int.from_bytes(plain[140:144], "little"),)
    meta, body = plain[: 144 + length], plain[144 + length :]
    uid = b"1.2.840.10008.1.2.1.99"
    start = meta.index(b"1.2.840.10008.1.2.1")
    old = int.from_bytes(meta[start - 2 : start], "little")
    meta = meta[: start - 2] + len(uid).to_bytes(2, "little") + uid + meta[start + old :]
    meta = meta[:140] + (length + len(uid) - old).to_bytes(4, "little") + meta[144:]
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return meta + deflater.compress(body + more) + deflater.flush()


def test_deflated_ones_and_a_bomb_of_them() -> None:
    assert "Left pleural effusion" in only(deflated(made.sr())).text
    with pytest.raises(ReportError, match="inflates to more than 8 MiB"):
        only(deflated(made.sr(), bytes(80 << 20)))


def nested(depth: int) -> bytes:
    """A document whose sequences of undefined length are nested so deep."""
    plain = made.saved(made.sr())
    start = plain.index(b"\x40\x00\x30\xa7SQ")
    opened = b"\x40\x00\x30\xa7SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return plain[:start] + opened * depth


def test_large_files_hold_documents_and_no_trees() -> None:
    with pytest.raises(ReportError, match="more than the 8388608"):
        only(made.sr(*made.sections(("121072", "Impressions", "x" * (9 << 20)))))
    ds = made.header(uid="1.2.9", study="1.2.3", sop_class=made.ENCAPSULATED_PDF, modality="DOC")
    ds.EncapsulatedDocument = made.pdf("IMPRESSION: Effusion.") + bytes(9 << 20)
    found = only(ds)
    assert found.text.strip() == "IMPRESSION: Effusion."
    assert found.stated is not None
    assert found.stated.accession_numbers == ("A00001",)


def test_crafted_ones_are_refused() -> None:
    for data in (nested(10_000), nested(300)):
        with pytest.raises(ReportError):
            only(data)
    items = b"\x40\x00\x30\xa7SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\0\0\0\0" * 100_001
    plain = made.saved(made.sr())
    with pytest.raises(ReportError, match="100000 items"):
        only(plain[: plain.index(b"\x40\x00\x30\xa7SQ")] + items)
    with pytest.raises(ReportError, match="max_report_bytes"):
        only(made.sr(*made.sections(("121072", "Impressions", "x" * 100_001))))


def test_without_a_preamble_where_it_is_known_to_be_dicom() -> None:
    from medsearch_desktop.report.documents import read_dicom_report

    plain = made.saved(made.sr())
    (found,) = read_dicom_report(plain[132:], name="sr", limits=LIMITS)
    assert isinstance(found, Written)
    assert found.text.startswith("HISTORY:")
