"""What the answers under /api hold, field by field: what /api/openapi.json describes, and nothing else uses.

Answers are written by `serve.wire` and the routes, without a detour through these classes; a test holds every
route's real answer against them. Records of `records` stand for themselves, with all of their fields.
"""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import BaseModel, ConfigDict
from pydantic.dataclasses import dataclass

from medsearch_desktop import records
from medsearch_desktop.records import (
    Assertion,
    Attribute,
    Bucket,
    Category,
    Certainty,
    Code,
    Facet,
    Hit,
    Section,
)
from medsearch_desktop.search.complete import Completion
from medsearch_desktop.statements import ReportStatus

# A field with a default value is in every answer all the same.
WHOLE = ConfigDict(json_schema_serialization_defaults_required=True)
Target = Literal["study", "series", "image", "report"]


class Answer(BaseModel):
    """An object of which every field is there."""

    model_config = WHOLE


# Errors


class ErrorBody(BaseModel):
    """What went wrong, with which item, and what to do about it; `query` and `position` of a question only."""

    kind: str
    message: str
    item: str = ""
    remedy: str = ""
    query: str = ""
    position: int = 0


class ErrorAnswer(Answer):
    """The answer to whatever could not be done."""

    error: ErrorBody


# Questions


class Facets(BaseModel):
    """Codes and findings in their four states, and values of fields, over all that matches; empty if not asked for."""

    icd10cm: list[Facet] = []
    finding: list[Facet] = []
    modality: list[Bucket] = []
    view: list[Bucket] = []
    body: list[Bucket] = []
    sex: list[Bucket] = []
    age: list[Bucket] = []
    year: list[Bucket] = []
    label: list[Bucket] = []


class SearchPage(Answer):
    """One page of an answer, and the cursor of the next: empty on the last."""

    total: int
    hits: list[Hit]
    facets: Facets
    notes: list[str]
    next: str


class Completions(Answer):
    """What the end of a question may become, the best first."""

    completions: list[Completion]


@dataclass(config=WHOLE, frozen=True)
class VisualAnswer(records.VisualAnswer):
    """The nearest images, best first.

    `nothing_close` when even the first is further than images here are apart, or no more likely to have a finding
    in common with the query than any image; asked by a region, when the image that it is of is, as a whole, further
    from all of them. `expected` is the mean over the hits and `chance` what any image would have; both null without
    a match meter.
    """


# Studies


class ReportEntity(Answer):
    """One mention of a report, as `Entity`, with its attributes by kind as well.

    `severity_rank` is the place of `severity` on the scale, from 1; 0 where none is named.
    """

    text: str
    start: int
    end: int
    section: str
    category: Category
    assertion: Assertion
    cui: str
    icd10cm: str
    title: str
    score: float
    alternatives: list[Code]
    finding: str
    cue: str
    cue_start: int
    cue_end: int
    certainty: Certainty
    inferred: bool
    anatomy: list[str]
    laterality: str
    severity: str
    severity_rank: float
    change: str
    attributes: list[Attribute]
    rule: str
    sentence_start: int
    sentence_end: int


class Findings(Answer):
    """Which of the findings of ChestX-ray14 a report states, by name."""

    present: list[str]
    absent: list[str]
    uncertain: list[str]


class VersionNote(Answer):
    """Of a report with versions: status and time of the one that counts, and how many are kept."""

    report_id: str
    status: ReportStatus
    effective: str
    versions: int


class Version(Answer):
    """One version of a report, its status and times (ISO 8601 or empty); `is_current` for the one that is searched.

    `characters` counts its text, which is "" in a cancellation; `position` is its place in its file, from 0.
    """

    version_no: int
    status: ReportStatus
    effective: str
    sent: str
    path: str
    position: int
    is_current: bool
    characters: int


class Versions(Answer):
    """Every version of a report in the order of their time; none for one that came as mere text."""

    report_id: str
    versions: list[Version]


class VersionText(Version):
    """One version of a report with its text, which is not read unless it is the one that is searched."""

    report_id: str
    text: str


class Report(Answer):
    """A report as it is stored; `sections` are texts by name, `spans` the places of the parts in `text`.

    `status`, `effective`, `accession_numbers` and `study_uids` are what its message states, empty where it came as mere
    text; `version` is of the version that is searched, null for a report of which no versions are kept.
    """

    report_id: str
    sections: dict[str, str]
    entities: list[ReportEntity]
    findings: Findings
    language: str
    status: ReportStatus | Literal[""]
    effective: str
    accession_numbers: list[str]
    study_uids: list[str]
    text: str
    study_uid: str | None
    spans: list[Section]
    path: str
    pipeline_version: str
    version: VersionNote | None


class StudyImage(Answer):
    """One image of a study with what its header says.

    `frame` is 0-based, and `number_of_frames` counts those of its instance.
    """

    image_id: str
    series_uid: str
    sop_instance_uid: str
    frame: int
    number_of_frames: int
    instance_number: int | None
    modality: str
    view_position: str
    rows: int
    columns: int
    bits_stored: int
    photometric_interpretation: str
    sop_class_uid: str
    transfer_syntax_uid: str
    pixel_error: str
    path: str
    series_number: int | None
    series_description: str
    body_part: str
    laterality: str
    manufacturer: str


class StudySummary(Answer):
    """Another study of a patient: when, what, how many images and reports."""

    study_uid: str
    study_date: date | None
    study_description: str
    modalities: list[str]
    images: int
    reports: int


class Label(Answer):
    """The user's own word on a study, series, image or report."""

    target_kind: Target
    target_id: str
    label: str


class Study(Answer):
    """One study with its images in the order of series and instance, and the patient's others, oldest first.

    `patient_age` is in years. `withdrawn` are reports that state this study and were cancelled, which nothing finds.
    """

    study_uid: str
    patient_id: str
    patient_sex: str
    patient_age: float | None
    accession_number: str
    study_id: str
    study_date: date | None
    study_description: str
    images: list[StudyImage]
    labels: list[Label]
    others: list[StudySummary]
    reports: list[Report]
    withdrawn: list[VersionNote]


@dataclass(config=WHOLE, frozen=True)
class Correction(records.Correction):
    """What a person said of one mention of a report, over what was read.

    `text` is what stood at `[start, end)` of the report. `assertion` and `icd10cm` are null where they are left as
    they were read; an empty `icd10cm` takes the code away. `before` keeps the mention as it was. Times are ISO 8601
    in UTC; `undone_at` is empty while the correction holds.
    """


class Corrections(Answer):
    """Every correction in the order in which they were made, undone ones too."""

    corrections: list[Correction]


class LabelCount(Answer):
    """How many targets have a label."""

    label: str
    count: int


class Labels(Answer):
    """The labels that are in use, by name."""

    labels: list[LabelCount]
