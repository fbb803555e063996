"""What travels between the rooms: frozen records, no behaviour beyond a derived name.

Identifiers are those of DICOM where DICOM has one. Dates are calendar dates without a time zone,
ages are years, character ranges are half-open offsets into `Report.text`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import date
from enum import StrEnum
from typing import Any

from medsearch_desktop.statements import Statement


class FileKind(StrEnum):
    """What a file's content is, whatever its name says."""

    DICOM = "dicom"
    RASTER = "raster"
    REPORT = "report"
    ARCHIVE = "archive"
    OTHER = "other"


class Assertion(StrEnum):
    """What a report says about a mention."""

    PRESENT = "present"
    ABSENT = "absent"
    UNCERTAIN = "uncertain"
    HISTORICAL = "historical"
    FAMILY = "family"
    HYPOTHETICAL = "hypothetical"


class Category(StrEnum):
    """What sort of thing a mention names."""

    SIGN = "Sign"
    DIAGNOSIS = "Diagnosis"
    SYMPTOM = "Symptom"
    ANATOMY = "Anatomy"
    DEVICE = "Device"
    PROCEDURE = "Procedure"
    DRUG = "Drug"


class AttributeKind(StrEnum):
    """What sort of thing an attribute says of a finding."""

    ANATOMY = "anatomy"
    LATERALITY = "laterality"
    SEVERITY = "severity"
    CHANGE = "change"


class Certainty(StrEnum):
    """How sure a report is of what it says: "probable" counts as said, "possible" leaves in doubt."""

    CERTAIN = "certain"
    PROBABLE = "probable"
    POSSIBLE = "possible"


# Severity and size on one scale, least first; a range is "mild to moderate".
SEVERITIES = ("trace", "minimal", "mild", "moderate", "severe", "massive")


