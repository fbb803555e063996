"""What a person keeps in a library: labels, questions under a name, lists to teach with, and handing these over.

Names are text: 1 to 200 characters that can be shown. Notes have up to 4,000 characters.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast, get_args

from medsearch_desktop.errors import ListError, NotFoundError, RequestError
from medsearch_desktop.handout import FORMAT, write_handout
from medsearch_desktop.holdings import Holdings
from medsearch_desktop.packing import file_name_of, pack, whole_file, whole_folder
from medsearch_desktop.search.query import parse
from medsearch_desktop.store.catalogue import Catalogue
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.lists import (
    MOST_ENTRIES,
    NewEntry,
    SavedSearch,
    SavedSearches,
    Sort,
    TargetKind,
    TeachingEntry,
    TeachingList,
    TeachingLists,
    find_saved,
    reference_of,
)
from medsearch_desktop.store.reports import Reports
from medsearch_desktop.store.studies import Label, Studies

__all__ = [
    "Label",
    "Lists",
    "SavedSearch",
    "Sort",
    "TargetKind",
    "TeachingEntry",
    "TeachingList",
    "find_saved",
]

MOST_NAME = 200
MOST_NOTE = 4000
MOST_QUESTION = 4000
SORTS = get_args(Sort)
KINDS = ("study", "image")


class Lists:
    """The labels, saved searches and teaching lists of one library; safe to use from several threads."""

    def __init__(self, database: Database, catalogue: Catalogue, holdings: Holdings) -> None:
        self._catalogue = catalogue
        self._holdings = holdings
        self._studies = Studies(database)
        self._reports = Reports(database)
        self._saved = SavedSearches(database)
        self._teaching = TeachingLists(database)

    def labels(self) -> dict[str, int]:
        """Return every label that is in use and how many targets have it."""
        return self._studies.label_counts()

    def labelled(self, label: str) -> tuple[Label, ...]:
        """Return the studies, series, images and reports that have a label."""
        return self._studies.labelled(label)

    def saved(self) -> list[SavedSearch]:
        """Return every saved search by name."""
        return self._saved.all()

    def saved_search(self, name: str) -> SavedSearch:
        """Return a saved search. Raises NotFoundError."""
        return self._saved.get(name)

    def save(self, name: str, question: str, *, sort: str = "score", note: str = "") -> SavedSearch:
        """Keep a question under a name. Raises QueryError, RequestError, and ListError where the name is taken."""
        search = _checked(name, question, sort, note, at=_now())
        self._saved.put(search)
        return search

    def change_saved(
        self,
        name: str,
        *,
        to: str | None = None,
        question: str | None = None,
        sort: str | None = None,
        note: str | None = None,
    ) -> SavedSearch:
        """Change a saved search where something is given. Raises NotFoundError and as `save` does."""
        old = self._saved.get(name)
        new = _checked(
            old.name if to is None else to,
            old.question if question is None else question,
            old.sort if sort is None else sort,
            old.note if note is None else note,
            at=old.created_at,
        )
        self._saved.put(new, instead_of=old.name)
        return new

    def forget_saved(self, name: str) -> None:
        """Remove a saved search. Raises NotFoundError."""
        self._saved.remove(name)

    def teaching(self) -> list[TeachingList]:
        """Return every teaching list by name."""
        return self._teaching.all()

    def teaching_list(self, name: str) -> tuple[TeachingList, list[TeachingEntry]]:
        """Return a teaching list and its entries in their order. Raises NotFoundError."""
        return self._teaching.get(name), self._teaching.entries(name)

    def create_teaching(self, name: str, *, note: str = "") -> TeachingList:
        """Begin a teaching list. Raises RequestError, and ListError where the name is taken."""
        name = _name(name)
        self._teaching.create(name, note=_note(note), at=_now())
        return self._teaching.get(name)

    def change_teaching(self, name: str, *, to: str | None = None, note: str | None = None) -> TeachingList:
        """Rename a teaching list or change its note. Raises NotFoundError, RequestError, ListError."""
        old = self._teaching.get(name)
        new = old.name if to is None else _name(to)
        self._teaching.change(name, to=new, note=old.note if note is None else _note(note))
        return self._teaching.get(new)

    def remove_teaching(self, name: str) -> None:
        """Remove a teaching list; what it lists stays. Raises NotFoundError."""
        self._teaching.remove(name)

    def add_entry(self, name: str, target_kind: str, target_id: str, *, note: str = "") -> str:
        """Put a study or an image at the end of a list, which begins where there is none; return the entry's id.

        Raises NotFoundError for an unknown target, ListError where it is on the list already, RequestError.
        """
        if target_kind not in KINDS:
            raise RequestError(f"a list holds {' and '.join(KINDS)}, not {target_kind}", item="target_kind")
        if not self._catalogue.studies_of(target_kind, target_id):
            raise NotFoundError(f"the library has no such {target_kind}", item=target_id)
        entry = NewEntry(target_kind, target_id, reference_of(target_kind, target_id), _note(note))
        name = _name(name)
        try:
            return self._teaching.append(name, entry, at=_now())
        except NotFoundError:
            # Another thread may have begun it meanwhile.
            with suppress(ListError):
                self._teaching.create(name, note="", at=_now())
            return self._teaching.append(name, entry, at=_now())

    def change_entry(self, entry_id: str, *, note: str | None = None, place: int | None = None) -> None:
        """Change an entry's note, or its place in the list, from 1. Raises NotFoundError, RequestError."""
        if note is not None:
            self._teaching.note(entry_id, _note(note))
        if place is not None:
            self._teaching.move(entry_id, place - 1)

    def remove_entry(self, entry_id: str) -> None:
        """Take an entry off its list. Raises NotFoundError."""
        self._teaching.drop(entry_id)

    def export_folder(self, name: str, folder: str | os.PathLike[str], *, with_reports: bool = False) -> int:
        """Write a list into a new or empty folder, whole or not at all; return how many entries.

        What is left out and what is not is told by `medsearch_desktop.handout`. Raises NotFoundError, ListError
        where the folder holds something, StorageFullError, LibraryError.
        """
        of, entries = self.teaching_list(name)
        with whole_folder(Path(folder)) as part:
            self._write(part, of, entries, with_reports)
        return len(entries)

    def export_zip(self, name: str, file: str | os.PathLike[str], *, with_reports: bool = False) -> int:
        """Write a list into one ZIP file, in place of what stood there; otherwise as `export_folder`."""
        of, entries = self.teaching_list(name)
        with whole_file(Path(file)) as part, tempfile.TemporaryDirectory(dir=part.parent) as made:
            self._write(Path(made), of, entries, with_reports)
            pack(Path(made), part, name=file_name_of(of.name))
        return len(entries)

    def import_teaching(self, text: str, *, name: str = "", item: str = "") -> TeachingList:
        """Take over a list.json as a new list, under its own name or `name`; return it.

        Entries whose study or image is not here are kept, missing until it comes in. `item` is the file's name,
        for messages. Raises ListError where it is no such file or the name is taken.
        """
        document = _read(text, item)
        entries, seen = [], set()
        for row in document["entries"]:
            kind, reference = row["kind"], row["reference"]
            if reference not in seen:
                seen.add(reference)
                entries.append(NewEntry(kind, "", reference, _note(row.get("note", ""))))
        called = _name(name or document["name"])
        self._teaching.create(called, note=_note(document.get("note", "")), at=_now(), entries=entries)
        # Looks up what is here.
        self._teaching.entries(called)
        return self._teaching.get(called)

    def _write(self, folder: Path, of: TeachingList, entries: list[TeachingEntry], with_reports: bool) -> None:
        write_handout(
            folder, of, entries, holdings=self._holdings, report_of=self._reports.get, with_reports=with_reports
        )


