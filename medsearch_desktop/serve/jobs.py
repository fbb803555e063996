"""What runs beside the answering, ingests above all: one at a time, in the order in which they were asked for.

Sending, which changes nothing in the library, has a turn of its own: it does not wait for an ingest of hours.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from medsearch_desktop.errors import MedSearchError, NotFoundError, RequestError, ServeError
from medsearch_desktop.health import SAMPLE, HealthReport, RepairSummary
from medsearch_desktop.outgoing import SendSummary
from medsearch_desktop.records import IngestEvent, IngestSummary, MatchCurve, RereadSummary
from medsearch_desktop.sending import Sent
from medsearch_desktop.serve.commands import tell_where
from medsearch_desktop.serve.idle import Activity, Idle
from medsearch_desktop.stations import Stations

if TYPE_CHECKING:
    from medsearch_desktop.library import Library

MOST_WAITING = 100
# Jobs that have ended are remembered for whoever asks late.
MOST_ENDED = 100
# Of so many jobs of sending is remembered what became of each file.
MOST_SENDINGS = 10
# Reports of which a job of reading again tells what has changed.
MOST_TOLD = 20


class JobKind(StrEnum):
    """What a job does."""

    INGEST = "ingest"
    RETRY = "retry"
    CALIBRATE = "calibrate"
    REPROCESS = "reprocess"
    VERIFY = "verify"
    REPAIR = "repair"
    SEND = "send"


class BegunBy(StrEnum):
    """Who asked for a job: somebody, or the library's owner that keeps it current."""

    USER = "user"
    WATCH = "watch"
    RECEIVE = "receive"


