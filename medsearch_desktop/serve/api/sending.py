"""Stations that are remembered, and sending to them: nothing goes anywhere else, and nothing by itself."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from pydantic import BaseModel, Field

from medsearch_desktop.errors import ConfigError, NotFoundError, RequestError
from medsearch_desktop.library import Library
from medsearch_desktop.outgoing import Choice
from medsearch_desktop.sending import DEFAULT_CALLER, Station, echo
from medsearch_desktop.serve.api import library_models as models
from medsearch_desktop.serve.api.answers import MOST_QUESTION, Count, Cursor, Json, example
from medsearch_desktop.serve.api.jobs import JobId, job_json
from medsearch_desktop.serve.api.pem import PemFile, check_pem_paths
from medsearch_desktop.serve.cursors import read_cursor, write_cursor
from medsearch_desktop.serve.jobs import ENDED, JobKind, Jobs, Sending
from medsearch_desktop.serve.send import sent_json
from medsearch_desktop.stations import MOST_NAME, Remembered

# A person waits for it.
_SECONDS_OF_ECHO = 10.0
_MOST_CHOSEN = 10_000

Name = Annotated[str, Field(min_length=1, max_length=MOST_NAME)]
Identifiers = Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(max_length=_MOST_CHOSEN)]

_IMAGE = "1.2.826.0.1.3680043.10.1.1.1.1"
_STATION = {
    "name": "archive",
    "ae_title": "ARCHIVE",
    "host": "10.1.2.9",
    "port": 104,
    "caller": DEFAULT_CALLER,
    "encrypted": False,
    "tls_authority": "",
    "tls_certificate": "",
    "tls_key": "",
}
_CHOICE = {"studies": 1, "files": 2, "bytes": 16_800_000}
_JOB = {
    "job_id": "0f8fad5bd9cb469fa16570867728950e",
    "kind": "send",
    "state": "waiting",
    "station": "archive",
    "paths": [],
    "metadata_only": False,
    "dry_run": False,
    "everything": False,
    "created": 1774000000.0,
    "started": 0.0,
    "ended": 0.0,
    "progress": None,
    "summary": None,
    "error": None,
}
_FILES = {"total": 1, "files": [{"image_id": _IMAGE, "ok": True, "status": "0x0000", "note": ""}], "next": ""}


class StationRow(BaseModel):
    """A station: where it is, as whom it is called (`caller`), and the PEM files of this machine for encryption."""

    name: str
    ae_title: str
    host: str
    port: int
    caller: str
    encrypted: bool
    tls_authority: str
    tls_certificate: str
    tls_key: str


class StationList(BaseModel):
    """The stations that the user of this machine has remembered, by name."""

    stations: list[StationRow]


class NewStation(BaseModel):
    """A station to remember. With `tls_authority`, that of its certificate, or an own certificate it is encrypted."""

    name: Name
    ae_title: str = Field(min_length=1, max_length=16)
    host: str = Field(min_length=1, max_length=255)
    port: int = Field(ge=1, le=65535)
    caller: str = Field(DEFAULT_CALLER, min_length=1, max_length=16, description="The AE title of this program.")
    tls_authority: PemFile = ""
    tls_certificate: PemFile = ""
    tls_key: PemFile = ""


class StationName(BaseModel):
    """A station by its name."""

    name: Name


class ForgottenStation(BaseModel):
    """The station that was forgotten."""

    name: str


class Echoed(BaseModel):
    """A station that answered C-ECHO, and after how many seconds."""

    name: str
    seconds: float


class Selection(BaseModel):
    """What to send: studies and series by UID, images by identifier, the studies of a question, all of them together.

    `again` is a job of sending: what it did not send.
    """

    studies: Identifiers = []
    series: Identifiers = []
    images: Identifiers = []
    question: str = Field("", max_length=MOST_QUESTION)
    again: str = Field("", max_length=64)


class NewSending(Selection):
    """What to send, and to which station by its name."""

    station: Name


class SelectionCount(BaseModel):
    """What a selection comes to; a file holds one image, or all frames of it."""

    studies: int
    files: int
    bytes: int


class SentFile(BaseModel):
    """What became of one file: the status of the station's answer (PS3.7 annex C), null without one, and a note."""

    image_id: str
    ok: bool
    status: str | None
    note: str


class SentFiles(BaseModel):
    """What became of files, in the order in which they went, and the cursor of the next page: empty on the last."""

    total: int
    files: list[SentFile]
    next: str


