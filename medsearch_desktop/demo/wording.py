"""Reports in the ways in which radiologists write them, with a record of what each one states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np

from medsearch_desktop.demo.casebook import Case
from medsearch_desktop.demo.phrases import (
    AGED,
    AGED_FILLERS,
    FILLERS,
    FOLLOW_UPS,
    INDICATIONS,
    NORMAL_HEART,
    NOUNS,
    UNCERTAIN,
    details,
    listed,
    noun_phrase,
    with_article,
)
from medsearch_desktop.demo.truth import DRAWN_FINDINGS, Finding

FIRST_LINE = "SYNTHETIC REPORT - NOT A REAL PATIENT"
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
STYLES = ("upper", "numbered", "title", "plain", "impression", "lower", "addendum", "british")
"""How reports are laid out; the demo takes them in turn."""


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """A report's text, and what it states outside its indication (see `StudyTruth.stated`)."""

    text: str
    style: str
    stated: dict[str, str]


@dataclass(slots=True)
class _Draft:
    rng: np.random.Generator
    seen: list[str] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)
    impression: list[str] = field(default_factory=list)
    stated: dict[str, str] = field(default_factory=dict)

    def pick(self, options: Sequence[str]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def state(self, name: str, assertion: str) -> None:
        self.stated.setdefault(name, assertion)


def write_report(case: Case, *, number: int, seed: int) -> WrittenReport:
    """Return the report of `case`, laid out in the style whose turn `number` is."""
    rng = np.random.default_rng([seed, 81, number])
    style = STYLES[number % len(STYLES)]
    draft = _Draft(rng)
    for finding in case.findings:
        _present(draft, finding, case)
    _past(draft, case)
    _doubt(draft, case, short=style == "impression")
    _absent(draft, short=style == "impression")
    addendum = _addendum(draft, case) if style == "addendum" else ""
    if not case.findings:
        draft.impression.insert(0, draft.pick(("No acute cardiopulmonary process.", "Normal chest radiograph.")))
        if any(value == "uncertain" for value in draft.stated.values()):
            draft.impression[0] = "No acute cardiopulmonary abnormality."
    text = _laid_out(draft, case, style, addendum)
    if style == "british":
        text = text.replace("edema", "oedema").replace("Edema", "Oedema")
    return WrittenReport(text=f"{FIRST_LINE}\n\n{text}\n", style=style, stated=draft.stated)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _present(draft: _Draft, finding: Finding, case: Case) -> None:
    phrase, long = noun_phrase(finding), with_article(finding)
    plural = phrase.endswith("effusions")
    is_, was = ("are", "have") if plural else ("is", "has")
    before = next((item for item in case.prior if item.name == finding.name), None)
    if before is None and case.prior_date is not None:
        first = draft.pick((f"{_sentence(long)} {is_} new since the prior study.", f"New {phrase}."))
    elif before is None:
        first = draft.pick(
            (
                f"There {is_} {long}.",
                f"{_sentence(long)} {is_} present.",
                f"{_sentence(phrase)}.",
                f"{_sentence(phrase)} {is_} seen.",
                f"Findings are consistent with {long}.",
            )
        )
    elif before.size == finding.size:
        first = draft.pick(
            (
                f"{_sentence(phrase)} {is_} unchanged from the prior study.",
                f"Again seen {is_} {long}, stable in appearance.",
                f"{_sentence(phrase)} persist{'' if plural else 's'}.",
            )
        )
    else:
        first = draft.pick(
            (
                f"{_sentence(phrase)}, which {was} decreased in size since the prior study.",
                f"There {is_} {long}, smaller than on the prior radiograph.",
            )
        )
    draft.state(finding.name, "present")
    draft.seen.append(first)
    draft.seen.extend(text for text in details(finding) if draft.rng.random() < 0.6)
    line = f"{_sentence(phrase)}"
    if finding.name == "Consolidation" and draft.rng.random() < 0.65:
        line += draft.pick((", which may represent pneumonia", ", suspicious for pneumonia", ", possibly pneumonia"))
        draft.state("Pneumonia", "uncertain")
    elif finding.name == "Effusion" and finding.size != "small" and draft.rng.random() < 0.5:
        line += draft.pick((", possibly with adjacent atelectasis", " with probable underlying atelectasis"))
        draft.state("Atelectasis", "uncertain")
    elif before is not None:
        line += ", unchanged" if before.size == finding.size else ", decreased"
    draft.impression.append(f"{line}.")


def _past(draft: _Draft, case: Case) -> None:
    names = {finding.name for finding in case.findings}
    for finding in case.prior:
        if finding.name in names:
            continue
        phrase = noun_phrase(finding)
        has, is_ = ("have", "are") if phrase.endswith("effusions") else ("has", "is")
        text = draft.pick(
            (
                f"The previously seen {phrase} {has} resolved.",
                f"Previously noted {phrase} {is_} no longer seen.",
                f"Interval resolution of the {phrase}.",
            )
        )
        draft.rest.append(text)
        draft.impression.append(draft.pick((text, f"Resolved {phrase}.")))
        draft.state(finding.name, "historical")


def _doubt(draft: _Draft, case: Case, *, short: bool) -> None:
    if draft.rng.random() > 0.3:
        return
    open_ = [name for name in UNCERTAIN if name not in draft.stated]
    if case.person.age < AGED:
        open_ = [name for name in open_ if name not in ("Edema", "Cardiomegaly")]
    name = draft.pick(open_)
    text = draft.pick(UNCERTAIN[name]).format(side=draft.pick(("left", "right")))
    draft.rest.append(text)
    if short or draft.rng.random() < 0.6:
        draft.impression.append(text)
    draft.state(name, "uncertain")


def _absent(draft: _Draft, *, short: bool) -> None:
    # Masses and pneumonias are ruled out only where nothing drawn could be taken for one.
    names = [name for name in (*DRAWN_FINDINGS, "Pneumonia", "Mass") if name not in draft.stated]
    if draft.stated.get("Consolidation") in ("present", "uncertain") and "Pneumonia" in names:
        names.remove("Pneumonia")
    if draft.stated.get("Nodule") in ("present", "uncertain", "historical") and "Mass" in names:
        names.remove("Mass")
    if "Cardiomegaly" in names:
        names.remove("Cardiomegaly")
        if not short and draft.rng.random() < 0.7:
            draft.rest.append(draft.pick(NORMAL_HEART))
            draft.state("Cardiomegaly", "absent")
    count = min(len(names), int(draft.rng.integers(2, 4 if short else 5)))
    # Effusion and pneumothorax are what reports most often deny.
    weights = np.array([3.0 if name in ("Effusion", "Pneumothorax") else 1.0 for name in names])
    chosen = draft.rng.choice(len(names), size=count, replace=False, p=weights / weights.sum()).tolist()
    words = [NOUNS[names[index]] for index in chosen]
    for index in chosen:
        draft.state(names[index], "absent")
    target = draft.impression if short else draft.rest
    if count > 2 and draft.rng.random() < 0.5:
        target.append(f"No {listed(words[:2], 'or')}.")
        target.append(f"There is no evidence of {listed(words[2:], 'or')}.")
        return
    target.append(
        draft.pick(
            (
                f"No {listed(words, 'or')}.",
                f"There is no {listed(words, 'or')}.",
                f"No evidence of {listed(words, 'or')}.",
                f"Negative for {listed(words, 'or')}.",
                f"The lungs are without {listed(words, 'or')}.",
            )
        )
    )


def _addendum(draft: _Draft, case: Case) -> str:
    open_ = [name for name in ("Nodule", "Atelectasis") if name not in draft.stated]
    if open_ and draft.rng.random() < 0.5:
        draft.state(open_[0], "uncertain")
        return (
            "On second reading, "
            + {
                "Nodule": "a subtle nodule at the left base cannot be excluded; older films would help.",
                "Atelectasis": "there may be minor basal atelectasis on the left.",
            }[open_[0]]
        )
    when = _long_date(case.study_date)
    return f"The findings were discussed with the referring team by telephone on {when}."


def _long_date(day: date) -> str:
    # Not by strftime, which follows the locale of whatever window toolkit is running.
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"


def _laid_out(draft: _Draft, case: Case, style: str, addendum: str) -> str:
    rng = draft.rng
    stock = AGED_FILLERS if case.person.age >= AGED else FILLERS
    order = rng.choice(len(stock), size=int(rng.integers(1, 3)), replace=False).tolist()
    parts = [*draft.seen, *draft.rest]
    if rng.random() < 0.35:
        # Some begin with the heart and with what is not there.
        parts = [*draft.rest, *draft.seen]
    findings = [*parts, *(stock[index] for index in order)]
    body, ending = " ".join(findings), " ".join(draft.impression)
    reason = draft.pick(INDICATIONS[case.findings[0].name if case.findings else ""])
    if case.prior:
        reason = draft.pick(FOLLOW_UPS).format(noun=NOUNS[case.prior[0].name])
    technique = {
        ("PA", "LL"): "PA and lateral views of the chest.",
        ("PA",): "Single frontal (PA) view of the chest.",
        ("AP",): "Portable AP view of the chest.",
    }[case.views]
    compared = "None."
    if case.prior_date is not None:
        compared = f"Chest radiograph of {_long_date(case.prior_date)}."
    age = f"{case.person.age}-year-old {'woman' if case.person.sex == 'F' else 'man'}. "
    if style == "impression":
        return f"IMPRESSION: {ending}"
    if style == "plain":
        return f"{technique}\n\n{body}\n\n{ending}"
    if style == "british":
        return f"Clinical history: {age}{reason}\n\nReport:\n{body}\n\nConclusion:\n{ending}\n\nDr S. Synthetic"
    if style == "lower":
        return f"indication: {reason}\n\ncomparison: {compared}\n\nfindings: {body}\n\nimpression: {ending}"
    if style == "title":
        return f"Chest radiograph\n\nHistory\n{age}{reason}\n\nFindings\n{body}\n\nImpression\n{ending}"
    head = f"EXAMINATION: CHEST RADIOGRAPH\n\nINDICATION: {age}{reason}\n\nTECHNIQUE: {technique}\n\n"
    head += f"COMPARISON: {compared}\n\n"
    if style == "numbered":
        points = "\n".join(f"{number}. {text}" for number, text in enumerate(draft.impression, 1))
        return f"FINAL REPORT\n\n{head}FINDINGS:\n{body}\n\nIMPRESSION:\n{points}"
    text = f"{head}FINDINGS: {body}\n\nIMPRESSION: {ending}"
    return f"{text}\n\nADDENDUM: {addendum}" if addendum else text
