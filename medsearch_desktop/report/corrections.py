"""What people corrected, applied to what was read.

A correction holds for the words that it was made on: where other words stand at its offsets, because
the file was written anew, it rests; where the pipeline does not find the mention any more, it is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from medsearch_desktop.errors import NotFoundError
from medsearch_desktop.records import Assertion, Category, Certainty, Correction, Entity, Report
from medsearch_desktop.report.terminology import load_shipped


def apply_corrections(report: Report, corrections: Iterable[Correction]) -> Report:
    """Return the report with its corrections, in the order given; undone ones are passed over."""
    entities = list(report.entities)
    for each in corrections:
        if each.undone_at or report.text[each.start : each.end] != each.text:
            continue
        span = (each.start, each.end)
        places = [index for index, entity in enumerate(entities) if (entity.start, entity.end) == span]
        if not places:
            places = [len(entities)]
            entities.append(_as_before(each))
        for place in places:
            entities[place] = _corrected(entities[place], each)
    entities.sort(key=lambda entity: (entity.start, entity.end, entity.finding))
    return replace(report, entities=tuple(entities))


def snapshot(entity: Entity) -> dict[str, Any]:
    """Return what a correction keeps of an entity as it was."""
    return {
        "section": entity.section,
        "category": str(entity.category),
        "assertion": str(entity.assertion),
        "finding": entity.finding,
        "cui": entity.cui,
        "icd10cm": entity.icd10cm,
        "title": entity.title,
        "rule": entity.rule,
    }


def title_of_code(code: str) -> str:
    """Return the title of an ICD-10-CM code. Raises NotFoundError for one that the shipped release lacks."""
    base = load_shipped()
    concept = base.concept_of_code(code)
    if concept is None:
        raise NotFoundError(
            f"no code of {base.release}",
            item=code,
            remedy="`medsearch code PHRASE` finds the code of a phrase",
        )
    return concept.title


def _corrected(entity: Entity, correction: Correction) -> Entity:
    rule = f"corrections/{correction.correction_id}"
    if correction.assertion is not None:
        entity = replace(
            entity,
            assertion=correction.assertion,
            certainty=Certainty.CERTAIN,
            inferred=False,
            cue="",
            cue_start=-1,
            cue_end=-1,
        )
    if correction.icd10cm is not None and correction.icd10cm != entity.icd10cm:
        entity = replace(
            entity,
            cui="",
            icd10cm=correction.icd10cm,
            title=correction.title,
            score=1.0 if correction.icd10cm else 0.0,
        )
    return replace(entity, rule=rule)


def _as_before(correction: Correction) -> Entity:
    before = correction.before
    return Entity(
        text=correction.text,
        start=correction.start,
        end=correction.end,
        section=before.get("section", ""),
        category=Category(before.get("category", Category.SIGN)),
        assertion=Assertion(before.get("assertion", Assertion.PRESENT)),
        finding=before.get("finding", ""),
        cui=before.get("cui", ""),
        icd10cm=before.get("icd10cm", ""),
        title=before.get("title", ""),
        score=1.0 if before.get("icd10cm") else 0.0,
    )
