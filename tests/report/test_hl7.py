"""HL7 messages to reports: segments, escapes, character sets, batches, what is attached, who is meant."""

from __future__ import annotations

import base64

import messages_made as made
import pytest

from medsearch_desktop.errors import ReportError
from medsearch_desktop.report import pdf
from medsearch_desktop.report.documents import Limits, read_documents
from medsearch_desktop.statements import ReportStatus, Statement, Written

LIMITS = Limits(report=1_000_000, file=20_000_000)


def read(data: bytes, *, limits: Limits = LIMITS) -> list[Written | ReportError]:
    return list(read_documents(data, name="feed.hl7", limits=limits))


def only(data: bytes) -> Written:
    (found,) = read(data)
    assert isinstance(found, Written)
    return found


def stated(data: bytes) -> Statement:
    found = only(data).stated
    assert found is not None
    return found


def error(data: bytes) -> ReportError:
    with pytest.raises(ReportError) as caught:
        raise next(found for found in read(data) if isinstance(found, ReportError))
    return caught.value


def test_all_texts_of_all_kinds_in_their_order() -> None:
    lines = (
        "OBX|1|TX|1^Text||Line one.~Line two.||||||F",
        "OBX|2|FT|1^Text||Line three.\\.br\\Line four.||||||F",
        "OBX|3|ST|1^Text||Line five.||||||F",
        "OBX|4|CE|2^Side||L^left^X||||||F",
        "OBX|5|CWE|59776-5^Findings^LN||^Small nodule||||||F",
        "OBX|6|NM|3^Size||12|mm|||||F",
        "OBX|7|TX|1^Text||Wrong line.||||||W",
    )
    assert only(made.hl7(*lines, after=["NTE|1||A note."])).text == (
        "Line one.\nLine two.\nLine three.\nLine four.\nLine five.\nSide: left\n\nFINDINGS: Small nodule\nSize: 12 mm"
    )
    assert only(made.hl7("Text.", after=["NTE|1||A note."])).text == "Text.\nA note."


def test_parts_by_their_suffixes_codes_and_names() -> None:
    lines = (
        "OBX|1|TX|71046&GDT^Chest||Clear lungs.||||||F",
        "OBX|2|TX|71046&GDT^Chest||No effusion.||||||F",
        "OBX|3|TX|19005-8^Radiology impression^LN||Normal.||||||F",
        "OBX|4|TX|X^Addendum||Seen again.||||||F",
        "OBX|5|TX|X^Impression||IMPRESSION: No change.||||||F",
    )
    assert only(made.hl7(*lines)).text == (
        "FINDINGS: Clear lungs.\nNo effusion.\n\nIMPRESSION: Normal.\n\nADDENDUM: Seen again.\n\nIMPRESSION: No change."
    )


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (r"a\F\b\S\c\T\d\R\e\E\f", "a|b^c&d~e\\f"),
        (r"one\.br\two\.sp2\three\.ce\four", "one\ntwo\n\nthree\nfour"),
        (r"\H\bold\N\ \.in+4\in \.ti-2\out\.fi\\.nf\ \.sk3\x", "bold in out    x"),
        (r"caf\XC3A9\ and \X41\\X42\x", "café and ABx"),
        (r"\C2842\\M2442\\Zxy\ local", " local"),
        (r"an \unknown\ one, an odd \XC\ one, a lone \ at the end", None),
        (r"\.sp9999999\ \.br", None),
    ],
)
def test_escapes(written: str, text: str | None) -> None:
    found = only(made.hl7(f"Text {written}.")).text
    # What means nothing stays as it is.
    assert found == f"Text {text if text is not None else written}."


@pytest.mark.parametrize(
    ("charset", "encoding", "found"),
    [
        ("UNICODE UTF-8", "utf-8", "utf-8"),
        ("8859/1", "latin-1", "iso8859-1"),
        ("8859/15", "iso8859-15", "iso8859-15"),
        ("", "cp1252", "cp1252"),
        ("", "utf-8", "utf-8"),
        ("ASCII", "utf-8", "utf-8"),
        ("windows-1252", "cp1252", "cp1252"),
        ("NONSENSE-9", "utf-8", "utf-8"),
        ("8859/77", "utf-8", "utf-8"),
    ],
)
def test_character_sets(charset: str, encoding: str, found: str) -> None:
    message = made.hl7("IMPRESSION: Oedème.", charset="UNICODE UTF-8").decode()
    written = only(message.replace("UNICODE UTF-8", charset).encode(encoding))
    assert (written.text, written.encoding) == ("IMPRESSION: Oedème.", found)


