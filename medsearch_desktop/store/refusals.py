"""What the database says when it cannot do what it was asked, in words of the library: cause, item, remedy."""

from __future__ import annotations

import re
from pathlib import Path

from medsearch_desktop.disk import storage_full
from medsearch_desktop.errors import LibraryError, LibraryFormatError, LibraryLockedError

_LOCK_HOLDER = re.compile(r"PID (\d+)")
_NO_ROOM = ("No space left", "not enough space", "disk is full")
# After a failed write DuckDB calls the whole database invalid; on the disk it is as the last commit left it.
_NOT_WRITTEN = re.compile(r"(?i)could not (?:write|truncate|create|sync)|fsync|failed to (?:commit|create checkpoint)")
# Says nothing against what the file holds: a disk that fails, a drive that is away, rights that are missing.
_NOT_OPENED = re.compile(r"(?i)cannot open file|input/output error|permission denied")
_NOT_WHOLE = ("not a valid DuckDB database", "Corrupt database file")
_BAD_BLOCK = re.compile(r"Corrupt database file|database has been invalidated")
# The tables by which rows are looked up are not read by `verify`, and made anew from the rows by a compaction.
_COMPACT = "Where `medsearch verify` finds nothing wrong, `medsearch compact` mends it. "


def refusal(text: str, file: Path, *, unreadable: bool) -> LibraryError:
    """Return the error for what the database in `file` says; `unreadable` where its kind says that the file is."""
    folder, line = str(file.parent), text.splitlines()[0] if text else ""
    if "Could not set lock" in text or "being used by another process" in text:
        holder = _LOCK_HOLDER.search(text)
        who = f"process {holder[1]}" if holder else "another process"
        return LibraryLockedError(
            f"the library is in use by {who}", item=folder, remedy="Close it there, or wait until it has finished"
        )
    if any(words in text for words in _NO_ROOM):
        return storage_full(file.parent)
    if _NOT_WRITTEN.search(text):
        return LibraryError(
            f"the database cannot be written ({line}); nothing that was committed is lost",
            item=folder,
            remedy="Check the disk, then run the same command again: it goes on where it was",
        )
    if _NOT_OPENED.search(text):
        return LibraryError(
            f"the database cannot be opened ({line})",
            item=folder,
            remedy="Check its disk, and that you may read and write there, then run the same command again",
        )
    if unreadable or any(words in text for words in _NOT_WHOLE):
        return LibraryFormatError(
            f"the database cannot be read ({line})",
            item=str(file),
            remedy=f"{_COMPACT if _BAD_BLOCK.search(text) else ''}"
            "Restore it from a backup, or move the folder away and ingest again",
        )
    return LibraryError(f"the database refused a statement ({line})", item=str(file))
