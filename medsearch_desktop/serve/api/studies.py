"""Studies and reports: what is known of one, with its evidence; corrections of it; the user's labels."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path
from pydantic import BaseModel, Field

from medsearch_desktop.errors import NotFoundError, RequestError
from medsearch_desktop.library import Library
from medsearch_desktop.records import Assertion
from medsearch_desktop.report.reader import extract_json
from medsearch_desktop.serve.api import models
from medsearch_desktop.serve.api.answers import Json, example
from medsearch_desktop.statements import StoredVersion

Uid = Annotated[str, Path(max_length=200)]
ReportId = Annotated[str, Path(max_length=1000)]

_REPORT = {
    "report_id": "s50414267",
    "text": "FINDINGS: Large left pleural effusion.",
    "sections": {"FINDINGS": "Large left pleural effusion."},
    "entities": [{"text": "pleural effusion", "start": 21, "end": 37, "assertion": "present", "icd10cm": "J90"}],
    "findings": {"present": ["Effusion"], "absent": [], "uncertain": []},
    "language": "en",
}
_VERSION = {
    "version_no": 1,
    "status": "final",
    "effective": "2024-03-15T10:10:00",
    "sent": "2024-03-15T10:15:00",
    "path": "/feed/1.hl7",
    "position": 0,
    "is_current": True,
    "characters": 38,
}
_VERSIONS = {"report_id": "A1", "versions": [_VERSION]}
_LABEL = {"target_kind": "study", "target_id": "1.2.826.0.1.3680043.10.1.1.1", "label": "teaching"}
_STUDY = {
    "study_uid": "1.2.826.0.1.3680043.10.1.1.1",
    "patient_id": "P0001",
    "study_date": "2024-03-10",
    "images": [{"image_id": "1.2.826.0.1.3680043.10.1.1.1.1", "view_position": "PA", "rows": 2048, "columns": 2048}],
    "reports": [_REPORT],
    "labels": [_LABEL],
    "others": [{"study_uid": "1.2.826.0.1.3680043.10.1.1.2", "study_date": "2024-04-10", "images": 2, "reports": 1}],
}
_CORRECTION = {"report_id": "s50414267", "start": 21, "end": 37, "assertion": "absent", "author": "reader"}


class NewCorrection(BaseModel):
    """What is to hold of the mention at characters `start` to `end`; what is left out stays as it was read."""

    report_id: str = Field(max_length=1000)
    start: int = Field(ge=0)
    end: int = Field(ge=1)
    assertion: Assertion | None = None
    code: str | None = Field(None, max_length=20, description="An ICD-10-CM code; empty takes the code away.")
    note: str = Field("", max_length=4000)
    author: str = Field("", max_length=200)


class Span(BaseModel):
    """Where a correction is to be undone."""

    report_id: str = Field(max_length=1000)
    start: int = Field(ge=0)
    end: int = Field(ge=1)
    author: str = Field("", max_length=200)


class NewLabel(BaseModel):
    """The user's own word on a study, series, image or report."""

    target_kind: models.Target
    target_id: str = Field(max_length=1000)
    label: str = Field(min_length=1, max_length=200)


