from __future__ import annotations

import pytest

from medsearch_desktop.records import Entity
from medsearch_desktop.report.abbreviations import find_abbreviations, uses
from medsearch_desktop.report.reader import ReportReader

READER = ReportReader()


def said(text: str) -> list[tuple[str, str]]:
    return [(each.short, text[each.long_start : each.long_end]) for each in find_abbreviations(text)]


def mentions(text: str) -> list[Entity]:
    return list(READER.read(text, report_id="r").entities)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Signs of congestive heart failure (CHF) today.", [("CHF", "congestive heart failure")]),
        ("A solitary fibrous tumour of the pleura (SFTP).", [("SFTP", "solitary fibrous tumour of the pleura")]),
        ("Known LAM (lymphangioleiomyomatosis), stable.", [("LAM", "lymphangioleiomyomatosis")]),
        ("Interstitial lung\ndisease (ILD).", [("ILD", "Interstitial lung\ndisease")]),
        ("Chronic obstructive pulmonary disease (COPD)", [("COPD", "Chronic obstructive pulmonary disease")]),
        ("non-tuberculous mycobacteria (NTM)", [("NTM", "non-tuberculous mycobacteria")]),
        # No definitions: a size, a remark, letters that do not fit, a sentence that ended, a list of nothing.
        ("A nodule (5 mm) in the right lobe (RUL).", []),
        ("The effusion (small) is stable (see above).", []),
        ("Congestive heart failure (XYZ).", []),
        ("Congestive heart. Failure of leads. (CHF)", []),
        ("() ( ) (((( CHF )))) (", []),
        ("", []),
    ],
)
def test_definitions(text: str, expected: list[tuple[str, str]]) -> None:
    assert said(text) == expected


def test_offsets_are_into_the_whole_text() -> None:
    text = "FINDINGS: pulmonary alveolar proteinosis (PAP)."
    (found,) = find_abbreviations(text, start=10)
    assert text[found.short_start : found.short_end] == "PAP"
    assert text[found.long_start : found.long_end] == "pulmonary alveolar proteinosis"
    assert find_abbreviations(text, start=12, end=44) == ()


def test_uses_are_words_spelt_the_same() -> None:
    text = "PAP, pap, PAPs, XPAP; PAP."
    assert [text[slice(*span)] for span in uses(text, "PAP", start=0, end=len(text))] == ["PAP", "PAP"]
    assert [span[0] for span in uses(text, "PAP", start=0, end=len(text))] == [0, 22]


def test_a_short_form_means_what_the_report_says_it_means() -> None:
    text = "FINDINGS: Pneumothorax (PMX) on the left.\nIMPRESSION: No PMX on the right."
    found = [entity for entity in mentions(text) if entity.text == "PMX"]
    assert [(entity.section, str(entity.assertion)) for entity in found] == [
        ("FINDINGS", "present"),
        ("IMPRESSION", "absent"),
    ]
    assert {entity.finding for entity in found} == {"Pneumothorax"}
    assert {entity.icd10cm for entity in found} == {"J93.9"}
    assert all(entity.rule.startswith("abbreviation + ") for entity in found)
    assert not [entity for entity in mentions("IMPRESSION: No PMX on the right.") if entity.text == "PMX"]


def test_the_report_has_the_last_word_on_a_short_form_that_the_lexicon_knows() -> None:
    alone = [entity.title for entity in mentions("Findings of PE.") if entity.text == "PE"]
    assert "embolism" in alone[0]
    text = "Pulmonary edema (PE) is new. PE is worse."
    found = [entity for entity in mentions(text) if entity.text == "PE"]
    assert [entity.finding for entity in found] == ["Edema", "Edema"]


def test_a_short_form_of_a_part_of_what_was_meant_is_left_alone() -> None:
    # The lexicon knows effusion, and nobody the rest of it.
    assert not [entity for entity in mentions("Borbo gast effusion (BGE). BGE.") if entity.text == "BGE"]


def test_a_text_of_nothing_but_brackets_is_read_in_time() -> None:
    assert find_abbreviations("(" * 50_000 + "AB)" * 10_000) == ()
    long = "word " * 5_000 + "(WX)"
    assert find_abbreviations(long) == ()
