"""Names and bytes that are on the disk for good, and what it says when it takes no more, in one way for all rooms."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medsearch_desktop.errors import LibraryError, StorageFullError


def storage_full(folder: Path) -> StorageFullError:
    """Return the error for a full disk under `folder`."""
    return StorageFullError(
        "no space is left on its disk; nothing that was committed is lost",
        item=str(folder),
        remedy="Make room, then run the same command again: it goes on where it was",
    )


def is_full(error: BaseException | None) -> bool:
    """Whether an error says that the disk takes no more."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Translate the OSError of a write below `folder` to StorageFullError or LibraryError."""
    try:
        yield
    except OSError as error:
        # numpy's tofile gives no error number, only "N requested and M written".
        if is_full(error) or "requested and" in str(error):
            raise storage_full(folder) from error
        raise LibraryError(f"cannot be written ({error.strerror or error})", item=str(folder)) from error


def sync_folder(folder: Path) -> None:
    """Make names that came, went or changed in a folder durable; does nothing where folders cannot be opened."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename_new(part: Path, target: Path) -> bool:
    """Give a file another name unless that is taken, and return whether it was free; raises OSError.

    Its old name may remain, for the caller to remove.
    """
    try:
        # Unlike a renaming, a link never replaces what another process has put there meanwhile.
        os.link(part, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        # File systems without hard links.
        if target.exists():
            return False
        part.rename(target)
    return True


def open_private(file: Path) -> int:
    """Open a file for reading and writing, made for its owner alone where it is missing; return its descriptor."""
    return os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)


def append(file: Path, content: bytes | memoryview, *, at: int) -> None:
    """Write bytes at a place of a file, durably, and drop what lay beyond: nobody ever vouched for it."""
    with os.fdopen(open_private(file), "r+b") as handle:
        handle.truncate(at)
        handle.seek(at)
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
