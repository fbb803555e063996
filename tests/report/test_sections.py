"""Headings in the ways that reports write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsearch_desktop.report.sections import find_sections


def cut(text: str) -> list[tuple[str, str]]:
    return [(section.name, text[section.start : section.end]) for section in find_sections(text)]


CASES: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "colon": (
        "FINDINGS: Heart normal.\nIMPRESSION: Normal.",
        [("FINDINGS", "Heart normal."), ("IMPRESSION", "Normal.")],
    ),
    "mixed case": ("Findings: a b.\nImpression: c d.", [("FINDINGS", "a b."), ("IMPRESSION", "c d.")]),
    "lower case": ("findings: a b.\nimpression: c d.", [("FINDINGS", "a b."), ("IMPRESSION", "c d.")]),
    "dash": ("Findings - a b.\nImpression – c d.", [("FINDINGS", "a b."), ("IMPRESSION", "c d.")]),
    "own line": (
        "FINDINGS\nHeart normal.\n\nIMPRESSION\nNormal.",
        [("FINDINGS", "Heart normal."), ("IMPRESSION", "Normal.")],
    ),
    "own line, colon": ("Findings:\n  a b.\nConclusion:\n  c d.", [("FINDINGS", "a b."), ("IMPRESSION", "c d.")]),
    "one paragraph": ("FINDINGS: Clear. IMPRESSION: Normal.", [("FINDINGS", "Clear."), ("IMPRESSION", "Normal.")]),
    "one paragraph, dash": (
        "Findings - Clear. Impression - Normal.",
        [("FINDINGS", "Clear."), ("IMPRESSION", "Normal.")],
    ),
    "one paragraph, no space": ("FINDINGS: a b.IMPRESSION: c d.", [("FINDINGS", "a b."), ("IMPRESSION", "c d.")]),
    "no mark, capitals": (
        "FINDINGS The heart is large. IMPRESSION Large heart.",
        [("FINDINGS", "The heart is large."), ("IMPRESSION", "Large heart.")],
    ),
    "no full stop before": (
        "FINDINGS: clear lungs IMPRESSION: normal",
        [("FINDINGS", "clear lungs"), ("IMPRESSION", "normal")],
    ),
    "all capitals": (
        "FINDINGS: CLEAR LUNGS IMPRESSION: NORMAL",
        [("FINDINGS", "CLEAR LUNGS"), ("IMPRESSION", "NORMAL")],
    ),
    "markup": ("**Findings:** a b\n## Impression\nc d", [("FINDINGS", "a b"), ("IMPRESSION", "c d")]),
    "note": ("IMPRESSION (PRELIMINARY): ok then", [("IMPRESSION", "ok then")]),
    "numbered": (
        "IMPRESSION:\n1. No pneumonia.\n2. Stable nodule.",
        [("IMPRESSION", "1. No pneumonia.\n2. Stable nodule.")],
    ),
    "opinion": ("REASON FOR EXAM: cough\nOPINION: normal", [("INDICATION", "cough"), ("IMPRESSION", "normal")]),
    "all the usual": (
        "EXAMINATION: Chest PA\nCLINICAL HISTORY: cough\nCOMPARISON: none\n"
        "TECHNIQUE: two views\nFINDINGS: clear\nIMPRESSION: normal",
        [
            ("EXAMINATION", "Chest PA"),
            ("HISTORY", "cough"),
            ("COMPARISON", "none"),
            ("TECHNIQUE", "two views"),
            ("FINDINGS", "clear"),
            ("IMPRESSION", "normal"),
        ],
    ),
    "both in one": ("FINDINGS/IMPRESSION: ok", [("IMPRESSION", "ok")]),
    "both in one, and": ("Findings and Impression:\nok", [("IMPRESSION", "ok")]),
    "organs stay in the findings": (
        "FINDINGS:\nLUNGS: Clear.\nHEART: Normal.",
        [("FINDINGS", "LUNGS: Clear.\nHEART: Normal.")],
    ),
    "organs begin the findings": (
        "COMPARISON: None.\nLUNGS: Clear.\nHEART: Normal.",
        [("COMPARISON", "None."), ("FINDINGS", "LUNGS: Clear.\nHEART: Normal.")],
    ),
    "only organs": ("Heart: normal\nLungs: clear", [("FINDINGS", "Heart: normal\nLungs: clear")]),
    "blank line begins the findings": (
        "EXAM: Chest PA\n\nThe heart is large.\n\nIMPRESSION:\nCardiomegaly",
        [("EXAMINATION", "Chest PA"), ("FINDINGS", "The heart is large."), ("IMPRESSION", "Cardiomegaly")],
    ),
    "addendum": (
        "IMPRESSION: Normal.\nADDENDUM: There is a nodule.",
        [("IMPRESSION", "Normal."), ("ADDENDUM", "There is a nodule.")],
    ),
    "addendum, signed": (
        "Addendum by Dr. X at 10:42 AM: Nodule.\n\nFINDINGS: Clear.",
        [("ADDENDUM", "Nodule."), ("FINDINGS", "Clear.")],
    ),
    "addendum, own line": ("ADDENDUM #1\nNodule.", [("ADDENDUM", "Nodule.")]),
    "addendum, running text": (
        "Addendum to the above, a nodule is seen.",
        [("FINDINGS", "Addendum to the above, a nodule is seen.")],
    ),
    "head": (
        "StudyInstanceUID: 1.2.3\nAccession: X1\n\nFINDINGS: Clear.",
        [("PREAMBLE", "StudyInstanceUID: 1.2.3\nAccession: X1"), ("FINDINGS", "Clear.")],
    ),
    "head, no heading": (
        "StudyInstanceUID: 1.2.3\nAccession: X1\n\nThe lungs are clear.",
        [("PREAMBLE", "StudyInstanceUID: 1.2.3\nAccession: X1"), ("FINDINGS", "The lungs are clear.")],
    ),
    "no heading": ("The lungs are clear.", [("FINDINGS", "The lungs are clear.")]),
    "words of headings in sentences": (
        "The study shows these findings: effusion. No history of cancer.",
        [("FINDINGS", "The study shows these findings: effusion. No history of cancer.")],
    ),
    "signature": (
        "IMPRESSION: ok\nElectronically signed by: Dr Hernia",
        [("IMPRESSION", "ok"), ("SIGNATURE", "Dr Hernia")],
    ),
    "findings only": ("FINDINGS: Effusion.", [("FINDINGS", "Effusion.")]),
    "empty part": ("FINDINGS:\n\nIMPRESSION: Effusion.", [("IMPRESSION", "Effusion.")]),
    "twice": (
        "FINDINGS: a b\nIMPRESSION: c\nFINDINGS: d e",
        [("FINDINGS", "a b"), ("IMPRESSION", "c"), ("FINDINGS", "d e")],
    ),
    "nothing": ("", []),
    "blank": (" \n\t\n", []),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES.keys())
def test_cuts(text: str, expected: list[tuple[str, str]]) -> None:
    assert cut(text) == expected


_PIECES = st.sampled_from(
    [
        "FINDINGS",
        "Impression",
        ":",
        " - ",
        "\n",
        "\n\n",
        " ",
        "ADDENDUM",
        "by",
        "LUNGS:",
        "a.",
        "Accession: 1",
        "COMPARISON:",
        "1.",
        "(",
        ")",
        "\t",
    ]
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.one_of(st.text(max_size=300), st.lists(_PIECES, max_size=40).map("".join)))
def test_parts_are_ordered_disjoint_and_trimmed(text: str) -> None:
    position = 0
    for section in find_sections(text):
        assert position <= section.start < section.end <= len(text)
        body = text[section.start : section.end]
        assert body == body.strip()
        position = section.end


@pytest.mark.parametrize(
    "filler", [" ", "\n", "\t \n", "A ", "a. ", "ADDENDUM ", "FINDINGS: ", "x:", "(", "- ", "AB CD "]
)
def test_long_monotony_is_cut_in_linear_time(filler: str) -> None:
    find_sections("FINDINGS" + filler * (400_000 // len(filler)))
