"""Jobs: begin, watch, stop; what an ingest failed at; the folders that a library is made of."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, WithJsonSchema

from medsearch_desktop.errors import NotFoundError, RequestError, SourceError
from medsearch_desktop.library import Library
from medsearch_desktop.serve.api import library_models as models
from medsearch_desktop.serve.api.answers import Count, Cursor, Json, example
from medsearch_desktop.serve.cursors import read_cursor, write_cursor
from medsearch_desktop.serve.errors import error_json
from medsearch_desktop.serve.jobs import ENDED, Job, JobKind, Jobs
from medsearch_desktop.serve.upkeep import Upkeep

JobId = Annotated[str, Path(max_length=64)]
# A person cannot read faster; looking costs nothing.
_SECONDS_BETWEEN_EVENTS = 0.2
# Without a word for that long some browsers take a stream for dead.
_SECONDS_OF_SILENCE = 15.0
_MOST_PATH = 4096

EXAMPLE = {
    "job_id": "0f8fad5bd9cb469fa16570867728950e",
    "kind": "ingest",
    "begun_by": "user",
    "state": "running",
    "paths": ["/archive"],
    "within": "",
    "station": "",
    "metadata_only": False,
    "dry_run": False,
    "everything": False,
    "created": 1774000000.0,
    "started": 1774000000.1,
    "ended": 0.0,
    "progress": {"stage": "file", "total": 24, "settled": 8, "left": 16, "failed": 0, "images": 5, "rate": 21.5},
    "summary": None,
    "error": None,
}
_REREADING = {**EXAMPLE, "kind": "reprocess", "state": "waiting", "paths": [], "started": 0.0, "progress": None}
_CALIBRATION = {**_REREADING, "kind": "calibrate"}
_FAILURES = {"total": 1, "failures": [{"path": "/archive/a.dcm", "reason": "is cut off"}], "next": ""}
_SOURCES = {"sources": [{"path": "/archive", "online": True, "files": 24}]}
_EVENT = {"schema": {"$ref": "#/components/schemas/Job"}}


# Any: a name that is not UTF-8 holds surrogates, which no string of pydantic may.
Place = Annotated[Any, WithJsonSchema({"type": "string", "maxLength": _MOST_PATH})]


class NewJob(BaseModel):
    """Folders or files to bring the library up to date with, by their absolute paths."""

    paths: list[Place] = Field(min_length=1, max_length=100)
    metadata_only: bool = False
    within: Place = Field(default="", description="The folder that `paths` are parts of, where only they changed")


class SourcePath(BaseModel):
    """One folder that was ingested, as the list of sources names it."""

    path: Place


class Rereading(BaseModel):
    """How stored reports are to be read again; a dry run changes nothing."""

    dry_run: bool = False
    everything: Annotated[bool, Field(description="Those too that the present pipeline has read.")] = False


def job_routes(library: Library, jobs: Jobs, upkeep: Upkeep) -> APIRouter:
    """Return the routes of jobs, failures and sources."""
    router = APIRouter(tags=["ingest"])

    @router.post("/jobs", status_code=202, responses={202: example(EXAMPLE, model=models.Job)[200]})
    def ingest(new: Annotated[NewJob, Body(examples=[{"paths": ["/archive"]}])]) -> Json:
        """Ingest folders beside the answering. The same folders again go on where an ingest was stopped."""
        known = {path for path, _, _ in library.holdings.sources()}
        for path in new.paths:
            check_source(path, known)
        if new.within:
            check_source(new.within, known)
        job = jobs.submit(JobKind.INGEST, new.paths, metadata_only=new.metadata_only, within=str(new.within))
        return Json(job_json(job), 202)

    @router.get("/jobs", responses=example({"jobs": [EXAMPLE]}, model=models.JobList))
    def all_jobs() -> Json:
        """List the jobs of this launch, the oldest first."""
        return Json({"jobs": [job_json(job) for job in jobs.all()]})

    @router.get("/jobs/{job_id}", responses=example(EXAMPLE, model=models.Job))
    def job(job_id: JobId) -> Json:
        """Show one job: its state, progress, and once it has ended its summary or error."""
        return Json(job_json(jobs.get(job_id)))

    @router.get(
        "/jobs/{job_id}/events",
        response_class=StreamingResponse,
        responses={200: {"description": "Each `data:` line is a Job", "content": {"text/event-stream": _EVENT}}},
    )
    def events(job_id: JobId) -> StreamingResponse:
        """Tell of each change of a job as a server-sent event, until it has ended or the server closes."""
        return StreamingResponse(_events(jobs, jobs.get(job_id)), media_type="text/event-stream")

    @router.post("/jobs/{job_id}/cancel", responses=example(EXAMPLE, model=models.Job))
    def cancel(job_id: JobId) -> Json:
        """Stop a job after the files in hand; what it has done is kept."""
        return Json(job_json(jobs.cancel(job_id)))

    @router.get("/failures", responses=example(_FAILURES, model=models.FailurePage))
    def failures(k: Count = 100, cursor: Cursor = "") -> Json:
        """List what could not be indexed, and why."""
        # By number, as the list is by path: what an ingest adds or takes away meanwhile may shift it.
        offset = read_cursor(cursor, generation=0, about="failures")
        found = library.failures()
        more = write_cursor(offset + k, generation=None, about="failures") if offset + k < len(found) else ""
        return Json({"total": len(found), "failures": [asdict(f) for f in found[offset : offset + k]], "next": more})

    @router.post("/failures/retry", status_code=202, responses={202: example(EXAMPLE, model=models.Job)[200]})
    def retry() -> Json:
        """Try every file again that could not be indexed, as a job."""
        return Json(job_json(jobs.submit(JobKind.RETRY)), 202)

    @router.post("/reports/reprocess", status_code=202, responses={202: example(_REREADING, model=models.Job)[200]})
    def reprocess(how: Rereading | None = None) -> Json:
        """Read reports again that an earlier release has read, as a job; the same again goes on where it stopped."""
        how = how or Rereading()
        return Json(job_json(jobs.submit(JobKind.REPROCESS, dry_run=how.dry_run, everything=how.everything)), 202)

    @router.post("/model/calibrate", status_code=202, responses={202: example(_CALIBRATION, model=models.Job)[200]})
    def calibrate() -> Json:
        """Measure the match meter of the model in use by the library's reports, as a job of a minute at most."""
        return Json(job_json(jobs.submit(JobKind.CALIBRATE)), 202)

    @router.get("/sources", responses=example(_SOURCES, model=models.SourceList))
    def sources() -> Json:
        """List the folders that were ingested, and whether they are there. Ingesting another adds it."""
        rows = [{"path": path, "online": on, "files": n} for path, on, n in library.holdings.sources()]
        return Json({"sources": rows})

    @router.post("/sources/remove", responses=example({"path": "/archive", "files": 24}, model=models.ForgottenSource))
    def remove(source: SourcePath) -> Json:
        """Forget a folder: its records go, its files stay as they are. It is watched no more."""
        if any(job.state not in ENDED and job.kind is not JobKind.SEND for job in jobs.all()):
            raise RequestError("a job is under way", remedy="Cancel it, or wait until it has ended")
        # Else it would be back with the next change in it.
        with suppress(NotFoundError):
            upkeep.unwatch(str(source.path))
        return Json({"path": source.path, "files": library.forget_source(str(source.path))})

    return router