class JobState(StrEnum):
    """How far a job is; `STOPPED` is one that was cancelled: the same job again goes on from there."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


ENDED = frozenset({JobState.DONE, JobState.FAILED, JobState.STOPPED})
Summary = IngestSummary | RereadSummary | MatchCurve | HealthReport | RepairSummary | SendSummary


class _StoppedError(Exception):
    """Ends the reading of reports between two batches."""


@dataclass
class Sending:
    """What a job of sending is to send, to which remembered station, and what became of each file so far."""

    station: str
    image_ids: tuple[str, ...]
    results: list[Sent] = field(default_factory=list)

    @property
    def unsent(self) -> tuple[str, ...]:
        """The images that were not taken, or not tried."""
        taken = {sent.name for sent in list(self.results) if sent.ok}
        return tuple(image_id for image_id in self.image_ids if image_id not in taken)


@dataclass
class Job:
    """One job; only the thread that does it writes to it, any may read. Times are Unix seconds, 0 for not yet.

    `metadata_only` is of ingests, `dry_run` and `everything` are of reading reports again, `sample` and `files` of
    looking the library over. `changed_reports` counts those that this has changed; the summary holds the first of them.
    """

    job_id: str
    kind: JobKind
    paths: tuple[str, ...]
    metadata_only: bool
    created: float
    dry_run: bool = False
    everything: bool = False
    within: str = ""
    begun_by: BegunBy = BegunBy.USER
    sample: int = SAMPLE
    files: bool = False
    state: JobState = JobState.WAITING
    started: float = 0.0
    ended: float = 0.0
    event: IngestEvent | None = None
    summary: Summary | None = None
    sending: Sending | None = None
    changed_reports: int = 0
    error: MedSearchError | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def place(self) -> str:
        """The folder that an ingest is of."""
        return self.within or next(iter(self.paths), "")


class Jobs:
    """The jobs of one library and the threads that do them; safe to use from several threads."""

    def __init__(self, library: Library, stations: Stations | None = None) -> None:
        self._library = library
        self.stations = stations or Stations()
        self._jobs: dict[str, Job] = {}
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self.closing = threading.Event()
        self.activity = Activity()
        self._idle = Idle(library, self.activity, after=library.config.compact_idle)
        self._sends: SimpleQueue[Job | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name="jobs"),
            threading.Thread(target=self._work_sends, name="sending"),
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self,
        kind: JobKind,
        paths: Sequence[str] = (),
        *,
        metadata_only: bool = False,
        dry_run: bool = False,
        everything: bool = False,
        within: str = "",
        begun_by: BegunBy = BegunBy.USER,
        sample: int = SAMPLE,
        files: bool = False,
        sending: Sending | None = None,
    ) -> Job:
        """Put a job at the end of the queue and return it. Raises RequestError when too many wait."""
        job = Job(
            job_id=uuid.uuid4().hex,
            kind=kind,
            paths=tuple(paths),
            metadata_only=metadata_only,
            created=time.time(),
            dry_run=dry_run,
            everything=everything,
            within=within,
            begun_by=begun_by,
            sample=sample,
            files=files,
            sending=sending,
        )
        with self._lock:
            if self.closing.is_set():
                raise RequestError("the server is closing")
            if sum(each.state not in ENDED for each in self._jobs.values()) >= MOST_WAITING:
                raise RequestError(f"{MOST_WAITING} jobs wait already", remedy="Wait until some have ended")
            ended = [each for each in self._jobs.values() if each.state in ENDED]
            for old in ended[: max(0, len(ended) - MOST_ENDED)]:
                del self._jobs[old.job_id]
            if begun_by is not BegunBy.USER:
                # One every few seconds, for months: they leave the others their room.
                for old in ended:
                    if old.begun_by is begun_by and old.place == job.place:
                        self._jobs.pop(old.job_id, None)
            for old in [each for each in ended if each.sending is not None][:-MOST_SENDINGS]:
                self._jobs.pop(old.job_id, None)
            self._jobs[job.job_id] = job
        (self._queue if sending is None else self._sends).put(job)
        return job

    def all(self) -> list[Job]:
        """Return every job that is remembered, the oldest first."""
        with self._lock:
            return list(self._jobs.values())

    def get(self, job_id: str) -> Job:
        """Return one job. Raises NotFoundError."""
        with self._lock:
            job = self._jobs.get(job_id)
        if job is None:
            raise NotFoundError("there is no such job", item=job_id)
        return job

    def cancel(self, job_id: str) -> Job:
        """Tell a job to stop: one that runs ends after the files or reports in hand, which are kept. Raises likewise.

        Measuring the match meter, a minute at most, goes on to its end.
        """
        job = self.get(job_id)
        job.stop.set()
        return job

    def begin_closing(self) -> None:
        """Tell every job to stop and take no more; returns at once, also from a signal handler."""
        self.closing.set()
        for job in list(self._jobs.values()):
            job.stop.set()

    def close(self) -> None:
        """Stop all jobs and wait until the one in hand has written what it has."""
        self.begin_closing()
        self._queue.put(None)
        self._sends.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        self._index_regions()
        while (job := self._next()) is not None:
            self._take(job, after=self._index_regions)
            self._idle.look_soon()

    def _work_sends(self) -> None:
        while (job := self._sends.get()) is not None:
            self._take(job)

    def _take(self, job: Job, *, after: Callable[[], None] = lambda: None) -> None:
        if self.closing.is_set():
            job.stop.set()
        with self.activity.going_on():
            if not job.stop.is_set():
                job.state, job.started = JobState.RUNNING, time.time()
                self._run(job)
            else:
                job.ended, job.state = time.time(), JobState.STOPPED
            after()

    def _next(self) -> Job | None:
        """Wait for the next job; meanwhile look after the library. None at the end."""
        while True:
            try:
                return self._queue.get(timeout=self._idle.seconds_between_looks)
            except Empty:
                if not self.closing.is_set():
                    self._idle.tend()

    def _index_regions(self) -> None:
        """Make new images findable by region while no job waits; what is left is done after the next one."""
        try:
            self._library.index_regions(stop=lambda: self.closing.is_set() or not self._queue.empty())
        except Exception as error:  # noqa: BLE001 - the thread has to live for the jobs that follow
            tell_where(error)

    def _run(self, job: Job) -> None:
        state = JobState.FAILED
        try:
            job.summary = self._do(job)
            state = JobState.STOPPED if _was_stopped(job) else JobState.DONE
        except _StoppedError:
            state = JobState.STOPPED
        except MedSearchError as error:
            job.error = error
        except Exception as error:  # noqa: BLE001 - the thread has to live for the jobs that follow
            tell_where(error)
            job.error = ServeError("something went wrong inside", remedy="The server's error output says where")
        # The state last: whoever sees a job ended finds its outcome there.
        job.ended = time.time()
        job.state = state

    def _do(self, job: Job) -> Summary:
        def note(event: IngestEvent) -> None:
            job.event = event

        match job.kind:
            case JobKind.INGEST:
                return self._library.ingest(
                    job.paths, metadata_only=job.metadata_only, on_event=note, stop=job.stop, within=job.within
                )
            case JobKind.RETRY:
                return self._library.retry_failures(on_event=note, stop=job.stop)
            case JobKind.CALIBRATE:
                return self._library.calibrate()
            case JobKind.REPROCESS:
                return self._read_again(job)
            case JobKind.VERIFY:
                return self._library.health.verify(
                    sample=job.sample, files=job.files, on_progress=_steps_of(job), stop=job.stop
                )
            case JobKind.REPAIR:
                return self._library.health.repair(files=job.files, on_progress=_steps_of(job), stop=job.stop)
            case JobKind.SEND:
                return self._send(job)

    def _send(self, job: Job) -> SendSummary:
        assert job.sending is not None
        began, sending = time.monotonic(), job.sending
        line = self.stations.get(sending.station).line()
        total, taken, settled = len(sending.image_ids), 0, 0
        job.event = IngestEvent("sent", total=total)
        for sent in self._library.outgoing.send(line, sending.image_ids, stop=job.stop):
            sending.results.append(sent)
            settled, taken = settled + 1, taken + sent.ok
            seconds = time.monotonic() - began
            job.event = IngestEvent(
                "sent", total=total, settled=settled, images=taken, failed=settled - taken, seconds=seconds
            )
        return SendSummary(sending.station, taken, settled - taken, total - settled, time.monotonic() - began)

    def _read_again(self, job: Job) -> RereadSummary:
        began = time.monotonic()

        def note(done: int, total: int) -> None:
            seconds = time.monotonic() - began
            job.event = IngestEvent("report", total=total, settled=done, reports=done, seconds=seconds)
            # What was read so far is written.
            if job.stop.is_set() and done < total:
                raise _StoppedError

        summary = self._library.reprocess(dry_run=job.dry_run, everything=job.everything, on_report=note)
        job.changed_reports = len(summary.reports)
        return replace(summary, reports=summary.reports[:MOST_TOLD])


def _steps_of(job: Job) -> Callable[[str, int, int], None]:
    """Return what notes in a job that `done` of `total` of something are done."""
    began = time.monotonic()

    def note(what: str, done: int, total: int) -> None:
        job.event = IngestEvent(what, total=total, settled=done, seconds=time.monotonic() - began)

    return note


def _was_stopped(job: Job) -> bool:
    """Whether a job that came to an end did so before all was done."""
    match job.summary:
        case IngestSummary() | HealthReport():
            return job.summary.stopped
        case RepairSummary():
            return job.stop.is_set()
        case SendSummary():
            return job.summary.left > 0
        case _:
            return False
