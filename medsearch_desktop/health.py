"""Is all of a library there, and does it agree with itself: looking it over, and setting right what is not.

`verify` holds every record against its file, the records against each other and both indexes against the
database, and writes nothing. `repair` drops what refers to nothing, makes faulty indexes anew and marks files
whose records are broken to be read again; labels and corrections, which nothing can make again, it never touches.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medsearch_desktop.conveyor import look_ahead
from medsearch_desktop.embeddings import Embeddings
from medsearch_desktop.errors import LibraryError
from medsearch_desktop.source.presence import is_there, problem_of
from medsearch_desktop.store.audit import RELATIONS, Audit
from medsearch_desktop.store.backup import Backup, OnProgress, restore, untold, write_backup
from medsearch_desktop.store.catalogue import Catalogue, FileRow
from medsearch_desktop.store.compaction import Compaction, compact, compact_open
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.fulltext import FulltextIndex, everything
from medsearch_desktop.store.intake import Intake
from medsearch_desktop.store.thumbnails import Thumbnails
from medsearch_desktop.store.vectors import VectorIndex

# What works on a library that nobody has open, for those who import no room.
__all__ = ["Backup", "Compaction", "Fault", "Health", "HealthReport", "RepairSummary", "compact", "restore"]

SAMPLE = 1000
# Of a large library in ruins, this many faults are named; all are counted.
MOST_LISTED = 1000
_QUERIES, _NEAREST, _LOWEST_RECALL = 100, 10, 0.9
_FILES_PER_EVENT = 1000
# Indexing regions lets go after some images; an ingest does not.
_SECONDS_FOR_ITS_TURN = 5.0

REPAIR = "`medsearch repair` sets it right, then `medsearch ingest FOLDER` reads what is missing"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: its kind in one word, the item, what is the matter, what to do."""

    kind: str
    item: str
    message: str
    remedy: str


@dataclass
class HealthReport:
    """What `verify` looked at and found; `checked` and `kinds` count, `notes` say what is as it may be.

    `faults` names up to 1,000 of those that `kinds` counts. `recall` is that of the approximate image search against
    the exact one, 1.0 where there is no graph. A report that was `stopped` has not seen everything.
    """

    checked: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    recall: float = 1.0
    seconds: float = 0.0
    stopped: bool = False

    @property
    def ok(self) -> bool:
        """Whether everything was looked at and nothing is wrong."""
        return not self.kinds and not self.stopped

    def add(self, kind: str, item: str, message: str, remedy: str, *, count: int = 1) -> None:
        """Count a fault, and name it while there are few."""
        self.kinds[kind] += count
        if len(self.faults) < MOST_LISTED:
            self.faults.append(Fault(kind, item, message, remedy))

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "ok": self.ok,
            "stopped": self.stopped,
            "seconds": round(self.seconds, 3),
            "checked": dict(self.checked),
            "faults": sum(self.kinds.values()),
            "kinds": dict(self.kinds),
            "listed": [{"kind": f.kind, "item": f.item, "message": f.message, "remedy": f.remedy} for f in self.faults],
            "recall": round(self.recall, 4),
            "notes": list(self.notes),
        }


@dataclass
class RepairSummary:
    """What `repair` did: `mended` counts items by rule, `requeued` the files that the next ingest reads again."""

    mended: Counter[str] = field(default_factory=Counter)
    requeued: int = 0
    rebuilt: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "mended": dict(self.mended),
            "requeued": self.requeued,
            "rebuilt": list(self.rebuilt),
            "seconds": round(self.seconds, 3),
        }


