"""Who comes to the department, when, and with what: patients whose studies tell a story over time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from medsearch_desktop.demo.anatomy import Person
from medsearch_desktop.demo.truth import Finding


@dataclass(frozen=True, slots=True)
class Case:
    """One study to be drawn and reported; `prior` is what the same patient's last study showed.

    `patient` and `visit` count from 0.
    """

    patient: int
    visit: int
    person: Person
    study_date: date
    findings: tuple[Finding, ...]
    views: tuple[str, ...]
    prior: tuple[Finding, ...] = ()
    prior_date: date | None = None


STORIES: tuple[tuple[str, int, int], ...] = (
    # The visits of a patient, the days between them, and how many such patients 120 studies hold.
    # The first story of each kind comes first in the demo, so that a small one is varied too.
    ("none", 0, 20),
    ("Effusion moderate", 0, 4),
    ("Cardiomegaly large", 0, 2),
    ("Pneumothorax large", 0, 4),
    ("Nodule large", 0, 4),
    ("Consolidation large", 0, 4),
    ("Edema large", 0, 2),
    ("Consolidation moderate > none", 49, 4),
    ("Pneumothorax moderate > Pneumothorax small > none", 4, 3),
    ("Edema large + Cardiomegaly moderate > Cardiomegaly moderate", 9, 3),
    ("Nodule moderate > Nodule moderate", 190, 3),
    ("Effusion large > Effusion moderate > none", 16, 3),
    ("none > none", 365, 2),
    ("none > Consolidation large", 120, 2),
    ("Edema moderate + Effusion both > Effusion both > none", 6, 1),
    ("Cardiomegaly small > Cardiomegaly small + Edema moderate", 230, 2),
    ("Effusion small", 0, 1),
    ("Effusion large", 0, 2),
    ("Cardiomegaly small", 0, 1),
    ("Cardiomegaly moderate", 0, 2),
    ("Pneumothorax small", 0, 1),
    ("Pneumothorax moderate", 0, 3),
    ("Nodule small", 0, 1),
    ("Nodule moderate", 0, 3),
    ("Consolidation small", 0, 1),
    ("Consolidation moderate", 0, 3),
    ("Edema small", 0, 1),
    ("Edema moderate", 0, 3),
    ("Consolidation moderate + Effusion small", 0, 1),
    ("Cardiomegaly moderate + Effusion moderate", 0, 2),
    ("Nodule large + Effusion moderate", 0, 1),
    ("Pneumothorax small + Nodule small", 0, 1),
)

FIRST_DAY, LAST_DAY = date(2023, 1, 9), date(2025, 12, 19)
_LEADING = 7
_PLACES = {"Nodule": (0.55, 0.30, 0.15), "Consolidation": (0.25, 0.10, 0.65)}
"""How often each lies in the upper, the middle and the lower place: tumours favour the top, pneumonias the base."""


def cases(*, studies: int, seed: int) -> Iterator[Case]:
    """Yield `studies` studies, patient by patient, the visits of each in order of time."""
    rng = np.random.default_rng([seed, 71])
    patient, left = 0, studies
    # One side a kind of finding, in turn, so that both sides are shown about equally often.
    turns: dict[str, int] = {}
    while left > 0:
        deck = [index for index, story in enumerate(STORIES) for _ in range(story[2] - (index < _LEADING))]
        for index in [*range(_LEADING), *rng.permutation(deck).tolist()]:
            if left <= 0:
                return
            visits, days, _ = STORIES[index]
            for case in list(_patient(visits, days, patient, turns, seed))[:left]:
                yield case
                left -= 1
            patient += 1


def _patient(visits: str, days: int, patient: int, turns: dict[str, int], seed: int) -> Iterator[Case]:
    rng = np.random.default_rng([seed, 72, patient])
    parsed = [_visit(text) for text in visits.split(" > ")]
    names = {name for visit in parsed for name, _ in visit}
    low, high = 21, 88
    if names & {"Cardiomegaly", "Edema", "Nodule"}:
        low = 52
    elif "Pneumothorax" in names:
        high = 46
    sex = "F" if rng.random() < 0.5 else "M"
    person = Person.of(int(rng.integers(2**31)), sex=sex, age=int(rng.integers(low, high)))
    sides = {}
    for name in sorted(names):
        turns[name] = turns.get(name, int(rng.integers(2))) + 1
        sides[name] = "right" if turns[name] % 2 else "left"
    places = {name: str(rng.choice(("upper", "middle", "lower"), p=shares)) for name, shares in _PLACES.items()}
    # Fluid goes with the pneumonia or the tumour of its own side.
    for other in ("Consolidation", "Nodule"):
        if {other, "Effusion"} <= names:
            sides["Effusion"] = sides[other]
    if {"Nodule", "Effusion"} <= names:
        # Lower down the fluid would hide it.
        places["Nodule"] = "upper"
    if {"Pneumothorax", "Nodule"} <= names:
        sides["Nodule"] = "left" if sides["Pneumothorax"] == "right" else "right"
    span = (LAST_DAY - FIRST_DAY).days - len(parsed) * (days + 12)
    day = FIRST_DAY + timedelta(days=int(rng.integers(max(1, span))))
    prior: tuple[Finding, ...] = ()
    prior_date = None
    for number, visit in enumerate(parsed):
        findings = tuple(_finding(name, size, sides, places) for name, size in visit)
        yield Case(
            patient=patient,
            visit=number,
            person=person,
            study_date=day,
            findings=findings,
            views=_views(rng, findings),
            prior=prior,
            prior_date=prior_date,
        )
        prior, prior_date = findings, day
        day += timedelta(days=days + int(rng.integers(0, max(2, days // 6))))


def _visit(text: str) -> list[tuple[str, str]]:
    if text == "none":
        return []
    parts = (part.split() for part in text.split(" + "))
    return [(name, size) for name, size in parts]


def _finding(name: str, size: str, sides: dict[str, str], places: dict[str, str]) -> Finding:
    if name == "Cardiomegaly":
        return Finding(name, size=size)
    if name == "Edema":
        return Finding(name, side="bilateral", size=size)
    if size == "both":
        return Finding(name, side="bilateral", size="small")
    return Finding(name, side=sides[name], size=size, place=places.get(name, ""))


def _views(rng: np.random.Generator, findings: tuple[Finding, ...]) -> tuple[str, ...]:
    ill = any(item.name == "Edema" or (item.name == "Effusion" and item.size == "large") for item in findings)
    # The very ill are filmed in bed, from the front and once.
    if rng.random() < (0.6 if ill else 0.06):
        return ("AP",)
    return ("PA", "LL") if rng.random() < 0.68 else ("PA",)
