"""What a person keeps: questions under a name, and lists of studies and images to teach with.

Entries of a list outlive their target; whether it is here is looked up each time.
"""

from __future__ import annotations

import hashlib
import unicodedata
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from medsearch_desktop.errors import ListError, NotFoundError
from medsearch_desktop.store.database import Database

TargetKind = Literal["study", "image"]
Sort = Literal["score", "date", "oldest", "patient"]
MOST_ENTRIES = 2000
MOST_PICTURES = 40


@dataclass(frozen=True, slots=True)
class SavedSearch:
    """A question under a name; `sort` is one of those of a search, `created_at` ISO 8601 in UTC."""

    name: str
    question: str
    sort: Sort
    note: str
    created_at: str


@dataclass(frozen=True, slots=True)
class TeachingList:
    """A list to teach with: how many entries it has and of how many the target is not here."""

    name: str
    note: str
    created_at: str
    entries: int
    missing: int


@dataclass(frozen=True, slots=True)
class TeachingEntry:
    """One study or image of a list, with what is known of it now.

    `target_id` is empty where the target was never here, `study_uid` where it is `missing`. `image_ids` are those
    with a picture, at most 40 and evenly spaced, of `images` in all.
    """

    entry_id: str
    target_kind: TargetKind
    target_id: str
    reference: str
    note: str
    added_at: str
    missing: bool
    study_uid: str
    study_date: date | None
    study_description: str
    patient_sex: str
    patient_age: float | None
    modalities: tuple[str, ...]
    view_positions: tuple[str, ...]
    image_ids: tuple[str, ...]
    images: int


@dataclass(frozen=True, slots=True)
class NewEntry:
    """An entry to be: `target_id` may be empty where only its reference is known."""

    target_kind: str
    target_id: str
    reference: str
    note: str


def key_of(name: str) -> str:
    """Return what tells names apart: two that differ in case or width of letters alone are one."""
    return unicodedata.normalize("NFKC", name).casefold()


def reference_of(target_kind: str, target_id: str) -> str:
    """Return the name of a target outside: whoever has it can find it by that, and nobody else can read it back."""
    return hashlib.sha256(f"medsearch {target_kind} {target_id}".encode()).hexdigest()


# `t` names the study of each entry whose target is here, and its image where that alone is meant.
_ENTRIES = """
WITH e AS (SELECT * FROM teaching_entries WHERE list_id = $list),
t AS (
    SELECT entry_id, study_uid, NULL AS image_id FROM e JOIN studies ON target_kind = 'study' AND study_uid = target_id
    UNION ALL
    SELECT entry_id, study_uid, image_id FROM e JOIN images ON target_kind = 'image' AND image_id = target_id
),
im AS (
    SELECT entry_id, count(*) AS images, list(DISTINCT i.modality ORDER BY i.modality) AS modalities,
           list(DISTINCT view_position ORDER BY view_position) FILTER (view_position != '') AS view_positions,
           list(i.image_id ORDER BY series_number, i.series_uid, instance_number, frame, image_no)
               FILTER (pixel_error = '') AS image_ids
    FROM t JOIN images i ON i.study_uid = t.study_uid AND (t.image_id IS NULL OR i.image_id = t.image_id)
    JOIN series USING (series_uid) GROUP BY entry_id
)
SELECT e.entry_id, target_kind, target_id, reference, note, added_at, t.study_uid, study_date, study_description,
       patient_sex, patient_age, modalities, view_positions, image_ids, images
FROM e LEFT JOIN t USING (entry_id) LEFT JOIN studies s ON s.study_uid = t.study_uid LEFT JOIN im USING (entry_id)
ORDER BY position
"""


def find_saved(searches: Sequence[SavedSearch], name: str) -> SavedSearch:
    """Return the one of that name. Raises NotFoundError."""
    found = next((each for each in searches if key_of(each.name) == key_of(name)), None)
    if found is None:
        raise NotFoundError(
            "there is no saved search of that name", item=name, remedy="`medsearch saved list` names them"
        )
    return found