def _checked(name: str, question: str, sort: str, note: str, *, at: str) -> SavedSearch:
    if len(question) > MOST_QUESTION:
        raise RequestError(f"is longer than {MOST_QUESTION} characters", item="question")
    if sort not in SORTS:
        raise RequestError(f"is none of {', '.join(SORTS)}", item="sort")
    question = _text(question.strip(), "question")
    parse(question)
    return SavedSearch(_name(name), question, cast(Sort, sort), _note(note), at)


def _name(name: str) -> str:
    name = " ".join(name.split())
    if not 1 <= len(name) <= MOST_NAME or not name.isprintable():
        raise RequestError(
            f"a name has 1 to {MOST_NAME} characters that can be shown", item="name", remedy="Give another name"
        )
    return name


def _note(note: str) -> str:
    if len(note) > MOST_NOTE:
        raise RequestError(f"is longer than {MOST_NOTE} characters", item="note", remedy="Shorten it")
    return _text(note.strip(), "note")


def _text(text: str, item: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError("holds characters that are no text", item=item) from error
    if "\0" in text:
        raise RequestError("holds characters that are no text", item=item)
    return text


def _read(text: str, item: str) -> dict[str, Any]:
    """Return a list.json. Raises ListError where it is none."""
    remedy = "Give the list.json of an exported teaching list"
    try:
        value = json.loads(text)
        rows = value["entries"]
        sound = (
            value["format"] == FORMAT
            and isinstance(value["name"], str)
            and isinstance(value.get("note", ""), str)
            and isinstance(rows, list)
            and all(_sound(row) for row in rows)
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ListError("is no teaching list", item=item, remedy=remedy) from error
    if not sound:
        raise ListError("is no teaching list, or of another release", item=item, remedy=remedy)
    if len(rows) > MOST_ENTRIES:
        raise ListError(f"has {len(rows)} entries; a list has at most {MOST_ENTRIES}", item=item)
    return dict(value)


def _sound(row: dict[str, Any]) -> bool:
    return (
        row["kind"] in KINDS
        and re.fullmatch("[0-9a-f]{64}", row["reference"]) is not None
        and isinstance(row.get("note", ""), str)
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
