"""Folders kept in view: which files in them have changed and have come to rest.

The system's events say where to look, and a file is handed on once its size and time have been still for
a while. Where events do not come (network drives, some virtual file systems) the folder is listed again
and again instead; and everywhere a full walk now and then mends what was missed. The only file that
imports watchfiles.
"""

# os.path throughout: paths stay the strings that the records hold, surrogate escapes included.
# ruff: noqa: PTH116, PTH118, PTH120

from __future__ import annotations

import math
import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from medsearch_desktop.errors import SourceError
from medsearch_desktop.source.folder import absolute_root, is_left_out, walk

# Kinds of file systems whose changes by another machine this one's kernel does not hear of.
_REMOTE = frozenset(("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "9p", "afs", "ceph", "glusterfs", "lustre"))
_REMOTE_PREFIXES = ("fuse.", "vboxsf", "vmhgfs", "prl_fs", "virtiofs")
_TICK = 0.5
_Look = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Settled:
    """What of a watched folder is to be looked at: these paths, or all of it where there are none."""

    root: str
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Away:
    """A watched folder is not there, or there again."""

    root: str
    away: bool


@dataclass(frozen=True, slots=True)
class Silent:
    """No events can be had of a watched folder; it is listed regularly from now on."""

    root: str


@dataclass(slots=True)
class _Folder:
    """One watched folder; `identity` is what was there when its watch began, None while there is none."""

    root: str
    polled: bool
    identity: tuple[int, int] | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    next_walk: float = 0.0
    next_poll: float = 0.0
    seen: dict[str, _Look] | None = None
    missing: bool = False


class Watcher:
    """Some folders in view; for one thread.

    A file counts as at rest when its size and time were the same for `still_seconds`. `poll` lists
    all folders every `poll_seconds` in place of listening; None does so where events do not come. Every
    `walk_seconds` all of a folder is looked at anew. What lies in `leave_out` is never told.
    Raises SourceError for a folder that is not there at the beginning, unless `wait` has it waited for.
    """

    def __init__(
        self,
        roots: Sequence[str],
        *,
        still_seconds: float = 5.0,
        poll: bool | None = None,
        poll_seconds: float = 60.0,
        walk_seconds: float = 3600.0,
        leave_out: Sequence[str] = (),
        wait: bool = False,
    ) -> None:
        self._still_seconds = still_seconds
        self._how = poll
        self._poll_seconds = poll_seconds
        self._walk_seconds = walk_seconds
        self._leave_out = tuple(os.path.join(absolute_root(path), "") for path in leave_out)
        self._events: SimpleQueue[tuple[_Folder, list[str] | None]] = SimpleQueue()
        self._waiting: dict[str, tuple[_Folder, _Look, float]] = {}
        self._folders = []
        for root in dict.fromkeys(absolute_root(root) for root in roots):
            if not wait and not os.path.isdir(root):  # noqa: PTH112
                raise SourceError("is no folder that is there", item=root, remedy="Name one, or connect its drive")
            polled = is_remote(root) if poll is None else poll
            self._folders.append(_Folder(root, polled))

    @property
    def polled(self) -> tuple[str, ...]:
        """The folders that are listed again and again."""
        return tuple(folder.root for folder in self._folders if folder.polled)

    def changes(self, stop: threading.Event) -> Iterator[Settled | Away | Silent]:
        """Yield what is to be looked at, from all of each folder on, until `stop` is set.

        What is yielded is not told again: who could not take it gives it to `again`.
        """
        try:
            while not stop.is_set():
                for folder in self._folders:
                    yield from self._attend(folder)
                yield from self._take_events()
                yield from self._at_rest()
                stop.wait(_TICK)
        finally:
            for folder in self._folders:
                folder.stop.set()

    def again(self, settled: Settled) -> None:
        """Tell of a whole folder once more, in a while, because what was told could not be taken."""
        for folder in self._folders:
            if folder.root == settled.root:
                folder.next_walk = min(folder.next_walk, time.monotonic() + max(5.0, self._still_seconds))

    def _attend(self, folder: _Folder) -> Iterator[Settled | Away]:
        """Notice that a folder came or went, and that it is time to look at all of it."""
        now, identity = time.monotonic(), _identity(folder.root)
        if identity is None:
            if not folder.missing:
                folder.missing = True
                self._end(folder)
                yield Away(folder.root, away=True)
            return
        if folder.missing:
            folder.missing = False
            yield Away(folder.root, away=False)
        if identity != folder.identity:
            # Another folder, or another drive, under the same name: what listened to the old one hears nothing.
            self._end(folder)
            if folder.identity is None and self._how is None:
                # Only what is there says of what kind its drive is.
                folder.polled = is_remote(folder.root)
            folder.identity, folder.next_walk = identity, now
            if not folder.polled:
                self._listen(folder)
        if folder.polled and now >= folder.next_poll:
            self._poll(folder)
            folder.next_poll = time.monotonic() + self._poll_seconds
        if now >= folder.next_walk:
            folder.next_walk = math.inf
            yield Settled(folder.root)
            # Unless `again` has brought it forward. A walk may take longer than lies between two.
            if folder.next_walk == math.inf:
                folder.next_walk = time.monotonic() + self._walk_seconds

    def _end(self, folder: _Folder) -> None:
        folder.stop.set()
        folder.stop, folder.identity, folder.seen = threading.Event(), None, None

    def _listen(self, folder: _Folder) -> None:
        stop, begun = folder.stop, threading.Event()
        thread = threading.Thread(target=self._hear, args=(folder, stop, begun), name="watch", daemon=True)
        thread.start()
        # The walk that follows begins when nothing can be missed any more.
        begun.wait(60)

    def _hear(self, folder: _Folder, stop: threading.Event, begun: threading.Event) -> None:
        import watchfiles

        try:
            for changes in watchfiles.watch(
                folder.root,
                watch_filter=None,
                debounce=400,
                step=100,
                stop_event=stop,
                rust_timeout=500,
                yield_on_timeout=True,
                raise_interrupt=False,
                force_polling=False,
                ignore_permission_denied=True,
            ):
                begun.set()
                if stop.is_set():
                    return
                if (watchfiles.Change.deleted, folder.root) in changes:
                    # Its successor may have the very same number.
                    self._events.put((folder, []))
                    return
                if changes:
                    self._events.put((folder, [path for _, path in changes]))
        except (OSError, RuntimeError, UnicodeError):
            # The folder went, there are more folders in it than the system lets one listen to, or its name is no UTF-8.
            if not stop.is_set():
                self._events.put((folder, None))
        finally:
            begun.set()

    def _take_events(self) -> Iterator[Silent]:
        while True:
            try:
                folder, paths = self._events.get_nowait()
            except Empty:
                return
            if paths is None:
                if _identity(folder.root) is not None:
                    # A walk behind the first listing: what came before that is in none of them.
                    folder.polled, folder.next_walk = True, 0.0
                    yield Silent(folder.root)
                continue
            if not paths:
                folder.identity = None
            for path in paths:
                self._notice(folder, path)

    def _notice(self, folder: _Folder, path: str) -> None:
        # What was named to be watched is, wherever it lies.
        left_out = path.startswith(self._leave_out) and not folder.root.startswith(self._leave_out)
        if left_out or any(map(is_left_out, Path(path[len(folder.root) :]).parts)):
            return
        look = _look(path)
        if look is None:
            # Gone: its folder is looked at, where it is still there.
            while (path := os.path.dirname(path)) and not os.path.isdir(path):  # noqa: PTH112
                pass
            if path.startswith(folder.root):
                self._waiting.setdefault(path, (folder, (0, 0), time.monotonic()))
        elif os.path.isdir(path):  # noqa: PTH112
            # Moved in as a whole, of which one event tells.
            for file in walk(path, on_problem=lambda *_: None):
                self._waiting.setdefault(file.path, (folder, (file.size, file.mtime_ns), time.monotonic()))
        else:
            self._waiting[path] = (folder, look, time.monotonic())

    def _poll(self, folder: _Folder) -> None:
        seen = {file.path: (file.size, file.mtime_ns) for file in walk(folder.root, on_problem=lambda *_: None)}
        if folder.seen is not None:
            for path, look in seen.items():
                if folder.seen.get(path) != look:
                    self._notice(folder, path)
            for path in folder.seen.keys() - seen.keys():
                self._notice(folder, path)
        folder.seen = seen

    def _at_rest(self) -> Iterator[Settled]:
        now = time.monotonic()
        ready: dict[str, list[str]] = {}
        for path, (folder, look, since) in list(self._waiting.items()):
            if now - since < self._still_seconds:
                continue
            current = _look(path)
            if current is None:
                del self._waiting[path]
                self._notice(folder, path)
            elif current == look or os.path.isdir(path):  # noqa: PTH112
                del self._waiting[path]
                ready.setdefault(folder.root, []).append(path)
            else:
                self._waiting[path] = (folder, current, now)
        for root, paths in ready.items():
            yield Settled(root, tuple(sorted(paths)))


def is_remote(path: str) -> bool:
    """Whether a folder lies on a file system of which no events come, as far as Linux tells; elsewhere False."""
    try:
        lines = Path("/proc/self/mounts").read_bytes().splitlines()
    except OSError:
        return False
    real, best, kind = os.path.realpath(path), "", ""
    for line in lines:
        fields = line.split(b" ")
        if len(fields) < 3:
            continue
        # The kernel writes blanks and the like in mount points as \040.
        place = os.fsdecode(fields[1].decode("unicode_escape").encode("latin-1", "replace"))
        if real == place or real.startswith(os.path.join(place, "")):
            # Of two at the same place the later one is seen.
            best, kind = (place, fields[2].decode("ascii", "replace")) if len(place) >= len(best) else (best, kind)
    return kind in _REMOTE or kind.startswith(_REMOTE_PREFIXES)


def _identity(root: str) -> tuple[int, int] | None:
    try:
        status = os.stat(root)
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None


def _look(path: str) -> _Look | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns
