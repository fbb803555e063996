"""The full-text index: the only file that imports tantivy; a cache that is rebuilt when in doubt.

One index document is one "document" of the library: a report with what is known of its study, or
a study without any report, whose words are then those of its description. The index answers
whole questions, filters included, so that totals and facets are true in one call.

Text is cut at everything but letters and digits, lower-cased, freed of accents, and stemmed as
English; every text field has a twin, `_plain`, without the stemming, for beginnings of words.

For each name and code in a report (and each category above the code) the index holds one standing:
present before uncertain before absent when mentions disagree. Historical, family and hypothetical
mentions are held beside it and have no part in it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import threading
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from functools import cache, lru_cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import tantivy
from tantivy import Filter, Occur, Order, TextAnalyzer, TextAnalyzerBuilder, Tokenizer
from tantivy import Query as Query

from medsearch_desktop.errors import LibraryError
from medsearch_desktop.store.disk import storage_full

# Raised whenever what is written below for a document changes.
FORMAT = 4

SECTIONS = (
    "findings",
    "impression",
    "indication",
    "history",
    "technique",
    "comparison",
    "examination",
    "addendum",
)
TEXT_FIELDS = ("text", *SECTIONS, "description", "manufacturer")
# Values as `keyword_key` folds them; those that are counted are columns as well.
KEYWORD_FIELDS = ("laterality", "patient", "accession", "study_id", "study_uid", "report", "label_key", "has")
COUNTED_FIELDS = ("modality", "view", "body", "sex", "decade", "year", "label", "codes", "findings_14")
SORTS = ("score", "date", "oldest", "patient")

# One thread: documents keep their order, and a workstation keeps its other cores.
_HEAP_BYTES = 64_000_000
_LEAST_HEAP_BYTES = 15_000_000
# A segment that is being written or merged may need this much beside what the index holds.
_SPARE_BYTES = 2 * _HEAP_BYTES
# Fields with some ten values a document. Above this share of all documents intersecting their posting
# lists counts faster than reading their columns: 3 ms against 23 for all of 200,000.
_MANY_VALUED = ("codes", "findings_14")
_BROAD = 0.1
# tantivy refuses to hold more buckets than 65,000.
_MOST_VALUES = 60_000
_SEGMENT_SUFFIXES = (".term", ".idx", ".pos", ".fast", ".fieldnorm", ".store", ".del")
_LAST_DAY = date.max.toordinal()

_T = TypeVar("_T")


class _EngineError(Exception):
    """Something that went wrong inside tantivy; `refused` when it was what it was asked to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.refused = message.startswith("An invalid argument")


@contextmanager
def _engine() -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        raise _EngineError(str(error)) from error
    except BaseException as error:
        # Rust panics arrive as a BaseException whose class no module exports.
        if type(error).__name__ == "PanicException":
            raise _EngineError(str(error)) from error
        raise


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    try:
        with _engine():
            yield
    except _EngineError as error:
        cause = error.__cause__
        # A writing thread that hits the end of the disk is only said to have been killed.
        full = "No space left" in str(error) or (isinstance(cause, OSError) and cause.errno == errno.ENOSPC)
        with suppress(OSError):
            full = full or shutil.disk_usage(folder).free < _SPARE_BYTES
        if full:
            raise storage_full(folder) from error
        raise LibraryError(
            "the full-text index cannot be written", item=str(folder), remedy="Check that the folder can be written"
        ) from error


@cache
def _analyser(*, stemmed: bool) -> TextAnalyzer:
    builder = TextAnalyzerBuilder(Tokenizer.simple()).filter(Filter.lowercase()).filter(Filter.ascii_fold())
    return (builder.filter(Filter.stemmer("english")) if stemmed else builder).build()


def analyse(text: str, *, stemmed: bool = True) -> list[str]:
    """Return the tokens of `text` as the index holds them."""
    return _analyser(stemmed=stemmed).analyze(unicodedata.normalize("NFC", text))


def keyword_key(value: str) -> str:
    """Return a keyword as the index compares it: upper case, blanks trimmed and collapsed."""
    return " ".join(value.split()).upper()


@lru_cache(maxsize=65_536)
def name_key(name: str) -> str:
    """Return the name of a finding as the index compares it; empty when it has neither letter nor digit."""
    return "_".join(analyse(name))


