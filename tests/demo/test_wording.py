"""Reports say what was drawn, and the record of what they say is true."""

from __future__ import annotations

import re

import pytest

from medsearch_desktop.demo.casebook import Case, cases
from medsearch_desktop.demo.truth import DRAWN_FINDINGS
from medsearch_desktop.demo.wording import FIRST_LINE, STYLES, WrittenReport, write_report

WORDS = {
    "Effusion": r"effusions?\b",
    "Cardiomegaly": r"cardiomegaly|\bheart\b|cardiac silhouette",
    "Pneumothorax": r"pneumothorax",
    "Nodule": r"nodule",
    "Consolidation": r"consolidation",
    "Edema": r"o?edema",
    "Pneumonia": r"pneumonia",
    "Atelectasis": r"atelectasis",
    "Mass": r"\bmass\b",
}
NEGATED = re.compile(r"\b(no|without|negative for|not enlarged|normal)\b", re.I)
DOUBTED = re.compile(r"\b(possibl[ey]|may|cannot be excluded|questionable|suspicious|probable)\b", re.I)
PAST = re.compile(r"\b(resolved|resolution|no longer)\b", re.I)


def written(seed: int = 7) -> list[tuple[Case, WrittenReport]]:
    return [(case, write_report(case, number=n, seed=seed)) for n, case in enumerate(cases(studies=120, seed=seed))]


def sentences(report: WrittenReport) -> list[str]:
    """The sentences outside the parts that say why the film was taken and how."""
    text = report.text.removeprefix(FIRST_LINE)
    text = re.sub(
        r"(?ims)^(indication|clinical history|history|comparison|technique|examination)\b.*?(?:\n\n|\Z)", "", text
    )
    return [part for part in re.split(r"(?<=[.])\s+|\n+", text) if part.strip()]


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_what_is_drawn_is_what_the_report_affirms(seed: int) -> None:
    for case, report in written(seed):
        drawn = {finding.name for finding in case.findings}
        assert {name for name, value in report.stated.items() if value == "present"} == drawn
        for finding in case.findings:
            stating = [
                part
                for part in sentences(report)
                if re.search(WORDS[finding.name], part, re.I) and not NEGATED.search(part)
            ]
            assert stating, (finding, report.text)
            if finding.side in ("left", "right"):
                other = {"left": "right", "right": "left"}[finding.side]
                assert any(re.search(rf"\b{finding.side}\b", part) for part in stating)
                firm = [part for part in stating if not (DOUBTED.search(part) and finding.side not in part)]
                assert not [part for part in firm if re.search(rf"\b{other}\b", part) and finding.side not in part]


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_nothing_is_affirmed_that_was_not_drawn(seed: int) -> None:
    for case, report in written(seed):
        drawn = {finding.name for finding in case.findings}
        for part in sentences(report):
            if NEGATED.search(part) or DOUBTED.search(part) or PAST.search(part):
                continue
            named = {name for name in DRAWN_FINDINGS if re.search(WORDS[name].split("|")[0], part, re.I)}
            assert named <= drawn, part


@pytest.mark.parametrize(("assertion", "cue"), [("absent", NEGATED), ("uncertain", DOUBTED), ("historical", PAST)])
def test_what_is_denied_doubted_or_past_is_written_so(assertion: str, cue: re.Pattern[str]) -> None:
    found = 0
    for _, report in written():
        for name, value in report.stated.items():
            if value == assertion:
                found += 1
                assert any(re.search(WORDS[name], part, re.I) and cue.search(part) for part in sentences(report)), (
                    name,
                    report.text,
                )
    assert found >= 10


def test_every_mention_is_recorded() -> None:
    for _, report in written():
        for name, pattern in WORDS.items():
            core = pattern.split("|")[0]
            if any(re.search(core, part, re.I) for part in sentences(report)):
                assert name in report.stated, (name, report.text)


def test_every_style_is_used_and_marked_as_synthetic() -> None:
    reports = [report for _, report in written()]
    assert {report.style for report in reports} == set(STYLES)
    assert len(STYLES) >= 5
    for report in reports:
        assert report.text.splitlines()[0] == FIRST_LINE
        assert not re.search(r"[{}]|  |\.\.| ,|\ba (11|8|un)", report.text), report.text
    by_style = {style: next(report.text for report in reports if report.style == style) for style in STYLES}
    assert "FINDINGS:" in by_style["upper"]
    assert re.search(r"^1\. ", by_style["numbered"], re.M)
    assert re.search(r"^Findings$", by_style["title"], re.M)
    assert not re.search(r"(?i)findings:|impression", by_style["plain"])
    assert re.search(r"^findings: ", by_style["lower"], re.M)
    assert "ADDENDUM: " in by_style["addendum"]
    assert "FINDINGS" not in by_style["impression"]


def test_wording_varies() -> None:
    lines = {part for _, report in written() for part in sentences(report)}
    assert len(lines) > 250
    texts = [report.text for _, report in written()]
    assert len(set(texts)) > 110


def test_a_follow_up_names_the_study_that_it_is_compared_with() -> None:
    compared = 0
    for case, report in written():
        if case.prior_date is not None and re.search(r"(?im)^comparison: ", report.text):
            assert str(case.prior_date.year) in report.text
            compared += 1
    assert compared >= 5