def sending_routes(library: Library, jobs: Jobs) -> APIRouter:
    """Return the routes of stations and of sending."""
    router = APIRouter(tags=["sending"])

    @router.get("/stations", responses=example({"stations": [_STATION]}, model=StationList))
    def stations() -> Json:
        """List the stations that are remembered at this machine."""
        return Json({"stations": [_row(each) for each in jobs.stations.all()]})

    @router.post("/stations", responses=example(_STATION, model=StationRow))
    def remember(new: Annotated[NewStation, Body(examples=[_STATION])]) -> Json:
        """Remember a station under a name that is free; whether it is there is not asked."""
        station = _remembered(new)
        jobs.stations.remember(station)
        return Json(_row(station))

    @router.post("/stations/remove", responses=example({"name": "archive"}, model=ForgottenStation))
    def forget(old: StationName) -> Json:
        """Forget a station; what waits to be sent to it fails."""
        jobs.stations.forget(old.name)
        return Json({"name": old.name})

    @router.post("/stations/echo", responses=example({"name": "archive", "seconds": 0.02}, model=Echoed))
    def ask(which: StationName) -> Json:
        """Ask a station whether it is there (C-ECHO); what does not work is told as an error."""
        began = time.monotonic()
        echo(jobs.stations.get(which.name).line(seconds=_SECONDS_OF_ECHO))
        return Json({"name": which.name, "seconds": round(time.monotonic() - began, 3)})

    @router.post("/send/count", responses=example(_CHOICE, model=SelectionCount))
    def count(what: Selection) -> Json:
        """Count what a selection comes to, and send nothing."""
        choice = _chosen(library, jobs, what)
        return Json({"studies": choice.studies, "files": len(choice.image_ids), "bytes": choice.bytes})

    @router.post("/send", status_code=202, responses={202: example(_JOB, model=models.Job)[200]})
    def send(what: NewSending) -> Json:
        """Send to a remembered station as a job (C-STORE); its files are told of by /api/jobs/{job_id}/files."""
        jobs.stations.get(what.station)
        choice = _chosen(library, jobs, what)
        return Json(job_json(jobs.submit(JobKind.SEND, sending=Sending(what.station, choice.image_ids))), 202)

    @router.get("/jobs/{job_id}/files", responses=example(_FILES, model=SentFiles))
    def files(
        job_id: JobId,
        k: Count = 100,
        cursor: Cursor = "",
        failed: Annotated[bool, Query(description="Those alone that were not taken.")] = False,
    ) -> Json:
        """Tell what became of each file of a job of sending so far."""
        about = f"files {job_id} {failed}"
        offset = read_cursor(cursor, generation=0, about=about)
        found = [sent for sent in list(_sending(jobs, job_id).results) if not (failed and sent.ok)]
        more = write_cursor(offset + k, generation=None, about=about) if offset + k < len(found) else ""
        return Json(
            {"total": len(found), "files": [sent_json(sent) for sent in found[offset : offset + k]], "next": more}
        )

    return router


def _chosen(library: Library, jobs: Jobs, what: Selection) -> Choice:
    if what.again:
        if what.studies or what.series or what.images or what.question:
            raise RequestError("a job again is all there is to send", item="again", remedy="Leave out the rest")
        job = jobs.get(what.again)
        if job.state not in ENDED:
            raise RequestError("the job goes on", item=what.again, remedy="Cancel it, or wait until it has ended")
        unsent = _sending(jobs, what.again).unsent
        if not unsent:
            raise RequestError("all of the job was sent", item=what.again)
        return library.outgoing.choose(images=unsent)
    if not (what.studies or what.series or what.images or what.question.strip()):
        raise RequestError("nothing is chosen", remedy="Give studies, series, images or a question")
    return library.outgoing.choose(studies=what.studies, series=what.series, images=what.images, question=what.question)


def _sending(jobs: Jobs, job_id: str) -> Sending:
    sending = jobs.get(job_id).sending
    if sending is None:
        raise NotFoundError("is no job of sending", item=job_id)
    return sending


def _remembered(new: NewStation) -> Remembered:
    host = f"[{new.host}]" if ":" in new.host and not new.host.startswith("[") else new.host
    station = Station.parse(f"{new.ae_title.strip()}@{host.strip()}:{new.port}")
    check_pem_paths(new.tls_authority, new.tls_certificate, new.tls_key)
    if new.tls_key and not new.tls_certificate:
        raise ConfigError("is the key of no certificate", item="tls_key", remedy="Give tls_certificate too")
    return Remembered(
        new.name.strip(), station, new.caller.strip(), new.tls_authority, new.tls_certificate, new.tls_key
    )


def _row(remembered: Remembered) -> dict[str, Any]:
    return {
        "name": remembered.name,
        "ae_title": remembered.station.ae_title,
        "host": remembered.station.host,
        "port": remembered.station.port,
        "caller": remembered.caller,
        "encrypted": remembered.is_encrypted,
        "tls_authority": remembered.tls_authority,
        "tls_certificate": remembered.tls_certificate,
        "tls_key": remembered.tls_key,
    }
