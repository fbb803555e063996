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
from medsearch_desktop.serve.jobs import Jobs

_REPORT = {
    "ok": True,
    "stopped": False,
    "seconds": 0.2,
    "checked": {"images": 16, "documents": 8, "files": 24},
    "faults": 0,
    "kinds": {},
    "listed": [],
    "recall": 1.0,
    "notes": [],
}
_REPAIR = {"mended": {"vector-without-image": 1}, "requeued": 0, "rebuilt": ["image index"], "seconds": 0.1}
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
    """Return the routes; what takes long ends early once `jobs` are closing."""
    router = APIRouter(prefix="/health", tags=["health"])

    @router.post("/verify", responses=example(_REPORT, model=models.HealthAnswer))
    def verify(asked: Verification) -> Json:
        """Hold records, files and indexes against each other; answers when that is done."""
        return Json(library.health.verify(sample=asked.sample, files=asked.files, stop=jobs.closing).as_json())

    @router.post("/repair", responses=example(_REPAIR, model=models.Repaired))
    def repair(asked: Repair) -> Json:
        """Set right what is not; labels and corrections are never touched. Answers when that is done."""
        return Json(library.health.repair(files=asked.files, stop=jobs.closing).as_json())

    @router.post("/backup", responses=example(_BACKUP, model=models.BackedUp))
    def backup(asked: Annotated[Target, Body(examples=[{"target": "/backups"}])]) -> Json:
        """Write a checked backup of the library to a folder of this machine, where nothing is written over."""
        place = asked.target
        if not isinstance(place, str) or "\0" in place or len(place) > 4096 or not Path(place).is_absolute():
            raise RequestError("is no absolute path", item="target", remedy="Give the whole path of a folder")
        return Json(library.health.backup(Path(place)).as_json())

    return router
