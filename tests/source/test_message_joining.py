"""Which study the report of a message is joined to: by what it states, and by nothing else."""

from __future__ import annotations

import pytest

from medsearch_desktop.records import LinkRule
from medsearch_desktop.source.joining import ImageRow, StudyDirectory, message_keys
from medsearch_desktop.statements import Statement

BY_DATE = LinkRule.PATIENT_AND_DATE
A, B, C = "1.2.840.1.1", "1.2.840.1.2", "1.2.840.1.3"
STUDIES = (
    ImageRow(A, "A1", "s1", "P1", "/data/films/a.dcm", "2024-03-15"),
    ImageRow(B, "B1", "", "P1", "/data/films/b.dcm", "2024-03-16"),
    ImageRow(C, "", "", "P2", "/data/films/c.dcm", "2024-03-15"),
)


def find(*more: ImageRow, **stated: object) -> tuple[str, LinkRule] | None:
    return StudyDirectory([*STUDIES, *more], ["/data/films/report.hl7"]).find(message_keys(Statement(**stated)))


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        ({"study_uids": (A,), "accession_numbers": ("B1",)}, (A, LinkRule.STUDY_UID)),
        ({"accession_numbers": ("b1",)}, (B, LinkRule.ACCESSION_NUMBER)),
        ({"accession_numbers": ("PLACER", "A1")}, (A, LinkRule.ACCESSION_NUMBER)),
        ({"accession_numbers": ("A1", "B1")}, None),
        ({"study_ids": ("s1",), "patient_ids": ("P1",)}, (A, LinkRule.STUDY_ID)),
        ({"patient_ids": ("p1",), "study_date": "2024-03-16"}, (B, BY_DATE)),
        ({"patient_ids": ("X", "P2"), "study_date": "2024-03-15"}, (C, BY_DATE)),
        ({"patient_ids": ("P2",), "study_date": "2024-03-15", "accession_numbers": ("Z9",)}, (C, BY_DATE)),
        # Another examination of that day has another number.
        ({"patient_ids": ("P1",), "study_date": "2024-03-15", "accession_numbers": ("Z9",)}, None),
        ({"patient_ids": ("P1",), "study_date": "2024-03-15", "study_uids": ("1.2.840.9",)}, None),
        ({"patient_ids": ("P1", "P2"), "study_date": "2024-03-15"}, None),
        ({"patient_ids": ("P1",), "study_date": "2024-03-17"}, None),
        ({"patient_ids": ("P1",)}, None),
        # Another hospital's examination of the same number.
        ({"accession_numbers": ("A1",), "patient_ids": ("P77",)}, None),
        ({"accession_numbers": ("A1",), "patient_ids": ("P77", "P1")}, (A, LinkRule.ACCESSION_NUMBER)),
        ({"accession_numbers": ("A1",), "patient_ids": ("0001",)}, (A, LinkRule.ACCESSION_NUMBER)),
        ({"accession_numbers": ("A1",), "patient_ids": ("KIS-001",)}, (A, LinkRule.ACCESSION_NUMBER)),
        ({"accession_numbers": ("A1",), "patient_ids": ("unknown",)}, None),
        ({"accession_numbers": ("A1",), "patient_ids": (" ",)}, (A, LinkRule.ACCESSION_NUMBER)),
        ({"study_ids": ("s1234567",), "patient_ids": ("P77",)}, None),
        ({"study_uids": (A,), "patient_ids": ("P77",)}, (A, LinkRule.STUDY_UID)),
        ({"patient_ids": ("",), "study_date": "2024-03-15"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_rules(stated: dict[str, object], found: tuple[str, LinkRule] | None) -> None:
    assert find(**stated) == found


def test_two_studies_of_a_patient_on_one_day_decide_nothing() -> None:
    again = ImageRow("1.2.840.1.4", "", "", "P2", "/data/films/d.dcm", "2024-03-15")
    assert find(again, patient_ids=("P2",), study_date="2024-03-15") is None


def test_a_study_without_a_patient_is_joined_by_its_number() -> None:
    nobody = ImageRow("1.2.840.1.4", "D1", "", "", "/data/films/d.dcm", "2024-03-15")
    assert find(nobody, patient_ids=("P77",), accession_numbers=("D1",)) == (
        nobody.study_uid,
        LinkRule.ACCESSION_NUMBER,
    )


def test_studies_without_a_patient_are_of_nobody() -> None:
    nobody = ImageRow("1.2.840.1.4", "", "", "", "/data/films/d.dcm", "2024-03-15")
    assert find(nobody, patient_ids=("",), study_date="2024-03-15") is None
