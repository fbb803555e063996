"""A library: the one place where the rooms are put together.

with open_library("~/library", create=True) as library:
    library.ingest(["/archive"])
    answer = library.search("effusion AND NOT pneumothorax", k=10)
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.config import Config, load_config
from medsearch_desktop.errors import (
    LibraryError,
    LibraryFormatError,
    LibraryNotFoundError,
    NotFoundError,
    QueryError,
    StorageFullError,
)
from medsearch_desktop.image.models import ModelSpec
from medsearch_desktop.image.preprocess import thumbnail
from medsearch_desktop.ingest import Ingest, OnEvent
from medsearch_desktop.records import (
    Bucket,
    Facet,
    Failure,
    Hit,
    IngestSummary,
    SearchAnswer,
    Share,
    VisualAnswer,
    VisualHit,
)
from medsearch_desktop.search.aggregate import facets
from medsearch_desktop.search.filters import to_sql
from medsearch_desktop.search.hybrid import fuse
from medsearch_desktop.search.query import parse
from medsearch_desktop.search.text import make_snippet, matching_documents, search_documents
from medsearch_desktop.search.tree import Tree, split_like
from medsearch_desktop.search.visual import nearest
from medsearch_desktop.store.cards import Card
from medsearch_desktop.store.catalogue import Catalogue, ImageRow, Totals
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.fulltext import FulltextIndex
from medsearch_desktop.store.intake import Intake
from medsearch_desktop.store.thumbnails import Thumbnails
from medsearch_desktop.store.vectors import VectorIndex
from medsearch_desktop.workbench import Region, Workbench

FORMAT = 1
MARKER = "library.json"
# Ranks that each signal of a mixed question contributes at least; beyond them a document's share is below 1/1000.
FUSION_DEPTH = 1000


def open_library(path: str | os.PathLike[str] | None = None, *, create: bool = False, **settings: Any) -> Library:
    """Open the library at `path`, or the user's own, and return it ready to answer.

    `settings` are those of `medsearch_desktop.config`. With `create`, a library is made where
    there is none. Raises LibraryNotFoundError, LibraryLockedError, LibraryFormatError, ConfigError.
    """
    config = load_config({**settings, "library": os.fspath(path) if path is not None else None})
    return Library(config, create=create)


class Library:
    """One folder of everything known; this process is its only owner until `close`."""

    def __init__(self, config: Config, *, create: bool = False) -> None:
        self.config = config
        self.path = config.library_path
        _prepare_folder(self.path, create=create)
        self.workbench = Workbench(config)
        self._model = self.workbench.model
        self._database = Database(self.path / "library.duckdb", threads=config.thread_count)
        try:
            self.catalogue = Catalogue(self._database)
            self._intake = Intake(self._database)
            self.thumbnails = Thumbnails(self.path / "thumbnails")
            (self.path / "indexes").mkdir(mode=0o700, exist_ok=True)
            self.vectors = VectorIndex(
                self.path / "indexes" / f"vectors-{self._model.model_id}",
                model_id=self._model.model_id,
                dim=self._model.dim,
                exact_below=config.exact_below,
                breadth=config.search_breadth,
                threads=config.thread_count,
            )
            self.fulltext = FulltextIndex(self.path / "indexes" / "fulltext")
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
        """Let go of the library; another process may open it."""
        self.vectors.close()
        self._database.close()

    @property
    def model(self) -> ModelSpec:
        """The model whose vectors are searched."""
        return self._model

    def totals(self) -> Totals:
        """Count the records of each kind."""
        return self.catalogue.totals()

    def failures(self) -> list[Failure]:
        """Return what could not be indexed, and why."""
        return self.catalogue.failures()

    def ingest(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        metadata_only: bool = False,
        on_event: OnEvent | None = None,
    ) -> IngestSummary:
        """Bring the library up to date with folders and files, and return what was done.

        Files are never written, moved or locked. May be interrupted at any moment and run again.
        With `metadata_only` no pixel is read: images can be found by words and fields, and by
        likeness once an ordinary ingest has seen them. Raises SourceError for a path that is not
        there and never was, StorageFullError; single bad files are counted and listed.
        """
        ingest = Ingest(
            catalogue=self.catalogue,
            intake=self._intake,
            thumbnails=self.thumbnails,
            config=self.config,
            model=self._model,
            encoder=lambda: self.workbench.encoder,
            reader=lambda: self.workbench.reader,
        )
        try:
            return ingest.run([os.fspath(path) for path in paths], metadata_only=metadata_only, on_event=on_event)
        finally:
            self.refresh()
            self.vectors.extend_graph()
            # Measured now, while one waits anyway, so that the first question need not.
            self.vectors.isolation()

    def retry_failures(self, *, on_event: OnEvent | None = None) -> IngestSummary:
        """Try every file again that could not be indexed; what is offline is left as it is."""
        paths = [failure.path for failure in self.failures() if Path(failure.path).is_file()]
        self._intake.doubt(paths)
        return self.ingest(paths, on_event=on_event)

    def refresh(self) -> None:
        """Teach both indexes what they have missed, from the database."""
        self._refresh_vectors()
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
    ) -> VisualAnswer:
        """Return the images nearest to an image of the library (its id) or to any image file.

        Nothing is imported to ask. `roi` is (x, y, width, height) in pixels of the whole image:
        that part alone is embedded and compared with whole images. `where` is a question that
        restricts the answer, image by image. Raises NotFoundError, DecodeError, QueryError.
        """
        name = os.fspath(image)
        vector, known = self._query_vector(name, roi)
        allowed = self._images_where(where) if where.strip() else None
        found = nearest(
            self.vectors, vector, k=k, allowed=allowed, without=known.image_no if known and roi is None else None
        )
        rows = self.catalogue.images(found.numbers)
        packed = self.fulltext.study_cards(row.study_uid for row in rows.values())
        cards = {study_uid: Card.unpack(card) for study_uid, card in packed.items()}
        hits = []
        for number, score in zip(found.numbers.tolist(), found.scores.tolist(), strict=True):
            # An index that a full disk kept from learning may still know what is gone.
            if (row := rows.get(number)) is None:
                continue
            card = cards.get(row.study_uid)
            hits.append(
                VisualHit(
                    image_id=row.image_id,
                    score=score,
                    study_uid=row.study_uid,
                    report_id=card.report_id if card else None,
                    modality=row.modality,
                    view_position=row.view_position,
                    study_date=card.study_date if card else None,
                    path=row.path,
                    thumbnail=str(self.thumbnails.path(row.image_id)),
                    impression=card.impression if card else "",
                )
            )
        return VisualAnswer(name, self._model.model_id, tuple(hits), found.nothing_close)

    def thumbnail(self, image_id: str) -> bytes | None:
        """Return an image's thumbnail as WebP, drawn anew where it is missing; None without pixels.

        Raises NotFoundError.
        """
        row = self._known(image_id)
        picture = self.thumbnails.read(image_id)
        if picture is None and not row.pixel_error and Path(row.path).exists():
            display = self.workbench.display(row.path, image_id=image_id)
            picture = thumbnail(display, size=self.config.thumbnail_size)
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

    def _search_like(self, tree: Tree, like: str, *, k: int, offset: int) -> SearchAnswer:
        vector, _ = self._query_vector(like, None)
        depth = max(FUSION_DEPTH, 4 * (offset + k))
        matching = matching_documents(self.fulltext, tree)
        docs = self.catalogue.images_of_documents(matching)
        allowed = np.array(sorted(docs), dtype=np.int64)
        found = nearest(self.vectors, vector, k=depth, allowed=allowed)
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
        notes = ("nothing close to that image",) if found.nothing_close else ()
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

    def _query_vector(self, image: str, roi: Region | None) -> tuple[NDArray[np.float32], ImageRow | None]:
        row = self.catalogue.image(image)
        if row is None:
            if not Path(image).is_file():
                raise NotFoundError(
                    "neither an image of this library nor a file",
                    item=image,
                    remedy="Give an image_id from an answer, or the path of a DICOM, PNG or JPEG file",
                )
            return self.workbench.vector(image, roi=roi), None
        if roi is None:
            with suppress(KeyError):
                return self.vectors.vectors_of(np.array([row.image_no]))[0], row
        return self.workbench.vector(row.path, image_id=row.image_id, roi=roi), row

    def _known(self, image_id: str) -> ImageRow:
        row = self.catalogue.image(image_id)
        if row is None:
            raise NotFoundError("the library has no such image", item=image_id)
        return row

    def _refresh_vectors(self) -> None:
        model_id = self._model.model_id
        none = np.empty(0, np.int64)
        if self.vectors.watermark == 0:
            last = self.catalogue.last_change()
            # What a filling that was cut off has left may be gone from the database since.
            self.vectors.reset()
            for numbers, vectors in self.catalogue.vectors(model_id):
                self.vectors.update(numbers, vectors, removed=none, watermark=0)
            self.vectors.update(none, np.empty((0, self._model.dim), np.float32), removed=none, watermark=last)
            return
        changed, last = self.catalogue.changes("image", after=self.vectors.watermark)
        if last == self.vectors.watermark:
            return
        gone = np.setdiff1d(changed, self.catalogue.present_images(changed))
        for numbers, vectors in self.catalogue.vectors(model_id, image_nos=changed):
            self.vectors.update(numbers, vectors, removed=none, watermark=self.vectors.watermark)
        self.vectors.update(none, np.empty((0, self._model.dim), np.float32), removed=gone, watermark=last)

    def _refresh_fulltext(self) -> None:
        if self.fulltext.watermark == 0:
            last = self.catalogue.last_change()
            if last:
                self.fulltext.update(self.catalogue.documents(), [], watermark=last)
            return
        changed, last = self.catalogue.changes("document", after=self.fulltext.watermark)
        if last != self.fulltext.watermark:
            self.fulltext.update(self.catalogue.documents(changed), changed.tolist(), watermark=last)


def _prepare_folder(path: Path, *, create: bool) -> None:
    marker = path / MARKER
    if marker.exists():
        _check_format(marker)
        return
    if (path / "library.duckdb").exists():
        # A crash between the two files of a new library, or a marker that was deleted: the database decides.
        _write_marker(marker)
        return
    if not create:
        raise LibraryNotFoundError(
            "there is no library here", item=str(path), remedy="`medsearch ingest FOLDER` makes one"
        )
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise LibraryError(
                "the folder is not empty and not a library",
                item=str(path),
                remedy="Give --library the name of a new folder",
            )
        path.chmod(0o700)
        _write_marker(marker)
    except OSError as error:
        raise LibraryError(f"the folder cannot be written ({error.strerror})", item=str(path)) from error


def _check_format(marker: Path) -> None:
    try:
        found = json.loads(marker.read_text("utf-8"))["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LibraryFormatError(
            "it does not say what format the library has",
            item=str(marker),
            remedy=f'If the folder was written by this release, write {{"format": {FORMAT}}} into the file',
        ) from error
    if not isinstance(found, int) or found > FORMAT:
        raise LibraryFormatError(
            f"the library has format {found}, this release knows {FORMAT}",
            item=str(marker.parent),
            remedy="Install the release that wrote it, or a later one",
        )


def _write_marker(marker: Path) -> None:
    part = marker.with_suffix(".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as handle:
        json.dump({"format": FORMAT}, handle)
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(marker)
