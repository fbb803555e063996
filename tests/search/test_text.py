"""Answers of the index against reading every document; pages; snippets."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsearch_desktop.search.query import (
    And,
    DateRange,
    Field,
    Like,
    Not,
    NumberRange,
    Or,
    Phrase,
    Prefix,
    Tree,
    Word,
    conjunction,
    disjunction,
    parse,
    unparse,
)
from medsearch_desktop.search.text import (
    SNIPPET_LENGTH,
    count_documents,
    make_snippet,
    matching_documents,
    search_documents,
)
from medsearch_desktop.store.fulltext import SECTIONS, FulltextIndex, analyse

VOCABULARY = ["pleural", "effusion", "effusions", "effusive", "pneumothorax", "opacity", "opacities", "x-ray", "heart"]
VOCABULARY += ["Épanchement", "T12", "no", "left", "right", "clear"]
ENTITIES = (
    ("J90", "Pleural effusion, not elsewhere classified", "Effusion", "effusions"),
    ("J18.9", "Pneumonia, unspecified organism", "Pneumonia", "pneumonia"),
    ("J18.1", "Lobar pneumonia, unspecified organism", "Pneumonia", "lobar pneumonia"),
    ("", "", "Pleural_Thickening", "pleural thickening"),
    ("S22.39XA", "Fracture of one rib, unspecified side", "", "rib fracture"),
)
ASSERTIONS = ("present", "absent", "uncertain", "historical", "family", "hypothetical")


def documents(count: int, *, seed: int) -> Iterator[dict[str, Any]]:
    rng = random.Random(seed)
    for number in range(count):
        bare = rng.random() < 0.1
        text, sections = "", []
        for name in () if bare else ("INDICATION", "FINDINGS", "IMPRESSION")[rng.randrange(3) :]:
            body = " ".join(rng.choices(VOCABULARY, k=rng.randint(0, 6)))
            text += f"{name}: "
            sections.append((name, len(text), len(text) + len(body)))
            text += f"{body}\n"
        entities = [] if bare else rng.choices(ENTITIES, k=rng.randint(0, 4))
        yield {
            "doc_no": 2 * number + bare,
            "report_id": None if bare else f"R-{number}",
            "study_uid": f"1.2.{number}",
            "text": text,
            "sections": sections,
            "patient_id": rng.choice(("p1", "P1", "P 10", "P2", "")),
            "accession_number": f"ACC{number % 40}",
            "study_id": str(number % 7),
            "study_date": None if rng.random() < 0.1 else date(2023, 11, 1) + timedelta(days=rng.randrange(400)),
            "study_description": rng.choice(("CHEST 2 VIEWS", "Chest X-RAY", "effusion follow up", "")),
            "patient_sex": rng.choice(("M", "F", "O", "")),
            "patient_age": None if rng.random() < 0.1 else rng.randrange(900) / 10,
            "modalities": rng.sample(["CR", "DX", "CT"], rng.randint(0, 2)),
            "view_positions": rng.sample(["PA", "AP", "LL"], rng.randint(0, 2)),
            "body_parts": ["chest"],
            "lateralities": rng.sample(["L", "R"], rng.randint(0, 1)),
            "manufacturers": rng.choice(([], ["SIEMENS Healthineers"], ["GE", "Philips"])),
            "labels": rng.sample(["Teaching", "follow up"], rng.randint(0, 1)),
            "image_count": rng.randint(0, 3),
            "entities": [
                (code, title, finding, rng.choice(ASSERTIONS), "Diagnosis", text)
                for code, title, finding, text in entities
            ],
        }


# Reading every document: what the index must agree with.


def plain_words(text: str) -> list[str]:
    apart = unicodedata.normalize("NFD", text.lower())
    return re.findall(r"[^\W_]+", "".join(c for c in apart if not unicodedata.combining(c)))


def stems(text: str) -> list[str]:
    return [stem for word in plain_words(text) for stem in analyse(word)]


def reads(value: Word | Phrase | Prefix, text: str) -> bool:
    if isinstance(value, Prefix):
        *leading, last = plain_words(value.text)
        said = plain_words(text)
        return any(
            said[at : at + len(leading)] == leading and said[at + len(leading)].startswith(last)
            for at in range(len(said) - len(leading))
        )
    wanted, said = stems(value.text), stems(text)
    return any(said[at : at + len(wanted)] == wanted for at in range(len(said) - len(wanted) + 1))


def names(entity: tuple[str, ...], value: str) -> bool:
    code, title, finding, _, _, text = entity
    wanted = stems(value)
    known = (text, finding, title, title.split(",")[0])
    compact = value.replace(".", "").upper()
    return (
        any(stems(name) == wanted for name in known if name)
        or (len(compact) >= 3 and code.replace(".", "").startswith(compact))
    )  # fmt: skip


def holds(tree: Tree, document: dict[str, Any]) -> bool:
    match tree:
        case And(children):
            return all(holds(child, document) for child in children)
        case Or(children):
            return any(holds(child, document) for child in children)
        case Not(child):
            return not holds(child, document)
        case Like():
            return True
        case Field(key, value):
            return field_holds(key, value, document)
        case _:
            bare = document["report_id"] is None
            return reads(tree, document["study_description"] if bare else document["text"])


def field_holds(key: str, value: Any, document: dict[str, Any]) -> bool:
    match value:
        case NumberRange(low, high, include_low, include_high):
            age = document["patient_age"]
            return (
                age is not None
                and (low is None or age > low or (include_low and age == low))
                and (high is None or age < high or (include_high and age == high))
            )
        case DateRange(first, last):
            day = document["study_date"]
            return day is not None and (first is None or day >= first) and (last is None or day <= last)
    text = value.text
    if key.upper() in {name.upper() for name in SECTIONS}:
        parts = [document["text"][start:end] for name, start, end in document["sections"] if name == key.upper()]
        return any(reads(value, part) for part in parts)
    if key == "description":
        return reads(value, document["study_description"])
    if key == "manufacturer":
        return any(reads(value, name) for name in document["manufacturers"])
    if key in ("icd", "mentioned"):
        return any(names(entity, text) for entity in document["entities"])
    if key in ASSERTIONS:
        said = [entity[3] for entity in document["entities"] if names(entity, text)]
        if key in ("historical", "family", "hypothetical"):
            return key in said
        return key == next((state for state in ("present", "uncertain", "absent") if state in said), None)
    if key == "has":
        there = {
            "report": document["report_id"],
            "image": document["image_count"],
            "label": document["labels"],
            "finding": document["entities"],
            "date": document["study_date"],
            "age": document["patient_age"] is not None,
        }
        return bool(there[text])
    keywords = {
        "modality": document["modalities"],
        "view": document["view_positions"],
        "body": document["body_parts"],
        "laterality": document["lateralities"],
        "sex": [document["patient_sex"]],
        "patient": [document["patient_id"]],
        "accession": [document["accession_number"]],
        "study": [document["study_id"], document["study_uid"]],
        "report": [document["report_id"] or ""],
        "label": document["labels"],
    }
    wanted = {"female": "F"}.get(text, text).casefold()
    return any(
        each.casefold().startswith(wanted) if isinstance(value, Prefix) else each.casefold() == wanted
        for each in keywords[key]
        if each
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> tuple[FulltextIndex, list[dict[str, Any]]]:
    """An index with a history of changes, and the documents that it should hold after them."""
    index = FulltextIndex(tmp_path_factory.mktemp("index"))
    kept: dict[int, dict[str, Any]] = {}
    rng = random.Random(4)
    for mark, seed in enumerate((1, 2, 3), start=1):
        batch = [document for document in documents(400, seed=seed) if seed == 1 or rng.random() < 0.3]
        removed = rng.sample(sorted(kept), 40) if kept else []
        index.update(batch, removed, watermark=mark)
        for doc_no in removed:
            del kept[doc_no]
        kept.update((document["doc_no"], document) for document in batch)
    return index, [kept[doc_no] for doc_no in sorted(kept)]


TERMS = st.sampled_from([*VOCABULARY, "x-rays", "epanchement", "EFFUSION", "missing", "2"])
WORDS = st.one_of(
    TERMS.map(Word),
    st.lists(TERMS, min_size=1, max_size=3).map(" ".join).map(Phrase),
    st.sampled_from(["eff", "effusi", "x-r", "EPAN", "opaciti", "zz"]).map(Prefix),
)
NAMES = st.sampled_from(
    [
        *("effusion", "Effusions", "pleural effusion", "pleural_thickening", "J90", "j18", "J18.9", "S22.39"),
        *("pneumonia", "Pneumonia, unspecified organism", "rib fractures", "unheard of"),
    ]
).map(Phrase)
KEYWORDS = {
    "modality": ["CR", "ct", "xx"],
    "view": ["pa", "LL"],
    "body": ["CHEST"],
    "laterality": ["l"],
    "sex": ["female", "M"],
    "patient": ["p1", "P 10"],
    "accession": ["acc7"],
    "study": ["3", "1.2.30"],
    "report": ["r-12"],
    "label": ["teaching", "FOLLOW UP"],
}
AGES = st.sampled_from([0.0, 20.0, 20.5, 45.0, 60.0, 89.9])
DAYS = st.dates(date(2023, 10, 1), date(2025, 1, 1))
LEAVES = st.one_of(
    WORDS,
    st.builds(Field, st.sampled_from(["findings", "impression", "indication", "technique", "description"]), WORDS),
    st.builds(Field, st.just("manufacturer"), st.sampled_from([Word("siemens"), Phrase("GE"), Prefix("phil")])),
    st.sampled_from([Field(key, Phrase(value)) for key, values in KEYWORDS.items() for value in values]),
    st.sampled_from(
        [Field("patient", Prefix("p")), Field("accession", Prefix("ACC1")), Field("report", Prefix("r-3"))]
    ),
    st.builds(lambda low, flag: Field("age", NumberRange(low, None, include_low=flag)), AGES, st.booleans()),
    st.builds(lambda low: Field("age", NumberRange(low, low + 1, include_high=False)), AGES),
    st.builds(lambda ends: Field("date", DateRange(*ends)), st.lists(DAYS, min_size=2, max_size=2).map(sorted)),
    st.builds(lambda day: Field("date", DateRange(None, day)), DAYS),
    st.builds(Field, st.sampled_from([*ASSERTIONS, "mentioned"]), NAMES),
    st.builds(Field, st.just("icd"), st.sampled_from([Word("J90"), Word("J18"), Word("J18.1"), Word("Z00")])),
    st.sampled_from(["report", "image", "label", "finding", "date", "age"]).map(lambda what: Field("has", Word(what))),
)
TREES = st.recursive(
    LEAVES,
    lambda trees: st.one_of(
        trees.map(Not),
        st.lists(trees, min_size=1, max_size=3).map(conjunction),
        st.lists(trees, min_size=1, max_size=3).map(disjunction),
    ),
    max_leaves=8,
)


@settings(max_examples=600, deadline=None)
@given(tree=TREES)
def test_the_index_answers_as_reading_everything_does(library: tuple[FulltextIndex, list[dict[str, Any]]], tree: Tree):
    index, everything = library
    expected = [document["doc_no"] for document in everything if holds(tree, document)]
    assert matching_documents(index, tree).tolist() == expected
    assert count_documents(index, tree) == len(expected)
    total, hits = search_documents(index, tree, k=1000)
    assert total == len(expected)
    assert sorted(doc_no for doc_no, _ in hits) == expected


def test_the_leaves_of_that_test_match_something(library: tuple[FulltextIndex, list[dict[str, Any]]]):
    index, everything = library
    for query in (
        "effusion",
        '"pleural effusion"',
        "x-ray",
        "x-r*",
        "impression:effusion",
        "findings:opacit*",
        "manufacturer:siemens",
        'present:"pleural effusion"',
        "absent:J18",
        "uncertain:pneumonia",
        "family:J90",
        "icd:S22.39",
        'label:"FOLLOW UP"',
        "patient:p1",
        "report:R-3*",
        "age:20..40",
        "date:2024-02",
    ):
        assert 0 < count_documents(index, parse(query)) < len(everything), query


@pytest.mark.parametrize("sort", ["score", "date", "oldest", "patient"])
@pytest.mark.parametrize("query", ["", "effusion OR heart", "modality:CR"])
def test_pages_are_cut_from_one_order(library: tuple[FulltextIndex, list[dict[str, Any]]], query: str, sort: str):
    index, everything = library
    tree = parse(query)
    total, whole = search_documents(index, tree, k=1000, sort=sort)
    paged: list[tuple[int, float]] = []
    for offset in range(0, total + 7, 7):
        assert search_documents(index, tree, k=7, offset=offset, sort=sort)[0] == total
        paged.extend(search_documents(index, tree, k=7, offset=offset, sort=sort)[1])
    assert sorted(paged) == sorted(whole)
    assert len({doc_no for doc_no, _ in paged}) == total

    by_no = {document["doc_no"]: document for document in everything}
    days = [by_no[doc_no]["study_date"] for doc_no, _ in whole]
    if sort == "score" and "effusion" in query:
        scores = [score for _, score in whole]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] > scores[-1] > 0
        assert [score for _, score in paged] == scores
        return
    assert paged == whole
    last = date.max if sort == "oldest" else date.min
    if sort == "patient":
        patients = [" ".join(by_no[doc_no]["patient_id"].split()).upper() or "\U0010ffff" for doc_no, _ in whole]
        keys = [
            (patient, -(day or last).toordinal(), doc_no)
            for patient, day, (doc_no, _) in zip(patients, days, whole, strict=True)
        ]
    else:
        sign = 1 if sort == "oldest" else -1
        keys = [(sign * (day or last).toordinal(), doc_no) for day, (doc_no, _) in zip(days, whole, strict=True)]
    assert keys == sorted(keys)


def test_odd_pages(library: tuple[FulltextIndex, list[dict[str, Any]]]):
    index, _ = library
    total, _ = search_documents(index, parse("effusion"), k=1)
    assert search_documents(index, parse("effusion"), k=0) == (total, [])
    assert search_documents(index, parse("effusion"), k=5, offset=10**9) == (total, [])
    assert search_documents(index, parse("unheardof"), k=5) == (0, [])


def test_filters_do_not_change_scores(library: tuple[FulltextIndex, list[dict[str, Any]]]):
    index, _ = library
    plain = dict(search_documents(index, parse("effusion"), k=1000)[1])
    filtered = dict(search_documents(index, parse("effusion modality:CR age:>20 present:J90"), k=1000)[1])
    assert filtered
    assert all(score == pytest.approx(plain[doc_no]) for doc_no, score in filtered.items())


# Snippets

REPORT = (
    "EXAMINATION: Chest two views.\n"
    "INDICATION: Shortness of breath, rule out effusion.\n"
    "FINDINGS: The heart is normal in size.   There is a small left\n   pleural effusion. Éclat of the x-ray at T12. "
    + "The bones are unremarkable. " * 12
    + "\nIMPRESSION: Small left-sided pleural effusions. No pneumothorax."
)
REPORT_SECTIONS = [
    (
        match[1],
        match.end(),
        match.end() + len(REPORT[match.end() :].partition("\n" if match[1] != "FINDINGS" else "\nI")[0]),
    )
    for match in re.finditer(r"([A-Z]+): ", REPORT)
]


def highlighted(query: str, text: str = REPORT, sections: Any = REPORT_SECTIONS) -> tuple[str, list[str]]:
    snippet, ranges = make_snippet(text, sections, parse(query))
    assert all(end > start for start, end in ranges)
    assert all(before[1] <= after[0] for before, after in pairwise(ranges))
    return snippet, [snippet[start:end] for start, end in ranges]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("effusion", ["effusions"]),
        ('"pleural effusion"', ["pleural effusions"]),
        ("effus* pneumo*", ["effusions", "pneumothorax"]),
        ("left-sided", ["left-sided"]),
        ("x-ray", ["x-ray"]),
        ("eclat", ["Éclat"]),
        ("x-r*", ["x-ray"]),
        ("t12", ["T12"]),
        ("findings:effusion", ["effusion"]),
        ("indication:effusion", ["effusion"]),
        ('present:"pleural effusion"', ["pleural effusions"]),
        ("heart NOT effusion", ["heart"]),
        ("technique:effusion", []),
        ("modality:CR", []),
    ],
)
def test_highlights(query: str, words: list[str]):
    assert highlighted(query)[1] == words


def test_snippets_prefer_the_impression_then_the_findings():
    assert highlighted("effusion")[0] == "… Small left-sided pleural effusions. No pneumothorax."
    assert highlighted("heart")[0].startswith("… The heart is normal in size. There is a small left pleural effusion.")
    assert highlighted("modality:CR")[0] == "… Small left-sided pleural effusions. No pneumothorax."
    assert highlighted("missing", "Clear lungs.", [("FINDINGS", 0, 12)])[0] == "Clear lungs."
    assert highlighted("lungs", "", [])[0] == ""


def test_the_part_with_most_terms_wins():
    assert highlighted("heart small effusion")[1] == ["heart", "small", "effusion"]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([*VOCABULARY, ".", "\n", "  ", "é", "_", "a" * 300]), max_size=90).map(" ".join),
    st.sampled_from(["effusion", '"pleural effusion" x-ray', "effus* no", "heart OR t12", "epanchement -left"]),
)
def test_any_text_gives_a_sound_snippet(text: str, query: str):
    tree = parse(query)
    snippet, ranges = make_snippet(text, [("FINDINGS", 0, len(text))], tree)
    assert len(snippet) <= SNIPPET_LENGTH + 4
    assert " ".join(snippet.strip("… ").split()) in " ".join(text.split())
    assert "\n" not in snippet
    wanted = {*analyse("effusion pleural x ray no heart t12 epanchement"), "effusive"}
    for start, end in ranges:
        marked = snippet[start:end]
        assert analyse(marked)
        assert set(analyse(marked)) <= wanted or marked.startswith("effus"), marked
    document = {"report_id": "r", "text": text, "study_description": ""}
    if holds(tree, document) and "a" * 300 not in text:
        assert ranges


def test_long_reports_are_looked_at_where_it_matters():
    filler = "word " * 40_000
    text = f"{filler}IMPRESSION: effusion."
    at = text.index("effusion")
    assert highlighted("effusion", text, [("FINDINGS", 0, len(filler)), ("IMPRESSION", at, len(text))])[1] == [
        "effusion"
    ]


def test_queries_written_anew_ask_the_same(library: tuple[FulltextIndex, list[dict[str, Any]]]):
    index, _ = library
    tree = parse('(effusion OR "pleural effusion") -pneumothorax age:20..60 date:2024')
    assert search_documents(index, tree, k=20) == search_documents(index, parse(unparse(tree)), k=20)