def study_routes(library: Library) -> APIRouter:
    """Return the routes of studies, reports, corrections and labels."""
    router = APIRouter(tags=["studies"])

    @router.get("/studies/{study_uid}", responses=example(_STUDY, model=models.Study))
    def study(study_uid: Uid) -> Json:
        """Show a study: its metadata, images, reports with their evidence, labels, the patient's other studies."""
        found = library.holdings.study(study_uid)
        row = asdict(found)
        del row["report_ids"]
        reports = [_report(library, report_id) for report_id in found.report_ids]
        withdrawn = [asdict(note) for note in library.holdings.withdrawn_reports(found)]
        return Json({**row, "reports": reports, "withdrawn": withdrawn})

    # Before the route of a report, which takes every path.
    @router.get("/reports/{report_id:path}/versions", responses=example(_VERSIONS, model=models.Versions))
    def versions(report_id: ReportId) -> Json:
        """List every version that came of a report, withdrawn ones too, and which of them is searched."""
        found = library.report_versions(report_id)
        return Json({"report_id": report_id, "versions": [_version(each) for each in found]})

    @router.get(
        "/reports/{report_id:path}/versions/{version_no}",
        responses=example({"report_id": "A1", **_VERSION, "text": _REPORT["text"]}, model=models.VersionText),
    )
    def version(report_id: ReportId, version_no: Annotated[int, Path(ge=0, lt=1 << 63)]) -> Json:
        """Show the text of one version of a report."""
        found = next((each for each in library.report_versions(report_id) if each.version_no == version_no), None)
        if found is None:
            raise NotFoundError("the report has no such version", item=str(version_no))
        return Json({"report_id": report_id, **_version(found), "text": found.text})

    @router.get("/reports/{report_id:path}", responses=example(_REPORT, model=models.Report))
    def report(report_id: ReportId) -> Json:
        """Show a report as it is stored: text, sections, and each mention with what decided it."""
        return Json(_report(library, report_id))

    @router.get("/corrections", responses=example({"corrections": [_CORRECTION]}, model=models.Corrections))
    def corrections() -> Json:
        """List every correction in the order in which they were made, undone ones too."""
        return Json({"corrections": [asdict(each) for each in library.corrections()]})

    @router.post("/corrections", responses=example(_CORRECTION, model=models.Correction))
    def correct(new: Annotated[NewCorrection, Body(examples=[_CORRECTION])]) -> Json:
        """Correct what a report says of a mention, or its code, from now on."""
        if new.assertion is None and new.code is None and not new.note:
            raise RequestError("nothing is corrected", remedy="Give assertion, code or note")
        kept = library.correct(
            new.report_id,
            (new.start, new.end),
            assertion=new.assertion,
            code=new.code,
            note=new.note,
            author=new.author,
        )
        return Json(asdict(kept))

    @router.post("/corrections/undo", responses=example(_CORRECTION, model=models.Correction))
    def undo(where: Span) -> Json:
        """Undo the latest correction that holds at these characters."""
        return Json(asdict(library.undo_correction(where.report_id, (where.start, where.end), author=where.author)))

    @router.get("/labels", responses=example({"labels": [{"label": "teaching", "count": 3}]}, model=models.Labels))
    def labels() -> Json:
        """List every label that is in use and how many targets have it."""
        return Json({"labels": [{"label": name, "count": n} for name, n in library.holdings.labels().items()]})

    @router.post("/labels", responses=example(_LABEL, model=models.Label))
    def label(new: NewLabel) -> Json:
        """Put a label on a study, series, image or report."""
        word = " ".join(new.label.split())
        if not word:
            raise RequestError("a label of blanks only", item="label")
        library.label(new.target_kind, new.target_id, word)
        return Json({**new.model_dump(), "label": word})

    @router.post("/labels/remove", responses=example(_LABEL, model=models.Label))
    def unlabel(old: NewLabel) -> Json:
        """Take a label off again."""
        library.unlabel(old.target_kind, old.target_id, old.label)
        return Json(old.model_dump())

    return router


def _report(library: Library, report_id: str) -> dict[str, Any]:
    stored = library.report(report_id)
    # What a message states of its report is there of one that came as mere text, too: nothing.
    nothing: dict[str, Any] = {"status": "", "effective": "", "accession_numbers": [], "study_uids": []}
    row = {**nothing, **extract_json(stored.report), "text": stored.report.text, "study_uid": stored.report.study_uid}
    spans = [{"name": s.name, "start": s.start, "end": s.end} for s in stored.report.sections]
    note = library.holdings.version_notes([report_id]).get(report_id)
    row |= {"spans": spans, "path": stored.path, "pipeline_version": stored.pipeline_version}
    return {**row, "version": asdict(note) if note is not None else None}


def _version(version: StoredVersion) -> dict[str, Any]:
    row = asdict(version)
    text = row.pop("text")
    del row["report_id"]
    return {**row, "characters": len(text)}
