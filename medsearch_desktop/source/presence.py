"""Is a file still there, and still what it was when it was indexed?"""

from __future__ import annotations

import os
import stat

from medsearch_desktop.errors import SourceError
from medsearch_desktop.source.opening import container_of, is_member
from medsearch_desktop.source.sniff import digest

INGEST = "`medsearch ingest FOLDER` takes it up"


def is_there(root: str) -> bool:
    """Whether a folder that was ingested is there and holds anything, or a file that was is."""
    try:
        with os.scandir(root) as entries:
            # So an unmounted drive leaves its mount point.
            return any(True for _ in entries)
    except NotADirectoryError:
        return True
    except OSError:
        return False


def problem_of(path: str, size: int, mtime_ns: int, sha256: str) -> tuple[str, str, str] | None:
    """Return what is wrong with a file that had this size and time when it was read: (kind, message, remedy).

    With `sha256`, it is read. One whose time is -1 is to be read again whatever it is.
    """
    if mtime_ns == -1:
        return None
    try:
        status = os.stat(container_of(path))  # noqa: PTH116 - names that are not UTF-8
    except (FileNotFoundError, NotADirectoryError):
        return "file-gone", "is gone since it was indexed", INGEST
    except OSError as error:
        return "file-unreadable", f"cannot be looked at ({error.strerror})", "Check that it may be read"
    if not stat.S_ISREG(status.st_mode):
        return "file-gone", "is no file any more", INGEST
    # A member of an archive has the time of its archive, and a size of its own.
    same_size = is_member(path) or status.st_size == size
    if not same_size or status.st_mtime_ns != mtime_ns:
        return "file-changed", "was written since it was indexed", INGEST
    if sha256:
        try:
            unaltered = digest(path) == sha256
        except SourceError as error:
            return "file-unreadable", error.message, error.remedy or "Check that it may be read"
        if not unaltered:
            message = "holds something else than was indexed, at the same size and time"
            return "file-altered", message, f"`medsearch repair --files` marks it; then {INGEST}"
    return None
