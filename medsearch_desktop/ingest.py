"""The conveyor from source to store: discover, decode, embed or extract, write.

Worker threads read, decode and draw a bounded number of files ahead; one consumer takes them in
order, feeds the model in batches and commits whole files. Nothing is kept outside the database,
so an ingest that was cut off goes on where it was when it is run again.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.config import Config
from medsearch_desktop.conveyor import read_whole
from medsearch_desktop.courtesy import Courtesy
from medsearch_desktop.errors import (
    LibraryError,
)
from medsearch_desktop.filing import ReportNames, link_reports
from medsearch_desktop.image.embed import ImageEncoder
from medsearch_desktop.image.models import ModelSpec
from medsearch_desktop.quarantine import Quarantine
from medsearch_desktop.records import (
    Correction,
    Failure,
    FileKind,
    IngestEvent,
    IngestSummary,
    Report,
    SourceFile,
)
from medsearch_desktop.report.corrections import apply_corrections
from medsearch_desktop.report.reader import ReportReader
from medsearch_desktop.source.changes import Change, Changes, KnownFile, Verdict
from medsearch_desktop.source.folder import absolute_root, walk_all
from medsearch_desktop.source.known import Contents, Elsewhere, FileTable, FileView
from medsearch_desktop.source.members import Members
from medsearch_desktop.source.opening import exists
from medsearch_desktop.store.catalogue import Catalogue, FileRow
from medsearch_desktop.store.files import Files
from medsearch_desktop.store.intake import DUPLICATE, FAILED, IGNORED, INDEXED, METADATA, Intake, Outcome
from medsearch_desktop.store.joins import Joins
from medsearch_desktop.store.thumbnails import Thumbnails
from medsearch_desktop.work import NO_MEMORY, Work, Worker, refused, unread

# A commit waits for the disk and takes as long as the records of 300 images; this many files or seconds share one.
FILES_PER_COMMIT = 256
HEADERS_PER_COMMIT = 1024
SECONDS_PER_COMMIT = 2.0

OnEvent = Callable[[IngestEvent], None]


@dataclass
class _Run:
    """The state of one ingest."""

    rows: FileView[FileRow]
    changes: Changes
    members: Members
    metadata_only: bool
    on_event: OnEvent | None
    stop: threading.Event
    within: str = ""
    started: float = field(default_factory=time.monotonic)
    committed: float = field(default_factory=time.monotonic)
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    scarce: threading.Lock = field(default_factory=threading.Lock)
    discovered: int = 0
    settled: int = 0
    waiting: list[tuple[Work, Change]] = field(default_factory=list)
    ready: list[tuple[Outcome, str, tuple[bytes | None, ...]]] = field(default_factory=list)
    touched: list[tuple[SourceFile, int]] = field(default_factory=list)

    def count(self, what: str, path: str) -> None:
        self.counts[what] += 1
        self.settled += 1
        self.tell("file", path)

    def fail(self, path: str, reason: str) -> None:
        self.failures.append(Failure(path, reason))
        self.count("failed", path)

    def tell(self, stage: str, path: str = "") -> None:
        if self.on_event is not None:
            self.on_event(
                IngestEvent(
                    stage=stage,
                    path=path,
                    total=self.discovered,
                    settled=self.settled,
                    images=self.counts["images"],
                    reports=self.counts["reports"],
                    failed=self.counts["failed"],
                    seconds=time.monotonic() - self.started,
                )
            )

    def summary(self) -> IngestSummary:
        numbers = ("indexed", "unchanged", "updated", "removed", "duplicates", "failed", "images", "reports", "ignored")
        return IngestSummary(
            discovered=self.discovered,
            seconds=time.monotonic() - self.started,
            failures=tuple(sorted(self.failures, key=lambda failure: failure.path)),
            offline=self.changes.offline,
            stopped=self.stop.is_set(),
            **{name: self.counts[name] for name in numbers},
        )


class Ingest:
    """Brings a library up to date with folders; `model`, `encoder` and `reader` are asked for only when needed.

    `model` and `encoder` may raise ModelError, which stops the ingest at the first image with pixels.
    """

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        files: Files,
        joins: Joins,
        intake: Intake,
        thumbnails: Thumbnails,
        config: Config,
        model_id: str,
        model: Callable[[], ModelSpec],
        encoder: Callable[[], ImageEncoder],
        reader: Callable[[], ReportReader],
        quarantine: Quarantine,
        corrections: Mapping[str, Sequence[Correction]] | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._files = files
        self._joins = joins
        self._intake = intake
        self._thumbnails = thumbnails
        self._config = config
        self._model_id = model_id
        self._encoder = encoder
        self._reader = reader
        self._worker = Worker(config, model=model, reader=reader)
        self._quarantine = quarantine
        self._corrections = corrections or {}
        self._names = ReportNames(catalogue, intake, joins)

    def run(
        self,
        roots: Sequence[str],
        *,
        metadata_only: bool,
        on_event: OnEvent | None,
        stop: threading.Event,
        within: str = "",
    ) -> IngestSummary:
        """Ingest `roots`; see `Library.ingest`. Once `stop` is set, what is in hand is written and the rest left."""
        began_ns = time.time_ns()
        # Of a large library only the files that are to be met are taken into the memory.
        walked = tuple(absolute_root(root) for root in roots)
        table = FileTable(self._files.below(walked), elsewhere=Elsewhere(walked, self._files.at, self._files.holding))
        rows = table.view(FileRow)
        changes = Changes(table.view(_known), roots=roots, scan_started_ns=began_ns)
        members = Members(changes, reopen=frozenset() if metadata_only else frozenset({METADATA}))
        run = _Run(rows, changes, members, metadata_only, on_event, stop, within)
        pending = self._discover(run)
        run.tell("discovered")
        if metadata_only and not stop.is_set():
            # Without digests a moved file is a new one: the old record has to make way first.
            self._remove(run)
        try:
            for work in self._read_ahead(pending, run):
                self._settle(work, run)
                if stop.is_set():
                    break
            self._embed(run, all_of_it=True)
            # Of a folder that was not gone through to its end nothing can be said to be missing.
            if not stop.is_set():
                if not metadata_only:
                    self._remove(run)
                self._adopt_orphans(run)
        finally:
            self._commit(run)
            self._quarantine.settle()
        # Parts of a folder that is kept current are no folders of their own.
        for root in [within] if within else filter(os.path.isdir, run.changes.online):
            self._intake.set_root(root, online=True, scanned_ns=0 if within or stop.is_set() else began_ns)
        for root in () if within else run.changes.offline:
            self._intake.set_root(root, online=False)
        if not self._joins.are_current():
            link_reports(self._catalogue, self._intake, self._joins)
        run.tell("done")
        return run.summary()

    def _discover(self, run: _Run) -> list[SourceFile]:
        def problem(path: str, reason: str) -> None:
            run.changes.blind(path)
            run.discovered += 1
            run.fail(path, reason)

        pending = []
        for file in run.members.among(walk_all(run.changes.online, on_problem=problem), on_problem=problem):
            if run.stop.is_set():
                break
            if file.kind is FileKind.ARCHIVE:
                # Behind its members. It is no file to be counted, unless something is wrong with it.
                run.discovered += file.path in run.members.problems
                pending.append(file)
                continue
            run.discovered += 1
            if run.discovered % 1000 == 0:
                run.tell("discovered")
            if (row := run.rows.get(file.path)) is not None:
                # Given by itself now, it still belongs to the folder that it was found in.
                file = replace(file, root=row.root)
            elif run.within:
                file = replace(file, root=run.within)
            verdict = run.changes.judge(file)
            state = run.rows[file.path].state if file.path in run.rows else ""
            if verdict is None or (state == METADATA and not run.metadata_only):
                pending.append(file)
            else:
                run.count("ignored" if state == IGNORED else "unchanged", file.path)
        return pending

    def _read_ahead(self, files: Sequence[SourceFile], run: _Run) -> Iterator[Work]:
        threads = self._config.thread_count
        read = self._worker.read_header if run.metadata_only else self._worker.read
        known_content = Contents(run.rows.table, but=METADATA)
        ahead = 2 * threads + self._config.batch_size

        def work_on(item: tuple[SourceFile, bytes | None]) -> Work:
            file, data = item
            problem = run.members.problems.get(file.path, "")
            if problem or file.kind is FileKind.ARCHIVE:
                return Work(file, run.members.listed_ns(file.path), reason=problem)
            try:
                try:
                    return read(file, known_content, data)
                except MemoryError:
                    # It may be for what stood beside it: once more, and not two such at a time.
                    with run.scarce:
                        return read(file, known_content, data)
            except MemoryError:
                return unread(file, NO_MEMORY)
            finally:
                run.members.let_go(data)

        def refuse(item: tuple[SourceFile, bytes | None], reason: str) -> Work:
            run.members.let_go(item[1])
            return refused(item[0], reason)

        return self._quarantine.look_ahead(
            Courtesy(self._config, run.stop).through(work_on),
            run.members.with_content(files),
            path_of=lambda item: item[0].path,
            refuse=refuse,
            threads=threads,
            ahead=ahead,
        )

    def _settle(self, work: Work, run: _Run) -> None:
        file, row = work.file, run.rows.get(work.file.path)
        if file.kind is FileKind.ARCHIVE:
            # Its members first: that it is on record says that they all are.
            self._embed(run, all_of_it=True)
            state = FAILED if work.reason else METADATA if run.metadata_only else IGNORED
            self._put(Outcome(file, state, work.checked_ns, reason=work.reason), "", run)
            return
        if work.unread and row is not None:
            # A drive that went away or a bad sector says nothing of what is known: it is tried again next time.
            run.fail(file.path, work.reason)
            return
        if file.kind is FileKind.OTHER and row is not None and row.kind == file.kind and _stands(work, row):
            # Still nothing to index; what it holds instead was never looked at closely.
            self._keep(work, row, run)
            return
        if not file.sha256:
            self._take(work, Change.NEW if row is None else Change.CHANGED, run)
            return
        verdict = run.changes.settle(file)
        self._hand_over(verdict.known, verdict.heir, run)
        if verdict.change is Change.UNCHANGED and row is not None and row.state != METADATA:
            self._keep(work, row, run)
        elif verdict.change is Change.DUPLICATE and not _own_report(work, verdict):
            outcome = Outcome(file, DUPLICATE, work.checked_ns, held_by=self._holder(verdict.other, run))
            self._put(outcome, "duplicates", run)
        elif verdict.change is Change.MOVED:
            before = run.rows.get(verdict.other)
            state, held_by = (before.state, before.held_by) if before is not None else (INDEXED, "")
            self._names.move(verdict.other, file.path)
            what = "ignored" if state == IGNORED else "updated"
            outcome = Outcome(file, state, work.checked_ns, moved_from=verdict.other, held_by=held_by)
            self._put(outcome, what, run)
        else:
            if not work.drawn:
                work = self._worker.draw(file, work.checked_ns, read_whole(file.path, size=file.size))
            self._take(work, verdict.change, run)

    def _keep(self, work: Work, row: FileRow, run: _Run) -> None:
        """Leave the records of a file whose content is as it was; only its times are noted."""
        run.touched.append((work.file, work.checked_ns))
        run.count("ignored" if row.state == IGNORED else "unchanged", work.file.path)
        if len(run.touched) >= HEADERS_PER_COMMIT:
            self._commit(run)

    def _take(self, work: Work, change: Change, run: _Run) -> None:
        if any(tensor is not None for tensor in work.tensors):
            run.waiting.append((work, change))
            self._embed(run, all_of_it=False)
        else:
            self._finish(work, change, tuple(None for _ in work.images), run)

    def _embed(self, run: _Run, *, all_of_it: bool) -> None:
        tensors = [tensor for work, _ in run.waiting for tensor in work.tensors if tensor is not None]
        if not tensors or (len(tensors) < self._config.batch_size and not all_of_it):
            return
        vectors = iter(self._encoder().encode(np.stack(tensors)))
        for work, change in run.waiting:
            own = tuple(None if tensor is None else next(vectors) for tensor in work.tensors)
            self._finish(work, change, own, run)
        run.waiting.clear()

    def _finish(self, work: Work, change: Change, vectors: tuple[NDArray[np.float32] | None, ...], run: _Run) -> None:
        state, what = INDEXED, "updated" if change is Change.CHANGED else "indexed"
        if work.reason:
            state, what = FAILED, "failed"
        elif work.file.kind is FileKind.OTHER:
            state, what = IGNORED, "ignored"
        elif run.metadata_only and not work.reports:
            state = METADATA
        outcome = Outcome(
            work.file,
            state,
            work.checked_ns,
            reason=work.reason,
            images=work.images,
            vectors=vectors,
            reports=tuple(self._named(report, work.file.path) for report in work.reports),
            is_unread=work.is_unread,
        )
        self._put(outcome, what, run, work.thumbnails)

    def _named(self, report: Report, path: str) -> Report:
        report = replace(report, report_id=self._names.name(report, path))
        corrections = self._corrections.get(report.report_id)
        return apply_corrections(report, corrections) if corrections else report

    def _put(self, outcome: Outcome, what: str, run: _Run, thumbnails: tuple[bytes | None, ...] = ()) -> None:
        run.ready.append((outcome, what, thumbnails))
        limit = HEADERS_PER_COMMIT if run.metadata_only else FILES_PER_COMMIT
        if len(run.ready) >= limit or time.monotonic() - run.committed > SECONDS_PER_COMMIT:
            self._commit(run)

    def _version(self, outcomes: Iterable[Outcome]) -> str:
        """Return what has read these reports; where there are none, no reader is loaded to say so."""
        return self._reader().version if any(o.reports and not o.is_unread for o in outcomes) else ""

    def _commit(self, run: _Run) -> None:
        touched, run.touched = run.touched, []
        self._intake.touch(touched)
        ready, run.ready = run.ready, []
        if ready:
            settled = self._intake.write(
                [outcome for outcome, _, _ in ready],
                model_id=self._model_id,
                pipeline_version=self._version(outcome for outcome, _, _ in ready),
            )
            full: LibraryError | None = None
            # After the commit, and before new pictures: an image that comes again has another.
            self._thumbnails.remove(self._intake.take_dropped())
            for outcome, (_, what, pictures) in zip(settled, ready, strict=True):
                # After the commit: a conflicting file must not overwrite the picture of the one that stays.
                # A slice is drawn when it is chosen or asked for; what an earlier content left is not its picture.
                self._thumbnails.remove(image.image_id for image in outcome.images if image.place is not None)
                for image, picture in zip(outcome.images, pictures, strict=bool(outcome.images)):
                    if picture is not None and full is None:
                        try:
                            self._thumbnails.write(image.image_id, picture)
                        except LibraryError as error:
                            # The records are committed all the same, and are to be counted first.
                            full = error
                run.counts["images"] += len(outcome.images)
                run.counts["reports"] += len(outcome.reports)
                if outcome.reason:
                    run.fail(outcome.file.path, outcome.reason)
                elif outcome.state == DUPLICATE:
                    run.count("duplicates", outcome.file.path)
                elif what:
                    run.count(what, outcome.file.path)
            if full is not None:
                raise full
        run.committed = time.monotonic()

    def _hand_over(self, known: KnownFile | None, heir: str, run: _Run) -> bool:
        """Give the records of a content that leaves its path to a duplicate elsewhere."""
        row = run.rows.get(heir)
        if known is None or row is None or row.state != DUPLICATE:
            return False
        file = SourceFile(row.path, row.root, row.size, row.mtime_ns, FileKind(row.kind), row.sha256)
        self._put(Outcome(file, known.state, row.checked_ns, moved_from=known.path), "", run)
        return True

    def _remove(self, run: _Run) -> None:
        gone = []
        for removal in run.changes.finish():
            if not self._hand_over(removal.known, removal.heir, run):
                gone.append(removal.known.path)
            run.counts["removed"] += run.rows[removal.known.path].kind != FileKind.ARCHIVE
        self._commit(run)
        self._intake.remove(gone)
        self._thumbnails.remove(self._intake.take_dropped())

    def _adopt_orphans(self, run: _Run) -> None:
        """Give duplicates records of their own where the file that had them was removed or replaced."""
        self._commit(run)
        if not (run.counts["removed"] or run.counts["updated"]):
            return
        for row in self._catalogue.orphans():
            if not exists(row.path):
                continue
            file = SourceFile(row.path, row.root, row.size, row.mtime_ns, FileKind(row.kind), row.sha256)
            read = self._worker.read_header if run.metadata_only else self._worker.read
            work = read(file, set())
            self._take(work, Change.CHANGED, run)
        self._embed(run, all_of_it=True)

    def _holder(self, path: str, run: _Run) -> str:
        """Return the file that has the records of the content at `path`, which may itself be a duplicate."""
        row = run.rows.get(path)
        return row.held_by if row is not None and row.state == DUPLICATE else path


def _known(
    path: str,
    root: str,
    size: int,
    mtime_ns: int,
    sha256: str,
    kind: str,
    state: str,
    checked_ns: int,
    held_by: str,  # noqa: ARG001
) -> KnownFile:
    return KnownFile(path, root, size, mtime_ns, sha256, state, checked_ns, kind)


def _own_report(work: Work, verdict: Verdict) -> bool:
    """Whether a report of the same words as another is one of its own: normal films read alike.

    Of messages and tables the same content twice is the same report twice.
    """
    if not work.reports or any(report.stated for report in work.reports):
        return False
    own, other = Path(work.file.path), Path(verdict.other)
    return (own.name, own.parent.name) != (other.name, other.parent.name)


def _stands(work: Work, row: FileRow) -> bool:
    """Whether what is known of a file without content to index is still so; a failure by its size and time alone.

    One that is to be tried again has none, and one that could not be read was not looked at.
    """
    if row.state == IGNORED:
        return not work.reason
    same = (work.file.size, work.file.mtime_ns) == (row.size, row.mtime_ns)
    return bool(work.reason) and same and row.checked_ns > 0
