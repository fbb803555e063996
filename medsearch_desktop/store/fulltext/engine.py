"""What tantivy raises, told in the words of this program, and the memory it may have to write."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medsearch_desktop.disk import storage_full
from medsearch_desktop.errors import LibraryError

# One thread: documents keep their order, and a workstation keeps its other cores.
HEAP_BYTES = 64_000_000
LEAST_HEAP_BYTES = 15_000_000
# A segment that is being written or merged may need this much beside what the index holds.
_SPARE_BYTES = 2 * HEAP_BYTES


class EngineError(Exception):
    """Something that went wrong inside tantivy; `refused` when it was what it was asked to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.refused = message.startswith("An invalid argument")


@contextmanager
def engine() -> Iterator[None]:
    """Turn whatever tantivy raises inside into EngineError."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise EngineError(str(error)) from error
    except BaseException as error:
        # Rust panics arrive as a BaseException whose class no module exports.
        if type(error).__name__ == "PanicException":
            raise EngineError(str(error)) from error
        raise


@contextmanager
def writing_to_index(folder: Path) -> Iterator[None]:
    """Turn what goes wrong inside, while files in `folder` are written, into StorageFullError or LibraryError."""
    try:
        with engine():
            yield
    except EngineError as error:
        cause = error.__cause__
        # A writing thread that hits the end of the disk is only said to have been killed.
        full = "No space left" in str(error) or (isinstance(cause, OSError) and cause.errno == errno.ENOSPC)
        with suppress(OSError):
            full = full or shutil.disk_usage(folder).free < _SPARE_BYTES
        if full:
            raise storage_full(folder) from error
        raise LibraryError(
            "the full-text index cannot be written", item=str(folder), remedy="Check that the folder can be written"
        ) from error
