"""The shipped tables are whole: every cell is what its column says."""

from __future__ import annotations

import gc
import re

import pytest

from medsearch_desktop.records import Assertion, Category
from medsearch_desktop.report.lexicon import FINDINGS, load_lexicon, plural
from medsearch_desktop.report.tables import collector_held, expand, read_table, term_tables

CODE = re.compile(r"[A-Z]\d[0-9A-Z](\.[0-9A-Z]{1,4})?")
CUI = re.compile(r"C\d{7}")


def test_terms_are_whole() -> None:
    titles: dict[str, str] = {}
    names: set[str] = set()
    for table in term_tables():
        for row in read_table(table):
            assert row["term"] not in names, row
            names.add(row["term"])
            assert row["category"] in set(Category), row
            assert set(filter(None, row["finding"].split(","))) <= set(FINDINGS), row
            assert not row["icd10cm"] or CODE.fullmatch(row["icd10cm"]), row
            assert bool(row["icd10cm"]) == bool(row["title"]), row
            assert titles.setdefault(row["icd10cm"], row["title"]) == row["title"], row
            assert not row["cui"] or CUI.fullmatch(row["cui"]), row
    assert len(names) > 400


def test_every_finding_has_a_coded_term() -> None:
    lexicon = load_lexicon()
    for finding in FINDINGS:
        assert lexicon.by_finding[finding].icd10cm
        assert lexicon.by_finding[finding].cui


def test_cues_are_whole() -> None:
    kinds = {"pre", "post", "query", "pseudo", "stop", "normal", "borderline", "abnormal", "either"}
    words = {"restart", "closing", "verb", "subject", "preposition"}
    for row in read_table("cues.tsv"):
        assert row["kind"] in kinds | words, row
        if row["kind"] in ("pre", "post", "query"):
            assert row["assertion"] in set(Assertion), row
        if row["kind"] == "pre":
            assert row["reach"] in ("list", "near", "next", "series", "sentence"), row
        assert row["breaks"] in ("", "yes"), row
        if row["kind"] in words:
            assert all(" " not in word for word in expand(row["cue"])), row


def test_normal_organs_rule_out_findings() -> None:
    for row in read_table("normal.tsv"):
        assert set(row["rules_out"].split(",")) <= set(FINDINGS), row


def test_expand() -> None:
    assert expand("(a|b|) c") == ("a c", "b c", "c")
    assert expand("x (a|b) (c|)") == ("x a c", "x a", "x b c", "x b")
    assert expand("a(b|b)  c") == ("ab c",)
    assert expand("((a|b) c|d)") == ("a c", "d", "b c")
    assert expand("a) (b|c") == ("a) (b|c",)


def test_the_collector_is_held_off_while_tables_are_built_and_on_again_afterwards() -> None:
    @collector_held()
    def build(fails: bool) -> bool:
        with collector_held():
            assert not gc.isenabled()
        if fails:
            raise ValueError
        return gc.isenabled()

    assert gc.isenabled()
    assert not build(fails=False)
    with pytest.raises(ValueError):
        build(fails=True)
    assert gc.isenabled()
    gc.disable()
    try:
        build(fails=False)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_plural() -> None:
    assert [plural(word) for word in ("mass", "opacity", "diagnosis", "nodule")] == [
        "masses",
        "opacities",
        "diagnoses",
        "nodules",
    ]
