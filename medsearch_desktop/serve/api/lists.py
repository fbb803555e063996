"""What a person keeps: saved searches, teaching lists with their export and import, who has which label."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask

from medsearch_desktop.errors import ListError, RequestError
from medsearch_desktop.library import Library
from medsearch_desktop.lists import (
    MOST_NAME,
    MOST_NOTE,
    MOST_QUESTION,
    SavedSearch,
    Sort,
    TargetKind,
    TeachingEntry,
    TeachingList,
)
from medsearch_desktop.packing import file_name_of
from medsearch_desktop.serve.api import models
from medsearch_desktop.serve.api.answers import Json, example

Name = Annotated[str, Field(min_length=1, max_length=MOST_NAME)]
Note = Annotated[str, Field(max_length=MOST_NOTE)]
Asked = Annotated[str, Query(max_length=MOST_NAME, description="The name of the list.")]
NewName = Annotated[str, Query(max_length=MOST_NAME, description="Another name for it; empty for its own.")]
EntryId = Annotated[str, Field(max_length=64)]

_UID = "1.2.826.0.1.3680043.10.1.1.1"
_SAVED = {
    "name": "Effusions without devices",
    "question": "present:effusion NOT tube",
    "sort": "date",
    "note": "for Monday",
    "created_at": "2026-03-01T09:30:00.000000+00:00",
}
_LIST = {
    "name": "Chest basics",
    "note": "first year",
    "created_at": "2026-03-01T09:30:00.000000+00:00",
    "entries": 2,
    "missing": 0,
}
_ENTRY = {
    "entry_id": "0f8fad5bd9cb469fa16570867728950e",
    "target_kind": "study",
    "target_id": _UID,
    "reference": "5f0e4c07b1f1b5e0a2a35a2be6c5d9a36b3f8ef7e3d0c0a4b7e6b19c5d2f1a90",
    "note": "look at the left base",
    "added_at": "2026-03-01T09:31:00.000000+00:00",
    "missing": False,
    "study_uid": _UID,
    "study_date": "2024-03-10",
    "study_description": "Chest",
    "patient_sex": "F",
    "patient_age": 45.0,
    "modalities": ["CR"],
    "view_positions": ["LL", "PA"],
    "image_ids": [f"{_UID}.1", f"{_UID}.2"],
    "images": 2,
}


class SavedSearches(BaseModel):
    """Every saved search by name."""

    saved: list[SavedSearch]


class TeachingLists(BaseModel):
    """Every teaching list by name."""

    lists: list[TeachingList]


class OpenedList(BaseModel):
    """A teaching list and its entries in their order."""

    about: TeachingList
    entries: list[TeachingEntry]


class Removed(BaseModel):
    """What was removed, by the name or identifier that it had."""

    removed: str


class Added(BaseModel):
    """The entry that was added."""

    entry_id: str


class Changed(BaseModel):
    """The entry that was changed."""

    entry_id: str


class Labelled(BaseModel):
    """Everything that has a label."""

    targets: list[models.Label]


class NewSearch(BaseModel):
    """A question to keep."""

    name: Name
    question: str = Field("", max_length=MOST_QUESTION)
    sort: Sort = "score"
    note: Note = ""


class ChangedSearch(BaseModel):
    """What is to be another of a saved search; what is left out stays."""

    name: Name
    to: Name | None = Field(None, description="Its new name.")
    question: str | None = Field(None, max_length=MOST_QUESTION)
    sort: Sort | None = None
    note: Note | None = None


class Named(BaseModel):
    """What a name stands for."""

    name: Name


class NewList(BaseModel):
    """A teaching list to begin."""

    name: Name
    note: Note = ""


class ChangedList(BaseModel):
    """What is to be another of a teaching list; what is left out stays."""

    name: Name
    to: Name | None = Field(None, description="Its new name.")
    note: Note | None = None


class NewEntry(BaseModel):
    """A study or image to put on a list, which begins where there is none of that name."""

    list: Name
    target_kind: TargetKind
    target_id: str = Field(max_length=1000)
    note: Note = ""


class ChangedEntry(BaseModel):
    """What is to be another of an entry; `place` counts from 1."""

    entry_id: EntryId
    note: Note | None = None
    place: int | None = Field(None, ge=1, le=1_000_000)


class OldEntry(BaseModel):
    """An entry to take off its list."""

    entry_id: EntryId


class Target(BaseModel):
    """Where on this machine a list is to be written: a folder that is new or empty, by its whole path."""

    name: Name
    folder: str = Field(min_length=1, max_length=4096)
    reports: bool = Field(False, description="With the text of reports, which may hold names.")


class Written(BaseModel):
    """A list that was written: where, and how many entries."""

    folder: str
    entries: int


def list_routes(library: Library) -> APIRouter:
    """Return the routes of saved searches, teaching lists and the targets of labels."""
    router = APIRouter(tags=["lists"])

    @router.get("/labels/targets", responses=example({"targets": [_LABELLED]}, model=Labelled))
    def labelled(label: Annotated[str, Query(max_length=200)]) -> Json:
        """List the studies, series, images and reports that have a label."""
        return Json({"targets": [asdict(each) for each in library.lists.labelled(label)]})

    @router.get("/saved", responses=example({"saved": [_SAVED]}, model=SavedSearches))
    def saved() -> Json:
        """List every saved search by name."""
        return Json({"saved": [asdict(each) for each in library.lists.saved()]})

    @router.post("/saved", responses=example(_SAVED, model=SavedSearch))
    def save(new: NewSearch) -> Json:
        """Keep a question, which has to be one that can be read, under a name that is free."""
        return _row(library.lists.save(new.name, new.question, sort=new.sort, note=new.note))

    @router.post("/saved/change", responses=example(_SAVED, model=SavedSearch))
    def change_saved(new: ChangedSearch) -> Json:
        """Rename a saved search, or change its question, sort or note."""
        return _row(
            library.lists.change_saved(new.name, to=new.to, question=new.question, sort=new.sort, note=new.note)
        )

    @router.post("/saved/remove", responses=example({"removed": "Effusions"}, model=Removed))
    def forget_saved(old: Named) -> Json:
        """Remove a saved search."""
        library.lists.forget_saved(old.name)
        return Json({"removed": old.name})

    @router.get("/teaching", responses=example({"lists": [_LIST]}, model=TeachingLists))
    def teaching() -> Json:
        """List every teaching list by name."""
        return Json({"lists": [asdict(each) for each in library.lists.teaching()]})

    @router.post("/teaching", responses=example(_LIST, model=TeachingList))
    def create(new: NewList) -> Json:
        """Begin a teaching list."""
        return _row(library.lists.create_teaching(new.name, note=new.note))

    @router.post("/teaching/change", responses=example(_LIST, model=TeachingList))
    def change(new: ChangedList) -> Json:
        """Rename a teaching list or change its note."""
        return _row(library.lists.change_teaching(new.name, to=new.to, note=new.note))

    @router.post("/teaching/remove", responses=example({"removed": "Chest basics"}, model=Removed))
    def remove(old: Named) -> Json:
        """Remove a teaching list; the studies and images on it stay."""
        library.lists.remove_teaching(old.name)
        return Json({"removed": old.name})

    @router.get("/teaching/list", responses=example({"about": _LIST, "entries": [_ENTRY]}, model=OpenedList))
    def opened(name: Asked) -> Json:
        """Show a teaching list with its entries in their order, those missing from the library too."""
        of, entries = library.lists.teaching_list(name)
        return Json({"about": asdict(of), "entries": [asdict(each) for each in entries]})

    @router.post("/teaching/entries", responses=example({"entry_id": _ENTRY["entry_id"]}, model=Added))
    def add(new: NewEntry) -> Json:
        """Put a study or image at the end of a list."""
        return Json({"entry_id": library.lists.add_entry(new.list, new.target_kind, new.target_id, note=new.note)})

    @router.post("/teaching/entries/change", responses=example({"entry_id": _ENTRY["entry_id"]}, model=Changed))
    def change_entry(new: ChangedEntry) -> Json:
        """Change an entry's note, or its place on its list."""
        library.lists.change_entry(new.entry_id, note=new.note, place=new.place)
        return Json({"entry_id": new.entry_id})

    @router.post("/teaching/entries/remove", responses=example({"removed": _ENTRY["entry_id"]}, model=Removed))
    def remove_entry(old: OldEntry) -> Json:
        """Take an entry off its list."""
        library.lists.remove_entry(old.entry_id)
        return Json({"removed": old.entry_id})

    @router.get(
        "/teaching/export",
        response_class=FileResponse,
        responses={200: {"description": "list.json, list.csv, index.html, pictures/", "content": _ZIP}},
    )
    def export(
        name: Asked,
        reports: Annotated[bool, Query(description="With the text of reports, which may hold names.")] = False,
    ) -> FileResponse:
        """Send a teaching list as a ZIP file. Pixels are as they are rendered: burned-in text is not removed."""
        made = tempfile.TemporaryDirectory(prefix="medsearch-teaching-")
        try:
            file = Path(made.name) / "list.zip"
            library.lists.export_zip(name, file, with_reports=reports)
            attached = f'attachment; filename="{file_name_of(name)}.zip"'
            return FileResponse(
                file,
                media_type="application/zip",
                headers={"content-disposition": attached},
                background=BackgroundTask(made.cleanup),
            )
        except BaseException:
            made.cleanup()
            raise

    @router.post("/teaching/export", responses=example({"folder": "/home/reader/basics", "entries": 2}, model=Written))
    def write(to: Target) -> Json:
        """Write a teaching list into a folder of this machine, with the same in it as the ZIP file."""
        if not Path(to.folder).is_absolute() or "\0" in to.folder:
            raise RequestError("is no whole path", item="folder", remedy="Begin at the root of the disk")
        return Json(
            {"folder": to.folder, "entries": library.lists.export_folder(to.name, to.folder, with_reports=to.reports)}
        )

    @router.post("/teaching/import", responses=example(_LIST, model=TeachingList), openapi_extra=_JSON_BODY)
    async def bring(request: Request, name: NewName = "") -> Json:
        """Take over the list.json of an export, which is the body, as a new list."""
        body = await request.body()
        try:
            text = body.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ListError("is no text in UTF-8", item="upload", remedy="Send the list.json of an export") from error
        return _row(await to_thread.run_sync(lambda: library.lists.import_teaching(text, name=name, item="upload")))

    return router


def _row(record: SavedSearch | TeachingList) -> Json:
    return Json(asdict(record))


_LABELLED = {"target_kind": "image", "target_id": f"{_UID}.1", "label": "teaching"}
_ZIP: dict[str, dict[str, object]] = {"application/zip": {}}
_JSON_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}
