"""Plain words as questions, and reports that are worded like another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medsearch_desktop.search.text import matching_documents
from medsearch_desktop.search.tree import Field, Or, Word
from medsearch_desktop.search.wording import MOST_WORDS, any_word, documents_worded_like
from medsearch_desktop.store.fulltext import FulltextIndex

COMMON = "The heart is normal. No acute change of the bones."
BODIES = [
    *(f"{COMMON} Pleural effusion with compressive atelectasis, case {number}." for number in range(6)),
    *(f"{COMMON} Displaced clavicle fracture with callus, case {number}." for number in range(7)),
    *(f"{COMMON} Unchanged, case {number}." for number in range(20)),
]


def document(number: int, body: str) -> dict[str, Any]:
    text = f"INDICATION: Clavicle.\nFINDINGS: {body}"
    start = text.index(body)
    blank = dict.fromkeys(
        ("patient_id", "accession_number", "study_id", "study_description", "patient_sex", "study_uid"), ""
    )
    lists = ("modalities", "view_positions", "body_parts", "lateralities", "manufacturers", "labels", "entities")
    return {
        **blank, **{name: [] for name in lists}, "doc_no": 2 * number, "report_id": f"r{number}", "text": text,
        "sections": [("INDICATION", 12, 21), ("FINDINGS", start, len(text))], "study_date": None, "patient_age": None,
        "image_count": 0,
    }  # fmt: skip


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> FulltextIndex:
    made = FulltextIndex(Path(tmp_path_factory.mktemp("wording")))
    made.update((document(number, body) for number, body in enumerate(BODIES)), watermark=1)
    return made


def test_words_of_the_query_language_are_words() -> None:
    assert any_word('(effusion OR -modality:CR* "no') == Or(
        tuple(
            Field(name, Word(word))
            for word in ("effusion", "or", "modality", "cr", "no")
            for name in ("findings", "impression")
        )
    )
    assert any_word(" -* ") is any_word("") is None
    tree = any_word(" ".join(f"w{number}" for number in range(1000)))
    assert isinstance(tree, Or)
    assert len(tree.children) == 2 * MOST_WORDS


def test_any_of_the_words_is_enough_where_the_report_finds_something(index: FulltextIndex) -> None:
    tree = any_word("clavicles atelectasis")
    assert tree is not None
    assert matching_documents(index, tree).tolist() == [2 * number for number in range(13)]


def test_alike_is_what_shares_the_telling_words(index: FulltextIndex) -> None:
    assert documents_worded_like(index, BODIES[8]).tolist() == [2 * number for number in range(6, 13)]
    assert documents_worded_like(index, BODIES[0]).tolist() == [2 * number for number in range(6)]


def test_words_of_few_or_most_documents_tell_nothing(index: FulltextIndex) -> None:
    assert documents_worded_like(index, "callus case normal xyzzy").tolist() == [2 * number for number in range(6, 13)]
    # In all, in three, in none.
    for words in ("case normal", "6", "xyzzy", ""):
        assert documents_worded_like(index, words).tolist() == []
