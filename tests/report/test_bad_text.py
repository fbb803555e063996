"""Text of any kind, put together from pieces of reports and of what breaks programs: places always hold."""

from __future__ import annotations

import gc
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsearch_desktop.errors import ReportError
from medsearch_desktop.records import Report
from medsearch_desktop.report.formats import clean_text, read_text
from medsearch_desktop.report.reader import ReportReader

READER = ReportReader()
LIMIT = 10_000_000

_PIECES = (
    "FINDINGS: ",
    "IMPRESSION\n",
    "impression - ",
    "ADDENDUM: ",
    "WET READ: ___ ",
    "FINAL REPORT\n",
    "INDICATION: ___ year old. ",
    "1. ",
    "No pneumothorax, effusion or consolidation. ",
    "Fracture of the left clavicle. ",
    "heart is mildly enlarged ",
    "LUNGS ARE CLEAR ",
    "In the right lower lobe there is a 5 mm nodule ",
    "atelectasis versus pneumonia ",
    "?effusion ",
    "may represent ",
    "no ",
    "XXXX ",
    "___ ",
    "[**Name**] ",
    ", ",
    ". ",
    ": ",
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    "\x00",
    "\x07",
    "\ufeff",
    "\u00ad",
    "\u2028",
    "\ud800",
    "\U0001d518",
    "e\u0301de\u0300me ",
    "<b>mass</b> ",
    "<div>" * 5,
    "&amp; ",
    "((((",
    "a" * 300,
    "Der Herzschatten ist nicht verbreitert und ohne Erguss. ",
    "胸部正面",
    "µ ½ ﬁbrosis ",
)
TEXTS = st.lists(st.sampled_from(_PIECES), max_size=40).map("".join) | st.text(max_size=200)


def check(report: Report) -> None:
    """Fail unless all places of a report are those of what they name."""
    text, position = report.text, 0
    for section in report.sections:
        assert position <= section.start < section.end <= len(text)
        position = section.end
    for entity in report.entities:
        assert entity.text == text[entity.start : entity.end] != ""
        assert any(
            section.name == entity.section and section.start <= entity.start and entity.end <= section.end
            for section in report.sections
        )
        assert entity.cue == (text[entity.cue_start : entity.cue_end] if entity.cue_start >= 0 else "")
        assert 0 <= entity.sentence_start <= entity.start < entity.end <= entity.sentence_end <= len(text)
        for each in entity.attributes:
            assert each.text == text[each.start : each.end] != ""
            assert entity.sentence_start <= each.start < each.end <= entity.sentence_end
        assert 0.0 <= entity.score <= 1.0


@settings(max_examples=150, deadline=None, derandomize=True)
@given(TEXTS)
def test_places_hold_in_any_text(text: str) -> None:
    check(READER.read(text, report_id="r"))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(TEXTS, st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252"]))
def test_places_hold_in_any_file(text: str, encoding: str) -> None:
    data = text.encode(encoding, "replace")
    try:
        read, codec = read_text(data, name="r.txt", max_bytes=LIMIT)
    except ReportError:
        # Nothing readable was left of it, which is said in words tested below.
        return
    assert clean_text(read) == read
    report = READER.read(read, report_id="r", encoding=codec)
    assert report.text == read
    check(report)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(_PIECES), min_size=1, max_size=20).map("".join))
def test_white_space_and_all_between_parts_are_the_only_things_left_out(text: str) -> None:
    """What no part holds is white space, a heading, a rule or marks around them: at most a few words in a row."""
    report = READER.read(text, report_id="r")
    position = 0
    for start, end in [*((s.start, s.end) for s in report.sections), (len(text), len(text))]:
        gap = text[position:start]
        for line in gap.splitlines():
            assert len(line.split()) <= 12, line
        position = end


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\x00\x00",
        b"   \r\n",
        b"{\\rtf1\\ansi",
        b"{\\rtf1 {\\fonttbl",
        b"<html><body></body></html>",
        b"\xff\xfe",
        b"\xfe\xff\x00",
        b"\xff\xfe\x00\xd8",
    ],
)
def test_nothing_to_read_is_said_with_name_and_remedy(data: bytes) -> None:
    with pytest.raises(ReportError) as caught:
        read_text(data, name="odd.txt", max_bytes=LIMIT)
    assert "odd.txt" in str(caught.value)
    assert caught.value.remedy


def test_utf_16_and_rtf_and_html_read_alike() -> None:
    said = "FINDINGS: No effusion. Fracture of the left clavicle."
    files = [
        said.encode("utf-16"),
        said.encode("latin-1"),
        said.encode("utf-8-sig"),
        b"{\\rtf1\\ansi\\deff0 {\\fonttbl{\\f0 Arial;}}\\b FINDINGS:\\b0  No effusion. Fracture of the left clavicle.}",
        f"<p><b>FINDINGS:</b> {said[10:]}</p>".encode(),
    ]
    for data in files:
        text, _ = read_text(data, name="r", max_bytes=LIMIT)
        entities = READER.read(text, report_id="r").entities
        assert [(e.text, e.icd10cm, str(e.assertion)) for e in entities if e.icd10cm] == [
            ("effusion", "J90", "absent"),
            ("Fracture of the left clavicle", "S42.002", "present"),
        ]


@pytest.mark.parametrize(
    "unit",
    [
        "<div>",
        "<b>effusion ",
        "{\\b effusion ",
        "effusion, ",
        "EFFUSION NODULE MASS ",
        "pneumothorax" * 40 + " ",
        "No fracture of the left femur. ",
    ],
)
def test_a_megabyte_takes_ten_times_a_tenth(unit: str) -> None:
    def seconds(size: int) -> float:
        data = (unit * (size // len(unit) + 1))[:size].encode()
        began = time.process_time()
        text, _ = read_text(data + b" end", name="r", max_bytes=LIMIT)
        check(READER.read(text, report_id="r"))
        return time.process_time() - began

    # The least of three, and no garbage of other tests collected meanwhile.
    gc.collect()
    gc.disable()
    try:
        small, large = (min(seconds(size) for _ in range(3)) for size in (10_000, 100_000))
    finally:
        gc.enable()
    # A square would take a hundred times as long.
    assert large < 40 * small + 0.5


def test_memory_grows_with_the_text() -> None:
    def peak(size: int) -> int:
        unit = "No effusion. Small left nodule, unchanged.\n"
        tracemalloc.start()
        try:
            READER.read(unit * (size // len(unit)), report_id="r")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    small, large = peak(20_000), peak(80_000)
    assert large < 6 * small