def job_json(job: Job) -> dict[str, Any]:
    """Return a job as the interface tells of it."""
    state, event = job.state, job.event
    progress: dict[str, Any] | None = None
    if event is not None:
        progress = asdict(event)
        progress["left"] = max(0, event.total - event.settled)
        progress["rate"] = round(event.settled / event.seconds, 2) if event.seconds else 0.0
    return {
        "job_id": job.job_id,
        "kind": job.kind,
        "begun_by": job.begun_by,
        "state": state,
        "paths": job.paths,
        "within": job.within,
        "station": job.sending.station if job.sending is not None else "",
        "metadata_only": job.metadata_only,
        "dry_run": job.dry_run,
        "everything": job.everything,
        "created": job.created,
        "started": job.started,
        "ended": job.ended,
        "progress": progress,
        "summary": _summary(job),
        "error": error_json(job.error)["error"] if job.error is not None else None,
    }


def _summary(job: Job) -> dict[str, Any] | None:
    if job.summary is None:
        return None
    row = job.summary.as_json()
    return {**row, "changed_reports": job.changed_reports} if job.kind is JobKind.REPROCESS else row


async def _events(jobs: Jobs, job: Job) -> AsyncIterator[str]:
    told, silent = "", 0.0
    while True:
        # Read before the state is judged, so that the last word is of the job's end.
        ended = job.state in ENDED
        now = json.dumps(job_json(job), ensure_ascii=True)
        if now != told:
            told, silent = now, 0.0
            yield f"data: {now}\n\n"
        if ended or jobs.closing.is_set():
            return
        await asyncio.sleep(_SECONDS_BETWEEN_EVENTS)
        silent += _SECONDS_BETWEEN_EVENTS
        if silent >= _SECONDS_OF_SILENCE:
            silent = 0.0
            yield ": still here\n\n"


def check_source(path: Any, known: set[str]) -> None:
    """Raise SourceError for what is no readable folder or file; one that is known and away is offline."""
    if not isinstance(path, str) or not path or len(path) > _MOST_PATH:
        raise SourceError("is no path", item="paths", remedy="Give the whole path of a folder")
    if "\0" in path or not FilePath(path).is_absolute():
        raise SourceError("is no absolute path", item=path.replace("\0", "?"), remedy="Give the whole path of a folder")
    if path in known:
        return
    try:
        mode = FilePath(path).stat().st_mode
    except OSError as error:
        raise SourceError(
            f"cannot be read ({error.strerror})", item=path, remedy="Check that it is there and may be read"
        ) from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise SourceError("is neither a folder nor a file", item=path)
    if not os.access(path, os.R_OK | (os.X_OK if stat.S_ISDIR(mode) else 0)):
        raise SourceError("may not be read", item=path, remedy="Ask its owner for leave to read it")
