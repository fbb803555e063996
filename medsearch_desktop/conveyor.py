"""What every pass over files shares: reading a bounded number ahead of the one consumer, and why a file failed."""

from __future__ import annotations

import io
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from medsearch_desktop.errors import MedSearchError
from medsearch_desktop.source.opening import is_member, open_regular
from medsearch_desktop.source.sniff import unreadable

# Files up to this size are read once, hashed and decoded from memory; larger ones are streamed.
READ_WHOLE_BELOW = 64 << 20

Item = TypeVar("Item")
Made = TypeVar("Made")


def look_ahead(make: Callable[[Item], Made], items: Iterable[Item], *, threads: int, ahead: int) -> Iterator[Made]:
    """Yield `make(item)` of each item, in order, made by `threads` threads at most `ahead` items ahead.

    An error of `make` is raised where its result would have been. Closing the generator drops what
    has not begun.
    """
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def read_whole(path: str, *, size: int) -> bytes | None:
    """Return the content of a file of `size` bytes, or None when it is to be streamed. Raises SourceError."""
    if size > READ_WHOLE_BELOW:
        return None
    try:
        with open_regular(path) as handle:
            return handle.read()
    except OSError as error:
        raise unreadable(path, error) from error


@contextmanager
def readable(path: str, data: bytes | None = None) -> Iterator[str | BinaryIO]:
    """Lend what the decoders read a file by: its content where that is at hand or it is in an archive, else its path.

    Raises OSError.
    """
    if data is not None:
        yield io.BytesIO(data)
    elif is_member(path):
        with open_regular(path) as file:
            yield cast(BinaryIO, file)
    else:
        yield path


def reason_of(error: Exception) -> str:
    """Return what happened and what to do; the path stands beside it wherever it is shown.

    Of what nobody foresaw it says where the program was, without a word of what it read there.
    """
    if isinstance(error, MedSearchError):
        return f"{error.message}. {error.remedy}" if error.remedy else error.message
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror})"
    frames = traceback.extract_tb(error.__traceback__)
    package = Path(__file__).parent
    own = next((frame for frame in reversed(frames) if package in Path(frame.filename).parents), frames[-1])
    where = f"{type(error).__name__} at {Path(own.filename).name}:{own.lineno}"
    return f"cannot be read for a fault of this program ({where}). Tell its makers; another release may read it"
