"""STOW-RS: instances sent to the library over HTTP come to rest in its spool folder, and are then ingested.

The body is written to disk as it comes, and what is answered as stored is there for good.
Source: PS3.18 10.5 (store), 8.7.3 (multipart), annex F.2 (the DICOM JSON model).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from functools import partial
from pathlib import Path
from typing import IO, Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi import Path as UrlPath
from starlette.requests import ClientDisconnect

from medsearch_desktop.errors import DecodeError, RequestError, SourceError
from medsearch_desktop.library import Library
from medsearch_desktop.serve.api.answers import Json
from medsearch_desktop.serve.jobs import JobKind, Jobs
from medsearch_desktop.serve.keeping import coarsened
from medsearch_desktop.serve.multipart import Parts, boundary_of
from medsearch_desktop.source.spool import NoRoomError, NotDicomError, Spool

StudyUid = Annotated[str, UrlPath(max_length=64, pattern=r"^[0-9.]+$")]
# FailureReason (0008,1197), PS3.18 table 10.5.3-1 and PS3.4 annex B.2.3.
OUT_OF_RESOURCES, CANNOT_UNDERSTAND, OTHER_STUDY = 0xA700, 0xC000, 0x0110
DICOM = "application/dicom"
# The folder in a library for what was sent to it.
RECEIVED = "received"
MOST_INSTANCES = 100_000
# Pieces of a body are small; each writing goes through a thread.
_PIECE = 1 << 20


@dataclass
class _Coming:
    """One request: what was stored (class, instance), what was not and why, and the part that is coming."""

    spool: Spool
    study_uid: str
    library: Library
    stored: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str, int]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    part: Path | None = None
    file: IO[bytes] | None = None
    waiting: bytearray = field(default_factory=bytearray)
    why: int = 0

    def take(self, events: list[Message | bytes | None]) -> None:
        """Write what has come to disk."""
        for event in events:
            if event is None:
                self._end()
            elif isinstance(event, bytes):
                self.waiting += event
                if len(self.waiting) >= _PIECE:
                    self._write()
            else:
                self._begin(event)

    def close(self) -> None:
        """Let go of a part that never ended."""
        # On a disk that fails neither may go; what was stored before is taken in all the same.
        if self.file is not None:
            with suppress(OSError):
                self.file.close()
        if self.part is not None:
            with suppress(OSError):
                self.part.unlink(missing_ok=True)

    def _begin(self, headers: Message) -> None:
        if len(self.stored) + len(self.failed) >= MOST_INSTANCES:
            raise RequestError(f"the body has more than {MOST_INSTANCES} parts", remedy="Send them in several requests")
        self.why = CANNOT_UNDERSTAND if headers.get_content_type() not in (DICOM, "text/plain") else 0
        try:
            self.part = self.spool.new_part()
            self.file = self.part.open("wb")
        except (NoRoomError, OSError):
            self.why = OUT_OF_RESOURCES

    def _write(self) -> None:
        if self.file is not None and not self.why:
            try:
                self.file.write(self.waiting)
                if not self.spool.has_room():
                    self.why = OUT_OF_RESOURCES
            except OSError:
                self.why = OUT_OF_RESOURCES
        self.waiting.clear()

    def _end(self) -> None:
        self._write()
        part, file, self.part, self.file = self.part, self.file, None, None
        sop_class = instance = ""
        try:
            if file is not None:
                file.close()
            if part is not None and not self.why:
                tags = self.library.workbench.tags(str(part))
                sop_class, instance = tags.sop_class_uid, tags.sop_instance_uid
                if self.study_uid and tags.study_uid != self.study_uid:
                    self.why = OTHER_STUDY
                else:
                    kept = self.spool.keep(part, sop_instance_uid=instance, transfer_syntax=tags.transfer_syntax_uid)
                    self.paths.append(kept.path)
                    self.stored.append((sop_class, instance))
        except (NotDicomError, DecodeError, SourceError):
            self.why = CANNOT_UNDERSTAND
        except (NoRoomError, OSError):
            self.why = OUT_OF_RESOURCES
        if self.why:
            self.failed.append((sop_class, instance, self.why))
            if part is not None:
                with suppress(OSError):
                    part.unlink(missing_ok=True)


def dicomweb_routes(library: Library, jobs: Jobs, *, reserve_bytes: int = 1 << 30) -> APIRouter:
    """Return the routes of DICOMweb; `reserve_bytes` of the disk are left free."""
    router = APIRouter(prefix="/dicomweb", include_in_schema=False)
    looked = False

    async def store(request: Request, study_uid: str) -> Json:
        nonlocal looked
        boundary = boundary_of(request.headers.get("content-type", ""), kind=DICOM)
        packed = request.headers.get("content-encoding", "").strip().lower() not in ("", "identity")
        if packed or not boundary:
            error = {
                "kind": "request",
                "message": "is packed" if packed else "is no multipart/related of application/dicom",
                "item": "content-encoding" if packed else "content-type",
                "remedy": 'Send DICOM files as multipart/related; type="application/dicom", and not packed',
            }
            return Json({"error": error}, 415)
        spool = await to_thread.run_sync(partial(Spool, library.path / RECEIVED, reserve_bytes=reserve_bytes))
        coming, parts = _Coming(spool, study_uid, library), Parts(boundary)
        try:
            async for piece in request.stream():
                if events := list(parts.feed(piece)):
                    await to_thread.run_sync(coming.take, events)
            if not parts.ended:
                # What came whole is stored all the same, but its sender is not told so, and sends it again.
                raise RequestError("the body was cut off", remedy="Send it again")
        except ClientDisconnect as error:
            raise RequestError("the body was cut off", remedy="Send it again") from error
        finally:
            await to_thread.run_sync(coming.close)
            if coming.paths:
                # The first of a launch looks at all that is there: an earlier one may have ended before its ingest.
                chosen, within = coarsened(str(spool.folder), coming.paths if looked else ())
                try:
                    jobs.submit(JobKind.INGEST, chosen, within=within)
                    looked = True
                except RequestError:
                    # Too many wait; the next one that is taken looks at all of it.
                    looked = False
        return _answer(coming)

    @router.post("/studies")
    async def store_any(request: Request) -> Json:
        """Store instances of any study."""
        return await store(request, "")

    @router.post("/studies/{study_uid}")
    async def store_in(request: Request, study_uid: StudyUid) -> Json:
        """Store instances of one study; those of others are refused."""
        return await store(request, study_uid)

    return router


def _answer(coming: _Coming) -> Json:
    body: dict[str, Any] = {}
    if coming.stored:
        body["00081199"] = {"vr": "SQ", "Value": [_reference(*each) for each in coming.stored]}
    if coming.failed:
        items = [
            {**_reference(sop_class, instance), "00081197": {"vr": "US", "Value": [why]}}
            for sop_class, instance, why in coming.failed
        ]
        body["00081198"] = {"vr": "SQ", "Value": items}
    status = 200 if not coming.failed and coming.stored else 202 if coming.stored else 409
    return Json(body, status, media_type="application/dicom+json")


def _reference(sop_class: str, instance: str) -> dict[str, Any]:
    rows = {"00081150": sop_class, "00081155": instance}
    return {tag: {"vr": "UI", "Value": [uid]} for tag, uid in rows.items() if uid}
