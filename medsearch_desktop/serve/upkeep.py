"""What a server does by itself to keep its library current: it watches folders, and takes in what is sent.

Which folders, and whether and how it receives, is kept with the library. The folders are watched in a thread each, so
that a drive that hangs holds up nobody else; what they find is taken in by jobs, as whatever else is. A job that its
user stops pauses the folder that it is of, until it is told to go on or the server begins anew.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from medsearch_desktop.errors import MedSearchError, NotFoundError, RequestError, ServeError, SourceError
from medsearch_desktop.records import IngestSummary
from medsearch_desktop.serve.arrivals import Arrivals, Listening, take_in
from medsearch_desktop.serve.commands import tell_where
from medsearch_desktop.serve.jobs import ENDED, BegunBy, JobKind, Jobs, JobState
from medsearch_desktop.serve.keeping import coarsened, watch_until
from medsearch_desktop.source.folder import absolute_root
from medsearch_desktop.source.receiver import Counts, Receiver
from medsearch_desktop.source.spool import Spool
from medsearch_desktop.source.watch import Away, Silent, Watcher

if TYPE_CHECKING:
    from medsearch_desktop.library import Library

MOST_WATCHED = 100
_TOLD = ("indexed", "updated", "removed", "duplicates", "failed")
# After a failure, a full disk say, all of a folder is looked at again, which may take long.
_SECONDS_AFTER_FAILURE = 30.0
_SECONDS_BETWEEN_TRIES = 10.0
_SECONDS_TO_BEGIN = 15.0
_SECONDS_TO_END = 20.0
INSIDE = ServeError("something went wrong inside", remedy="The server's error output says where")


class Keeping(StrEnum):
    """How a watched folder, or receiving, stands.

    `RESTING` is what this server was not begun to do, `PAUSED` what its user stopped, `FAILED` what does not go on
    because of an error; receiving is then tried again.
    """

    OFF = "off"
    RESTING = "resting"
    BEGINNING = "beginning"
    WATCHING = "watching"
    POLLING = "polling"
    LISTENING = "listening"
    AWAY = "away"
    PAUSED = "paused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class WatchedFolder:
    """A watched folder at one moment; `counts` are files since the launch, `taken_at` is Unix time or 0 for not yet."""

    path: str
    state: Keeping
    job_id: str = ""
    taken_at: float = 0.0
    counts: tuple[tuple[str, int], ...] = ()
    error: MedSearchError | None = None


@dataclass(frozen=True, slots=True)
class Receiving:
    """Receiving at one moment; `port` is the one listened at, `waiting` counts files that are not yet taken in."""

    listening: Listening
    state: Keeping
    port: int
    counts: Counts
    waiting: int
    taken: WatchedFolder
    room: bool
    error: MedSearchError | None = None


class _Batches:
    """Has batches of one folder taken in by jobs, one after the other; `take` is for one thread."""

    def __init__(self, jobs: Jobs, begun_by: BegunBy, stop: threading.Event) -> None:
        self._jobs = jobs
        self._begun_by = begun_by
        self._stop = stop
        self.going = threading.Event()
        self.going.set()
        self.job_id = ""
        self.taken_at = 0.0
        self.counts: Counter[str] = Counter()
        self.error: MedSearchError | None = None

    def take(self, root: str, paths: Sequence[str] = ()) -> bool:
        """Bring the library up to date with `paths` in `root`, or all of it; return False to be tried again."""
        chosen, within = coarsened(root, paths)
        try:
            job = self._jobs.submit(JobKind.INGEST, chosen, within=within, begun_by=self._begun_by)
        except RequestError as error:
            return self._failed(error)
        self.job_id = job.job_id
        while job.state not in ENDED:
            # Switched off, it goes on by itself, as a job that was asked for would.
            if self._stop.wait(0.1):
                return True
        self.job_id = ""
        if job.state is JobState.FAILED:
            return self._failed(job.error or INSIDE)
        if job.state is JobState.STOPPED:
            return self._paused()
        self.error = None
        if isinstance(job.summary, IngestSummary):
            row = job.summary.as_json()
            found = Counter({name: int(row[name]) for name in _TOLD if row[name]})
            self.counts += found
            self.taken_at = time.time()
        return True

    def _failed(self, error: MedSearchError) -> bool:
        self.error = error
        self._stop.wait(_SECONDS_AFTER_FAILURE)
        return False

    def _paused(self) -> bool:
        self.going.clear()
        while not self._stop.is_set():
            if self.going.wait(0.2):
                return False
        return True


class _Thread:
    """A thread that does one thing until it is told to stop."""

    def __init__(self, name: str, jobs: Jobs, begun_by: BegunBy) -> None:
        self.stop = threading.Event()
        self.batches = _Batches(jobs, begun_by, self.stop)
        self.state = Keeping.BEGINNING
        self.error: MedSearchError | None = None
        # A drive that hangs must not hold up the end of the program.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self, seconds: float) -> None:
        self.stop.set()
        self._thread.join(max(0.0, seconds))

    def standing(self) -> Keeping:
        return self.state if self.batches.going.is_set() else Keeping.PAUSED

    def _run(self) -> None:
        raise NotImplementedError


class _Watch(_Thread):
    """One folder that is watched."""

    def __init__(self, path: str, library: Path, jobs: Jobs) -> None:
        super().__init__("watched-folder", jobs, BegunBy.WATCH)
        self.path = path
        self._library = library

    def seen(self) -> WatchedFolder:
        """Return how it stands."""
        batches = self.batches
        return WatchedFolder(
            self.path,
            self.standing(),
            batches.job_id,
            batches.taken_at,
            tuple(sorted(batches.counts.items())),
            self.error or batches.error,
        )

    def _run(self) -> None:
        try:
            watcher = Watcher([self.path], leave_out=[str(self._library)], wait=True)

            def heard(change: Away | Silent) -> None:
                self.state = Keeping.AWAY if isinstance(change, Away) and change.away else how()

            def how() -> Keeping:
                return Keeping.POLLING if watcher.polled else Keeping.WATCHING

            def take(root: str, paths: Sequence[str]) -> bool:
                self.state = how()
                return self.batches.take(root, paths)

            watch_until(self.stop, watcher, take=take, tell=heard)
        except MedSearchError as error:
            self.error, self.state = error, Keeping.FAILED
        except Exception as error:  # noqa: BLE001 - others are still watched; this one says that it is not
            tell_where(error)
            self.error, self.state = INSIDE, Keeping.FAILED


class _Reception(_Thread):
    """The receiver, tried again and again where it cannot listen."""

    def __init__(self, listening: Listening, folder: Path, jobs: Jobs) -> None:
        super().__init__("receiving", jobs, BegunBy.RECEIVE)
        self.listening = listening
        self.arrivals = Arrivals()
        self.counts = Counts()
        self.port = listening.port
        self.begun = threading.Event()
        self._folder = folder

    def _run(self) -> None:
        while not self.stop.is_set():
            try:
                self._receive()
            except MedSearchError as error:
                self.error = error
            except Exception as error:  # noqa: BLE001 - it is tried again; the server goes on
                tell_where(error)
                self.error = INSIDE
            if self.error is not None:
                self.state = Keeping.FAILED
                self.begun.set()
                self.stop.wait(_SECONDS_BETWEEN_TRIES)

    def _receive(self) -> None:
        spool = Spool(self._folder, reserve_bytes=self.listening.reserve_mb << 20)
        with Receiver(spool, self.listening.reception(), self.arrivals.add, counts=self.counts) as receiver:
            self.port, self.error, self.state = receiver.port, None, Keeping.LISTENING
            self.begun.set()
            take_in(spool, self.arrivals, stop=self.stop, take=self.batches.take)


class Upkeep:
    """The watched folders and the receiver of one library; safe to use from several threads.

    With `begin`, what was switched on by an earlier launch is on at once; without, it rests until it is switched on
    again.
    """

    def __init__(self, library: Library, jobs: Jobs, *, begin: bool = False) -> None:
        self._library = library
        self._jobs = jobs
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._watches: dict[str, _Watch] = {}
        self._reception: _Reception | None = None
        if begin:
            for path in library.standing.watched():
                self._watch(path)
            kept = library.standing.reception()
            if kept.get("on"):
                self._reception = self._begun(Listening.from_json(kept))

    @property
    def spool(self) -> Path:
        """The folder in which what is received comes to rest."""
        return self._library.path / "received"

    def watched(self) -> list[WatchedFolder]:
        """Return the watched folders by path."""
        marked = self._library.standing.watched()
        with self._lock:
            kept = dict(self._watches)
        return [kept[path].seen() if path in kept else WatchedFolder(path, Keeping.RESTING) for path in marked]

    def watch(self, path: str) -> WatchedFolder:
        """Keep the library current with a folder, in this launch and the next; one that is paused goes on.

        Raises SourceError for what is no folder, RequestError for one too many.
        """
        root = absolute_root(path)
        # One that is known and away is waited for.
        if os.path.exists(root) and not os.path.isdir(root):  # noqa: PTH110, PTH112 - paths stay strings
            raise SourceError("is no folder", item=root, remedy="Files are looked at by `Look again`")
        with self._lock:
            self._refuse_when_closing()
            marked = self._library.standing.watched()
            if root not in marked and len(marked) >= MOST_WATCHED:
                raise RequestError(
                    f"{MOST_WATCHED} folders are watched already", remedy="Watch one above several of them"
                )
            self._library.standing.watch(root)
            watch = self._watches.get(root)
            if watch is None or watch.state is Keeping.FAILED:
                watch = self._watch(root)
            watch.batches.going.set()
            return watch.seen()

    def unwatch(self, path: str) -> WatchedFolder:
        """Keep the library current with a folder no more. Raises NotFoundError for one that is not watched."""
        root = absolute_root(path)
        with self._lock:
            if root not in self._library.standing.watched():
                raise NotFoundError("this folder is not watched", item=root)
            self._library.standing.unwatch(root)
            watch = self._watches.pop(root, None)
        if watch is not None:
            watch.stop.set()
        return WatchedFolder(root, Keeping.OFF)

    def receiving(self) -> Receiving:
        """Return how receiving stands."""
        with self._lock:
            reception = self._reception
        if reception is None:
            kept = self._library.standing.reception()
            listening = Listening.from_json(kept)
            state = Keeping.RESTING if kept.get("on") else Keeping.OFF
            nothing = WatchedFolder(str(self.spool), state)
            return Receiving(listening, state, listening.port, Counts(), 0, nothing, room=True)
        batches, state = reception.batches, reception.standing()
        taken = WatchedFolder(
            str(self.spool),
            state,
            batches.job_id,
            batches.taken_at,
            tuple(sorted(batches.counts.items())),
            batches.error,
        )
        return Receiving(
            reception.listening,
            state,
            reception.port,
            reception.counts,
            len(reception.arrivals),
            taken,
            room=_has_room(self.spool, reception.listening.reserve_mb << 20),
            error=reception.error,
        )

    def receive(self, listening: Listening) -> Receiving:
        """Receive in that way, in this launch and the next; one that is paused goes on.

        Raises ConfigError, SourceError where it cannot listen; it is then as it was before.
        """
        listening.reception()
        with self._lock:
            self._refuse_when_closing()
            before = self._reception
            if before is not None and before.listening == listening and before.state is Keeping.LISTENING:
                before.batches.going.set()
                return self.receiving()
            if before is not None:
                before.end(_SECONDS_TO_END)
                self._reception = None
            reception = self._begun(listening)
            if not reception.begun.wait(_SECONDS_TO_BEGIN) or reception.error is not None:
                reception.end(_SECONDS_TO_END)
                if before is not None:
                    self._reception = self._begun(before.listening)
                raise reception.error or ServeError("it did not begin in time", remedy="Try again")
            self._reception = reception
            self._library.standing.keep_reception({**listening.as_json(), "on": True})
        return self.receiving()

    def receive_no_more(self) -> Receiving:
        """Receive nothing any more; how it was done is kept for the next time. What has come is kept, too."""
        with self._lock:
            kept = self._library.standing.reception()
            if kept.get("on"):
                self._library.standing.keep_reception({**kept, "on": False})
            reception, self._reception = self._reception, None
        if reception is not None:
            reception.end(_SECONDS_TO_END)
        return self.receiving()

    def begin_closing(self) -> None:
        """Tell all to stop; returns at once, also from a signal handler."""
        self._closing.set()
        for each in list(self._watches.values()):
            each.stop.set()
        reception = self._reception
        if reception is not None:
            reception.stop.set()

    def close(self) -> None:
        """Stop all and wait for it, though not for a drive that hangs."""
        self.begin_closing()
        end = time.monotonic() + _SECONDS_TO_END
        with self._lock:
            threads = [*self._watches.values(), *([self._reception] if self._reception is not None else [])]
        for each in threads:
            each.end(end - time.monotonic())

    def _refuse_when_closing(self) -> None:
        if self._closing.is_set():
            raise RequestError("the server is closing")

    def _watch(self, path: str) -> _Watch:
        watch = self._watches[path] = _Watch(path, self._library.path, self._jobs)
        watch.begin()
        return watch

    def _begun(self, listening: Listening) -> _Reception:
        reception = _Reception(listening, self.spool, self._jobs)
        reception.begin()
        return reception


def _has_room(folder: Path, reserve_bytes: int) -> bool:
    try:
        return shutil.disk_usage(folder).free > reserve_bytes
    except OSError:
        return False
