"""Completions: each fits where it is put, reads as a question, and finds what it counts."""

from __future__ import annotations

import pytest

from medsearch_desktop.records import Bucket, Facet
from medsearch_desktop.search.complete import complete
from medsearch_desktop.search.filters import FILTERS
from medsearch_desktop.search.query import parse

FACETS = {
    "icd10cm": (Facet("J90", "Pleural effusion", 5, 3, 1, 0), Facet("J93.9", "Pneumothorax", 1, 2, 0, 6)),
    "finding": (Facet("Effusion", "Effusion", 5, 3, 1, 0), Facet("Pleural_Thickening", "", 1, 0, 0, 8)),
    "view": (Bucket("PA", 6), Bucket("LL", 3)),
    "label": (Bucket("odd case", 2), Bucket('a "quoted" one', 1)),
}


def texts(question: str, k: int = 50) -> list[str]:
    return [each.text for each in complete(question, FACETS, k=k)]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("view:", ["PA", "LL"]),
        ("(a -view:p", ["PA"]),
        ("VIEW:l", ["LL"]),
        ("present:eff", ["Effusion", "J90"]),
        ('absent:"pleural th', ['"Pleural Thickening"']),
        ("icd:j9", ["J90", "J93.9"]),
        ("icd:pneumo", ["J93.9"]),
        ("label:", ['"odd case"', '"a  quoted  one"']),
        ("has:da", ["date"]),
        ("nofield:x", []),
        ("effusion vie", ["view:"]),
        ("xyzzy", []),
    ],
)
def test_the_end_of_a_question_may_become(question: str, expected: list[str]) -> None:
    assert texts(question) == expected


def test_with_nothing_written_all_fields_are_proposed() -> None:
    assert texts("effusion ") == [f"{row.key}:" for row in FILTERS]
    assert texts("", k=3) == [f"{row.key}:" for row in FILTERS][:3]


@pytest.mark.parametrize("question", ["eff", "pleu", "j9", "a OR (b view:", "present:", 'label:"odd', "icd:"])
def test_what_is_proposed_is_a_question(question: str) -> None:
    found = complete(question, FACETS, k=50)
    assert found
    for each in found:
        whole = question[: each.start] + each.text
        if each.kind != "field":
            parse(whole.replace("(", ""))


def test_findings_come_with_the_documents_that_have_them() -> None:
    counts = {each.text: each.count for each in complete("eff", FACETS, k=50)}
    assert counts == {"present:Effusion": 5, "icd:J90": 9}


@pytest.mark.parametrize("question", ["(" * 500, '"' * 501, "a" * 4000, "\0", "é:", ":", "::"])
def test_whatever_is_written_is_no_error(question: str) -> None:
    complete(question, FACETS, k=5)