class SavedSearches:
    """The questions that are kept; safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[SavedSearch]:
        """Return every saved search by name."""
        rows = self._database.read("SELECT name, question, sort, note, created_at FROM saved_searches ORDER BY key")
        return [SavedSearch(*row) for row in rows]

    def get(self, name: str) -> SavedSearch:
        """Return the saved search of that name. Raises NotFoundError."""
        return find_saved(self.all(), name)

    def put(self, search: SavedSearch, *, instead_of: str | None = None) -> None:
        """Commit a saved search, new or instead of another. Raises ListError where its name is taken."""
        key = key_of(search.name)
        with self._database.transaction():
            if instead_of is not None:
                self.get(instead_of)
            taken = self._database.write("SELECT 1 FROM saved_searches WHERE key = $key", {"key": key})
            if taken and (instead_of is None or key_of(instead_of) != key):
                raise _taken("saved search", search.name)
            names = {"name": search.name, "question": search.question, "sort": search.sort, "note": search.note}
            if instead_of is None:
                self._database.write(
                    "INSERT INTO saved_searches VALUES ($key, $name, $question, $sort, $note, $at)",
                    {"key": key, **names, "at": search.created_at},
                )
            else:
                self._database.write(
                    "UPDATE saved_searches SET key = $key, name = $name, question = $question, sort = $sort,"
                    " note = $note WHERE key = $old",
                    {"key": key, **names, "old": key_of(instead_of)},
                )

    def remove(self, name: str) -> None:
        """Commit that a saved search is no more. Raises NotFoundError."""
        self.get(name)
        self._database.write("DELETE FROM saved_searches WHERE key = $key", {"key": key_of(name)})


class TeachingLists:
    """The lists to teach with and their entries; safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[TeachingList]:
        """Return every list by name."""
        rows = self._database.read(
            "SELECT l.name, l.note, l.created_at, count(entry_id),"
            " count(entry_id) FILTER (study_uid IS NULL AND image_id IS NULL)"
            " FROM teaching_lists l LEFT JOIN teaching_entries e USING (list_id)"
            " LEFT JOIN (SELECT study_uid FROM studies) s ON target_kind = 'study' AND s.study_uid = target_id"
            " LEFT JOIN (SELECT image_id FROM images) i ON target_kind = 'image' AND i.image_id = target_id"
            " GROUP BY l.key, l.name, l.note, l.created_at ORDER BY l.key"
        )
        return [TeachingList(*row) for row in rows]

    def get(self, name: str) -> TeachingList:
        """Return the list of that name. Raises NotFoundError."""
        found = next((each for each in self.all() if key_of(each.name) == key_of(name)), None)
        if found is None:
            raise _no_list(name)
        return found

    def entries(self, name: str) -> list[TeachingEntry]:
        """Return the entries of a list in their order. Raises NotFoundError."""
        # Not by the writing connection: an ingest may hold it for long.
        rows = self._database.read("SELECT list_id FROM teaching_lists WHERE key = $key", {"key": key_of(name)})
        if not rows:
            raise _no_list(name)
        list_id = rows[0][0]
        self._resolve(list_id)
        return [_entry(row) for row in self._database.read(_ENTRIES, {"list": list_id})]

    def create(self, name: str, *, note: str, at: str, entries: Sequence[NewEntry] = ()) -> None:
        """Commit a list with its first entries. Raises ListError where its name is taken."""
        list_id = uuid.uuid4().hex
        with self._database.transaction():
            self._free(key_of(name), name)
            self._database.write(
                "INSERT INTO teaching_lists VALUES ($id, $key, $name, $note, $at)",
                {"id": list_id, "key": key_of(name), "name": name, "note": note, "at": at},
            )
            self._append(list_id, entries, at=at)

    def change(self, name: str, *, to: str, note: str) -> None:
        """Commit another name and note of a list. Raises NotFoundError, and ListError where that name is taken."""
        with self._database.transaction():
            list_id = self._list_id(name)
            if key_of(to) != key_of(name):
                self._free(key_of(to), to)
            self._database.write(
                "UPDATE teaching_lists SET key = $key, name = $name, note = $note WHERE list_id = $id",
                {"key": key_of(to), "name": to, "note": note, "id": list_id},
            )

    def remove(self, name: str) -> None:
        """Commit that a list and its entries are no more. Raises NotFoundError."""
        with self._database.transaction():
            list_id = self._list_id(name)
            for table in ("teaching_entries", "teaching_lists"):
                self._database.write(f"DELETE FROM {table} WHERE list_id = $id", {"id": list_id})

    def append(self, name: str, entry: NewEntry, *, at: str) -> str:
        """Commit an entry at the end of a list and return its identifier.

        Raises NotFoundError, and ListError where it is on the list already or the list is full.
        """
        with self._database.transaction():
            list_id = self._list_id(name)
            known = self._database.write(
                "SELECT count(*), count(*) FILTER (reference = $reference) FROM teaching_entries WHERE list_id = $id",
                {"id": list_id, "reference": entry.reference},
            )
            count, same = known[0]
            if same:
                raise ListError(f"this {entry.target_kind} is on the list already", item=name)
            if count >= MOST_ENTRIES:
                raise ListError(f"a list has at most {MOST_ENTRIES} entries", item=name, remedy="Begin another list")
            return self._append(list_id, [entry], at=at, first=count)[0]

    def note(self, entry_id: str, note: str) -> None:
        """Commit another note of an entry. Raises NotFoundError."""
        changed = self._database.write(
            "UPDATE teaching_entries SET note = $note WHERE entry_id = $id RETURNING entry_id",
            {"note": note, "id": entry_id},
        )
        if not changed:
            raise _no_entry(entry_id)

    def move(self, entry_id: str, place: int) -> None:
        """Commit that an entry stands at `place`, from 0, of its list; beyond the ends it goes to the end.

        Raises NotFoundError.
        """
        with self._database.transaction():
            list_id, now = self._place(entry_id)
            counted = self._database.write("SELECT count(*) FROM teaching_entries WHERE list_id = $id", {"id": list_id})
            place = max(0, min(place, counted[0][0] - 1))
            # All between the two places give way by one.
            step, low, high = (1, place, now - 1) if place < now else (-1, now + 1, place)
            self._database.write(
                "UPDATE teaching_entries SET position = CASE WHEN entry_id = $entry THEN $place ELSE position + $step"
                " END WHERE list_id = $id AND (entry_id = $entry OR position BETWEEN $low AND $high)",
                {"entry": entry_id, "place": place, "step": step, "id": list_id, "low": low, "high": high},
            )

    def drop(self, entry_id: str) -> None:
        """Commit that an entry is no more on its list. Raises NotFoundError."""
        with self._database.transaction():
            list_id, now = self._place(entry_id)
            self._database.write("DELETE FROM teaching_entries WHERE entry_id = $id", {"id": entry_id})
            self._database.write(
                "UPDATE teaching_entries SET position = position - 1 WHERE list_id = $id AND position > $now",
                {"id": list_id, "now": now},
            )

    def _append(self, list_id: str, entries: Sequence[NewEntry], *, at: str, first: int = 0) -> list[str]:
        numbers = [uuid.uuid4().hex for _ in entries]
        columns: dict[str, list[Any]] = {
            "entry_id": numbers,
            "list_id": [list_id] * len(entries),
            "position": list(range(first, first + len(entries))),
            "target_kind": [each.target_kind for each in entries],
            "target_id": [each.target_id for each in entries],
            "reference": [each.reference for each in entries],
            "note": [each.note for each in entries],
            "added_at": [at] * len(entries),
        }
        self._database.insert("teaching_entries", columns)
        return numbers

    def _resolve(self, list_id: str) -> None:
        """Give imported entries the identifier of their target where it has come in by now."""
        for kind, table, column in (("study", "studies", "study_uid"), ("image", "images", "image_id")):
            given = {"list": list_id, "kind": kind}
            lacking = "list_id = $list AND target_kind = $kind AND target_id = ''"
            if not self._database.read(f"SELECT 1 FROM teaching_entries WHERE {lacking} LIMIT 1", given):
                continue
            found = self._database.read(
                f"SELECT entry_id, {column} FROM teaching_entries JOIN {table}"
                f" ON reference = sha256('medsearch {kind} ' || {column}) WHERE {lacking}",
                given,
            )
            if not found:
                continue
            with self._database.transaction():
                for entry_id, target_id in found:
                    self._database.write(
                        "UPDATE teaching_entries SET target_id = $target WHERE entry_id = $id",
                        {"target": target_id, "id": entry_id},
                    )

    def _list_id(self, name: str) -> str:
        rows = self._database.write("SELECT list_id FROM teaching_lists WHERE key = $key", {"key": key_of(name)})
        if not rows:
            raise _no_list(name)
        return str(rows[0][0])

    def _free(self, key: str, name: str) -> None:
        if self._database.write("SELECT 1 FROM teaching_lists WHERE key = $key", {"key": key}):
            raise _taken("teaching list", name)

    def _place(self, entry_id: str) -> tuple[str, int]:
        rows = self._database.write(
            "SELECT list_id, position FROM teaching_entries WHERE entry_id = $id", {"id": entry_id}
        )
        if not rows:
            raise _no_entry(entry_id)
        return rows[0][0], rows[0][1]


