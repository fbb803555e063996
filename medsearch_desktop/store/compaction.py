"""The database file written anew without the room of what is gone; cut off at any moment, the old one stays.

A row that is deleted or changed leaves its room behind in the file. The new file is written beside the old one,
checked, and takes its name while this process still holds the old one, so nobody comes in between.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medsearch_desktop.disk import writing_to
from medsearch_desktop.errors import LibraryError, StorageFullError
from medsearch_desktop.store.audit import Audit
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.marker import DATABASE, prepare_folder
from medsearch_desktop.store.thumbnails import Thumbnails

# Writing 1 GB anew takes some seconds: it pays when a third of the file, and not just a little, would be free.
WORTH_SHARE, WORTH_BYTES = 1 / 3, 64 << 20
_ROOM = 64 << 20


@dataclass(frozen=True, slots=True)
class Compaction:
    """The size of the database in bytes before and after; `reason` says why nothing was done, or is empty.

    `pictures` counts thumbnails of no image that were removed.
    """

    before: int
    after: int
    reason: str = ""
    pictures: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "before": self.before,
            "after": self.after,
            "done": not self.reason,
            "reason": self.reason,
            "pictures": self.pictures,
        }


def compact(library: Path, *, always: bool = True) -> Compaction:
    """Write the database of a library that nobody has open anew; only where it pays, unless `always`.

    With `always`, thumbnails of no image are removed, too.
    Raises LibraryNotFoundError, LibraryLockedError, LibraryFormatError, and StorageFullError where the disk has no
    room for a second copy.
    """
    prepare_folder(library, create=False)
    database = Database(library / DATABASE)
    try:
        pictures = Thumbnails(library / "thumbnails").sweep(Audit(database).image_ids()) if always else 0
        return replace(compact_open(database, always=always), pictures=pictures)
    finally:
        database.close()


def compact_open(database: Database, *, always: bool) -> Compaction:
    """Compact a database that is in use, as `compact` does: it is read meanwhile, and what writes waits.

    Nothing is done where reads leave no moment for the new file to take its place. Raises LibraryError,
    StorageFullError.
    """
    file = database.file
    library, part = file.parent, file.with_name(f"{file.name}.compact")
    with database.without_writes():
        database.checkpoint()
        before, gone = file.stat().st_size, database.reclaimable()
        if not always and gone < max(WORTH_SHARE * before, WORTH_BYTES):
            return Compaction(before, before, "it would not pay")
        # The estimate may be too high: as much as the whole file is asked for.
        if shutil.disk_usage(library).free < before + _ROOM:
            if not always:
                return Compaction(before, before, "the disk has no room for a second copy")
            raise StorageFullError(
                "the disk has no room for a second copy of the database",
                item=str(library),
                remedy=f"Make {(before + _ROOM) >> 20} MiB of room, then run the same command again",
            )
        with writing_to(library):
            part.unlink(missing_ok=True)
        try:
            rows = database.copy_to(part)
            copy = Database(part, migrate=False)
            try:
                held = {table: int(copy.read(f'SELECT count(*) FROM "{table}"')[0][0]) for table in rows}
            finally:
                copy.close()
            if held != rows or file.with_name(f"{file.name}.wal").exists():
                raise LibraryError("the copy is not the whole of it; the library is as it was", item=str(library))
            with writing_to(library), part.open("rb+") as handle:
                os.fsync(handle.fileno())
            if not database.replace_by(part):
                part.unlink(missing_ok=True)
                return Compaction(before, before, "questions left no moment for it")
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return Compaction(before, file.stat().st_size)
