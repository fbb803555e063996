"""A person's word over what was read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medsearch_desktop.errors import NotFoundError
from medsearch_desktop.records import Assertion, Correction, Entity, Report
from medsearch_desktop.report.corrections import apply_corrections, snapshot, title_of_code
from medsearch_desktop.report.entities import findings
from medsearch_desktop.report.reader import ReportReader

READER = ReportReader()
TEXT = "Small left effusion. No nodule."


def read(text: str = TEXT) -> Report:
    return READER.read(text, report_id="r")


def correction(**values: object) -> Correction:
    entity = read().entities[0]
    made = Correction(
        correction_id="c1",
        report_id="r",
        start=entity.start,
        end=entity.end,
        text=entity.text,
        assertion=None,
        icd10cm=None,
        title="",
        note="",
        author="a",
        made_at="2026-01-01T00:00:00+00:00",
        before=snapshot(entity),
    )
    return replace(made, **values)  # type: ignore[arg-type]


def effusion(report: Report) -> Entity:
    return next(entity for entity in report.entities if entity.text == "effusion")


def test_an_assertion_is_corrected_and_says_by_what() -> None:
    report = apply_corrections(read(), [correction(assertion=Assertion.ABSENT)])
    assert (effusion(report).assertion, effusion(report).rule) == (Assertion.ABSENT, "corrections/c1")
    assert effusion(report).icd10cm == "J90"
    assert "Effusion" in findings(report.entities)["absent"]


def test_a_code_is_corrected_or_taken_away() -> None:
    changed = apply_corrections(read(), [correction(icd10cm="J91.0", title="Malignant pleural effusion")])
    assert (effusion(changed).icd10cm, effusion(changed).score) == ("J91.0", 1.0)
    none = apply_corrections(read(), [correction(icd10cm="")])
    assert (effusion(none).icd10cm, effusion(none).score) == ("", 0.0)


def test_later_corrections_are_over_earlier_ones_and_undone_ones_are_not_seen() -> None:
    first = correction(assertion=Assertion.ABSENT)
    second = correction(correction_id="c2", assertion=Assertion.UNCERTAIN)
    assert effusion(apply_corrections(read(), [first, second])).assertion is Assertion.UNCERTAIN
    undone = replace(second, undone_at="2026-01-02T00:00:00+00:00")
    assert effusion(apply_corrections(read(), [first, undone])).assertion is Assertion.ABSENT


def test_a_correction_rests_where_other_words_stand() -> None:
    report = read("A new text altogether. Small left effusion.")
    assert apply_corrections(report, [correction(assertion=Assertion.ABSENT)]) == report


def test_a_mention_that_is_not_found_any_more_is_kept() -> None:
    report = replace(read(), entities=())
    (entity,) = apply_corrections(report, [correction(assertion=Assertion.ABSENT)]).entities
    assert (entity.text, entity.finding, entity.assertion) == ("effusion", "Effusion", Assertion.ABSENT)


def test_an_unknown_code_names_the_remedy() -> None:
    assert title_of_code("J90") == "Pleural effusion, not elsewhere classified"
    with pytest.raises(NotFoundError, match=r"Q99\.99: .*medsearch code"):
        title_of_code("Q99.99")
