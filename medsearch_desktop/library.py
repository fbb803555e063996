"""A library: the one place where the rooms are put together.

with open_library("~/library", create=True) as library:
    library.ingest(["/archive"])
    answer = library.search("effusion AND NOT pneumothorax", k=10)
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.config import Config, load_config
from medsearch_desktop.embeddings import Embeddings
from medsearch_desktop.errors import LibraryError, NotFoundError, QueryError, StorageFullError
from medsearch_desktop.filing import link_reports
from medsearch_desktop.health import Health
from medsearch_desktop.holdings import Holdings
from medsearch_desktop.image.models import ModelSpec, find_model
from medsearch_desktop.image.preprocess import Display, thumbnail
from medsearch_desktop.ingest import Ingest, OnEvent
from medsearch_desktop.likeness import Likeness
from medsearch_desktop.lists import Lists
from medsearch_desktop.log import Log
from medsearch_desktop.outgoing import Outgoing
from medsearch_desktop.quarantine import REASON, Quarantine
from medsearch_desktop.records import (
    Assertion,
    Bucket,
    Correction,
    Facet,
    Failure,
    HeldModel,
    Hit,
    IngestEvent,
    IngestSummary,
    MatchCurve,
    RereadSummary,
    SearchAnswer,
    Share,
    SwitchEvent,
    VisualAnswer,
)
from medsearch_desktop.reembed import ModelSwitch
from medsearch_desktop.regions import Regions, RegionSummary
from medsearch_desktop.reread import OnReport
from medsearch_desktop.review import Review
from medsearch_desktop.search.aggregate import facets
from medsearch_desktop.search.filters import to_sql
from medsearch_desktop.search.hybrid import fuse
from medsearch_desktop.search.meter import Meters
from medsearch_desktop.search.query import parse
from medsearch_desktop.search.text import make_snippet, matching_documents, search_documents
from medsearch_desktop.search.tree import Tree, split_like
from medsearch_desktop.search.visual import nearest
from medsearch_desktop.source.opening import container_of, exists
from medsearch_desktop.statements import StoredVersion
from medsearch_desktop.store.cards import Card
from medsearch_desktop.store.catalogue import Catalogue, ImageRow, Totals
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.files import Files
from medsearch_desktop.store.fulltext import FulltextIndex
from medsearch_desktop.store.intake import Intake
from medsearch_desktop.store.joins import Joins
from medsearch_desktop.store.marker import DATABASE, FORMAT, MARKER, make_folder, prepare_folder
from medsearch_desktop.store.models import Models
from medsearch_desktop.store.outgoing import OutgoingFiles
from medsearch_desktop.store.reports import StoredReport
from medsearch_desktop.store.stacks import Stacks
from medsearch_desktop.store.standing import Standing
from medsearch_desktop.store.studies import Studies
from medsearch_desktop.store.thumbnails import Thumbnails
from medsearch_desktop.store.vectors import VectorIndex
from medsearch_desktop.volumes import Volumes
from medsearch_desktop.workbench import Region, Workbench

__all__ = ["FORMAT", "MARKER", "Library", "open_library"]

# Ranks that each signal of a mixed question contributes at least; beyond them a document's share is below 1/1000.
FUSION_DEPTH = 1000


def open_library(path: str | os.PathLike[str] | None = None, *, create: bool = False, **settings: Any) -> Library:
    """Open the library at `path`, or the user's own, and return it ready to answer.

    `settings` are those of `medsearch_desktop.config`. With `create`, a library is made where
    there is none. Raises LibraryNotFoundError, LibraryLockedError, LibraryFormatError, ConfigError,
    and ModelMissingError for a new library whose model is not registered.
    """
    config = load_config({**settings, "library": os.fspath(path) if path is not None else None})
    return Library(config, create=create)


class Library:
    """One folder of everything known; this process is its only owner until `close`.

    May be shared between threads: questions are answered while one ingests, corrects or labels. What
    writes takes turns, so a second `ingest` waits for the first.
    """

    def __init__(self, config: Config, *, create: bool = False) -> None:
        self.config = config
        self.path = config.library_path
        if create and not os.path.exists(self.path / DATABASE):  # noqa: PTH110 - whatever the name
            # A setting that is wrong makes no library.
            find_model(config.model)
        prepare_folder(self.path, create=create)
        self.workbench = Workbench(config)
        self.log = Log(self.path)
        self._ingesting = threading.Lock()
        self._teaching = threading.Lock()
        self._database = Database(self.path / DATABASE, threads=config.thread_count)
        try:
            self.catalogue = Catalogue(self._database)
            self._intake = Intake(self._database)
            self._joins = Joins(self._database)
            self._studies = Studies(self._database)
            self.holdings = Holdings(self.path, self._database, self.catalogue, max_pixels=config.max_pixels)
            self.lists = Lists(self._database, self.catalogue, self.holdings)
            self.standing = Standing(self._database)
            self.outgoing = Outgoing(OutgoingFiles(self._database), self.holdings, studies_of=self._studies_of)
            self.thumbnails = Thumbnails(self.path / "thumbnails")
            make_folder(self.path / "indexes")
            self._models = Models(self._database)
            self._review = Review(self._database, reader=lambda: self.workbench.reader)
            self._meters = Meters(self._models)
            self._regions = Regions(
                self._database,
                folder=self.path / "indexes" / "regions",
                workbench=self.workbench,
                picture_of=self.thumbnail,
                quarantine=Quarantine(self.path, "regions"),
            )
            self.volumes = Volumes(Stacks(self._database), wanted=config.key_slices)
            self._embeddings = Embeddings(
                self.path / "indexes",
                self._models,
                self.catalogue,
                config=config,
                workbench=self.workbench,
                average=self.volumes.average,
            )
            self.fulltext = FulltextIndex(self.path / "indexes" / "fulltext")
            self._likeness = Likeness(
                catalogue=self.catalogue,
                fulltext=self.fulltext,
                thumbnails=self.thumbnails,
                embeddings=self._embeddings,
                meters=self._meters,
                volumes=self.volumes,
                regions=self._regions,
            )
            self.health = Health(
                database=self._database,
                catalogue=self.catalogue,
                intake=self._intake,
                thumbnails=self.thumbnails,
                embeddings=self._embeddings,
                fulltext=self.fulltext,
                writing=self._ingesting,
                refresh=self.refresh,
                threads=config.thread_count,
            )
            # On a full disk the indexes stay as they were, and the library readable.
            with suppress(StorageFullError):
                self.refresh()
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the library, so that another process may open it; a switch that is under way ends here."""
        self._embeddings.close()
        self._database.close()
        self.log.close()

    @property
    def model_id(self) -> str:
        """The model in use, whose vectors are searched; it need not be registered any more."""
        return self._embeddings.model_id

    @property
    def model(self) -> ModelSpec:
        """The registry entry of the model in use. Raises ModelMissingError, ModelAlteredError, ModelError."""
        return self._embeddings.spec(self.model_id)

    @property
    def vectors(self) -> VectorIndex:
        """The image index of the model in use."""
        return self._embeddings.index

    @property
    def switch(self) -> ModelSwitch | None:
        """The latest switch of this process to another model, under way or done."""
        return self._embeddings.switch

    def models(self) -> list[HeldModel]:
        """Return the models that the library has vectors of, the one in use first, and one it is to change to."""
        return self._models.held()

    def unembedded(self) -> list[Failure]:
        """Return the files of images that the model in use could not embed though they were there, and why."""
        return self._models.unembedded(self.model_id)

    def waiting_images(self) -> int:
        """Count the images that have pixels and no vector of the model in use, for whatever reason."""
        return self._models.count_lacking(self.model_id)

    def use_model(
        self, model_id: str, *, on_event: Callable[[SwitchEvent], None] | None = None, background: bool = False
    ) -> ModelSwitch:
        """Make `model_id` the model in use, and return how that went or goes.

        Every image that has no vector of it is embedded first; until that is done the old one stays
        in use, and `similar(model=...)` asks what the new one has so far. May be interrupted at any
        moment and begun again. Vectors of the old one are kept, so going back is instant. Images
        whose file is away or cannot be embedded are counted and listed and hold nothing up: the old
        model still finds them, and they get their vector at the next ingest once the file is back.
        With `background` a thread does it while this process answers: `switch.event` shows how far
        it is, `cancel()` and `join()` end it, and so does `close`.
        Raises ModelMissingError, ModelAlteredError, ModelError, StorageFullError, and LibraryError
        while another switch is under way.
        """
        return self._embeddings.use(model_id, on_event=on_event, background=background)

    def drop_model(self, model_id: str) -> int:
        """Remove the vectors of a model that is not in use, and its match curve; return how many vectors.

        Raises ModelError for the one in use and for one that the library has nothing of.
        """
        count = self._embeddings.drop(model_id)
        self._meters.forget()
        return count

    def calibrate(self) -> MatchCurve:
        """Measure the match meter of the model in use by the library's reports, and keep and return its curve.

        Up to 2,000 images ask for their 10 nearest of other patients, with a fixed seed. A minute
        for 100,000 images. Raises MeterError when too few images have a report.
        """
        model_id = self.model_id
        return self._meters.calibrate(model_id, self._embeddings.index_of(model_id))

    def curve(self) -> MatchCurve | None:
        """Return what the match meter measured of the model in use; None before `calibrate`."""
        return self._models.curve(self.model_id)

    def curve_note(self) -> str:
        """Return why the match meter of the model in use should be measured again; empty where it need not."""
        return self._meters.note(self.model_id, images=self.vectors.count)

    def totals(self) -> Totals:
        """Count the records of each kind."""
        return self.catalogue.totals()

    def failures(self) -> list[Failure]:
        """Return what could not be indexed, and why."""
        left_out = (self.catalogue.image(image_id) for image_id in self._regions.quarantine.left_out())
        return [*self.catalogue.failures(), *(Failure(row.path, REASON) for row in left_out if row is not None)]

    def ingest(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        metadata_only: bool = False,
        on_event: OnEvent | None = None,
        stop: threading.Event | None = None,
        within: str = "",
    ) -> IngestSummary:
        """Bring the library up to date with folders and files, and return what was done.

        Files are never written, moved or locked. May be interrupted at any moment and run again: setting
        `stop` from another thread ends it after the files in hand.
        With `metadata_only` no pixel is read: images can be found by words and fields, and by
        likeness once an ordinary ingest has seen them. `within` is the folder that `paths` are parts of, where
        only what changed in it is looked at. Raises SourceError for a path that is not
        there and never was, StorageFullError, ModelMissingError where there are pixels to embed and
        the model in use has gone; single bad files are counted and listed.
        """
        with self._ingesting:
            return self._ingest(
                [os.fspath(path) for path in paths], metadata_only, on_event, stop or threading.Event(), within
            )

    def _ingest(
        self, paths: Sequence[str], metadata_only: bool, on_event: OnEvent | None, stop: threading.Event, within: str
    ) -> IngestSummary:
        model_id, held = self.model_id, self._review.corrections.holding()
        ingest = Ingest(
            catalogue=self.catalogue,
            files=Files(self._database),
            joins=self._joins,
            intake=self._intake,
            thumbnails=self.thumbnails,
            config=self.config,
            model_id=model_id,
            model=lambda: self._embeddings.spec(model_id),
            encoder=lambda: self._embeddings.encoder(model_id),
            reader=lambda: self.workbench.reader,
            corrections=held,
            quarantine=Quarantine(self.path),
        )
        self.log.note("ingest began", paths=len(paths), metadata_only=metadata_only)
        try:
            summary = ingest.run(paths, metadata_only=metadata_only, on_event=on_event, stop=stop, within=within)
            self.log.note("ingest ended", **summary.as_json())
            if metadata_only or stop.is_set():
                return summary
            settled = self.volumes.settle(model_id, lambda: self._catch_up(on_event, stop), stop=stop)
            failures = tuple(sorted({*summary.failures, *settled.failures}, key=lambda failure: failure.path))
            return replace(summary, caught_up=settled.embedded, failures=failures, stopped=stop.is_set())
        except BaseException as error:
            self.log.note(f"ingest broke off: {type(error).__name__}")
            raise
        finally:
            self._catch_up_with_corrections(held)
            self._review.read_new(stop)
            self.refresh()
            # Minutes for a large library; whoever stops waits for no more than what is in hand.
            if not stop.is_set():
                self.vectors.extend_graph()
            # Measured now, while one waits anyway, so that the first question need not.
            self.vectors.isolation()

    def report(self, report_id: str) -> StoredReport:
        """Return a report as it is stored, with its entities and their evidence. Raises NotFoundError."""
        return self._review.report(report_id)

    def report_versions(self, report_id: str) -> list[StoredVersion]:
        """Return every version of a report in the order of their time, withdrawn ones too.

        None for a report that came as mere text. Raises NotFoundError for an identifier of no report.
        """
        found = self._intake.versions.of(report_id)
        if not found:
            self._review.report(report_id)
        return found

    def reprocess(
        self, *, dry_run: bool = False, everything: bool = False, on_report: OnReport | None = None
    ) -> RereadSummary:
        """Read again the reports that an earlier pipeline has read, or all with `everything`; return what changed.

        With `dry_run` nothing is written. May be interrupted at any moment and run again: it goes on
        with what is left. `on_report` is told (done, total) now and then.
        """
        held = self._review.corrections.holding()
        try:
            return self._review.reread(dry_run=dry_run, everything=everything, on_report=on_report)
        finally:
            if not dry_run:
                self._catch_up_with_corrections(held)
                self.refresh()

    def correct(
        self,
        report_id: str,
        span: tuple[int, int],
        *,
        assertion: Assertion | None = None,
        code: str | None = None,
        note: str = "",
        author: str = "",
    ) -> Correction:
        """Correct the mention at characters `span` of a report, from now on; return what was kept.

        What is None stays as it was read; an empty `code` takes the code away. The correction holds
        when the report is ingested or read again, as long as the same words stand there. `author` is
        the user's name at this machine where none is given.
        Raises NotFoundError for an unknown report or code, or where no mention stands at `span`.
        """
        correction = self._review.correct(report_id, span, assertion=assertion, code=code, note=note, author=author)
        self._refresh_fulltext()
        return correction

    def undo_correction(self, report_id: str, span: tuple[int, int], *, author: str = "") -> Correction:
        """Undo the latest correction that holds at `span` of a report and return it. Raises NotFoundError."""
        correction = self._review.undo(report_id, span, author=author)
        self._refresh_fulltext()
        return correction

    def corrections(self) -> list[Correction]:
        """Return every correction in the order in which they were made, undone ones too."""
        return self._review.corrections.all()

    def export_corrections(self) -> dict[str, Any]:
        """Return every correction as one JSON object, to be imported into another library."""
        return self._review.exported()

    def import_corrections(self, text: str, *, name: str = "") -> int:
        """Take over the corrections of an export and apply them; return how many were new.

        `name` is the file's, for messages. Raises ReportError when `text` is no export.
        """
        count = self._review.bring(text, name=name)
        self._refresh_fulltext()
        return count

    def retry_failures(self, *, on_event: OnEvent | None = None, stop: threading.Event | None = None) -> IngestSummary:
        """Try every file again that could not be indexed; what is offline is left as it is."""
        paths = [failure.path for failure in self.failures() if Path(container_of(failure.path)).is_file()]
        with self._ingesting:
            self._regions.quarantine.forgive()
        self._intake.doubt(paths)
        return self.ingest(dict.fromkeys(map(container_of, paths)), on_event=on_event, stop=stop)

    def forget_source(self, path: str) -> int:
        """Remove the records of all files that were found in an ingested folder; return how many files.

        The files themselves are not touched. Copies of them elsewhere that were counted as duplicates get
        records of their own at the next ingest. Raises NotFoundError for a folder that is none.
        """
        with self._ingesting:
            gone = self._studies.paths_of_root(path)
            if gone is None:
                raise NotFoundError("this folder was never ingested", item=path)
            self._intake.remove(gone)
            self.thumbnails.remove(self._intake.take_dropped())
            self._intake.drop_root(path)
            self._intake.doubt([row.path for row in self.catalogue.orphans()])
            self.volumes.average(self.model_id)
            # Where the file of a report's latest version went, an earlier one is searched again.
            self._review.read_new(threading.Event())
            link_reports(self.catalogue, self._intake, self._joins)
            self.refresh()
        return len(gone)

    def refresh(self) -> None:
        """Teach both indexes what they have missed, from the database."""
        self._meters.forget()
        self._embeddings.refresh()
        self._refresh_fulltext()

    def search(
        self,
        query: str,
        *,
        k: int = 10,
        offset: int = 0,
        sort: str = "score",
        with_facets: bool = False,
        outside: Callable[[str], str] = os.path.expanduser,
    ) -> SearchAnswer:
        """Answer a question in the query language.

        `sort` is "score", "date" (newest first), "oldest" or "patient". With
        `like:IMAGE` the words and fields decide what may be an answer and, together with the
        image, in which order. Raises QueryError, NotFoundError for an unknown `like:` image.
        """
        tree, like = split_like(parse(query))
        if like is not None and sort == "score":
            answer = self._search_like(tree, outside(like.image), k=k, offset=offset)
        else:
            total, ranked = search_documents(self.fulltext, tree, k=k, offset=offset, sort=sort)
            shares = [
                (Share("text", score, offset + rank, 1.0),) if sort == "score" else ()
                for rank, (_, score) in enumerate(ranked, start=1)
            ]
            answer = SearchAnswer(total, self._hits(tree, ranked, shares))
        if with_facets:
            answer = SearchAnswer(answer.total, answer.hits, facets(self.fulltext, tree), answer.notes)
        return answer

    def facets(self, query: str = "") -> dict[str, tuple[Facet | Bucket, ...]]:
        """Count codes, findings and field values over all documents that match, or over all."""
        tree, _ = split_like(parse(query))
        return facets(self.fulltext, tree)

    def similar(
        self,
        image: str | os.PathLike[str],
        *,
        k: int = 10,
        roi: Region | None = None,
        where: str = "",
        model: str = "",
        data: bytes | None = None,
    ) -> VisualAnswer:
        """Return the images nearest to an image of the library (its id), to a series (its UID) or to any image file.

        A volume answers as one, by its best slice; asked for a volume, by likeness of the whole.
        Nothing is imported to ask. `data` is the content of such a file where there is none on disk; `image`
        is then its name in messages. `roi` is (x, y, width, height) in pixels of the whole image: its most
        striking points are compared with those of every image, see `image.regions`, and hits say where; before
        `index_regions` has run, that part alone is embedded and compared with whole images. `where` is a question that
        restricts the answer, image by image. `model` asks the vectors of another model than the one
        in use, as far as there are any. Once the match meter was measured, hits carry the share of
        images at their cosine that have a finding in common with the query; not for a region, as
        whole images were measured. Notes say where a region holds nothing unusual.
        Raises NotFoundError, DecodeError, QueryError, ModelMissingError for an image that must be
        embedded by a model that has gone, ModelError for one that has no vectors here.
        """
        allowed = self._images_where(where) if where.strip() else None
        return self._likeness.near(
            os.fspath(image), k=k, roi=roi, allowed=allowed, model_id=model or self.model_id, data=data
        )

    def index_regions(
        self, *, on_event: OnEvent | None = None, stop: Callable[[], bool] | None = None
    ) -> RegionSummary:
        """Make every image that has a picture findable by region, from its thumbnail; return what was done.

        May be interrupted at any moment and run again. `stop` is asked now and then whether to end.
        Raises StorageFullError, and ModelError without the shipped network of regions.
        """
        return self._regions.index(turn=self._ingesting, on_event=on_event, stop=stop)

    def thumbnail(self, image_id: str) -> bytes | None:
        """Return an image's thumbnail as WebP, drawn anew where it is missing; None without pixels.

        Raises NotFoundError.
        """
        row = self._known(image_id)
        picture = self.thumbnails.read(image_id)
        if picture is None and not row.pixel_error and exists(row.path):
            display = self.workbench.display(row.path, image_id=image_id)
            picture = thumbnail(display, size=self.config.thumbnail_size)
            # Where the disk takes none it is drawn again the next time.
            with suppress(LibraryError):
                self.thumbnails.write(image_id, picture)
        return picture

    def view_of(self, image_id: str) -> str:
        """Return an image's ViewPosition, "" where it has none. Raises NotFoundError."""
        return self._known(image_id).view_position

    def label(self, target_kind: str, target_id: str, label: str) -> None:
        """Put the user's own word on a study, series, image or report. Raises NotFoundError."""
        studies = self.catalogue.studies_of(target_kind, target_id)
        if not studies:
            raise NotFoundError(f"the library has no such {target_kind}", item=target_id)
        self._intake.set_label(target_kind, target_id, label, study_uids=studies)
        self._refresh_fulltext()

    def unlabel(self, target_kind: str, target_id: str, label: str) -> None:
        """Take a label off its target. Raises NotFoundError where it is not on it."""
        studies = self.catalogue.studies_of(target_kind, target_id)
        if not self._intake.remove_label(target_kind, target_id, label, study_uids=studies):
            raise NotFoundError(f"this {target_kind} has no such label", item=target_id)
        self._refresh_fulltext()

    def _search_like(self, tree: Tree, like: str, *, k: int, offset: int) -> SearchAnswer:
        model_id = self.model_id
        vector, _ = self._likeness.vector(like, model_id=model_id)
        depth = max(FUSION_DEPTH, 4 * (offset + k))
        matching = matching_documents(self.fulltext, tree)
        docs = self.catalogue.images_of_documents(matching)
        allowed = np.array(sorted(docs), dtype=np.int64)
        found = nearest(self._embeddings.index_of(model_id), vector, k=depth, allowed=allowed)
        by_image: dict[int, float] = {}
        for number, score in zip(found.numbers.tolist(), found.scores.tolist(), strict=True):
            by_image.setdefault(docs[number], score)
        signals: dict[str, Sequence[tuple[int, float]]] = {"image": list(by_image.items())}
        _, ranked = search_documents(self.fulltext, tree, k=depth, offset=0, sort="score")
        if any(score > 0 for _, score in ranked):
            signals["text"] = ranked
        fused = fuse(signals)
        # No signal ranks a document without images or beyond their depth; it is an answer all the same, at the end.
        ranked_nos = [doc_no for doc_no, _, _ in fused]
        fused += [(doc_no, 0.0, ()) for doc_no in np.setdiff1d(matching, ranked_nos).tolist()]
        fused = fused[offset : offset + k]
        nothing_close = found.nothing_close or not self._likeness.is_promising(model_id, found.scores)
        notes = ("nothing close to that image",) if nothing_close else ()
        hits = self._hits(tree, [(no, score) for no, score, _ in fused], [shares for _, _, shares in fused])
        return SearchAnswer(len(matching), hits, notes=notes)

    def _hits(
        self, tree: Tree, ranked: Sequence[tuple[int, float]], shares: Sequence[tuple[Share, ...]]
    ) -> tuple[Hit, ...]:
        cards = self._cards(doc_no for doc_no, _ in ranked)
        hits = []
        for (doc_no, score), parts in zip(ranked, shares, strict=True):
            card = cards.get(doc_no)
            if card is None:
                continue
            snippet, highlights = make_snippet(card.text, [(s.name, s.start, s.end) for s in card.sections], tree)
            hits.append(
                Hit(
                    report_id=card.report_id,
                    study_uid=card.study_uid,
                    image_ids=card.image_ids,
                    score=score,
                    snippet=snippet,
                    highlights=tuple(highlights),
                    entities=card.entities,
                    shares=parts,
                    study_date=card.study_date,
                    patient_id=card.patient_id,
                    patient_sex=card.patient_sex,
                    patient_age=card.patient_age,
                    modalities=card.modalities,
                    study_description=card.study_description,
                )
            )
        return tuple(hits)

    def _cards(self, doc_nos: Iterable[int]) -> dict[int, Card]:
        return {doc_no: Card.unpack(packed) for doc_no, packed in self.fulltext.cards(doc_nos).items()}

    def _images_where(self, where: str) -> NDArray[np.int64]:
        tree, like = split_like(parse(where))
        if like is not None:
            raise QueryError("a filter cannot hold like:", query=where, position=where.find("like:"))
        condition, parameters = to_sql(
            tree, matching_studies=lambda part: self.catalogue.document_studies(matching_documents(self.fulltext, part))
        )
        return self.catalogue.images_where(condition, parameters)

    def _studies_of(self, query: str) -> list[str]:
        # An image asked by decides in which order they come, not which they are.
        tree, _ = split_like(parse(query))
        return self.catalogue.document_studies(matching_documents(self.fulltext, tree))

    def _catch_up(self, on_event: OnEvent | None, stop: threading.Event) -> int:
        started = time.monotonic()

        def tell(event: SwitchEvent) -> None:
            if on_event is not None:
                seconds = time.monotonic() - started
                on_event(IngestEvent("vector", total=event.total, settled=event.settled, seconds=seconds))

        def draw(image_id: str, display: Display) -> None:
            if self.thumbnails.read(image_id) is None:
                self.thumbnails.write(image_id, thumbnail(display, size=self.config.thumbnail_size))

        return self._embeddings.catch_up(tell, stop=stop, on_display=draw)

    def _catch_up_with_corrections(self, held: dict[str, tuple[Correction, ...]]) -> None:
        # Corrections that were made meanwhile, of reports that may have been read anew without them.
        now = self._review.corrections.holding()
        if changed := {name for name in {*held, *now} if held.get(name) != now.get(name)}:
            self._review.apply(changed)

    def _known(self, image_id: str) -> ImageRow:
        row = self.catalogue.image(image_id)
        if row is None:
            raise NotFoundError("the library has no such image", item=image_id)
        return row

    def _refresh_fulltext(self) -> None:
        # One at a time: of two, the one that looked first might write last, and the watermark would go back.
        with self._teaching:
            if self.fulltext.watermark > self.catalogue.last_change():
                # It is of another state of the database: one that was put back by hand.
                self.fulltext.reset()
            if self.fulltext.watermark == 0:
                last = self.catalogue.last_change()
                if last:
                    self.fulltext.update(self.catalogue.documents(), [], watermark=last)
                return
            changed, last = self.catalogue.changes("document", after=self.fulltext.watermark)
            if last != self.fulltext.watermark:
                self.fulltext.update(self.catalogue.documents(changed), changed.tolist(), watermark=last)
