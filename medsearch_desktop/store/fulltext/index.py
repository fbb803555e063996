"""The full-text index in its folder: opening or making it, writing documents, searching them."""

from __future__ import annotations

import json
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import tantivy
from tantivy import Order, Query, TextAnalyzerBuilder, Tokenizer

from medsearch_desktop.errors import LibraryError
from medsearch_desktop.store.fulltext.documents import index_document
from medsearch_desktop.store.fulltext.engine import (
    HEAP_BYTES,
    LEAST_HEAP_BYTES,
    EngineError,
    engine,
    writing_to_index,
)
from medsearch_desktop.store.fulltext.fields import analyser, keyword_key, made_by, schema
from medsearch_desktop.store.fulltext.questions import all_of, everything, keyword

# Fields with some ten values a document. Above this share of all documents intersecting their posting
# lists counts faster than reading their columns: 3 ms against 23 for all of 200,000.
_MANY_VALUED = ("codes", "findings_14")
_BROAD = 0.1
# tantivy refuses to hold more buckets than 65,000.
_MOST_VALUES = 60_000
_SEGMENT_SUFFIXES = (".term", ".idx", ".pos", ".fast", ".fieldnorm", ".store", ".del")

_T = TypeVar("_T")


@dataclass(slots=True)
class _View:
    """What a search sees from its first call to its last, whatever is written meanwhile."""

    searcher: tantivy.Searcher
    generation: int
    everyone: npt.NDArray[np.int64] | None = None


