"""The one way to the bytes of a source file, be it a file on disk or a member of an archive.

A member is named by its archive's path, two separators and its name inside: `/x/y.zip//folder/IM1`.
No path that a walk yields has two separators in a row, so nothing else can be called that; the folder
above a member is, to `os.path.dirname`, in the end its archive; and the system opens nothing by it.
"""

# os.path throughout: paths stay the strings that the records hold, surrogate escapes included, and
# pathlib would take one of the two separators away.
# ruff: noqa: PTH110, PTH116

from __future__ import annotations

import os
import stat
from io import FileIO
from typing import IO

MEMBER = os.sep * 2
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")


def open_regular(path: str) -> IO[bytes]:
    """Open a regular file, or a member of an archive, for reading; anything else is refused without waiting on it.

    A file is unbuffered; of a member the content is at hand. Raises OSError, also for a pipe, socket or
    device: opening one that appeared since the folder was listed must not block.
    """
    if not is_member(path):
        return open_on_disk(path)
    # zipfile and tarfile with their codecs are loaded where there are archives only.
    from medsearch_desktop.source.archive import open_member

    return open_member(path)


def open_on_disk(path: str) -> FileIO:
    """Open a regular file, as `open_regular` does one that is no member."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(None, "not a regular file", path)
        return os.fdopen(descriptor, "rb", buffering=0)
    except BaseException:
        os.close(descriptor)
        raise


def size_of(file: IO[bytes]) -> int:
    """Return how many bytes a file holds that was opened just now."""
    if isinstance(file, FileIO):
        return os.fstat(file.fileno()).st_size
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def is_archive_name(name: str) -> bool:
    """Whether a file's name is that of an archive which is read."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def is_member(path: str) -> bool:
    """Whether a path names a member of an archive."""
    # The first two characters may be separators without a member: //server/share.
    return path.find(MEMBER, 2) >= 0


def container_of(path: str) -> str:
    """Return the file on disk that holds what `path` names: the outermost archive of a member, else `path`."""
    at = path.find(MEMBER, 2)
    return path if at < 0 else path[:at]


def split_member(path: str) -> tuple[str, str]:
    """Return the innermost archive of a member, itself perhaps a member, and the member's name in it."""
    archive, _, name = path.rpartition(MEMBER)
    return archive, name


def exists(path: str) -> bool:
    """Whether the file that holds what `path` names is there; into an archive nobody looks for that."""
    return os.path.exists(container_of(path))


def is_as_recorded(path: str, *, size: int, mtime_ns: int) -> bool:
    """Whether a regular file has this size and time still; a member, whether its archive has this time.

    Raises OSError when it is not there.
    """
    status = os.stat(container_of(path))
    same = stat.S_ISREG(status.st_mode) and status.st_mtime_ns == mtime_ns
    return same and (is_member(path) or status.st_size == size)
