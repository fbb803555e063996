"""Where an answer goes on: an offset, what was asked, and the state of the index, in one opaque word."""

from __future__ import annotations

import base64
import hashlib
import json

from medsearch_desktop.errors import RequestError, StaleCursorError

MOST_OFFSET = 10_000_000


def write_cursor(offset: int, *, generation: int | None, about: str) -> str:
    """Return the cursor of the page that begins at `offset`; `about` is what was asked.

    Without `generation`, that of the index, it is good whatever has changed since.
    """
    packed = json.dumps([offset, generation, _mark(about)], separators=(",", ":"))
    return base64.urlsafe_b64encode(packed.encode()).decode().rstrip("=")


def read_cursor(cursor: str, *, generation: int, about: str) -> int:
    """Return the offset that a cursor holds, 0 for an empty one.

    Raises RequestError for one that is none or of another question, StaleCursorError for one of an
    index that has changed since.
    """
    if not cursor:
        return 0
    try:
        offset, written, mark = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        sound = type(offset) is int and 0 <= offset <= MOST_OFFSET and mark == _mark(about)
    except (ValueError, TypeError):
        sound = False
    if not sound:
        raise RequestError("this is no cursor of this question", remedy="Give `next` of the page before, unchanged")
    if written is not None and written != generation:
        raise StaleCursorError("the library has changed since the first page", remedy="Ask again from the first page")
    return int(offset)


def _mark(about: str) -> str:
    return hashlib.sha256(about.encode("utf-8", "surrogatepass")).hexdigest()[:12]
