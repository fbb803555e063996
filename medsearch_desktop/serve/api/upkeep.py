"""Watched folders and receiving: how they stand, switching them on and off."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import BaseModel, Field

from medsearch_desktop.errors import MedSearchError
from medsearch_desktop.library import Library
from medsearch_desktop.serve import upkeep as keeping
from medsearch_desktop.serve.api import upkeep_models as models
from medsearch_desktop.serve.api.answers import Json, example
from medsearch_desktop.serve.api.jobs import SourcePath, check_source
from medsearch_desktop.serve.api.pem import PemFile, check_pem_paths
from medsearch_desktop.serve.arrivals import Listening
from medsearch_desktop.serve.errors import error_json

_FOLDER = {
    "path": "/archive",
    "state": "watching",
    "job_id": "",
    "taken_at": 1774000000.0,
    "counts": {"indexed": 24},
    "error": None,
}
_RECEIVER = {
    "state": "listening",
    "listening": Listening(host="10.1.2.3", allow_ip=("10.1.2.0/24",)).as_json(),
    "port": 11112,
    "folder": "/library/received",
    "counts": {"received": 24, "duplicates": 0, "refused": 0, "bytes": 12_582_912, "associations": 2, "rejected": 0},
    "waiting": 0,
    "taken": {**_FOLDER, "path": "/library/received", "state": "listening"},
    "room": True,
    "error": None,
}
Title = Annotated[str, Field(min_length=1, max_length=16)]
Network = Annotated[str, Field(min_length=1, max_length=64)]


class NewListening(BaseModel):
    """How to receive, by the options of `medsearch receive`; what is left out stays as it was."""

    ae_title: Title | None = None
    host: Annotated[str, Field(max_length=64)] | None = None
    port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    require_called: bool | None = None
    allow_ae: Annotated[list[Title], Field(max_length=1000)] | None = None
    allow_ip: Annotated[list[Network], Field(max_length=1000)] | None = None
    associations: Annotated[int, Field(ge=1, le=1000)] | None = None
    max_pdu: Annotated[int, Field(ge=4096, le=1 << 20)] | None = None
    idle: Annotated[float, Field(ge=1, le=1800)] | None = None
    reserve_mb: Annotated[int, Field(ge=0, le=1 << 30)] | None = None
    tls_cert: PemFile | None = None
    tls_key: PemFile | None = None
    tls_ca: PemFile | None = None


def upkeep_routes(library: Library, upkeep: keeping.Upkeep) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["keeping current"])

    @router.get("/watched", responses=example({"folders": [_FOLDER]}, model=models.WatchedFolders))
    def watched() -> Json:
        """List the folders that the library is kept current with, and how each stands."""
        return Json({"folders": [_folder_json(each) for each in upkeep.watched()]})

    @router.post("/watched/on", responses=example(_FOLDER, model=models.WatchedFolder))
    def watch(folder: Annotated[SourcePath, Body(examples=[{"path": "/archive"}])]) -> Json:
        """Keep the library current with a folder from now on, and after the next launch; go on with a paused one."""
        known = {path for path, _, _ in library.holdings.sources()}
        check_source(folder.path, known | {each.path for each in upkeep.watched()})
        return Json(_folder_json(upkeep.watch(folder.path)))

    @router.post("/watched/off", responses=example({**_FOLDER, "state": "off"}, model=models.WatchedFolder))
    def unwatch(folder: SourcePath) -> Json:
        """Keep it current with that folder no more; its records stay. A job that is under way goes on."""
        return Json(_folder_json(upkeep.unwatch(str(folder.path))))

    @router.get("/receiver", responses=example(_RECEIVER, model=models.Receiver))
    def receiver() -> Json:
        """Say how receiving by C-STORE stands."""
        return Json(_receiver_json(upkeep.receiving()))

    @router.post("/receiver/on", responses=example(_RECEIVER, model=models.Receiver))
    def receive(how: Annotated[NewListening, Body(examples=[{"port": 11112, "allow_ae": ["CT1"]}])]) -> Json:
        """Receive from now on, and after the next launch; only this machine may send unless a host is given."""
        given = how.model_dump(exclude_none=True)
        check_pem_paths(*(given.get(name, "") for name in ("tls_cert", "tls_key", "tls_ca")))
        kept = upkeep.receiving().listening.as_json()
        return Json(_receiver_json(upkeep.receive(Listening.from_json({**kept, **given}))))

    @router.post("/receiver/off", responses=example({**_RECEIVER, "state": "off"}, model=models.Receiver))
    def receive_no_more() -> Json:
        """Receive nothing any more; what has come is kept, and how it was listened for the next time."""
        return Json(_receiver_json(upkeep.receive_no_more()))

    return router


def _folder_json(folder: keeping.WatchedFolder) -> dict[str, Any]:
    return {
        "path": folder.path,
        "state": folder.state,
        "job_id": folder.job_id,
        "taken_at": folder.taken_at,
        "counts": dict(folder.counts),
        "error": _error(folder.error),
    }


def _receiver_json(receiving: keeping.Receiving) -> dict[str, Any]:
    return {
        "state": receiving.state,
        "listening": receiving.listening.as_json(),
        "port": receiving.port,
        "folder": receiving.taken.path,
        "counts": receiving.counts.as_json(),
        "waiting": receiving.waiting,
        "taken": _folder_json(receiving.taken),
        "room": receiving.room,
        "error": _error(receiving.error),
    }


def _error(error: MedSearchError | None) -> dict[str, Any] | None:
    return None if error is None else error_json(error)["error"]