def code_key(code: str) -> str:
    """Return an ICD-10-CM code or category as the index compares it."""
    return f"={code.replace('.', '').upper()}"


# Building queries. A `Query` is opaque to everyone else.


@cache
def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    # Signed: deleting by an unsigned term finds nothing in tantivy-py 0.27.
    builder.add_integer_field("doc_no", indexed=True, fast=True)
    for name in TEXT_FIELDS:
        builder.add_text_field(name, tokenizer_name="stemmed", index_option="position")
        builder.add_text_field(f"{name}_plain", tokenizer_name="plain", index_option="position")
    for name in KEYWORD_FIELDS:
        builder.add_text_field(name, tokenizer_name="raw", index_option="basic")
    for name in COUNTED_FIELDS:
        builder.add_text_field(name, tokenizer_name="raw", index_option="basic", fast=True)
    builder.add_text_field("states", tokenizer_name="blanks", index_option="basic")
    builder.add_float_field("age", fast=True)
    builder.add_integer_field("day", fast=True)
    builder.add_integer_field("by_date", fast=True)
    builder.add_integer_field("by_oldest", fast=True)
    builder.add_text_field("by_patient", tokenizer_name="raw", index_option="basic", fast=True)
    builder.add_bytes_field("card", stored=True)
    return builder.build()


def _card(searcher: tantivy.Searcher, query: Query) -> bytes | None:
    hits = searcher.search(query, 1, count=False, order_by_field="doc_no", order=Order.Asc).hits
    return bytes(searcher.doc(hits[0][1]).get_first("card") or b"") if hits else None


def everything() -> Query:
    """Match every document."""
    return Query.const_score_query(Query.all_query(), 0.0)


def words(field: str, tokens: Sequence[str]) -> Query:
    """Match the stemmed tokens next to each other in a text field; at least one is given."""
    if len(tokens) == 1:
        return Query.term_query(_schema(), field, tokens[0], "freq")
    return Query.phrase_query(_schema(), field, list(tokens))


def beginning(field: str, tokens: Sequence[str]) -> Query:
    """Match the plain tokens next to each other in a text field, the last as a beginning."""
    pattern = f"{_escaped(tokens[-1])}.*"
    if len(tokens) == 1:
        return Query.regex_query(_schema(), f"{field}_plain", pattern)
    patterns: list[str | tuple[int, str]] = [*(_escaped(token) for token in tokens[:-1]), pattern]
    return Query.regex_phrase_query(_schema(), f"{field}_plain", patterns)


def keyword(field: str, key: str) -> Query:
    """Match one exact key of a keyword field."""
    return Query.const_score_query(Query.term_query(_schema(), field, key, "basic"), 0.0)


def keyword_beginning(field: str, start: str) -> Query:
    """Match the keys of a keyword field that begin with `start`."""
    return Query.const_score_query(Query.regex_query(_schema(), field, f"{_escaped(start)}.*"), 0.0)


def between(
    field: str, low: float | None, high: float | None, *, include_low: bool = True, include_high: bool = True
) -> Query:
    """Match the numbers of "age" or "day" in a range, of which at least one end is given."""
    kind = tantivy.FieldType.Float if field == "age" else tantivy.FieldType.Integer
    found = Query.range_query(
        _schema(),
        field,
        kind,
        low,
        high,
        include_lower=include_low or low is None,
        include_upper=include_high or high is None,
    )
    return Query.const_score_query(found, 0.0)


def all_of(queries: Sequence[Query], *, but_not: Sequence[Query] = ()) -> Query:
    """Match what all of `queries`, and none of `but_not`, match; scores add up."""
    required = [(Occur.Must, query) for query in queries] or [(Occur.Must, everything())]
    if len(required) == 1 and not but_not:
        return required[0][1]
    return Query.boolean_query([*required, *((Occur.MustNot, query) for query in but_not)])


def any_of(queries: Sequence[Query]) -> Query:
    """Match what at least one of `queries` matches; scores add up."""
    return queries[0] if len(queries) == 1 else Query.boolean_query([(Occur.Should, query) for query in queries])


def at_least(count: int, queries: Sequence[Query]) -> Query:
    """Match what at least `count` of `queries` match; scores add up."""
    return Query.boolean_query([(Occur.Should, query) for query in queries], minimum_number_should_match=count)


