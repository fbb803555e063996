"""RTF and HTML to plain text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsearch_desktop.errors import ReportError
from medsearch_desktop.report.formats import read_text
from medsearch_desktop.report.markup import without_markup
from medsearch_desktop.report.reader import ReportReader

RTF = (
    rb"{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0\fnil\fcharset0 Arial;}}\viewkind4\uc1\pard\f0\fs20"
    rb" FINDINGS: No \b effusion\b0 .\par IMPRESSION: Oed\'e8me, \u8805?3 cm.\par}"
)


def read(data: bytes) -> str:
    return read_text(data, name="r.rtf", max_bytes=4_000_000)[0]


def test_rtf_becomes_its_text() -> None:
    assert read(RTF) == "FINDINGS: No effusion.\nIMPRESSION: Oedème, ≥3 cm.\n"


def test_offsets_of_rtf_point_into_the_text_as_stored() -> None:
    text = read(RTF)
    report = ReportReader().read(text, report_id="r")
    assert [text[e.start : e.end] for e in report.entities][:1] == ["effusion"]


def test_damaged_rtf_names_the_remedy() -> None:
    with pytest.raises(ReportError, match=r"r\.rtf: is an RTF document that cannot be read.*plain text"):
        read(rb"{\rtf1 \u9999999 x}")


def test_rtf_without_text_is_empty() -> None:
    with pytest.raises(ReportError, match="is empty"):
        read(rb"{\rtf1\ansi{\fonttbl{\f0 Arial;}}}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<p>FINDINGS: No effusion.</p><p>IMPRESSION: Nodule.</p>", "FINDINGS: No effusion.\n\nIMPRESSION: Nodule."),
        ("Nodule&nbsp;&lt; 5&nbsp;mm", "Nodule\xa0< 5\xa0mm"),
        ("One<br>two<br/>three", "One\ntwo\nthree"),
        ("<b>No</b> <i>effusion</i>", "No effusion"),
        ("<style>p {color: red}</style><div class='x'>Mass</div>", "Mass"),
        ("<table><tr><td>Heart</td><td>normal</td></tr></table>", "Heart normal"),
        ("<!-- mass --><p>Clear</p>", "Clear"),
        ("Nodule <5 mm, node >3 mm, a<b", "Nodule <5 mm, node >3 mm, a<b"),
        ("R&D, effusion & nodule", "R&D, effusion & nodule"),
        ("<Name> had a CT", "<Name> had a CT"),
    ],
)
def test_html_loses_its_tags(text: str, expected: str) -> None:
    assert without_markup(text) == expected


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(["{", "}", "\\par ", "\\'e9", "\\u233?", "\\f0", "\\*", "\\bin3 ", "\\pict", "a "])))
def test_any_rtf_is_text_or_refused(pieces: list[str]) -> None:
    try:
        text = read(("{\\rtf1 " + "".join(pieces)).encode())
    except ReportError:
        return
    assert text.strip()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text())
def test_any_text_survives(text: str) -> None:
    assert isinstance(without_markup("<p>" + text), str)


@pytest.mark.parametrize(
    "data",
    [
        "{\\rtf1\\ansi café – no effusion 😀\\par}".encode(),
        "{\\rtf1\\ansi\\ansicpg1252 café – no effusion\\par}".encode("cp1252"),
        b"\xef\xbb\xbf\r\n" + "{\\rtf1\\ansi café – no effusion\\par}".encode(),
    ],
)
def test_rtf_that_is_not_seven_bits(data: bytes) -> None:
    assert read(data).startswith("café – no effusion")


def test_rtf_in_a_code_page_of_two_bytes_a_letter() -> None:
    # The second byte of these is none that RTF takes for its own.
    assert read("{\\rtf1\\ansi\\ansicpg932 胸部\\par}".encode("cp932")) == "胸部\n"


def test_rtf_of_no_known_code_page_and_two_documents_in_one() -> None:
    assert read(rb"{\rtf1\ansi\ansicpg0 caf\'e9\par}") == "café\n"
    assert read(rb"{\rtf1\ansi\ansicpg99999 caf\'e9\par}") == "café\n"
    assert read(b"{\\rtf1 One.\\par}\r\n{\\rtf1 Two.\\par}\0") == "One.\n\nTwo.\n"
