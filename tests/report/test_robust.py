"""Reports as they arrive: masks, capitals, no punctuation, mixed line ends, megabytes."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsearch_desktop.records import Assertion, Category
from medsearch_desktop.report.reader import ReportReader

READER = ReportReader()


def said(text: str) -> dict[str, Assertion]:
    entities = READER.read(text, report_id="r").entities
    return {e.text.lower(): e.assertion for e in entities if e.category is not Category.ANATOMY and not e.inferred}


@pytest.mark.parametrize("mask", ["XXXX", "___", "[**Name**]", "*****"])
def test_a_mask_is_no_mention_and_breaks_no_sentence(mask: str) -> None:
    found = said(f"No pneumothorax, {mask} or effusion. {mask} has a small {mask} nodule.")
    assert found == {"pneumothorax": Assertion.ABSENT, "effusion": Assertion.ABSENT, "nodule": Assertion.PRESENT}


def test_capitals_without_punctuation() -> None:
    found = said("FINDINGS THERE IS NO PLEURAL EFFUSION THERE IS A LARGE PNEUMOTHORAX")
    assert found == {"pleural effusion": Assertion.ABSENT, "pneumothorax": Assertion.PRESENT}


def test_a_heading_is_never_read_as_text() -> None:
    text = (
        "FINAL REPORT\n EXAMINATION: CHEST (PA AND LAT)\n\n INDICATION: ___ year old with cough // ? pneumonia\n\n"
        " FINDINGS: No effusion.\n\n IMPRESSION:\n 1. Small nodule.\n 2. No pneumonia.\n\n"
        " ADDENDUM: New pneumothorax.\n"
    )
    report = READER.read(text, report_id="r")
    assert [section.name for section in report.sections] == [
        "EXAMINATION",
        "INDICATION",
        "FINDINGS",
        "IMPRESSION",
        "ADDENDUM",
    ]
    seen = [(e.text, e.section, str(e.assertion)) for e in report.entities if e.section in ("FINDINGS", "IMPRESSION")]
    assert seen == [
        ("effusion", "FINDINGS", "absent"),
        ("nodule", "IMPRESSION", "present"),
        ("pneumonia", "IMPRESSION", "absent"),
    ]


@pytest.mark.parametrize(
    "unit",
    [
        "No effusion. Small left nodule, unchanged. ",
        "effusion left and small right ",
        "Name: x effusion\n",
        "a",
        " ",
        "(",
        "FINDINGS: left ",
        "_",
        "\n",
    ],
)
def test_time_grows_with_the_text_and_not_with_its_square(unit: str) -> None:
    def seconds(size: int) -> float:
        text = (unit * (size // len(unit) + 1))[:size] + "\nIMPRESSION: Mass."
        began = time.process_time()
        READER.read(text, report_id="r")
        return time.process_time() - began

    small, large = seconds(20_000), seconds(200_000)
    # Ten times the text; a square would take a hundred times as long.
    assert large < 40 * small + 0.5


_PIECES = (
    "FINDINGS: IMPRESSION: No small left effusion nodule heart is enlarged . , ; : ( ) - / ? \n \t XXXX ___ 5 mm ? é 𝔘"
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(_PIECES.split(" ")), max_size=40).map(" ".join) | st.text(max_size=200))
def test_every_entity_is_a_slice_of_any_text(text: str) -> None:
    for entity in READER.read(text, report_id="r").entities:
        assert entity.text == text[entity.start : entity.end] != ""
        assert entity.cue_start < 0 or entity.cue == text[entity.cue_start : entity.cue_end]
