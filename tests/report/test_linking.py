"""Phrases to codes."""

from __future__ import annotations

import pytest

from medsearch_desktop.report.linking import FLOOR, Linker


@pytest.fixture(scope="module")
def linker() -> Linker:
    return Linker()


@pytest.mark.parametrize(
    ("phrase", "code"),
    [
        ("Cardiomegaly", "I51.7"),
        ("marked chronic cardiomegaly", "I51.7"),
        ("Pleural effusion, not elsewhere classified", "J90"),
        ("small bilateral pleural effusions", "J90"),
        ("oedema of the lungs, acute pulmonary oedema", "J81.0"),
        ("hiatus hernia", "K44.9"),
        ("pneumothorx", "J93.9"),
        ("right lower lobe pneumonia", "J18.9"),
        ("viral pneumonia", "J12.9"),
        ("subsegmental atelectasis in the left base", "J98.11"),
        ("COPD", "J44.9"),
        ("congestive heart failure", "I50.9"),
        ("shortness of breath", "R06.02"),
        ("pulmonary nodules", "R91.8"),
        ("solitary pulmonary nodule", "R91.1"),
        ("dual chamber pacemaker", "Z95.0"),
    ],
)
def test_links(linker: Linker, phrase: str, code: str) -> None:
    link = linker.link(phrase)
    assert link.code.icd10cm == code
    assert FLOOR <= link.code.score <= 1.0


@pytest.mark.parametrize(
    "phrase", ["", " ", "?!", "normal", "qwertyuiop", "the patient was positioned", "XXXX", "胸部"]
)
def test_nothing_near_has_no_code(linker: Linker, phrase: str) -> None:
    code = linker.link(phrase).code
    assert (code.cui, code.icd10cm, code.title, code.score) == ("", "", "", 0.0)


def test_exact_name_scores_one_and_others_less(linker: Linker) -> None:
    link = linker.link("pneumonia")
    assert link.code.score == 1.0
    scores = [code.score for code in link.alternatives]
    assert scores == sorted(scores, reverse=True)
    assert all(code.icd10cm != "J18.9" for code in link.alternatives)


def test_code_phrases_is_the_object_of_the_command(linker: Linker) -> None:
    good, none = linker.code_phrases(["pneumothorax", "zzzz"])
    assert set(good) == {"phrase", "cui", "icd10cm", "title", "score", "alternatives"}
    assert (good["phrase"], good["icd10cm"], good["title"]) == ("pneumothorax", "J93.9", "Pneumothorax, unspecified")
    assert set(good["alternatives"][0]) == {"cui", "icd10cm", "title", "score"}
    assert (none["icd10cm"], none["cui"], none["score"]) == ("", "", 0.0)


def test_long_phrase_is_linked(linker: Linker) -> None:
    linker.link("word " * 20_000)
