"""What a report says in the terms of the cloud deployment, which knows two states and three categories.

Its fields are named by state and category: PositiveSigns, NegativeDiagnoses, ... Positive is what is present
or uncertain, negative what is absent; what is historical, of the family or hypothetical is in neither, and
anatomy, devices and procedures are in none. Its ICD-10-CM fields hold titles, not codes.
"""

from __future__ import annotations

from collections.abc import Iterable

from medsearch_desktop.records import Assertion, Category, Entity

_STATES = {
    Assertion.PRESENT: "Positive",
    Assertion.UNCERTAIN: "Positive",
    Assertion.ABSENT: "Negative",
}
_CATEGORIES = {
    Category.SIGN: "Signs",
    Category.DIAGNOSIS: "Diagnoses",
    Category.SYMPTOM: "Symptoms",
}
_CODES = "ICD10CMs"
PARITY_FIELDS = tuple(
    f"{state}{kind}" for state in dict.fromkeys(_STATES.values()) for kind in (*_CATEGORIES.values(), _CODES)
)


def parity_sources(name: str) -> tuple[tuple[Assertion, ...], tuple[Category, ...], bool]:
    """Return what makes a field of `PARITY_FIELDS`: assertions, categories, and whether it holds titles of codes."""
    assertions = tuple(assertion for assertion, state in _STATES.items() if name.startswith(state))
    categories = tuple(category for category, kind in _CATEGORIES.items() if name.endswith(kind))
    codes = name.endswith(_CODES)
    return assertions, tuple(_CATEGORIES) if codes else categories, codes


def parity_fields(entities: Iterable[Entity]) -> dict[str, list[str]]:
    """Return the values of each of `PARITY_FIELDS`, each once, in the order of the text; without any, empty lists.

    Signs, diagnoses and symptoms are the mentions as written, alike but for capitals and white space counting as
    one; the ICD-10-CM fields hold the titles of their codes. As in the deployment, a value may stand in a positive
    and in the negative field, when a report says both. Findings that were concluded from a normal organ ("lungs
    are clear") give their title and no mention, as no word of the report names them.
    """
    found: dict[str, dict[str, str]] = {name: {} for name in PARITY_FIELDS}
    for entity in sorted(entities, key=lambda entity: (entity.start, entity.end)):
        state, kind = _STATES.get(entity.assertion), _CATEGORIES.get(entity.category)
        if state is None or kind is None:
            continue
        if not entity.inferred:
            written = " ".join(entity.text.split())
            found[f"{state}{kind}"].setdefault(written.lower(), written)
        if entity.icd10cm:
            found[f"{state}{_CODES}"].setdefault(entity.title, entity.title)
    return {name: list(values.values()) for name, values in found.items()}