def test_japanese_and_utf_16() -> None:
    message = made.hl7("所見 effusion.").decode().replace("UNICODE UTF-8", "ISO IR87")
    assert only(message.encode("iso2022_jp")).text == "所見 effusion."
    assert only(made.hl7("Oedème.").decode().encode("utf-16")).text == "Oedème."


def test_who_what_and_when() -> None:
    message = made.hl7(
        "Text.",
        "OBX|2|HD|113014^Study Instance UID^DCM||1.2.3.4.5||||||F",
        after=["ZDS|1.2.840.99.7^^Application^DICOM"],
        changed="20240315101000",
        sent="20240315101500+0100",
    )
    assert stated(message) == Statement(
        status=ReportStatus.FINAL,
        names=("hl7\x1fp0001\x1fa00001\x1fris",),
        number="A00001",
        effective="2024-03-15T09:10:00",
        sent="2024-03-15T09:15:00",
        study_uids=("1.2.3.4.5", "1.2.840.99.7"),
        accession_numbers=("A00001", "PL-A00001"),
        patient_ids=("P0001",),
        study_date="2024-03-15",
    )


def test_a_patient_s_identifiers_name_the_report_in_any_order() -> None:
    message = made.hl7("Text.", patient="P1").replace(b"P1^^^H^MR", b"P1^^^H^MR~Q2^^^X")
    assert stated(message).names == ("hl7\x1fp1\x1fa00001\x1fris", "hl7\x1fq2\x1fa00001\x1fris")


def test_after_a_document_that_takes_too_long_no_other_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "MAX_SECONDS", 0.0)
    coded = base64.b64encode(made.pdf("IMPRESSION: Effusion.")).decode()
    message = made.hl7(f"OBX|1|ED|1||R^AP^PDF^Base64^{coded}||||||F")
    first, second = read(message + message)
    assert isinstance(first, Written)
    assert isinstance(second, ReportError)
    assert "another document" in second.message


def test_identifiers_in_other_places() -> None:
    message = made.hl7("Text.", filler="").decode().replace("PL-", "")
    assert stated(message.encode()).names == ()
    segments = message.split("\r")
    fields = segments[3].split("|")
    fields[18] = "ACC77"
    segments[3] = "|".join(fields)
    segments.insert(4, "IPC|ACC78^X|RP1|1.2.3.4.6^X")
    found = stated("\r".join(segments).encode())
    assert found.accession_numbers == ("ACC78", "ACC77")
    assert found.study_uids == ("1.2.3.4.6",)
    assert found.number == "ACC77"


@pytest.mark.parametrize(
    ("status", "found"),
    [
        ("F", "final"),
        ("C", "corrected"),
        ("P", "preliminary"),
        ("R", "preliminary"),
        ("A", "preliminary"),
        ("X", "cancelled"),
    ],
)
def test_statuses(status: str, found: str) -> None:
    assert stated(made.hl7("Text.", status=status)).status == found


def test_a_status_that_only_the_lines_tell() -> None:
    def lines(*statuses: str) -> Statement:
        return stated(made.hl7(*(f"OBX|1|TX|1||Text.||||||{each}" for each in statuses), status=""))

    assert lines("F", "F").status == "final"
    assert lines("F", "P").status == "preliminary"
    assert lines("F", "C").status == "corrected"
    assert lines("", "").status == "final"
    assert lines("X", "X").status == "cancelled"


def test_a_cancellation_needs_no_text() -> None:
    assert only(made.hl7(status="X")).text == ""
    assert stated(made.hl7(status="").replace(b"ORC|RE", b"ORC|CA")).status == "cancelled"


