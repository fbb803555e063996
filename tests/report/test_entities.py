"""Mentions: offsets, codes, the fourteen findings, and that no text breaks the reading."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsearch_desktop.records import Assertion, Category, Entity
from medsearch_desktop.report.entities import PIPELINE_VERSION, findings
from medsearch_desktop.report.reader import ReportReader

REPORT = """StudyInstanceUID: 1.2.3
Referring: Dr. Nodule Hernia

INDICATION: Cough. Rule out pneumonia. History of emphysema.
COMPARISON: Radiograph with pneumothorax.
FINDINGS: The heart is enlarged. Small left pleural effusion. No pneumothorax.
ET tube above the carina.
IMPRESSION:
1. Cardiomegaly.
2. Left base opacity may represent atelectasis.
Signed by: Dr. Mass
"""


@pytest.fixture(scope="module")
def reader() -> ReportReader:
    return ReportReader()


def test_findings_of_a_report(reader: ReportReader) -> None:
    report = reader.read(REPORT, report_id="r1")
    assert findings(report.entities) == {
        "present": ["Cardiomegaly", "Effusion"],
        "absent": ["Pneumothorax"],
        "uncertain": ["Atelectasis"],
    }


def test_entities_carry_category_and_code(reader: ReportReader) -> None:
    entities = {entity.text: entity for entity in reader.read(REPORT, report_id="r1").entities}
    effusion = entities["pleural effusion"]
    assert (effusion.category, effusion.icd10cm, effusion.cui) == (Category.DIAGNOSIS, "J90", "C0032227")
    assert effusion.title == "Pleural effusion, not elsewhere classified"
    assert effusion.section == "FINDINGS"
    assert effusion.score == 1.0
    assert all(code.icd10cm != "J90" for code in effusion.alternatives)
    assert entities["Cough"].category is Category.SYMPTOM
    assert entities["ET tube"].category is Category.DEVICE
    assert entities["carina"].category is Category.ANATOMY


def test_names_in_head_and_signature_are_no_findings(reader: ReportReader) -> None:
    texts = {entity.text for entity in reader.read(REPORT, report_id="r1").entities}
    assert not texts & {"Nodule", "Hernia", "Mass"}


def test_free_text_before_the_first_heading_is_read(reader: ReportReader) -> None:
    report = reader.read("There is a large effusion.\nIMPRESSION: Stable.", report_id="r")
    assert findings(report.entities)["present"] == ["Effusion"]


def entity(finding: str, assertion: Assertion, section: str = "FINDINGS") -> Entity:
    return Entity("x", 0, 1, section, Category.SIGN, assertion, finding=finding)


@pytest.mark.parametrize(
    ("assertions", "where"),
    [
        ((Assertion.ABSENT, Assertion.PRESENT), "present"),
        ((Assertion.ABSENT, Assertion.UNCERTAIN), "uncertain"),
        ((Assertion.UNCERTAIN, Assertion.PRESENT), "present"),
        ((Assertion.ABSENT, Assertion.ABSENT), "absent"),
        ((Assertion.HISTORICAL, Assertion.FAMILY, Assertion.HYPOTHETICAL), None),
        ((Assertion.HISTORICAL, Assertion.ABSENT), "absent"),
    ],
)
def test_a_finding_is_in_one_list_at_most(assertions: tuple[Assertion, ...], where: str | None) -> None:
    merged = findings([entity("Mass", assertion) for assertion in assertions])
    assert [name for name, found in merged.items() if found == ["Mass"]] == ([where] if where else [])


@pytest.mark.parametrize("section", ["INDICATION", "HISTORY", "COMPARISON", "TECHNIQUE", "EXAMINATION"])
def test_only_what_the_examination_showed_counts(section: str) -> None:
    assert findings([entity("Mass", Assertion.PRESENT, section)]) == {"present": [], "absent": [], "uncertain": []}


@pytest.mark.parametrize(
    ("text", "mention"),
    [
        ("Air-space consolidation", "Air-space consolidation"),
        ("pleural\n  effusion", "pleural\n  effusion"),
        ("PULMONARY OEDEMA", "PULMONARY OEDEMA"),
        ("pneumothoraces", "pneumothoraces"),
        ("pneumothroax", "pneumothroax"),
        ("haemothorax", "haemothorax"),
        ("The heart is mildly enlarged", "heart is mildly enlarged"),
    ],
)
def test_spellings(reader: ReportReader, text: str, mention: str) -> None:
    assert mention in [entity.text for entity in reader.read(text, report_id="r").entities if entity.finding]


def test_abbreviations_need_capitals(reader: ReportReader) -> None:
    embolism = "I26.99"
    assert embolism in {e.icd10cm for e in reader.read("Known PE.", report_id="r").entities}
    assert embolism not in {e.icd10cm for e in reader.read("The pe ratio.", report_id="r").entities}


def check(report_text: str, reader: ReportReader) -> None:
    report = reader.read(report_text, report_id="r")
    assert report.text == report_text
    last = 0
    for entity in report.entities:
        assert entity.text == report_text[entity.start : entity.end]
        assert entity.start >= last
        last = entity.start
        if entity.cue:
            assert entity.cue == report_text[entity.cue_start : entity.cue_end]
        else:
            assert (entity.cue_start, entity.cue_end) == (-1, -1)
        section = next(s for s in report.sections if s.start <= entity.start < s.end)
        assert section.name == entity.section
    merged = findings(report.entities)
    names = [name for found in merged.values() for name in found]
    assert len(names) == len(set(names))


_WORDS = """no effusion , or and . pneumothorax heart is enlarged normal not may represent ; : ( ) ? / - versus vs.
history of FINDINGS: IMPRESSION: clear lungs seen resolved mass XXXX ___ the with without if rule out family cannot
exclude 1. absent none unlikely stable small likely there prior non ² İ ﬁ ̈ 胸 é"""
_CLINICAL = st.sampled_from([*_WORDS.split(), "\n", "\n\n"])


@settings(max_examples=400, deadline=None, derandomize=True)
@given(text=st.one_of(st.text(max_size=200), st.lists(_CLINICAL, max_size=40).map(" ".join)))
def test_no_text_breaks_the_reading(reader: ReportReader, text: str) -> None:
    check(text, reader)


@pytest.mark.parametrize(
    "filler", ["no effusion ", "no, ", "or ", "(", "heart ", "mass or ", "XXXX ", "a. ", "\n", "\udcff"]
)
def test_long_monotony_is_read(reader: ReportReader, filler: str) -> None:
    check(filler * (100_000 // len(filler)), reader)


def test_threads_agree_with_one_reader(reader: ReportReader) -> None:
    texts = [f"{REPORT}\nADDENDUM: No nodule {number}. Possible mass." for number in range(40)]
    alone = [reader.read(text, report_id="r").entities for text in texts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: reader.read(text, report_id="r").entities, texts))
    assert together == alone


def test_version_names_the_tables() -> None:
    assert PIPELINE_VERSION.startswith("rules-3-")
    assert len(PIPELINE_VERSION) > len("rules-1-")