class FulltextIndex:
    """The index in one folder, opened or made.

    A folder that is damaged, or was written by another release of tantivy or of this room, is
    emptied: `watermark` is then 0. Searching is safe from any thread while one updates.
    Raises StorageFullError, LibraryError when the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = folder / "tantivy"
        self._sidecar = folder / "watermark.json"
        self._writing = threading.Lock()
        self._checksums: dict[str, int] = {}
        self._generation = 0
        self.watermark = 0
        self._open()

    @property
    def generation(self) -> int:
        """A number that changes when answers may; pages of one answer belong to one generation."""
        return self._view.generation

    @property
    def document_count(self) -> int:
        """How many documents the index holds."""
        return self._view.searcher.num_docs

    # Opening

    def _open(self) -> None:
        watermark = self._read_sidecar()
        if watermark is not None:
            try:
                with engine():
                    self._index = tantivy.Index.open(str(self._files))
                    self._start()
                    # Reads a column and the documents that are alive: what every search needs.
                    self._view.searcher.search(Query.all_query(), 1, order_by_field="by_date")
            except EngineError:
                watermark = None
        if watermark is None:
            with writing_to_index(self._folder):
                self._make()
        else:
            self.watermark = watermark

    def _make(self) -> None:
        # Windows removes no file that is still mapped by an index that failed to open.
        self.__dict__.pop("_view", None)
        self.__dict__.pop("_index", None)
        self._checksums = {}
        self._sidecar.unlink(missing_ok=True)
        if self._files.exists():
            shutil.rmtree(self._files)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._files.mkdir(mode=0o700)
        self._index = tantivy.Index(schema(), path=str(self._files))
        self._start()
        self._write_sidecar(0)

    def _start(self) -> None:
        self._index.register_tokenizer("stemmed", analyser(stemmed=True))
        self._index.register_tokenizer("plain", analyser(stemmed=False))
        self._index.register_tokenizer("blanks", TextAnalyzerBuilder(Tokenizer.whitespace()).build())
        self._index.config_reader("manual")
        self._refresh()

    def _refresh(self) -> None:
        self._index.reload()
        self._generation += 1
        self._view = _View(self._index.searcher(), self._generation)

    def _read_sidecar(self) -> int | None:
        try:
            kept = json.loads(self._sidecar.read_text("utf-8"))
            if kept["made_by"] != made_by():
                return None
            # Segment files never change once written, though merging removes some. tantivy looks at their
            # ends only, and a changed byte could pass for an answer; all of 200,000 documents take 0.1 s.
            for name, checksum in kept["files"].items():
                file = self._files / name
                if file.exists() and _checksum(file) != checksum:
                    return None
            self._checksums = dict(kept["files"])
            return int(kept["watermark"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _write_sidecar(self, watermark: int) -> None:
        for written in self._files.iterdir():
            # The engine gives its files whatever mode the process has; reports are nobody else's business.
            written.chmod(0o600)
        segments = [file for file in self._files.iterdir() if file.suffix in _SEGMENT_SUFFIXES]
        self._checksums = {file.name: self._checksums.get(file.name) or _checksum(file) for file in segments}
        kept = json.dumps({"made_by": made_by(), "watermark": watermark, "files": self._checksums})
        draft = self._sidecar.with_suffix(".tmp")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(kept)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._sidecar)
        self.watermark = watermark

    # Writing

    def update(self, documents: Iterable[Mapping[str, Any]], removed: Iterable[int] = (), *, watermark: int) -> None:
        """Put in `documents`, in place of those of the same doc_no, take out `removed`, and keep `watermark`.

        All or nothing: after an error the index answers as before and still has its old watermark.
        The watermark is written after the documents, so a crash between the two leaves documents
        that the next catching up puts in once more, to no effect.
        A document maps doc_no, report_id (None: a study without report), study_uid, text, sections
        (name, start, end), patient_id, accession_number, study_id, study_date, study_description,
        patient_sex, patient_age (years), modalities, view_positions, body_parts, lateralities,
        manufacturers, labels, image_count, entities (icd10cm, title, finding, assertion, category, text),
        and card, bytes that are kept and given back as they are.
        Raises StorageFullError, LibraryError.
        """
        with self._writing:
            fresh = self._view.searcher.num_docs == 0
            seen: set[int] = set()
            with self._writer() as writer:
                for doc_no in removed:
                    with writing_to_index(self._folder):
                        writer.delete_documents_by_term("doc_no", doc_no)
                    seen.add(doc_no)
                for document in documents:
                    doc_no = document["doc_no"]
                    made = index_document(document)
                    with writing_to_index(self._folder):
                        if not fresh or doc_no in seen:
                            writer.delete_documents_by_term("doc_no", doc_no)
                        writer.add_document(made)
                    seen.add(doc_no)
                if seen:
                    with writing_to_index(self._folder):
                        writer.commit()
            with writing_to_index(self._folder):
                if seen:
                    self._refresh()
                self._write_sidecar(watermark)

    def reset(self) -> None:
        """Take out every document; the watermark is 0 again. Raises StorageFullError, LibraryError."""
        with self._writing:
            with writing_to_index(self._folder):
                # First the watermark: a crash in between must not leave one without its documents.
                self._write_sidecar(0)
            with self._writer() as writer, writing_to_index(self._folder):
                writer.delete_all_documents()
                writer.commit()
            with writing_to_index(self._folder):
                self._refresh()
                self._write_sidecar(0)

    @contextmanager
    def _writer(self) -> Iterator[tantivy.IndexWriter]:
        """Lend a writer; at the end wait for its merges and give up its memory and its lock."""
        with writing_to_index(self._folder):
            writer = self._index.writer(HEAP_BYTES, num_threads=1)
        try:
            yield writer
        except BaseException:
            with suppress(EngineError), engine():
                writer.wait_merging_threads()
            # What the failed writing has left on the disk belongs to nothing.
            with suppress(EngineError), engine():
                cleaner = self._index.writer(LEAST_HEAP_BYTES, num_threads=1)
                cleaner.garbage_collect_files()
                cleaner.wait_merging_threads()
            raise
        # A merge that fails leaves its segments as they were.
        with suppress(EngineError), engine():
            writer.wait_merging_threads()

    # Searching

    def top(
        self, query: Query, *, limit: int, offset: int = 0, sort: str = "score"
    ) -> tuple[int, list[tuple[int, float]]]:
        """Return how many documents match, and (doc_no, score) of a page of them.

        `sort` is one of SORTS. By date (newest first), oldest and patient (then newest) no two
        documents are equal. By score, equals keep their places in the index, which stay the same
        for a generation: pages neither repeat nor miss a document. Within a page they go by doc_no.
        """
        view = self._view
        limit, offset = max(0, limit), max(0, offset)
        if limit == 0 or offset >= view.searcher.num_docs:
            return self.count(query), []
        column = None if sort == "score" else f"by_{sort}"
        # Any: the stubs of tantivy-py 0.27 leave out `SearchResult.count`.
        found: Any = self._ask(
            lambda: view.searcher.search(query, limit, offset=offset, order_by_field=column, order=Order.Asc)
        )
        doc_nos: list[Any] = self._ask(
            lambda: view.searcher.fast_field_values("doc_no", [address for _, address in found.hits])
        )
        if column is not None:
            return found.count, [(doc_no, 0.0) for doc_no in doc_nos]
        page = [(doc_no, score) for (score, _), doc_no in zip(found.hits, doc_nos, strict=True)]
        page.sort(key=lambda hit: (-hit[1], hit[0]))
        return found.count, page

    def count(self, query: Query) -> int:
        """Return how many documents match."""
        searcher = self._view.searcher
        found: Any = self._ask(lambda: searcher.search(query, 1))
        return int(found.count)

    def cards(self, doc_nos: Iterable[int]) -> dict[int, bytes]:
        """Return the cards of documents by doc_no, without those that the index does not hold."""
        searcher = self._view.searcher
        found: dict[int, bytes] = {}
        for doc_no in doc_nos:
            query = Query.term_query(schema(), "doc_no", doc_no, "basic")
            if (packed := self._ask(partial(_card, searcher, query))) is not None:
                found[doc_no] = packed
        return found

    def study_cards(self, study_uids: Iterable[str]) -> dict[str, bytes]:
        """Return the card of each study's first report, or of the study itself where it has none."""
        searcher = self._view.searcher
        found: dict[str, bytes] = {}
        for study_uid in set(study_uids):
            query = keyword("study_uid", keyword_key(study_uid))
            if (packed := self._ask(partial(_card, searcher, query))) is not None:
                found[study_uid] = packed
        return found

    def matching(self, query: Query) -> npt.NDArray[np.int64]:
        """Return the doc_no of every document that matches, ascending."""
        view = self._view
        found: Any = self._ask(lambda: view.searcher.search(query, 1))
        if found.count * 2 <= view.searcher.num_docs:
            return self._doc_nos(view, query, found.count)
        # Each hit becomes two Python objects, so the fewer are fetched: here those that do not match.
        if view.everyone is None:
            view.everyone = self._doc_nos(view, everything(), view.searcher.num_docs)
        others = self._doc_nos(view, all_of([], but_not=[query]), view.searcher.num_docs - found.count)
        return np.delete(view.everyone, np.searchsorted(view.everyone, others))

    def _doc_nos(self, view: _View, query: Query, count: int) -> npt.NDArray[np.int64]:
        if count == 0:
            return np.empty(0, np.int64)
        found = self._ask(
            lambda: view.searcher.search(query, count, count=False, order_by_field="doc_no", order=Order.Asc)
        )
        return np.fromiter((doc_no for doc_no, _ in found.hits), np.int64, len(found.hits))

    def value_counts(self, query: Query, fields: Iterable[str]) -> tuple[int, dict[str, dict[str, int]]]:
        """Return how many documents match, and for each counted field how many of them have each value."""
        searcher = self._view.searcher
        wanted = list(dict.fromkeys(fields))

        def aggregate(columns: Sequence[str]) -> dict[str, Any]:
            size = _MOST_VALUES // max(1, len(columns))
            request: dict[str, Any] = {name: {"terms": {"field": name, "size": size}} for name in columns}
            request["doc_no"] = {"value_count": {"field": "doc_no"}}
            return self._ask(lambda: searcher.aggregate(query, request))

        answer = aggregate([name for name in wanted if name not in _MANY_VALUED])
        total = int(answer.pop("doc_no")["value"])
        if total <= _BROAD * searcher.num_docs:
            answer |= aggregate([name for name in wanted if name in _MANY_VALUED])
        counts: dict[str, dict[str, int]] = {}
        for name in wanted:
            if name in answer and not answer[name]["sum_other_doc_count"]:
                counts[name] = {bucket["key"]: bucket["doc_count"] for bucket in answer[name]["buckets"]}
            else:
                # Never without the query: the dictionary alone counts deleted documents too.
                ask = partial(searcher.terms_with_prefix, name, "", filter_query=query)
                counts[name] = dict(self._ask(ask))
        return total, counts

    def _ask(self, ask: Callable[[], _T]) -> _T:
        try:
            with engine():
                return ask()
        except EngineError as error:
            if error.refused:
                raise LibraryError(
                    "the full-text index cannot answer this question", remedy="Write longer beginnings of words"
                ) from error
            # Without its sidecar the folder is made anew when it is opened next.
            with suppress(OSError):
                self._sidecar.unlink(missing_ok=True)
            raise LibraryError(
                "the full-text index cannot be read",
                item=str(self._folder),
                remedy="Open the library again, which rebuilds it",
            ) from error


def _card(searcher: tantivy.Searcher, query: Query) -> bytes | None:
    hits = searcher.search(query, 1, count=False, order_by_field="doc_no", order=Order.Asc).hits
    return bytes(searcher.doc(hits[0][1]).get_first("card") or b"") if hits else None


def _checksum(file: Path) -> int:
    checksum = 0
    with file.open("rb") as content:
        while piece := content.read(1 << 20):
            checksum = zlib.crc32(piece, checksum)
    return checksum
