"""The codes of mentions in reports: the side, the kind and the place that the sentence says, and nothing more."""

from __future__ import annotations

import pytest

from medsearch_desktop.records import Assertion, Category, Entity
from medsearch_desktop.report.lexicon import load_lexicon
from medsearch_desktop.report.linking import FLOOR
from medsearch_desktop.report.reader import ReportReader


@pytest.fixture(scope="module")
def reader() -> ReportReader:
    return ReportReader()


def mentions(reader: ReportReader, text: str) -> list[Entity]:
    entities = reader.read(text, report_id="r").entities
    return [entity for entity in entities if entity.category is not Category.ANATOMY and not entity.inferred]


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("There is a fracture of the left clavicle.", ["S42.002"]),
        ("Clavicle fracture, right.", ["S42.001"]),
        ("The clavicle is intact, old clavicle fracture.", ["S42.009"]),
        ("Healing rib fractures on the left.", ["S22.32"]),
        ("Right mastectomy. Left shoulder arthroplasty.", ["Z90.11", "Z96.612"]),
        ("Lung cancer in the left lower lobe.", ["C34.32"]),
        ("Lung cancer.", ["C34.90"]),
        # A side that has no code of its own leaves the unspecified one.
        ("Bilateral clavicle fractures.", ["S42.009"]),
        ("Large right pleural effusion.", ["J90"]),
    ],
)
def test_the_side_is_that_of_the_sentence(reader: ReportReader, text: str, codes: list[str]) -> None:
    assert [entity.icd10cm for entity in mentions(reader, text)] == codes


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Fracture of the left femur.", "S72.92"),
        ("Nondisplaced fracture of the right scapula.", "S42.101"),
        ("Fracture of the distal radius.", "S52.509"),
        ("Fracture.", ""),
        ("Dislocation of the left hip.", "S73.005"),
        ("Dislocation of the right shoulder.", "S43.004"),
        ("The joint is dislocated.", ""),
    ],
)
def test_a_mention_without_a_code_asks_the_base(reader: ReportReader, text: str, code: str) -> None:
    (entity,) = mentions(reader, text)
    assert entity.icd10cm == code
    assert not code or FLOOR <= entity.score <= 1.0


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Pulmonary embolism.", "I26.99"),
        ("Chronic pulmonary embolism.", "I27.82"),
        ("Acute on chronic respiratory failure.", "J96.20"),
        ("Acute systolic heart failure.", "I50.21"),
        ("Metastases in the right adrenal gland.", "C79.71"),
        ("Mass in the left kidney.", "N28.89"),
        ("Compression fracture of the thoracic spine.", "S22.000"),
        ("Chronic pleural effusion.", "J90"),
        # Less is never made of a mention than its own row says.
        ("Nodular opacities in the right lung.", "R91.8"),
        ("Fracture of the proximal humerus, left.", "S42.202"),
        ("Prior tuberculosis.", "B90.9"),
        ("Degenerative changes of the thoracic spine.", "M47.9"),
    ],
)
def test_kind_and_place_decide_where_a_name_says_both(reader: ReportReader, text: str, code: str) -> None:
    (entity,) = mentions(reader, text)
    assert entity.icd10cm == code


@pytest.mark.parametrize(
    "text",
    [
        "No acute disease.",
        "No acute cardiopulmonary abnormality.",
        "No acute osseous abnormality.",
        "Low lung volumes.",
        "CT of the chest was performed.",
        "Mass effect on the trachea.",
    ],
)
def test_what_names_no_disease_has_no_code(reader: ReportReader, text: str) -> None:
    assert [entity.icd10cm for entity in mentions(reader, text)] == [""]


def test_code_title_and_runners_up_belong_together(reader: ReportReader) -> None:
    (entity,) = mentions(reader, "Fracture of the left clavicle.")
    assert entity.title == "Fracture of unspecified part of left clavicle"
    assert entity.alternatives[0].icd10cm == "S42.009"
    assert all(code.icd10cm != entity.icd10cm for code in entity.alternatives)
    scores = [code.score for code in entity.alternatives]
    assert scores == sorted(scores, reverse=True)
    assert entity.score >= scores[0]


def test_the_code_changes_neither_finding_nor_assertion(reader: ReportReader) -> None:
    (mass,) = mentions(reader, "No mass in the left kidney.")
    assert (mass.finding, mass.category, mass.assertion) == ("Mass", Category.SIGN, Assertion.ABSENT)
    assert mass.icd10cm == "N28.89"


def test_the_same_words_are_looked_up_once(reader: ReportReader) -> None:
    linker = reader._extractor.linker
    mentions(reader, "Fracture of the left femur.")
    known = len(linker._coded)
    assert mentions(reader, "There is a fracture of the left femur.")[0].icd10cm == "S72.92"
    assert len(linker._coded) == known


def test_every_code_of_the_lexicon_is_of_the_release(reader: ReportReader) -> None:
    base = reader._extractor.linker.base
    assert {t.icd10cm for t in load_lexicon().terms if t.icd10cm and base.concept_of_code(t.icd10cm) is None} == set()
