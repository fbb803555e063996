"""Report text to a report record: sections, mentions, and the object that `medsearch extract` prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from medsearch_desktop.records import Entity, Report
from medsearch_desktop.report.entities import PIPELINE_VERSION, EntityExtractor, findings
from medsearch_desktop.report.language import ENGLISH, language_of
from medsearch_desktop.report.sections import find_sections
from medsearch_desktop.statements import Statement


class ReportReader:
    """Reads report texts; built once (a fifth of a second), it may be used from several threads.

    `version` changes whenever the same report could be read otherwise.
    """

    def __init__(self, *, extractor: EntityExtractor | None = None) -> None:
        self._extractor = EntityExtractor() if extractor is None else extractor
        recognition = self._extractor.recognition
        self.version = "+".join((PIPELINE_VERSION, *(recognition.names if recognition else ())))

    def read(self, text: str, *, report_id: str, encoding: str = "utf-8") -> Report:
        """Return the report with its sections and entities filled; no text makes it fail.

        A report in another language than English comes without entities. Raises ModelError when a recogniser that is
        loaded when it is first asked cannot be, TerminologyError when the base of concepts cannot.
        """
        sections, language = find_sections(text), language_of(text)
        entities = self._extractor.extract(text, sections) if language == ENGLISH else ()
        return Report(report_id, text, sections, entities, encoding=encoding, language=language)

    def read_many(self, texts: Iterable[tuple[str, str]]) -> Iterator[Report]:
        """Yield a report for each (report_id, text), in order."""
        for report_id, text in texts:
            yield self.read(text, report_id=report_id)


def extract_json(report: Report) -> dict[str, Any]:
    """Return the object that `medsearch extract` prints for a report.

    Parts of the same name are joined by a line break; offsets of entities are into the whole text. A report that came
    in a message has its status, time and identifiers too.
    """
    sections: dict[str, str] = {}
    for section in report.sections:
        body = report.text[section.start : section.end]
        sections[section.name] = f"{sections[section.name]}\n{body}" if section.name in sections else body
    row: dict[str, Any] = {
        "report_id": report.report_id,
        "sections": sections,
        "entities": [entity_json(entity) for entity in report.entities],
        "findings": findings(report.entities),
        "language": report.language,
    }
    if report.stated is not None:
        row |= stated_json(report.stated)
    return row


def stated_json(stated: Statement) -> dict[str, Any]:
    """Return what a message states of its report, as `medsearch extract` prints it."""
    return {
        "status": stated.status.value,
        "effective": stated.effective,
        "accession_numbers": list(stated.accession_numbers),
        "study_uids": list(stated.study_uids),
    }


def entity_json(entity: Entity) -> dict[str, Any]:
    """Return one entity as `medsearch extract` prints it."""
    return {
        "text": entity.text,
        "start": entity.start,
        "end": entity.end,
        "section": entity.section,
        "category": str(entity.category),
        "assertion": str(entity.assertion),
        "cui": entity.cui,
        "icd10cm": entity.icd10cm,
        "title": entity.title,
        "score": round(entity.score, 4),
        "alternatives": [
            {"cui": code.cui, "icd10cm": code.icd10cm, "title": code.title, "score": round(code.score, 4)}
            for code in entity.alternatives
        ],
        "finding": entity.finding,
        "cue": entity.cue,
        "cue_start": entity.cue_start,
        "cue_end": entity.cue_end,
        "certainty": str(entity.certainty),
        "inferred": entity.inferred,
        "anatomy": list(entity.anatomy),
        "laterality": entity.laterality,
        "severity": entity.severity,
        "severity_rank": entity.severity_rank,
        "change": entity.change,
        "attributes": [
            {"kind": str(each.kind), "value": each.value, "text": each.text, "start": each.start, "end": each.end}
            for each in entity.attributes
        ],
        "rule": entity.rule,
        "sentence_start": entity.sentence_start,
        "sentence_end": entity.sentence_end,
    }
