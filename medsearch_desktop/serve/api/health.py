"""Looking after the library from outside: is it sound, setting it right, a backup of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import BaseModel, Field, WithJsonSchema

from medsearch_desktop.errors import RequestError
from medsearch_desktop.library import Library
from medsearch_desktop.serve.api import library_models as models
from medsearch_desktop.serve.api.answers import Json, example
from medsearch_desktop.serve.api.jobs import EXAMPLE, job_json
from medsearch_desktop.serve.jobs import JobKind, Jobs

_VERIFYING = {
    **EXAMPLE,
    "kind": "verify",
    "paths": [],
    "progress": {"stage": "files", "total": 24000, "settled": 8000, "left": 16000, "seconds": 2.5, "rate": 3200.0},
}
_REPAIRING = {
    **_VERIFYING,
    "kind": "repair",
    "state": "done",
    "summary": {"mended": {"vector-without-image": 1}, "requeued": 0, "rebuilt": ["image index"], "seconds": 0.1},
}
_BACKUP = {
    "path": "/backups/medsearch-backup-20260301-120000",
    "made": "2026-03-01T12:00:00Z",
    "release": "0.1.0",
    "bytes": 4_730_880,
    "rows": {"images": 16},
}

# Any: a name that is not UTF-8 holds surrogates, which no string of pydantic may.
Place = Annotated[Any, WithJsonSchema({"type": "string", "maxLength": 4096})]


class Verification(BaseModel):
    """How closely to look: values to compare, and whether to read every file."""

    sample: Annotated[int, Field(ge=0, le=100_000_000)] = 1000
    files: bool = False


class Repair(BaseModel):
    """Whether to read every file to find those that hold something else than their records say."""

    files: bool = False


class Target(BaseModel):
    """Where the backup is to be: an absolute path, a new name or a folder to put a dated one in."""

    target: Place


def health_routes(library: Library, jobs: Jobs) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/health", tags=["health"])

    @router.post("/verify", status_code=202, responses={202: example(_VERIFYING, model=models.Job)[200]})
    def verify(asked: Verification) -> Json:
        """Hold records, files and indexes against each other, as a job; its summary says what was found."""
        return Json(job_json(jobs.submit(JobKind.VERIFY, sample=asked.sample, files=asked.files)), 202)

    @router.post("/repair", status_code=202, responses={202: example(_REPAIRING, model=models.Job)[200]})
    def repair(asked: Repair) -> Json:
        """Set right what is not, as a job; labels and corrections are never touched."""
        return Json(job_json(jobs.submit(JobKind.REPAIR, files=asked.files)), 202)

    @router.post("/backup", responses=example(_BACKUP, model=models.BackedUp))
    def backup(asked: Annotated[Target, Body(examples=[{"target": "/backups"}])]) -> Json:
        """Write a checked backup of the library to a folder of this machine, where nothing is written over."""
        place = asked.target
        if not isinstance(place, str) or "\0" in place or len(place) > 4096 or not Path(place).is_absolute():
            raise RequestError("is no absolute path", item="target", remedy="Give the whole path of a folder")
        return Json(library.health.backup(Path(place)).as_json())

    return router
