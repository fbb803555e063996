"""Facets against counting by hand."""

from __future__ import annotations

import random
from collections import Counter
from datetime import date
from typing import Any

import pytest

from medsearch_desktop.records import Bucket, Facet
from medsearch_desktop.search.aggregate import FACETS, facets
from medsearch_desktop.search.query import parse
from medsearch_desktop.search.text import matching_documents
from medsearch_desktop.store.fulltext import FulltextIndex

CODES = [(f"J{number:02d}", f"Disease {number}", "Effusion" if number % 3 == 0 else "") for number in range(12)]
ASSERTIONS = ("present", "absent", "uncertain", "historical", "family", "hypothetical")


def made(doc_no: int, rng: random.Random) -> dict[str, Any]:
    return {
        "doc_no": doc_no,
        "report_id": f"r{doc_no}",
        "study_uid": f"1.{doc_no}",
        "text": " ".join(rng.sample(["alpha", "beta", "gamma", "rare"], rng.choice((1, 2, 2, 3)))),
        "sections": [],
        "patient_id": "",
        "accession_number": "",
        "study_id": "",
        "study_date": rng.choice((None, date(2023, 5, 1), date(2024, 5, 1), date(999, 1, 1))),
        "study_description": "",
        "patient_sex": rng.choice("MF"),
        "patient_age": rng.choice((None, 0.4, 9.9, 10.0, 64.0, 101.0)),
        "modalities": rng.sample(["CR", "cr", "DX"], 2),
        "view_positions": rng.sample(["PA", "AP"], rng.randint(0, 2)),
        "body_parts": ["CHEST"],
        "lateralities": [],
        "manufacturers": [],
        "labels": rng.sample(["Teaching", "follow up"], rng.randint(0, 2)),
        "image_count": 1,
        "entities": [
            (code, title, finding, rng.choice(ASSERTIONS), "Diagnosis", title.lower())
            for code, title, finding in rng.choices(CODES, k=rng.randint(0, 6))
        ],
    }


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> tuple[FulltextIndex, dict[int, dict[str, Any]]]:
    """An index with deleted and replaced documents, and the documents that it should hold."""
    rng = random.Random(8)
    index = FulltextIndex(tmp_path_factory.mktemp("index"))
    index.update([made(number, rng) for number in range(500)], watermark=1)
    kept = {number: made(number, rng) for number in range(100, 600)}
    index.update(kept.values(), range(100), watermark=2)
    return index, kept


def count_states(documents: list[dict[str, Any]], column: int) -> dict[str, tuple[int, int, int, int]]:
    counts: dict[str, Counter[str]] = {}
    for document in documents:
        for value in {entity[column] for entity in document["entities"] if entity[column]}:
            said = {entity[3] for entity in document["entities"] if entity[column] == value}
            for state in ("present", "uncertain", "absent"):
                if state in said:
                    counts.setdefault(value, Counter())[state] += 1
                    break
    total = len(documents)
    return {
        value: (by["present"], by["absent"], by["uncertain"], total - sum(by.values())) for value, by in counts.items()
    }


# Some match nearly all documents, some few: the two are counted in different ways.
@pytest.mark.parametrize("query", ["", "alpha", "rare age:>100 modality:DX", "present:J03 -beta", "unheardof"])
def test_counts(library: tuple[FulltextIndex, dict[int, dict[str, Any]]], query: str):
    index, kept = library
    tree = parse(query)
    documents = [kept[doc_no] for doc_no in matching_documents(index, tree).tolist()]
    answer = facets(index, tree)
    assert tuple(answer) == FACETS

    for name, column in (("icd10cm", 0), ("finding", 2)):
        found: dict[str, tuple[int, int, int, int]] = {}
        for facet in answer[name]:
            assert isinstance(facet, Facet)
            found[facet.code] = (facet.present, facet.absent, facet.uncertain, facet.not_mentioned)
            assert sum(found[facet.code]) == len(documents)
        assert found == count_states(documents, column)
    titles = {code: title for code, title, _ in CODES}
    assert all(isinstance(facet, Facet) and facet.title == titles[facet.code] for facet in answer["icd10cm"])

    decade = {None: [], 0.4: ["0-9"], 9.9: ["0-9"], 10.0: ["10-19"], 64.0: ["60-69"], 101.0: ["100-109"]}
    expected = {
        "modality": Counter(value for d in documents for value in {m.upper() for m in d["modalities"]}),
        "view": Counter(value for d in documents for value in d["view_positions"]),
        "body": Counter(value for d in documents for value in d["body_parts"]),
        "sex": Counter(d["patient_sex"] for d in documents),
        "age": Counter(value for d in documents for value in decade[d["patient_age"]]),
        "year": Counter(f"{d['study_date'].year:04d}" for d in documents if d["study_date"]),
        "label": Counter(value for d in documents for value in d["labels"]),
    }
    for name, counts in expected.items():
        assert {bucket.value: bucket.count for bucket in answer[name] if isinstance(bucket, Bucket)} == counts


def test_order(library: tuple[FulltextIndex, dict[int, dict[str, Any]]]):
    index, _ = library
    answer = facets(index, parse(""))
    assert [bucket.value for bucket in answer["age"]] == ["0-9", "10-19", "60-69", "100-109"]
    assert [bucket.value for bucket in answer["year"]] == ["0999", "2023", "2024"]
    assert [bucket.count for bucket in answer["label"]] == sorted((b.count for b in answer["label"]), reverse=True)
    unmentioned = [facet.not_mentioned for facet in answer["icd10cm"]]
    assert unmentioned == sorted(unmentioned)


def test_only_what_is_asked_for(library: tuple[FulltextIndex, dict[int, dict[str, Any]]]):
    index, _ = library
    assert tuple(facets(index, parse("alpha"), names=("sex", "icd10cm"))) == ("sex", "icd10cm")
    assert facets(index, parse("alpha"), names=()) == {}
    assert facets(index, parse("rare"), names=("finding",)).keys() == {"finding"}
