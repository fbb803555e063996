"""What the answers of jobs and of the library as a whole hold, field by field; see `models`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel
from pydantic.dataclasses import dataclass

from medsearch_desktop.doctor import Check
from medsearch_desktop.records import EntityChange, Failure, IngestEvent, MatchCurve, ModelRole, SwitchEvent
from medsearch_desktop.serve.api.models import WHOLE, Answer, ErrorBody
from medsearch_desktop.serve.jobs import BegunBy, JobKind, JobState

# Jobs


@dataclass(config=WHOLE, frozen=True)
class Progress(IngestEvent):
    """How far a job is.

    `stage` says what is counted: files while "discovered" and "file", images of earlier ingests in "vector", reports
    in "report", files in "sent", of which `images` were taken; of looking the library over, steps in "records" and
    "indexes", files in "files". `left` is what of `total` is not settled, `rate` counts a second, `seconds` are since
    the start.
    """

    left: int = 0
    rate: float = 0.0


class IngestSummary(Answer):
    """What an ingest did. The first seven numbers count files; `images` and `reports` count records written."""

    discovered: int
    indexed: int
    unchanged: int
    updated: int
    removed: int
    duplicates: int
    failed: int
    images: int
    reports: int
    seconds: float
    failures: list[Failure]
    ignored: int
    offline: list[str]
    caught_up: int


class ReportChanges(Answer):
    """What reading a report again changes in it."""

    report_id: str
    changes: list[EntityChange]


class RereadSummary(Answer):
    """What reading reports again changed, or would change in a dry run.

    `read` were read again, `current` had been read by this pipeline already. `added`, `removed` and `changed` count
    mentions, `fields` the changed ones by field; `reports` are the first of `changed_reports`.
    """

    pipeline_version: str
    dry_run: bool
    read: int
    current: int
    added: int
    removed: int
    changed: int
    fields: dict[str, int]
    reports: list[ReportChanges]
    seconds: float
    changed_reports: int


class SendSummary(Answer):
    """What sending did: files that the station took, that were not sent, and that were left when it was stopped."""

    station: str
    sent: int
    failed: int
    left: int
    seconds: float


class Job(Answer):
    """One job; times are Unix seconds, 0 for not yet. `summary` is there once it has ended, or `error`.

    The summary of "ingest" and "retry" is an IngestSummary, of "reprocess" a RereadSummary, of "calibrate" a
    MatchCurve, of "verify" a HealthAnswer, of "repair" a Repaired, of "send" a SendSummary. `metadata_only` is of
    ingests, `dry_run` and `everything` are of reading reports again, `station` is of sending. `within` is the folder
    that `paths` are parts of, if they are. `begun_by` is "watch" or "receive" where the server keeps the library
    current by itself; of these the list holds the latest of each folder.
    """

    job_id: str
    kind: JobKind
    begun_by: BegunBy
    state: JobState
    paths: list[str]
    within: str
    station: str
    metadata_only: bool
    dry_run: bool
    everything: bool
    created: float
    started: float
    ended: float
    progress: Progress | None
    summary: IngestSummary | RereadSummary | MatchCurve | HealthAnswer | Repaired | SendSummary | None
    error: ErrorBody | None


class JobList(Answer):
    """The jobs of this launch, the oldest first."""

    jobs: list[Job]


class FailurePage(Answer):
    """Files that could not be indexed, by path, and the cursor of the next page: empty on the last."""

    total: int
    failures: list[Failure]
    next: str


class Source(Answer):
    """A folder that was ingested, whether it is there now, and how many of its files are known."""

    path: str
    online: bool
    files: int


class SourceList(Answer):
    """The folders that a library is made of."""

    sources: list[Source]


class ForgottenSource(Answer):
    """A folder that was forgotten, and how many files with it."""

    path: str
    files: int


# The library


class Totals(Answer):
    """How many records of each kind a library holds; vectors are those of the model in use."""

    images: int
    vectors: int
    reports: int
    studies: int
    patients: int
    files: int
    failures: int


class SwitchSummary(Answer):
    """What a switch to another model did; `in_use` is false for one that was stopped and may go on later."""

    model_id: str
    before: str
    in_use: bool
    images: int
    kept: int
    offline: int
    failed: int
    seconds: float
    failures: list[Failure]


class Switch(Answer):
    """A change to another model, under way or ended; `summary` is there once it has ended, or `error`."""

    model_id: str
    running: bool
    progress: SwitchEvent
    summary: SwitchSummary | None
    error: ErrorBody | None


class SwitchAnswer(Answer):
    """The latest change to another model of this launch, if any."""

    switch: Switch | None


class Status(Answer):
    """The library as a whole.

    `disk` is bytes by part of the library, and "free" what is left on its disk; `waiting_images` have pixels and no
    vector of the model in use.
    """

    version: str
    path: str
    totals: Totals
    disk: dict[str, int]
    model_id: str
    waiting_images: int
    terminology: str
    switch: Switch | None


class Model(BaseModel):
    """A model that is registered here or has vectors in the library.

    `role` is empty where it has none here. What lies beyond the four first fields is there if it is registered.
    """

    model_id: str
    registered: bool
    role: ModelRole | Literal[""]
    vectors: int
    kind: Literal["image"] = "image"
    default: bool = False
    shipped: bool = False
    dim: int = 0
    size: int = 0
    channels: int = 0
    preprocessing: dict[str, Any] = {}
    bytes: int = 0
    sha256: str = ""
    origin: str = ""
    licence: str = ""
    path: str = ""


class ModelList(Answer):
    """The models, what is wrong with the registry of the user's own, and a change of model."""

    models: list[Model]
    problems: list[ErrorBody]
    switch: Switch | None


class Checks(Answer):
    """The doctor's page; `ok` is false where any check is a "failure", and true of "ok" and "warning"."""

    ok: bool
    checks: list[Check]


class Login(Answer):
    """A path that logs one browser window in, once, within a minute."""

    path: str


class Raised(Answer):
    """Whether a window came to the front."""

    raised: bool


class FaultRow(Answer):
    """One thing that is wrong with the library: its kind, the item, what is the matter, what to do."""

    kind: str
    item: str
    message: str
    remedy: str


class HealthAnswer(Answer):
    """What was looked at and found; `faults` counts all, `listed` names the first 1,000, `recall` is a share."""

    ok: bool
    stopped: bool
    seconds: float
    checked: dict[str, int]
    faults: int
    kinds: dict[str, int]
    listed: list[FaultRow]
    recall: float
    notes: list[str]


class Repaired(Answer):
    """What was set right: items by rule, files to be read again, indexes made anew."""

    mended: dict[str, int]
    requeued: int
    rebuilt: list[str]
    seconds: float


class BackedUp(Answer):
    """A backup that was written and checked: where, when (ISO 8601, UTC), its size and its rows by table."""

    path: str
    made: str
    release: str
    bytes: int
    rows: dict[str, int]