def _entry(row: tuple[Any, ...]) -> TeachingEntry:
    entry_id, kind, target_id, reference, note, added_at, study_uid, day, text, sex, age, *lists, images = row
    modalities, views, image_ids = (each or [] for each in lists)
    step = max(1.0, len(image_ids) / MOST_PICTURES)
    return TeachingEntry(
        entry_id=entry_id,
        target_kind=kind,
        target_id=target_id,
        reference=reference,
        note=note,
        added_at=added_at,
        missing=study_uid is None,
        study_uid=study_uid or "",
        study_date=day,
        study_description=text or "",
        patient_sex=sex or "",
        patient_age=age,
        modalities=tuple(modalities),
        view_positions=tuple(views),
        image_ids=tuple(image_ids[int(place * step)] for place in range(min(len(image_ids), MOST_PICTURES))),
        images=images or 0,
    )


def _taken(what: str, name: str) -> ListError:
    return ListError(f"there is a {what} of that name already", item=name, remedy="Choose another name")


def _no_list(name: str) -> NotFoundError:
    return NotFoundError(
        "there is no teaching list of that name", item=name, remedy="`medsearch teaching list` names them"
    )


def _no_entry(entry_id: str) -> NotFoundError:
    return NotFoundError("no list has such an entry", item=entry_id, remedy="Look at the list again")