class LinkRule(StrEnum):
    """How a report was joined to its study, strongest first."""

    STUDY_UID = "StudyInstanceUID"
    ACCESSION_NUMBER = "AccessionNumber"
    STUDY_ID = "StudyID"
    PATIENT_AND_DATE = "patient and date"
    FOLDER = "folder"
    FILE_NAME = "file name"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file as the disk shows it.

    `path` is absolute; bytes of a name that are not UTF-8 are kept as surrogate escapes. A member of an
    archive has the path that `source.opening` tells of, its own size and the archive's time.
    `sha256` is lower-case hexadecimal, empty until the content had to be read.
    """

    path: str
    root: str
    size: int
    mtime_ns: int
    kind: FileKind = FileKind.OTHER
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one slice of a volume lies: its direction cosines, rounded, and how far along their normal, in mm.

    `orientation` is empty and `position` None where the header does not say.
    """

    orientation: str = ""
    position: float | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """One image: a single-frame DICOM instance, one frame of a multi-frame one, or a raster file.

    `image_id` is the SOPInstanceUID, with `#frame` (from 1) appended when the instance has
    several frames. Raster files get UIDs under 2.25 that are derived from their content.
    `frame` is 0-based. `pixel_error` says why the pixels could not be decoded; such an image has
    metadata but neither thumbnail nor vector. `place` is set for a slice of a volume, which has a vector
    only if its series chooses it for a key slice.
    """

    image_id: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    frame: int = 0
    number_of_frames: int = 1
    sop_class_uid: str = ""
    transfer_syntax_uid: str = ""
    patient_id: str = ""
    patient_sex: str = ""
    patient_age: float | None = None
    accession_number: str = ""
    study_id: str = ""
    study_date: date | None = None
    study_description: str = ""
    series_description: str = ""
    series_number: int | None = None
    instance_number: int | None = None
    modality: str = ""
    view_position: str = ""
    body_part: str = ""
    laterality: str = ""
    manufacturer: str = ""
    rows: int = 0
    columns: int = 0
    bits_stored: int = 0
    photometric_interpretation: str = ""
    pixel_error: str = ""
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class PlacedImage:
    """One image, a report of its study (None without one), and where it lies.

    `root` is the ingested folder that its file, at `path`, is in, or that file itself.
    """

    image_id: str
    report_id: str | None
    root: str
    path: str
    modality: str
    view_position: str
    body_part: str


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a report; `text[start:end]` is its body without the heading.

    `name` is the canonical upper-case name (FINDINGS, IMPRESSION, INDICATION, COMPARISON,
    TECHNIQUE, EXAMINATION, HISTORY, ADDENDUM, ...); text before or without any heading is
    FINDINGS in a report that names none and PREAMBLE in one that does.
    """

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Code:
    """A candidate concept for a mention, with its score from 0 to 1."""

    cui: str
    icd10cm: str
    title: str
    score: float


@dataclass(frozen=True, slots=True)
class Attribute:
    """One thing that a report says of a finding, and the words that say it.

    `value` is its normal name ("left", "mild to moderate", "right lower lobe", "stable"), `text` is
    the slice of `Report.text` at `[start, end)`.
    """

    kind: AttributeKind
    value: str
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Entity:
    """One mention in a report.

    `start`/`end` are offsets into `Report.text`, of which `text` is exactly that slice.
    `finding` is the ChestX-ray14 name when the mention is one of the fourteen. `cue` is the text
    that decided the assertion, at `cue_start`/`cue_end`; empty when nothing but the mention did.
    `alternatives` are the runners-up of the linking, best first. `inferred` marks a finding that was
    concluded from what is said of an organ ("lungs are clear"), which `text` then names. `rule` names
    the rows of the word tables that decided: the term's, and after " + " that of the assertion.
    `sentence_start`/`sentence_end` are the sentence's offsets; -1 in what an earlier release read.
    """

    text: str
    start: int
    end: int
    section: str
    category: Category
    assertion: Assertion
    finding: str = ""
    cui: str = ""
    icd10cm: str = ""
    title: str = ""
    score: float = 0.0
    alternatives: tuple[Code, ...] = ()
    cue: str = ""
    cue_start: int = -1
    cue_end: int = -1
    attributes: tuple[Attribute, ...] = ()
    certainty: Certainty = Certainty.CERTAIN
    inferred: bool = False
    rule: str = ""
    sentence_start: int = -1
    sentence_end: int = -1

    def said(self, kind: AttributeKind) -> tuple[str, ...]:
        """The values of one kind of attribute, each once, in the order of the text."""
        return tuple(dict.fromkeys(each.value for each in self.attributes if each.kind is kind))

    @property
    def anatomy(self) -> tuple[str, ...]:
        """The places that are named with it."""
        return self.said(AttributeKind.ANATOMY)

    @property
    def laterality(self) -> str:
        """left, right, bilateral (both sides are named) or midline; empty where no side is."""
        sides = self.said(AttributeKind.LATERALITY)
        both = "bilateral" in sides or {"left", "right"} <= set(sides)
        return "bilateral" if both else next(iter(sides), "")

    @property
    def severity(self) -> str:
        """One of `SEVERITIES` or a range of two; empty where none is named."""
        return next(iter(self.said(AttributeKind.SEVERITY)), "")

    @property
    def severity_rank(self) -> float:
        """The place of `severity` on the scale, from 1; the middle of a range, 0 where none is named."""
        steps = [SEVERITIES.index(part) + 1 for part in self.severity.split(" to ") if part in SEVERITIES]
        return sum(steps) / len(steps) if steps else 0.0

    @property
    def change(self) -> str:
        """new, stable, increased, decreased or resolved; empty where nothing is compared."""
        return next(iter(self.said(AttributeKind.CHANGE)), "")


@dataclass(frozen=True, slots=True)
class Report:
    """One radiology report as text, cut into sections, with what it mentions.

    `study_uid` is None while no study of the library is known to be its own; `link_rule` says
    how it was found. `encoding` names the codec that decoded the file, `language` is a BCP 47 tag:
    a report in any but English has no entities, as nothing here can read it. `stated` is what the
    message says that it came in, None where it came as mere text.
    """

    report_id: str
    text: str
    sections: tuple[Section, ...] = ()
    entities: tuple[Entity, ...] = ()
    study_uid: str | None = None
    link_rule: LinkRule | None = None
    encoding: str = "utf-8"
    language: str = "en"
    stated: Statement | None = None


@dataclass(frozen=True, slots=True)
class Correction:
    """What a person said of one mention of a report, over what was read.

    `text` is what stood at `[start, end)` of the report. `assertion` and `icd10cm` are None where they
    are left as they were read; an empty `icd10cm` takes the code away. `before` keeps the mention as
    it was. Times are ISO 8601 in UTC; `undone_at` is empty while the correction holds.
    """

    correction_id: str
    report_id: str
    start: int
    end: int
    text: str
    assertion: Assertion | None
    icd10cm: str | None
    title: str
    note: str
    author: str
    made_at: str
    before: dict[str, Any]
    undone_by: str = ""
    undone_at: str = ""


@dataclass(frozen=True, slots=True)
class EntityChange:
    """One mention that reading again changes.

    `kind` is "added", "removed" or "changed"; then `fields` holds (before, after) by the field's name.
    """

    kind: str
    text: str
    start: int
    end: int
    finding: str
    fields: dict[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class RereadSummary:
    """What reading reports again changed, or would change in a dry run.

    `read` were read again, `current` had been read by this pipeline already. `fields` counts the
    mentions changed by field, `reports` holds the changes of each report that has any.
    """

    pipeline_version: str
    dry_run: bool
    read: int
    current: int
    added: int
    removed: int
    changed: int
    fields: dict[str, int]
    reports: tuple[tuple[str, tuple[EntityChange, ...]], ...]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return the object that `medsearch reports reprocess --json` prints."""
        row = {**asdict(self), "seconds": round(self.seconds, 3)}
        return {**row, "reports": [{"report_id": name, "changes": changes} for name, changes in row["reports"]]}


