"""Phrases to codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from medsearch_desktop.report.linking import FLOOR, Linker


@pytest.fixture(scope="module")
def linker() -> Linker:
    return Linker()


@pytest.mark.parametrize(
    ("phrase", "code"),
    [
        ("Cardiomegaly", "I51.7"),
        ("marked chronic cardiomegaly", "I51.7"),
        ("Pleural effusion, not elsewhere classified", "J90"),
        ("small bilateral pleural effusions", "J90"),
        ("oedema of the lungs, acute pulmonary oedema", "J81.0"),
        ("hiatus hernia", "K44.9"),
        ("pneumothorx", "J93.9"),
        ("right lower lobe pneumonia", "J18.9"),
        ("viral pneumonia", "J12.9"),
        ("subsegmental atelectasis in the left base", "J98.11"),
        ("COPD", "J44.9"),
        ("congestive heart failure", "I50.9"),
        ("shortness of breath", "R06.02"),
        ("pulmonary nodules", "R91.8"),
        ("solitary pulmonary nodule", "R91.1"),
        ("dual chamber pacemaker", "Z95.0"),
    ],
)
def test_links(linker: Linker, phrase: str, code: str) -> None:
    link = linker.link(phrase)
    assert link.code.icd10cm == code
    assert FLOOR <= link.code.score <= 1.0


@pytest.mark.parametrize(
    "phrase", ["", " ", "?!", "normal", "qwertyuiop", "the patient was positioned", "XXXX", "胸部"]
)
def test_nothing_near_has_no_code(linker: Linker, phrase: str) -> None:
    code = linker.link(phrase).code
    assert (code.cui, code.icd10cm, code.title, code.score) == ("", "", "", 0.0)


def test_exact_name_scores_one_and_others_less(linker: Linker) -> None:
    link = linker.link("pneumonia")
    assert link.code.score == 1.0
    scores = [code.score for code in link.alternatives]
    assert scores == sorted(scores, reverse=True)
    assert all(code.icd10cm != "J18.9" for code in link.alternatives)


def test_code_phrases_is_the_object_of_the_command(linker: Linker) -> None:
    good, none = linker.code_phrases(["pneumothorax", "zzzz"])
    own = {"cui", "icd10cm", "title", "score", "name", "source", "rule", "billable"}
    assert set(good) == own | {"phrase", "alternatives", "release", "floor"}
    assert (good["phrase"], good["icd10cm"], good["title"]) == ("pneumothorax", "J93.9", "Pneumothorax, unspecified")
    assert set(good["alternatives"][0]) == own
    assert (good["rule"], good["billable"], good["release"]) == ("exact", True, linker.base.release)
    assert (none["icd10cm"], none["cui"], none["score"]) == ("", "", 0.0)


def acceptable(code: str, codes: str) -> bool:
    """Whether a code is one of those listed; one that ends in '-' stands for all that begin so."""
    listed = codes.split()
    if not code:
        return not listed
    return any(code.startswith(c[:-1].rstrip(".")) if c.endswith("-") else code == c for c in listed)


def test_what_radiologists_write_has_an_acceptable_code(linker: Linker) -> None:
    lines = (Path(__file__).parent / "phrases.tsv").read_text("utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    assert len(rows) >= 300
    given = {phrase: linker.link(phrase).code.icd10cm for phrase, _ in rows}
    assert {p: (given[p], codes) for p, codes in rows if not acceptable(given[p], codes)} == {}


@pytest.mark.parametrize(
    ("table", "floor", "blank"), [("phrases_second.tsv", 0.90, 0.95), ("phrases_third.tsv", 0.75, 0.95)]
)
def test_further_phrases_mostly_have_an_acceptable_code(linker: Linker, table: str, floor: float, blank: float) -> None:
    lines = (Path(__file__).parent / table).read_text("utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    right: dict[bool, list[bool]] = {True: [], False: []}
    for phrase, codes in rows:
        right[bool(codes.strip())].append(acceptable(linker.link(phrase).code.icd10cm, codes))
    assert sum(right[True]) >= floor * len(right[True])
    assert sum(right[False]) >= blank * len(right[False])


@pytest.mark.parametrize("table", ["phrases_second.tsv", "phrases_third.tsv"])
def test_the_codes_that_are_called_acceptable_exist(linker: Linker, table: str) -> None:
    lines = (Path(__file__).parent / table).read_text("utf-8").splitlines()
    listed = {code for line in lines if not line.startswith("#") for code in line.split("\t")[1].split()}
    codes = linker.base.codes
    assert {c for c in listed if not any(code.startswith(c.rstrip("-").rstrip(".")) for code in codes)} == set()


@pytest.mark.parametrize(
    ("phrase", "code"),
    [
        ("pneumomediastinum after vomiting", "J98.2"),
        ("cirrhosis with portal hypertension", "K74.60"),
        ("lung abscess with air fluid level", "J85.2"),
        ("purple monkey with a hat", ""),
        ("no effusion with collapse", ""),
        ("fracture of L1", "S32.019"),
        ("compression fracture of T12", "S22.080"),
        ("L4 vertebral body", ""),
    ],
)
def test_the_head_of_a_phrase_stands_for_it(linker: Linker, phrase: str, code: str) -> None:
    assert linker.link(phrase).code.icd10cm == code


@pytest.mark.parametrize(
    ("phrase", "code"),
    [
        ("clavicle fracture", "S42.009"),
        ("fracture of the right clavicle", "S42.001"),
        ("left clavicular fracture", "S42.002"),
        ("rib fracture on the left", "S22.32"),
        ("bilateral rib fractures", "S22.43"),
        ("carotid stenosis", "I65.29"),
        ("stenosis of both carotid arteries", "I65.23"),
    ],
)
def test_the_side_is_that_of_the_phrase(linker: Linker, phrase: str, code: str) -> None:
    assert linker.link(phrase).code.icd10cm == code


@pytest.mark.parametrize(
    ("phrase", "code"),
    [
        ("pneumothorax", "J93.9"),
        ("traumatic pneumothorax", "S27.0"),
        ("postprocedural pneumothorax", "J95.811"),
        ("tension pneumothorax", "J93.0"),
        ("pancreatitis", "K85.90"),
        ("chronic pancreatitis", "K86.1"),
        ("subdural hematoma", "I62.00"),
        ("chronic subdural hematoma", "I62.03"),
        ("traumatic subdural hematoma", "S06.5"),
    ],
)
def test_words_of_context_decide(linker: Linker, phrase: str, code: str) -> None:
    assert linker.link(phrase).code.icd10cm == code


@pytest.mark.parametrize("phrase", ["fracture of the left femur", "Monteggia fracture", "sprain of the right ankle"])
def test_the_encounter_is_never_guessed(linker: Linker, phrase: str) -> None:
    link = linker.link(phrase)
    assert link.code.icd10cm
    assert len(link.code.icd10cm) < 8
    assert link.best is not None
    assert not link.best.billable


@pytest.mark.parametrize(
    "phrase", ["liver", "left kidney", "brain", "no rib fracture", "the heart is not enlarged", "without effusion"]
)
def test_a_place_alone_or_what_is_not_there_has_no_code(linker: Linker, phrase: str) -> None:
    assert linker.link(phrase).code.icd10cm == ""


def test_only_codes_of_the_release_are_given(linker: Linker) -> None:
    for phrase in ("rib fracture", "lung cancer", "wrist pain", "old stroke", "pes planus"):
        link = linker.link(phrase)
        for code in (link.code, *link.alternatives):
            assert not code.icd10cm or linker.base.has_code(code.icd10cm)
            assert 0.0 <= code.score <= 1.0


def test_long_phrase_is_linked(linker: Linker) -> None:
    linker.link("word " * 20_000)