def _escaped(text: str) -> str:
    return "".join(f"\\{character}" if character in r"\.+*?()|[]{}^$#&-~" else character for character in text)


# Writing documents


def standing(assertions: Iterable[str]) -> str | None:
    """Return what a document says on the whole: present before uncertain before absent, or None."""
    said = set(assertions)
    return next((state for state in ("present", "uncertain", "absent") if state in said), None)


def _states(entities: Sequence[tuple[str, str, str, str, str, str]]) -> Iterator[str]:
    said: dict[str, set[str]] = {}
    for icd10cm, title, finding, assertion, _, text in entities:
        keys = {name_key(text), name_key(finding.replace("_", " ")), name_key(title)}
        # ICD-10-CM titles put the plain name first: "Pleural effusion, not elsewhere classified".
        keys.add(name_key(title.partition(",")[0]))
        whole = code_key(icd10cm)
        keys.update(whole[:length] for length in range(4, len(whole) + 1))
        for key in keys - {""}:
            said.setdefault(key, set()).add(assertion)
    for key, assertions in said.items():
        yield f"mentioned|{key}"
        state = standing(assertions)
        if state is not None:
            yield f"{state}|{key}"
        for other in ("historical", "family", "hypothetical"):
            if other in assertions:
                yield f"{other}|{key}"