@dataclass(frozen=True, slots=True)
class Share:
    """What one signal ("text", "image", ...) gave to a hit: its own score, rank and share of the total."""

    signal: str
    score: float
    rank: int
    share: float


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer: a report with its study's images, or a study that has no report.

    `score` is comparable within one answer only. `highlights` are half-open ranges into
    `snippet`.
    """

    report_id: str | None
    study_uid: str | None
    image_ids: tuple[str, ...]
    score: float
    snippet: str = ""
    highlights: tuple[tuple[int, int], ...] = ()
    entities: tuple[Entity, ...] = ()
    shares: tuple[Share, ...] = ()
    study_date: date | None = None
    patient_id: str = ""
    patient_sex: str = ""
    patient_age: float | None = None
    modalities: tuple[str, ...] = ()
    study_description: str = ""


@dataclass(frozen=True, slots=True)
class VisualHit:
    """One image near a query image.

    `series_uid` names the series of a slice of a volume, which answers as one; it is empty for other
    images. `score` is the cosine of their vectors, `expected` the share of images at that cosine which have
    a finding in common with the query: None where the match meter has not been measured.
    `modalities` are those of its whole study.
    Where a region was asked by, `region` is the most like one of this image, (x, y, width, height) in its pixels,
    `size` the image's own (width, height), and `score` by how many deviations it stands out from the library.
    """

    image_id: str
    score: float
    study_uid: str
    report_id: str | None = None
    modality: str = ""
    view_position: str = ""
    study_date: date | None = None
    path: str = ""
    thumbnail: str = ""
    impression: str = ""
    expected: float | None = None
    patient_sex: str = ""
    patient_age: float | None = None
    modalities: tuple[str, ...] = ()
    study_description: str = ""
    region: tuple[int, int, int, int] | None = None
    size: tuple[int, int] | None = None
    series_uid: str = ""


@dataclass(frozen=True, slots=True)
class Facet:
    """How one code or finding stands in the documents of an answer; the four counts add up to its total."""

    code: str
    title: str
    present: int
    absent: int
    uncertain: int
    not_mentioned: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """How many documents of an answer have one value of a field."""

    value: str
    count: int


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The page of hits asked for, the true total, and the facets of all that match."""

    total: int
    hits: tuple[Hit, ...]
    facets: dict[str, tuple[Facet | Bucket, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VisualAnswer:
    """The nearest images, best first.

    `nothing_close` when even the first is further than images here are apart, or no more likely to
    have a finding in common with the query than any image of another patient; asked by a region, when
    the image that it is of is, as a whole, further from all of them. `expected` is the mean over the
    hits and `chance` what any image would have; both None without a match meter.
    """

    query: str
    model_id: str
    hits: tuple[VisualHit, ...]
    nothing_close: bool = False
    expected: float | None = None
    chance: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MatchCurve:
    """How often images at a given cosine have a finding in common: what the match meter measured.

    `scores` (cosines) ascends and `precision` with it: linear between knots, flat above the last, and
    below the first it falls to `chance`, the share among random pairs of other patients, at
    `chance_score`, the mean cosine of these.
    `errors` are the standard errors of `precision`, `pairs` the numbers of pairs behind each knot.
    `images` counts the vectors of the model when it was measured, `labelled` those with a report,
    `queries` those that asked.
    `reliability` holds (expected, observed, pairs) of queries that had no part in what was expected
    of them, by rising score, and `calibration_error` the mean distance of the two.
    """

    model_id: str
    scores: tuple[float, ...]
    precision: tuple[float, ...]
    errors: tuple[float, ...]
    pairs: tuple[int, ...]
    chance: float
    chance_score: float
    queries: int
    images: int
    labelled: int
    measured: date
    pipeline_version: str
    calibration_error: float
    reliability: tuple[tuple[float, float, int], ...]

    def as_json(self) -> dict[str, Any]:
        """Return the object that `medsearch model calibrate --json` prints."""
        return {**asdict(self), "measured": self.measured.isoformat()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> MatchCurve:
        """Return the curve that `as_json` was given."""
        lists = {name: tuple(value[name]) for name in ("scores", "precision", "errors", "pairs")}
        reliability = tuple((float(e), float(o), int(n)) for e, o, n in value["reliability"])
        return cls(**{**value, **lists, "reliability": reliability, "measured": date.fromisoformat(value["measured"])})


class ModelRole(StrEnum):
    """What a model is to a library; `NEXT` is one of which a switch to it has begun and not ended."""

    IN_USE = "in use"
    NEXT = "next"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class HeldModel:
    """One model that a library knows: what it is to it, how many images it has embedded, the file that did it.

    `sha256` is empty where nobody knows.
    """

    model_id: str
    role: ModelRole
    vectors: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that could not be indexed, or only in part, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class IngestEvent:
    """One step of an ingest, for whoever shows progress.

    `stage` is "discovered" (`total` files so far, now and then while folders are listed), "file" (one
    more file is settled), "done", or after it "vector" (`settled` of `total` images of earlier
    ingests that had no vector yet); "report" (`settled` of `total`) where reports are read again, "records",
    "files" and "indexes" where a library is looked over, "sent" where images are sent: `images` were taken.
    Counts are cumulative; `seconds` is the time since the start.
    """

    stage: str
    path: str = ""
    total: int = 0
    settled: int = 0
    images: int = 0
    reports: int = 0
    failed: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class IngestSummary:
    """What an ingest did. The first seven numbers count files; `images` and `reports` count records written.

    `discovered` is the sum of indexed, unchanged, updated, duplicates, failed and `ignored` (files
    of other kinds); `removed` counts files that were known and are gone. A copy that takes over
    from a file that was removed is counted once more, for what it then is. `caught_up` counts key
    slices of volumes, and images of earlier ingests, that got the vector that they lacked; `failures` also
    lists slices that turned out not to be decodable only then, which `failed` does not count. `stopped` is
    true of one that was told to stop before its end; the same ingest goes on from there.
    """

    discovered: int = 0
    indexed: int = 0
    unchanged: int = 0
    updated: int = 0
    removed: int = 0
    duplicates: int = 0
    failed: int = 0
    images: int = 0
    reports: int = 0
    seconds: float = 0.0
    ignored: int = 0
    failures: tuple[Failure, ...] = ()
    offline: tuple[str, ...] = ()
    caught_up: int = 0
    stopped: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the object that `medsearch ingest --json` prints."""
        return {
            "discovered": self.discovered,
            "indexed": self.indexed,
            "unchanged": self.unchanged,
            "updated": self.updated,
            "removed": self.removed,
            "duplicates": self.duplicates,
            "failed": self.failed,
            "images": self.images,
            "reports": self.reports,
            "seconds": round(self.seconds, 3),
            "failures": [{"path": f.path, "reason": f.reason} for f in self.failures],
            "ignored": self.ignored,
            "offline": list(self.offline),
            "caught_up": self.caught_up,
        }


@dataclass(frozen=True, slots=True)
class SwitchEvent:
    """One step of a switch to another model, for whoever shows progress.

    `stage` is "embedding" (`settled` of `total` images are done with), "indexing" or "done". `images`
    got a vector, `offline` wait for their file, `failed` could not be embedded. Counts are
    cumulative; `seconds` is the time since the start.
    """

    stage: str
    model_id: str
    total: int = 0
    settled: int = 0
    images: int = 0
    offline: int = 0
    failed: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class SwitchSummary:
    """What a switch to another model did; `in_use` is false for one that was cancelled and may go on later.

    `images` were embedded now, `kept` had their vector already, `offline` wait for their file and
    `failed` could not be embedded; `failures` lists the files of the last two.
    """

    model_id: str
    before: str
    in_use: bool
    images: int = 0
    kept: int = 0
    offline: int = 0
    failed: int = 0
    seconds: float = 0.0
    failures: tuple[Failure, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the object that `medsearch model use --json` prints."""
        return {
            "model_id": self.model_id,
            "before": self.before,
            "in_use": self.in_use,
            "images": self.images,
            "kept": self.kept,
            "offline": self.offline,
            "failed": self.failed,
            "seconds": round(self.seconds, 3),
            "failures": [{"path": f.path, "reason": f.reason} for f in self.failures],
        }
