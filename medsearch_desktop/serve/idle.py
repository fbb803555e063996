"""What a server does for its library while nobody asks and no job runs: its database written anew where that pays."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from medsearch_desktop.errors import MedSearchError
from medsearch_desktop.serve.commands import tell_where

if TYPE_CHECKING:
    from medsearch_desktop.library import Library
    from medsearch_desktop.serve.security import App, Receive, Scope, Send

# A page that stands open asks these again and again, and nobody waits for the answer.
ASKED_BY_PAGES = frozenset({"/api/watched", "/api/receiver", "/api/jobs"})
_SECONDS_BETWEEN_LOOKS = 3600.0


class Activity:
    """When somebody last asked or worked, and whether somebody does; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy = 0
        self._last = time.monotonic()

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Count as activity until the end of the block."""
        with self._lock:
            self._busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1
                self._last = time.monotonic()

    def idle_seconds(self) -> float:
        """Return for how long nothing has gone on."""
        with self._lock:
            return 0.0 if self._busy else time.monotonic() - self._last


class Counted:
    """The application, whose questions count as activity."""

    def __init__(self, app: App, activity: Activity) -> None:
        self._app = app
        self._activity = activity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or (scope["method"] == "GET" and scope["path"] in ASKED_BY_PAGES):
            await self._app(scope, receive, send)
            return
        with self._activity.going_on():
            await self._app(scope, receive, send)


class Idle:
    """Compacts a library's database after `after` idle seconds, where that pays; 0 never does."""

    def __init__(self, library: Library, activity: Activity, *, after: float) -> None:
        self._library = library
        self._activity = activity
        self._after = after
        self._next_look = 0.0

    @property
    def seconds_between_looks(self) -> float | None:
        """For how long there is nothing to do but wait for a job; None for ever."""
        return min(10.0, max(0.1, self._after / 2)) if self._after else None

    def look_soon(self) -> None:
        """Look at the next idle time: something has changed."""
        self._next_look = 0.0

    def tend(self) -> None:
        """Do what is to be done, if it is time for it."""
        now = time.monotonic()
        if not self._after or now < self._next_look or self._activity.idle_seconds() < self._after:
            return
        self._next_look = now + _SECONDS_BETWEEN_LOOKS
        try:
            done = self._library.health.compact_in_use()
        except MedSearchError as error:
            # A full disk, say: it is looked at again in a while.
            self._library.log.note(f"compaction broke off: {type(error).__name__}")
        except Exception as error:  # noqa: BLE001 - the thread has to live for the jobs that follow
            tell_where(error)
        else:
            if not done.reason:
                self._library.log.note("database compacted", before=done.before, after=done.after)