def _counted(entities: Sequence[tuple[str, str, str, str, str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the standing of each code (with its title) and of each finding, as the facets count them."""
    codes: dict[str, list[str]] = {}
    titles: dict[str, str] = {}
    findings: dict[str, list[str]] = {}
    for icd10cm, title, finding, assertion, _, _ in entities:
        if icd10cm:
            codes.setdefault(icd10cm, []).append(assertion)
            titles.setdefault(icd10cm, title)
        if finding:
            findings.setdefault(finding, []).append(assertion)
    for code, assertions in codes.items():
        if (state := standing(assertions)) is not None:
            yield "codes", f"{state}\t{code}\t{titles[code]}"
    for finding, assertions in findings.items():
        if (state := standing(assertions)) is not None:
            yield "findings_14", f"{state}\t{finding}"


def _index_document(document: Mapping[str, Any]) -> tantivy.Document:
    made = tantivy.Document()
    doc_no: int = document["doc_no"]
    made.add_integer("doc_no", doc_no)
    made.add_bytes("card", document.get("card", b""))
    study_date: date | None = document["study_date"]
    age: float | None = document["patient_age"]
    text: str = document["text"]
    entities = document["entities"]

    texts = [("text", text if document["report_id"] is not None else document["study_description"])]
    for name, start, end in document["sections"]:
        if name.lower() in SECTIONS:
            texts.append((name.lower(), text[start:end]))
    texts.append(("description", document["study_description"]))
    texts.extend(("manufacturer", name) for name in document["manufacturers"])
    for field, value in texts:
        if value:
            composed = unicodedata.normalize("NFC", value)
            made.add_text(field, composed)
            made.add_text(f"{field}_plain", composed)

    has = {
        "REPORT": document["report_id"] is not None,
        "IMAGE": document["image_count"] > 0,
        "LABEL": bool(document["labels"]),
        "FINDING": bool(entities),
        "DATE": study_date is not None,
        "AGE": age is not None,
    }
    keywords: list[tuple[str, Iterable[str | None]]] = [
        ("modality", document["modalities"]),
        ("view", document["view_positions"]),
        ("body", document["body_parts"]),
        ("laterality", document["lateralities"]),
        ("sex", [document["patient_sex"]]),
        ("patient", [document["patient_id"]]),
        ("accession", [document["accession_number"]]),
        ("study_id", [document["study_id"]]),
        ("study_uid", [document["study_uid"]]),
        ("report", [document["report_id"]]),
        ("label_key", document["labels"]),
        ("has", [name for name, there in has.items() if there]),
    ]
    for field, values in keywords:
        for key in dict.fromkeys(keyword_key(value) for value in values if value):
            if key:
                made.add_text(field, key)
    for label in dict.fromkeys(document["labels"]):
        made.add_text("label", label)
    for field, token in _counted(entities):
        made.add_text(field, token)
    made.add_text("states", " ".join(_states(entities)))

    if age is not None:
        made.add_float("age", float(age))
        made.add_text("decade", f"{int(age) // 10 * 10}-{int(age) // 10 * 10 + 9}")
    day = study_date.toordinal() if study_date is not None else 0
    if study_date is not None:
        made.add_integer("day", day)
        made.add_text("year", f"{study_date.year:04d}")
    # Each order is one ascending column in which no two documents are equal; without a date comes last.
    newest = (_LAST_DAY - day) << 40 | doc_no
    made.add_integer("by_date", newest)
    made.add_integer("by_oldest", (day or _LAST_DAY + 1) << 40 | doc_no)
    patient = keyword_key(document["patient_id"] or "") or "\U0010ffff"
    made.add_text("by_patient", f"{patient}\0{newest:020d}")
    return made


# The index


@dataclass(slots=True)
class _View:
    """What a search sees from its first call to its last, whatever is written meanwhile."""

    searcher: tantivy.Searcher
    generation: int
    everyone: npt.NDArray[np.int64] | None = None


class FulltextIndex:
    """The index in one folder, opened or made.

    A folder that is damaged, or was written by another release of tantivy or of this file, is
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
                with _engine():
                    self._index = tantivy.Index.open(str(self._files))
                    self._start()
                    # Reads a column and the documents that are alive: what every search needs.
                    self._view.searcher.search(Query.all_query(), 1, order_by_field="by_date")
            except _EngineError:
                watermark = None
        if watermark is None:
            with _writing_to(self._folder):
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
        self._index = tantivy.Index(_schema(), path=str(self._files))
        self._start()
        self._write_sidecar(0)

    def _start(self) -> None:
        self._index.register_tokenizer("stemmed", _analyser(stemmed=True))
        self._index.register_tokenizer("plain", _analyser(stemmed=False))
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
            if kept["made_by"] != _made_by():
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
        kept = json.dumps({"made_by": _made_by(), "watermark": watermark, "files": self._checksums})
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
                    with _writing_to(self._folder):
                        writer.delete_documents_by_term("doc_no", doc_no)
                    seen.add(doc_no)
                for document in documents:
                    doc_no = document["doc_no"]
                    made = _index_document(document)
                    with _writing_to(self._folder):
                        if not fresh or doc_no in seen:
                            writer.delete_documents_by_term("doc_no", doc_no)
                        writer.add_document(made)
                    seen.add(doc_no)
                if seen:
                    with _writing_to(self._folder):
                        writer.commit()
            with _writing_to(self._folder):
                if seen:
                    self._refresh()
                self._write_sidecar(watermark)

    def reset(self) -> None:
        """Take out every document; the watermark is 0 again. Raises StorageFullError, LibraryError."""
        with self._writing:
            with _writing_to(self._folder):
                # First the watermark: a crash in between must not leave one without its documents.
                self._write_sidecar(0)
            with self._writer() as writer, _writing_to(self._folder):
                writer.delete_all_documents()
                writer.commit()
            with _writing_to(self._folder):
                self._refresh()
                self._write_sidecar(0)

    @contextmanager
    def _writer(self) -> Iterator[tantivy.IndexWriter]:
        """Lend a writer; at the end wait for its merges and give up its memory and its lock."""
        with _writing_to(self._folder):
            writer = self._index.writer(_HEAP_BYTES, num_threads=1)
        try:
            yield writer
        except BaseException:
            with suppress(_EngineError), _engine():
                writer.wait_merging_threads()
            # What the failed writing has left on the disk belongs to nothing.
            with suppress(_EngineError), _engine():
                cleaner = self._index.writer(_LEAST_HEAP_BYTES, num_threads=1)
                cleaner.garbage_collect_files()
                cleaner.wait_merging_threads()
            raise
        # A merge that fails leaves its segments as they were.
        with suppress(_EngineError), _engine():
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
            query = Query.term_query(_schema(), "doc_no", doc_no, "basic")
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
            with _engine():
                return ask()
        except _EngineError as error:
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


def _checksum(file: Path) -> int:
    checksum = 0
    with file.open("rb") as content:
        while piece := content.read(1 << 20):
            checksum = zlib.crc32(piece, checksum)
    return checksum


@cache
def _made_by() -> str:
    """Everything that the files depend on."""
    fields = repr((TEXT_FIELDS, KEYWORD_FIELDS, COUNTED_FIELDS))
    return f"{FORMAT}; {metadata.version('tantivy')}; {hashlib.sha256(fields.encode()).hexdigest()[:16]}"
