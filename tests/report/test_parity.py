"""The fields of the cloud deployment: which states and categories stand in which."""

from __future__ import annotations

import pytest

from medsearch_desktop.report.parity import PARITY_FIELDS, parity_fields
from medsearch_desktop.report.reader import ReportReader

TEXT = (
    "INDICATION: Cough. Evaluate for tuberculosis.\n"
    "FINDINGS: Large pleural effusion, possible pneumonia. No pneumothorax. Pleural\neffusion is stable. "
    "Pacemaker in place. Family history of lung cancer. Status post sternotomy.\n"
)


@pytest.fixture(scope="module")
def reader() -> ReportReader:
    return ReportReader()


def fields(reader: ReportReader, text: str) -> dict[str, list[str]]:
    return parity_fields(reader.read(text, report_id="r").entities)


def test_the_fields_are_those_of_the_deployment() -> None:
    assert PARITY_FIELDS == (
        "PositiveSigns",
        "PositiveDiagnoses",
        "PositiveSymptoms",
        "PositiveICD10CMs",
        "NegativeSigns",
        "NegativeDiagnoses",
        "NegativeSymptoms",
        "NegativeICD10CMs",
    )


def test_states_and_categories_go_to_their_fields(reader: ReportReader) -> None:
    assert fields(reader, TEXT) == {
        "PositiveSigns": [],
        "PositiveDiagnoses": ["pleural effusion", "pneumonia"],
        "PositiveSymptoms": ["Cough"],
        "PositiveICD10CMs": [
            "Cough, unspecified",
            "Pleural effusion, not elsewhere classified",
            "Pneumonia, unspecified organism",
        ],
        "NegativeSigns": [],
        "NegativeDiagnoses": ["pneumothorax"],
        "NegativeSymptoms": [],
        "NegativeICD10CMs": ["Pneumothorax, unspecified"],
    }


def test_a_value_may_be_positive_and_negative(reader: ReportReader) -> None:
    found = fields(reader, "FINDINGS: No nodule. IMPRESSION: There is a nodule.")
    assert found["PositiveSigns"] == found["NegativeSigns"] == ["nodule"]


def test_a_normal_organ_gives_titles_and_no_words(reader: ReportReader) -> None:
    found = fields(reader, "Heart size is normal.")
    assert found["NegativeSigns"] == found["NegativeDiagnoses"] == []
    assert found["NegativeICD10CMs"] == ["Cardiomegaly"]


def test_titles_follow_the_side(reader: ReportReader) -> None:
    found = fields(reader, "Fracture of the left clavicle.")
    assert found["PositiveICD10CMs"] == ["Fracture of unspecified part of left clavicle"]


def test_nothing_gives_empty_lists() -> None:
    assert parity_fields(()) == {name: [] for name in PARITY_FIELDS}