class Health:
    """Looks after one library that is open. `refresh` teaches its indexes what they have missed."""

    def __init__(
        self,
        *,
        database: Database,
        catalogue: Catalogue,
        intake: Intake,
        thumbnails: Thumbnails,
        embeddings: Embeddings,
        fulltext: FulltextIndex,
        writing: threading.Lock,
        refresh: Callable[[], None],
        threads: int,
    ) -> None:
        self._database = database
        self._audit = Audit(database)
        self._catalogue = catalogue
        self._intake = intake
        self._thumbnails = thumbnails
        self._embeddings = embeddings
        self._fulltext = fulltext
        self._writing = writing
        self._refresh = refresh
        self._threads = threads

    def verify(
        self,
        *,
        sample: int = SAMPLE,
        files: bool = False,
        on_progress: OnProgress | None = None,
        stop: threading.Event | None = None,
    ) -> HealthReport:
        """Look the library over and return what was found; nothing is written.

        The whole database is read; where a part of it cannot be, that is all that is said.
        Every file is looked for by size and time; with `files` it is read, and its SHA-256 compared. `sample` is how
        many documents, vectors and thumbnails are compared value by value. `on_progress` is told (what, done, total)
        now and then; setting `stop` from another thread ends it. Memory does not grow with the library but for some
        16 bytes an image and document. Raises LibraryError while an ingest is under way.
        """
        report, began, stop = HealthReport(), time.monotonic(), stop or threading.Event()
        tell = on_progress or untold
        with self._undisturbed():
            tell("records", 0, 4)
            for table, error in self._audit.unreadable(stop):
                report.add("database", f"table {table}", error.message, error.remedy)
            steps = (self._relations, self._text, self._images, self._pictures)
            # What cannot be read cannot be held against anything.
            for done, step in enumerate(() if report.kinds else steps):
                if stop.is_set():
                    break
                tell("records", done, 4)
                step(report, sample)
        if report.kinds["database"]:
            report.seconds = time.monotonic() - began
            return report
        for row, problem in self._looked_at(self._catalogue.files(), report, files, tell, stop):
            report.add(problem[0], row.path, problem[1], problem[2])
        report.stopped = stop.is_set()
        report.seconds = time.monotonic() - began
        return report

    def repair(
        self, *, files: bool = False, on_progress: OnProgress | None = None, stop: threading.Event | None = None
    ) -> RepairSummary:
        """Set right what `verify` finds and return what was done; the files themselves are never touched.

        With `files` each is read, and one that holds something else than its records say is marked to be read again.
        May be interrupted at any moment and run again. Raises LibraryError while an ingest is under way,
        StorageFullError.
        """
        summary, began, stop = RepairSummary(), time.monotonic(), stop or threading.Event()
        tell = on_progress or untold
        with self._undisturbed():
            before = self._audit.doubted()
            for done, relation in enumerate(RELATIONS):
                tell("records", done, len(RELATIONS))
                if count := self._audit.mend(relation):
                    summary.mended[relation.name] = count
            altered = [
                row.path
                for row, problem in self._looked_at(self._catalogue.files(), HealthReport(), files, tell, stop)
                if problem[0] == "file-altered"
            ]
            self._intake.doubt(altered)
            summary.requeued = self._audit.doubted() - before
            found = HealthReport()
            tell("indexes", 0, 2)
            # What was mended above left no change behind for the indexes to learn from.
            self._text(found, SAMPLE)
            if summary.mended or found.kinds:
                self._fulltext.reset()
                summary.rebuilt.append("text index")
            found = HealthReport()
            tell("indexes", 1, 2)
            self._images(found, SAMPLE)
            if summary.mended or found.kinds:
                self._embeddings.index.reset()
                summary.rebuilt.append("image index")
            self._refresh()
            if not stop.is_set():
                self._embeddings.index.extend_graph()
            if count := self._thumbnails.sweep(self._audit.image_ids()):
                summary.mended["thumbnail-without-image"] = count
        summary.seconds = time.monotonic() - began
        return summary

    def backup(self, target: Path, *, on_progress: OnProgress | None = None) -> Backup:
        """Write a checked copy of the library to a new folder while it is in use. Raises as `write_backup` does."""
        return write_backup(self._database, self._database.file.parent, target, on_progress=on_progress)

    def compact_in_use(self) -> Compaction:
        """Write the database anew where that pays, while it answers; raises LibraryError, StorageFullError."""
        with self._undisturbed():
            return compact_open(self._database, always=False)

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        if not self._writing.acquire(timeout=_SECONDS_FOR_ITS_TURN):
            raise LibraryError("an ingest is under way", remedy="Wait until it has ended, or stop it: it goes on later")
        try:
            yield
        finally:
            self._writing.release()

    def _relations(self, report: HealthReport, _: int) -> None:
        totals = self._catalogue.totals()
        for name in ("images", "vectors", "reports", "studies", "patients"):
            report.checked[name] = getattr(totals, name)
        for relation in RELATIONS:
            count, names = self._audit.broken(relation, most=MOST_LISTED)
            for name in names:
                report.add(relation.name, name, relation.message, REPAIR)
            report.kinds[relation.name] += count - len(names)
        report.kinds = +report.kinds
        for column in self._audit.sequences_behind():
            report.add(
                "numbers-behind",
                column,
                "the next number to be given is in use already",
                "Restore the library from a backup, or ingest into a new one",
            )
        if doubted := self._audit.doubted():
            report.notes.append(f"{doubted} files are to be read again at the next ingest")

    def _text(self, report: HealthReport, sample: int) -> None:
        while True:
            # A correction or a label of this moment may be on its way from one to the other.
            last, found = self._catalogue.last_change(), HealthReport()
            self._compare_text(found, sample, last)
            if not found.kinds or self._catalogue.last_change() == last:
                break
        report.checked += found.checked
        for fault in found.faults:
            report.add(fault.kind, fault.item, fault.message, fault.remedy)

    def _compare_text(self, report: HealthReport, sample: int, last: int) -> None:
        index = self._fulltext
        if index.watermark != last:
            _behind(report, "text index", index.watermark, last)
        held, truth = index.matching(everything()), self._audit.documents()
        report.checked["documents"] = len(truth)
        for numbers, what in ((np.setdiff1d(truth, held), "lacks"), (np.setdiff1d(held, truth), "still has")):
            if len(numbers):
                message = f"{what} {len(numbers)} documents of {len(truth)}"
                report.add("text-index", f"text index, document {numbers[0]}", message, REPAIR)
        both = _some(np.intersect1d(truth, held), sample)
        for start in range(0, len(both), 256):
            block = both[start : start + 256]
            cards = index.cards(block.tolist())
            for document in self._catalogue.documents(block):
                if cards.get(document["doc_no"]) != document["card"]:
                    name = f"text index, document {document['doc_no']}"
                    report.add("text-index", name, "holds something else than the database", REPAIR)
        report.checked["documents compared"] = len(both)

    def _images(self, report: HealthReport, sample: int) -> None:
        index, model_id = self._embeddings.index, self._embeddings.model_id
        last = self._catalogue.last_change()
        if index.watermark != last:
            _behind(report, "image index", index.watermark, last)
        truth = self._audit.vectors(model_id)
        lacking = index.lacks(truth)
        if len(lacking):
            message = f"lacks {len(lacking)} vectors of {len(truth)}"
            report.add("image-index", f"image index, image {lacking[0]}", message, REPAIR)
        if (extra := index.count - (len(truth) - len(lacking))) > 0:
            report.add("image-index", "image index", f"still has {extra} vectors of images that are gone", REPAIR)
        chosen = _some(np.setdiff1d(truth, lacking), sample)
        for numbers, vectors in self._catalogue.vectors(model_id, image_nos=chosen):
            differs = (index.vectors_of(numbers) != vectors).any(axis=1)
            for number in numbers[differs].tolist():
                name = f"image index, image {number}"
                report.add("image-index", name, "holds another vector than the database", REPAIR)
        report.checked["vectors compared"] = len(chosen)
        self._measure_recall(report, index, _some(chosen, _QUERIES))

    def _measure_recall(self, report: HealthReport, index: VectorIndex, numbers: Any) -> None:
        if not len(numbers) or not index.graph_count:
            return
        shares = []
        asked = index.vectors_of(numbers)
        for vector, (exact, _) in zip(asked, index.exact_each(asked, _NEAREST), strict=True):
            near, _ = index.search(vector, _NEAREST)
            shares.append(len(np.intersect1d(exact, near)) / len(exact))
        report.recall = float(np.mean(shares))
        report.checked["approximate searches"] = len(shares)
        if report.recall < _LOWEST_RECALL:
            message = f"finds {100 * report.recall:.0f} % of the {_NEAREST} nearest images"
            report.add("image-index", "image index", message, REPAIR)

    def _pictures(self, report: HealthReport, sample: int) -> None:
        missing = 0
        for rows in self._audit.images(sample=sample):
            report.checked["thumbnails"] += len(rows)
            missing += sum(self._thumbnails.read(image_id) is None for image_id, _ in rows)
        if missing:
            of = report.checked["thumbnails"]
            report.notes.append(f"{missing} of {of} thumbnails are missing; each is drawn anew when it is shown")
        if strays := sum(1 for _ in self._thumbnails.strays(self._audit.image_ids())):
            report.notes.append(f"{strays} thumbnails are of no image; `medsearch repair` removes them")

    def _looked_at(
        self, rows: Iterator[FileRow], report: HealthReport, read: bool, tell: OnProgress, stop: threading.Event
    ) -> Iterator[tuple[FileRow, tuple[str, str, str]]]:
        """Yield each file with what is wrong with it: (kind, message, remedy)."""
        total = self._catalogue.totals().files
        there = {path: is_there(path) for path, _, _ in self._catalogue.roots()}
        for root in sorted(path for path, found in there.items() if not found):
            report.notes.append(f"the folder {root} is away: what was indexed below it was not looked at")

        def look(row: FileRow) -> tuple[FileRow, tuple[str, str, str] | None]:
            away = not there.get(row.root, True) and row.root != row.path
            return row, None if away else problem_of(row.path, row.size, row.mtime_ns, row.sha256 if read else "")

        def until_stopped() -> Iterator[FileRow]:
            for row in rows:
                if stop.is_set():
                    return
                yield row

        def confirmed() -> Iterator[tuple[FileRow, tuple[str, str, str]]]:
            # Without what an ingest has taken up in the meantime.
            still = self._audit.unchanged([row for row, _ in doubtful])
            yield from (each for each in doubtful if each[0].path in still)
            doubtful.clear()

        doubtful: list[tuple[FileRow, tuple[str, str, str]]] = []
        for row, problem in look_ahead(look, until_stopped(), threads=self._threads, ahead=4 * self._threads):
            report.checked["files"] += 1
            if report.checked["files"] % _FILES_PER_EVENT == 0:
                tell("files", report.checked["files"], total)
            if problem is not None:
                doubtful.append((row, problem))
            if len(doubtful) >= _FILES_PER_EVENT:
                yield from confirmed()
        yield from confirmed()


def _behind(report: HealthReport, name: str, watermark: int, last: int) -> None:
    if watermark > last:
        report.add("watermark", name, "is of a later state of the library than its database", REPAIR)
    else:
        message = f"has not learnt the last {last - watermark} changes"
        report.add("watermark", name, message, "Make room on the disk if it is full, then open the library again")


def _some(numbers: Any, most: int) -> Any:
    """Return `most` of the numbers, the same every time, in ascending order."""
    if len(numbers) <= most:
        return numbers
    return np.sort(np.random.default_rng(0).choice(numbers, most, replace=False))