def test_batches_frames_and_line_ends() -> None:
    one, two = made.hl7("One.", filler="1"), made.hl7("Two.", filler="2")
    forms = (
        one + two,
        b"FHS|^~\\&|X\rBHS|^~\\&|X\r" + one + two + b"BTS|2\rFTS|1\r",
        b"\x0b" + one + b"\x1c\r\x0b" + two + b"\x1c\r",
        (one + two).replace(b"\r", b"\r\n"),
        b"\xef\xbb\xbf" + (one + b"\r" + two).replace(b"\r", b"\n"),
    )
    for data in forms:
        found = read(data)
        assert [(each.text, each.stated.position) for each in found] == [("One.", 0), ("Two.", 1)]


def test_several_reports_in_a_message_and_one_in_several_orders() -> None:
    message = made.hl7("One.", filler="1").decode()
    other = made.hl7("Two.", filler="2").decode().split("\r")[2:]
    assert [each.text for each in read((message + "\r".join(other)).encode())] == ["One.", "Two."]
    same = made.hl7("Two.", filler="1").decode().split("\r")[2:]
    assert only((message + "\r".join(same)).encode()).text == "One.\nTwo."


def test_other_separators_continuations_and_broken_lines() -> None:
    message = made.hl7("One.~Two.").decode().replace("|", "!").replace("^", "*")
    assert only(message.encode()).text == "One.\nTwo."
    assert only(made.hl7("One").replace(b"One||||||F\r", b"One\rADD|, two.\r")).text == "One, two."
    assert only(made.hl7("One.").replace(b"One.", b"One.\nNo. Two.")).text == "One.\nNo. Two."


@pytest.mark.parametrize("coding", ["Base64", "Hex"])
def test_documents_inside(coding: str) -> None:
    def attached(data: bytes, kind: str) -> str:
        said = base64.b64encode(data).decode() if coding == "Base64" else data.hex()
        return only(made.hl7(f"OBX|1|ED|PDF^Report||RIS^AP^{kind}^{coding}^{said}||||||F")).text

    assert attached(made.pdf("IMPRESSION: Effusion."), "PDF").strip() == "IMPRESSION: Effusion."
    assert attached(rb"{\rtf1 IMPRESSION: Effusion.\par}", "RTF").strip() == "IMPRESSION: Effusion."
    assert attached(b"<html><body><p>IMPRESSION: Effusion.</p></body></html>", "HTML") == "IMPRESSION: Effusion."


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"MSH|", "no sound MSH"),
        (b"MSH|||||", "no sound MSH"),
        (made.hl7("Text.", kind="ADT^A01"), "type 'ADT'"),
        (made.hl7(), "no text of a report"),
        (b"\r".join(made.hl7("Text.").split(b"\r")[:2]), "no OBR"),
        (made.hl7("OBX|1|ED|1||R^AP^PDF^Base64^!!!||||||F"), "no sound base64"),
        (made.hl7("OBX|1|ED|1||R^AP^PDF^Hex^zz||||||F"), "no sound hexadecimal"),
        (made.hl7("OBX|1|ED|1||R^AP^PDF^Base64^JVBERi0xLjQ=||||||F"), "PDF"),
    ],
)
def test_what_cannot_be_read_says_why_and_which(data: bytes, words: str) -> None:
    found = error(data)
    assert words in found.message
    assert found.item == "feed.hl7, message 1"
    assert found.remedy
    assert "Doe" not in str(found)


def test_a_message_of_too_much_text() -> None:
    found = read(made.hl7("x" * 2000), limits=Limits(report=1000, file=100_000))[0]
    assert isinstance(found, ReportError)
    assert "max_report_bytes" in str(found)
    with pytest.raises(ReportError, match="max_feed_bytes"):
        read(made.hl7("x" * 2000), limits=Limits(report=1000, file=1000))


def test_a_mention_of_another_study_uid_is_not_text() -> None:
    assert "1.2.3.4.5" not in only(made.hl7("Text.", "OBX|2|ST|0020,000D||1.2.3.4.5||||||F")).text


def test_a_message_that_is_cut_off_behind_its_first_three_letters_is_told_and_the_others_kept() -> None:
    first, cut, last = read(made.hl7("One.") + b"\x0bMSH\x0b" + made.hl7("Two.", filler="2"))
    assert isinstance(cut, ReportError)
    assert "no sound MSH" in cut.message
    assert [each.text for each in (first, last) if isinstance(each, Written)] == ["One.", "Two."]
