"""HL7 as integration engines really send it: documents where text belongs, sets of characters in a row, odd letters."""

from __future__ import annotations

import base64
import time

import messages_made as made
import pytest

from medsearch_desktop.errors import ReportError
from medsearch_desktop.report.documents import Found, Limits, read_documents
from medsearch_desktop.statements import Written

LIMITS = Limits(report=2_000_000, file=30_000_000)
RTF = r"{\rtf1\ansi FINDINGS: No effusion.\par IMPRESSION: Normal.\par}"


def read(data: bytes) -> list[Found]:
    return list(read_documents(data, name="feed.hl7", limits=LIMITS))


def only(data: bytes) -> Written:
    (found,) = read(data)
    assert isinstance(found, Written)
    return found


def ed(content: str, *, number: int = 1) -> str:
    return f"OBX|{number}|ED|PDF^Report||{content}||||||F"


def packed(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("letters", [r"one\.BR\two\.Br\three\x0D\four", r"one\X0D0A\two\.br\three\.ce\four"])
def test_escapes_in_letters_of_any_size(letters: str) -> None:
    assert only(made.hl7(letters)).text == "one\ntwo\nthree\nfour"


@pytest.mark.parametrize("charset", ["~ISO IR87", "ASCII~ISO IR87", "ISO IR6~ISO IR14~ISO IR87", "ISO IR87"])
def test_japanese_is_read_wherever_its_set_is_named(charset: str) -> None:
    message = made.hl7("所見 effusion.").decode().replace("UNICODE UTF-8", charset)
    assert only(message.encode("iso2022_jp")).text == "所見 effusion."


def test_what_windows_writes_is_read_where_latin_1_is_said() -> None:
    message = made.hl7("The patient’s nodule, 5–7 mm \\X96\\ seen.").decode().replace("UNICODE UTF-8", "8859/1")
    written = only(message.encode("cp1252"))
    assert (written.text, written.encoding) == ("The patient’s nodule, 5–7 mm – seen.", "cp1252")


def test_utf_8_is_read_whatever_engines_left_in_the_head() -> None:
    message = made.hl7("Oedème, 5–7 mm.").decode()
    for charset in ("8859/1", "8859/15", "ISO-8859-1"):
        written = only(message.replace("UNICODE UTF-8", charset).encode())
        assert (written.text, written.encoding) == ("Oedème, 5–7 mm.", "utf-8")


@pytest.mark.parametrize("charset", ["UNICODE_ESCAPE", "UTF-7", "PUNYCODE", "IDNA", "UTF-16", "ROT13", "HEX", "CP037"])
def test_sets_that_no_message_is_in_change_nothing(charset: str) -> None:
    said = "C:\\new\\table a+AGE-b é"
    written = only(made.hl7(said).decode().replace("UNICODE UTF-8", charset).encode())
    assert (written.text, written.encoding) == (said, "utf-8")


@pytest.mark.parametrize(
    "lines",
    [
        [RTF.replace("\\", r"\E" + "\\")],
        [RTF],
        [piece + "" for piece in RTF.replace(".\\par ", ".\\par |").split("|")],
        [ed("RIS^AP^RTF^^" + RTF.replace("\\", r"\E" + "\\"))],
        [ed("RIS^AP^RTF^Base64^" + packed(RTF.encode()))],
        [ed(packed(RTF.encode()))],
        [ed("RTF^Base64^" + packed(RTF.encode()))],
        [packed(RTF.encode())],
        [packed(RTF.encode())[:48], packed(RTF.encode())[48:]],
        [
            ed("RIS^AP^RTF^Base64^" + packed(RTF.encode())[:44]),
            ed("RIS^AP^RTF^Base64^" + packed(RTF.encode())[44:], number=2),
        ],
        [ed("RIS^AP^RTF^Base64^" + packed(RTF.encode()).replace("X", "X\\X0D0A\\", 1))],
    ],
)
def test_rtf_is_read_however_it_is_put(lines: list[str]) -> None:
    found = only(made.hl7("Report:", *lines, "Signed.")).text
    assert found.replace("\n\n", "\n") == "Report:\nFINDINGS: No effusion.\nIMPRESSION: Normal.\nSigned."


def test_a_pdf_in_a_field_of_text_and_one_in_two_pieces() -> None:
    coded = packed(made.pdf("IMPRESSION: Effusion."))
    assert only(made.hl7(coded)).text.strip() == "IMPRESSION: Effusion."
    halves = [ed("RIS^AP^PDF^Base64^" + half, number=n) for n, half in enumerate((coded[:600], coded[600:]), start=1)]
    assert only(made.hl7(*halves)).text.strip() == "IMPRESSION: Effusion."


def test_two_documents_are_two() -> None:
    one, two = (packed(f"{{\\rtf1 {word} nodule is seen in this one.}}".encode()) for word in ("First", "Second"))
    for lines in ([ed(f"^^^Base64^{one}"), ed(f"^^^Base64^{two}", number=2)], [ed(f"^^^Base64^{one}~^^^Base64^{two}")]):
        text = only(made.hl7(*lines)).text
        assert text.split("\n") == ["First nodule is seen in this one.", "Second nodule is seen in this one."]


def test_html_loses_its_tags_and_a_comparison_stays() -> None:
    lines = ["<p>FINDINGS: No effusion,", "nodule &lt; 5 mm.</p><br/><b>IMPRESSION:</b> Normal."]
    assert only(made.hl7(*lines)).text == "FINDINGS: No effusion,\nnodule < 5 mm.\n\nIMPRESSION: Normal."
    assert only(made.hl7("Nodule < 5 mm > before.")).text == "Nodule < 5 mm > before."


def test_what_cannot_be_read_of_a_report_is_told_and_the_rest_kept() -> None:
    written, problem = read(made.hl7("IMPRESSION: See the scan.", ed("^AP^PDF^Base64^" + packed(made.scanned_pdf()))))
    assert isinstance(written, Written)
    assert written.text == "IMPRESSION: See the scan."
    assert isinstance(problem, ReportError)
    assert "text layer" in str(problem)


@pytest.mark.parametrize("lines", ["W", "D", "WDX"])
@pytest.mark.parametrize("order", ["F", "C", "P", ""])
def test_a_report_all_of_whose_lines_are_taken_back_is_cancelled(lines: str, order: str) -> None:
    taken = [f"OBX|{n}|TX|71046^Chest||Another patient's.||||||{each}" for n, each in enumerate(lines, start=1)]
    study = "OBX|9|HD|113014^Study Instance UID^DCM||1.2.3.4.5||||||F"
    found = only(made.hl7(*taken, study, status=order))
    assert found.stated is not None
    assert (found.text, found.stated.status) == ("", "cancelled")
    kept = only(made.hl7(*taken, "Normal.", status="C"))
    assert kept.stated is not None
    assert (kept.text, kept.stated.status) == ("Normal.", "corrected")


def test_parts_of_a_report_that_another_stands_between_are_one() -> None:
    body, other, end = (
        made.hl7(text, filler=filler).decode().split("\r")[2:-1]
        for text, filler in (("FINDINGS: Nodule.", "1"), ("Other.", "2"), ("IMPRESSION: Benign.", "1"))
    )
    head = made.hl7("x").decode().split("\r")[:2]
    found = read("\r".join([*head, *body, *other, *end]).encode())
    assert [each.text for each in found if isinstance(each, Written)] == [
        "FINDINGS: Nodule.\nIMPRESSION: Benign.",
        "Other.",
    ]


def test_a_mere_address_is_told_as_such() -> None:
    (problem,) = read(made.hl7(r"OBX|1|RP|R^Report||\\server\share\1.pdf||||||F"))
    assert "names where its text is" in str(problem)
    assert only(made.hl7("Text.", r"OBX|2|RP|R^Report||\\server\share\1.pdf||||||F")).text == "Text."


def test_broken_lines_that_begin_like_segments_are_text() -> None:
    message = made.hl7("Seen:").replace(b"Seen:", b"Seen:\r\nMSH is no muscle.\nCTA\nBHS the same.")
    assert only(message).text == "Seen:\nMSH is no muscle.\nCTA\nBHS the same."


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("2024-03-15 10:10:00", "2024-03-15T10:10:00"),
        ("2024-03-15T10:10:00+01:00", "2024-03-15T09:10:00"),
        ("20240315101000-0500", "2024-03-15T15:10:00"),
        ("202403151010", "2024-03-15T10:10:00"),
        ("2024-0500", "2024-01-01T05:00:00"),
    ],
)
def test_times_with_hyphens(written: str, found: str) -> None:
    stated = only(made.hl7("Text.", changed=written)).stated
    assert stated is not None
    assert stated.effective == found


def test_pieces_without_an_end_cost_their_length() -> None:
    def seconds(count: int) -> float:
        data = made.hl7("{\\rtf1 x", *["y {"] * count)
        began = time.process_time()
        read(data)
        return time.process_time() - began

    seconds(100)
    assert seconds(20_000) < 40 * max(seconds(2_000), 0.01)
