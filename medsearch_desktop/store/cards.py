"""What a page of hits shows of a document, packed so that one look-up brings all of it.

Read from four tables, ten hits cost the database 8 ms at 100,000 reports; kept in the text index,
which finds them anyway, they cost 1 ms. A card is a copy: the database packs it (`PACKED` below),
and the ledger of changes keeps it current.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from medsearch_desktop.records import Assertion, Attribute, AttributeKind, Category, Certainty, Code, Entity, Section

# A card shows no more mentions than that; a report of a megabyte can hold 40,000.
MOST_ENTITIES = 1000
# DICOM lets the words of a header that a row shows be 16 and 64 characters long; a hostile file has megabytes.
# SQL over the aliases of `Catalogue.documents`: one JSON array, in the order of `Card`.
PACKED = """json_array(r.report_id, k.study_uid, coalesce(s.patient_id, ''), s.study_date::VARCHAR,
    coalesce(r.text, ''), coalesce(to_json(r.sections), '[]'::JSON), coalesce(en.packed, '[]'::JSON),
    coalesce(im.image_ids, []), left(coalesce(s.patient_sex, ''), 16), s.patient_age,
    [left(m, 16) FOR m IN coalesce(se.modalities, [])], left(coalesce(s.study_description, ''), 200))"""
PACKED_ENTITY = """json_array(text, "start", "end", section, category, assertion, finding, cui, icd10cm, title, score,
    alternatives::JSON, cue, cue_start, cue_end, attributes::JSON, certainty, inferred, rule, sentence_start,
    sentence_end)"""


@dataclass(frozen=True, slots=True)
class Card:
    """One document: a report with its study and images, or a study without a report and then without text."""

    report_id: str | None
    study_uid: str | None
    patient_id: str
    study_date: date | None
    text: str
    sections: tuple[Section, ...]
    entities: tuple[Entity, ...]
    image_ids: tuple[str, ...]
    patient_sex: str
    patient_age: float | None
    modalities: tuple[str, ...]
    study_description: str

    @classmethod
    def unpack(cls, packed: bytes) -> Card:
        """Return the card that `PACKED` made."""
        report_id, study_uid, patient_id, day, text, sections, entities, image_ids, *told = json.loads(packed)
        sex, age, modalities, description = told
        return cls(
            report_id,
            study_uid,
            patient_id,
            date.fromisoformat(day) if day else None,
            text,
            tuple(Section(**section) for section in sections),
            tuple(unpack_entity(text, entity) for entity in entities),
            tuple(image_ids),
            sex,
            age,
            tuple(modalities),
            description,
        )

    @property
    def impression(self) -> str:
        """The IMPRESSION on one line, or the FINDINGS where there is none."""
        for name in ("IMPRESSION", "FINDINGS"):
            for section in self.sections:
                if section.name == name and (words := self.text[section.start : section.end].split()):
                    return " ".join(words)
        return ""


def unpack_entity(report: str, packed: Sequence[Any]) -> Entity:
    """Return the entity that `PACKED_ENTITY` made of a report with the text `report`."""
    text, start, end, section, category, assertion, finding, cui, icd10cm, title, score, others, *told = packed
    cue, cue_start, cue_end, attributes, certainty, inferred, rule, sentence_start, sentence_end = told
    return Entity(
        text=text,
        start=start,
        end=end,
        section=section,
        category=Category(category),
        assertion=Assertion(assertion),
        finding=finding,
        cui=cui,
        icd10cm=icd10cm,
        title=title,
        score=score,
        alternatives=tuple(Code(*other) for other in others),
        cue=cue,
        cue_start=cue_start,
        cue_end=cue_end,
        attributes=tuple(
            Attribute(AttributeKind(kind), value, report[first:last], first, last)
            for kind, value, first, last in attributes
        ),
        certainty=Certainty(certainty),
        inferred=inferred,
        rule=rule,
        sentence_start=sentence_start,
        sentence_end=sentence_end,
    )
