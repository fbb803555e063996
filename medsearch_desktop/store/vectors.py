"""Nearest vectors: a flat file for exact search, an HNSW graph over most of it for large libraries.

The only file that imports hnswlib. All of it is a cache of the table `vectors`: the flat file
holds every vector in the order of arrival and is always current; the graph covers its first
rows, and the rest is searched exactly, so an answer never waits for the graph and never misses a
new image. Under a filter search is exact, and so never misses: of 100,000 rows it costs 0.4 ms
where one in a thousand passes and 25 ms where nearly all do, the graph's own filter 117 ms and
1 ms; the lines cross near one in ten.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import zlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.store.disk import writing_to

FORMAT = 1
GRAPH_M = 32
GRAPH_BREADTH_BUILD = 200
# Above this share of allowed rows one product over all rows beats gathering the allowed ones.
GATHER_BELOW = 0.3
# Share of rows whose image is gone at which the files are written anew.
COMPACT_ABOVE = 0.2
# Of a page of answers at most, scores are computed once more, in double precision: 1,000 take some 5 ms.
_RECOMPUTED = 1000

Vectors = NDArray[np.float32]
Numbers = NDArray[np.int64]


@dataclass
class _Sidecar:
    """What the files beside it hold. Written last, so it never claims more than there is."""

    format: int = FORMAT
    model_id: str = ""
    dim: int = 1024
    rows: int = 0
    watermark: int = 0
    graph_rows: int = 0
    graph_bytes: int = 0
    graph_crc32: int = 0
    isolation: float = -1.0
    isolation_rows: int = 0
    dead: list[int] = field(default_factory=list)


class VectorIndex:
    """The vectors of one model.

    Arguments: `folder` is created when missing; `exact_below` is the number of rows up to which no
    graph is built; `breadth` is HNSW's ef. Files that are missing, damaged, of another format or
    of another model are dropped, and `watermark` is 0 again: the caller then fills the index anew.
    May be shared between threads: one writes while others ask.
    """

    def __init__(self, folder: Path, *, model_id: str, dim: int, exact_below: int, breadth: int, threads: int) -> None:
        self._folder = folder
        self._exact_below = exact_below
        self._breadth = breadth
        self._threads = threads
        self._dim = dim
        # A question takes milliseconds, and the files are mapped anew by every update: they take turns.
        self._lock = threading.RLock()
        self._resets = 0
        self._graph: Any = None
        self._numbers: Numbers = np.empty(0, np.int64)
        self._order: Numbers | None = None
        self._vectors: Vectors = np.empty((0, dim), np.float32)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sidecar = self._read_sidecar(model_id)
        self._map()

    @property
    def watermark(self) -> int:
        """Sequence number of the last change that the index holds."""
        return self._sidecar.watermark

    @property
    def count(self) -> int:
        """Vectors that can be found."""
        return self._sidecar.rows - len(self._dead)

    @property
    def graph_count(self) -> int:
        """Rows that the HNSW graph covers; the rest is searched exactly."""
        return self._sidecar.graph_rows

    def reset(self) -> None:
        """Drop everything; the watermark is 0 again."""
        with self._lock:
            self._resets += 1
            self._unmap()
            with writing_to(self._folder):
                self._remove_files()
                self._write_sidecar(_Sidecar(model_id=self._sidecar.model_id, dim=self._dim))
            self._map()

    def lacks(self, numbers: Numbers) -> Numbers:
        """Return those of `numbers` that cannot be found in the index, in their order."""
        with self._lock:
            return np.asarray(numbers[(self._rows_of(numbers) < 0) | np.isin(numbers, self._sidecar.dead)])

    def update(self, numbers: Numbers, vectors: Vectors, *, removed: Numbers, watermark: int) -> None:
        """Append rows, mark others as gone, and make that durable up to `watermark`.

        `numbers` has no number twice, `vectors` is (n, dim) and L2-normalised. Of numbers already held
        the row is kept, and found again if it was gone, so the same update may come twice.
        After an error the index is as it was. Raises StorageFullError, LibraryError.
        """
        with self._lock:
            new = self._rows_of(numbers) < 0
            back = numbers[~new].tolist()
            numbers, vectors = numbers[new], np.ascontiguousarray(vectors[new], dtype=np.float32)
            gone = np.intersect1d(removed, np.concatenate([self._numbers, numbers]))
            self._unmap()
            rows = self._sidecar.rows
            try:
                with writing_to(self._folder):
                    _append(self._file("vectors.f32"), vectors, at=rows * self._dim * 4)
                    _append(self._file("numbers.i64"), numbers.astype(np.int64), at=rows * 8)
                    dead = sorted({*self._sidecar.dead} - {*back} | {*gone.tolist()})
                    self._write_sidecar(
                        replace(self._sidecar, rows=rows + len(numbers), dead=dead, watermark=watermark)
                    )
            finally:
                self._map()
            if len(self._dead) > COMPACT_ABOVE * max(1, self._sidecar.rows):
                self._compact()

    def close(self) -> None:
        """Let go of the files; from then on the index answers nothing."""
        with self._lock:
            self._unmap()
            self._sidecar = _Sidecar(model_id=self._sidecar.model_id, dim=self._dim)
            self._map()

    def rest(self) -> None:
        """Let go of the graph, the larger part in memory, until a question needs it again."""
        with self._lock:
            self._graph = None

    def extend_graph(self) -> None:
        """Bring the graph up to date when what it lacks has grown past `exact_below`, and save it.

        Takes minutes for 100,000 rows; questions are answered meanwhile, by what there was before.
        """
        with self._lock:
            rows, start, resets = self._sidecar.rows, self._sidecar.graph_rows, self._resets
            if rows - start <= self._exact_below:
                return
            import hnswlib

            # A copy of its own: the graph that answers must not change under a question.
            graph = self._read_graph(max_elements=rows)
            if graph is None:
                start = 0
                graph = hnswlib.Index(space="ip", dim=self._dim)
                graph.init_index(max_elements=rows, M=GRAPH_M, ef_construction=GRAPH_BREADTH_BUILD, random_seed=1)
        for first in range(start, rows, 8192):
            last = min(first + 8192, rows)
            with self._lock:
                if self._resets != resets:
                    # Written anew meanwhile, its rows are others; the next time will do.
                    return
                # A copy, for a mapped file cannot grow on Windows.
                block = np.array(self._vectors[first:last])
            graph.add_items(block, np.arange(first, last), num_threads=self._threads)
        with self._lock, writing_to(self._folder):
            if self._resets == resets:
                self._save_graph(graph, rows=rows)

    def search(self, query: Vectors, k: int, *, allowed: Numbers | None = None) -> tuple[Numbers, Vectors]:
        """Return the `k` nearest (image numbers, cosines), best first, ties by number.

        `query` has shape (dim,) and is L2-normalised. `allowed`, when given, restricts the answer
        and makes it exact.
        """
        with self._lock:
            if not self.count or k <= 0:
                return np.empty(0, np.int64), np.empty(0, np.float32)
            query = np.ascontiguousarray(query, dtype=np.float32)
            if allowed is not None:
                return self._among(query, k, allowed)
            graph = self._load_graph()
            if graph is None:
                return self._best(query, np.arange(self._sidecar.rows), self._vectors @ query, k)
            near = self._graph_rows(graph, query, k)
            tail = np.arange(self._sidecar.graph_rows, self._sidecar.rows)
            rows = np.concatenate([near, tail])
            return self._best(query, rows, self._vectors[rows] @ query, k)

    def exact(self, query: Vectors, k: int) -> tuple[Numbers, Vectors]:
        """Return what `search` would with no graph: the yardstick of its recall."""
        with self._lock:
            query = np.ascontiguousarray(query, dtype=np.float32)
            return self._best(query, np.arange(self._sidecar.rows), self._vectors @ query, k)

    def vectors_of(self, numbers: Numbers) -> Vectors:
        """Return the vectors of `numbers`, in that order, shape (n, dim); raises KeyError for one not held."""
        with self._lock:
            rows = self._rows_of(numbers)
            if (rows < 0).any():
                raise KeyError("vector")
            return np.asarray(self._vectors[rows])

    def isolation(self) -> float:
        """Return the cosine below which a nearest neighbour is rare: 98 in 100 images have one that is nearer.

        Measured on 128 images of this index with a fixed seed, kept until it has grown by a
        quarter; -1.0 below ten images, where nothing can be said.
        """
        with self._lock:
            rows = self._sidecar.rows
            if rows < 10:
                return -1.0
            if not rows / 1.25 <= self._sidecar.isolation_rows <= rows:
                measured = self._measure_isolation(rows)
                with writing_to(self._folder):
                    self._write_sidecar(replace(self._sidecar, isolation=measured, isolation_rows=rows))
            return self._sidecar.isolation

    def _measure_isolation(self, rows: int) -> float:
        sample = np.random.default_rng(0).choice(rows, min(rows, 128), replace=False)
        best = np.full(len(sample), -1, np.float32)
        for start in range(0, rows, 16_384):
            block = self._vectors[start : start + 16_384]
            cosines = self._vectors[sample] @ block.T
            own = np.flatnonzero((sample >= start) & (sample < start + len(block)))
            cosines[own, sample[own] - start] = -1
            np.maximum(best, cosines.max(axis=1), out=best)
        return float(np.quantile(best, 0.02))

    def _rows_of(self, numbers: Numbers) -> NDArray[np.int64]:
        """Return the row of each number, -1 where there is none."""
        if not len(self._numbers) or not len(numbers):
            return np.full(len(numbers), -1, np.int64)
        places = np.searchsorted(self._numbers, numbers, sorter=self._order)
        places = np.minimum(places, len(self._numbers) - 1)
        rows = places if self._order is None else self._order[places]
        return np.where(self._numbers[rows] == numbers, rows, -1)

    def _among(self, query: Vectors, k: int, allowed: Numbers) -> tuple[Numbers, Vectors]:
        rows = self._rows_of(allowed)
        rows = np.unique(rows[rows >= 0])
        if len(rows) > GATHER_BELOW * self._sidecar.rows:
            return self._best(query, rows, (self._vectors @ query)[rows], k)
        # In blocks that stay in the processor's cache: half the time of one large copy.
        scores = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), 256):
            scores[start : start + 256] = self._vectors[rows[start : start + 256]] @ query
        return self._best(query, rows, scores, k)

    def _graph_rows(self, graph: Any, query: Vectors, k: int) -> NDArray[np.int64]:
        # Rows of images that are gone stay in the graph until it is written anew: ask for that many more.
        want = min(k + len(self._dead), self._sidecar.graph_rows)
        graph.set_ef(max(self._breadth, 2 * want))
        labels, _ = graph.knn_query(query[None], k=want, num_threads=1)
        return cast(NDArray[np.int64], labels[0].astype(np.int64))

    def _best(self, query: Vectors, rows: NDArray[np.int64], scores: Vectors, k: int) -> tuple[Numbers, Vectors]:
        numbers = self._numbers[rows]
        if self._dead:
            alive = ~np.isin(numbers, self._sidecar.dead)
            numbers, rows, scores = numbers[alive], rows[alive], scores[alive]
        if k < len(scores):
            # All that tie with the k-th are kept, so that the order among them is by number.
            floor = np.partition(scores, len(scores) - k)[len(scores) - k]
            kept = scores >= floor
            numbers, rows, scores = numbers[kept], rows[kept], scores[kept]
        if len(rows) <= _RECOMPUTED:
            # The last digits of a product in single precision depend on how many rows it has and where they lie in
            # memory: the same question would have other scores in another process.
            products = self._vectors[rows].astype(np.float64) * query.astype(np.float64)
            scores = products.sum(axis=1).astype(np.float32)
        order = np.lexsort((numbers, -scores))[:k]
        return np.asarray(numbers[order]), np.asarray(scores[order])

    def _compact(self) -> None:
        alive = ~np.isin(self._numbers, self._sidecar.dead)
        numbers, vectors = np.array(self._numbers[alive]), np.array(self._vectors[alive])
        watermark = self._sidecar.watermark
        self.reset()
        self.update(numbers, vectors, removed=np.empty(0, np.int64), watermark=watermark)

    def _unmap(self) -> None:
        # A mapped file cannot be written over on Windows.
        self._numbers = np.empty(0, np.int64)
        self._vectors = np.empty((0, self._dim), np.float32)
        self._order = None

    def _map(self) -> None:
        self._unmap()
        rows = self._sidecar.rows
        self._graph = None
        self._dead = frozenset(self._sidecar.dead)
        if rows:
            self._numbers = np.memmap(self._file("numbers.i64"), np.int64, "r", shape=(rows,))
            self._vectors = np.memmap(self._file("vectors.f32"), np.float32, "r", shape=(rows, self._dim))
            # An image may get its vector long after those that came later, when its file is back.
            if (self._numbers[1:] < self._numbers[:-1]).any():
                self._order = np.argsort(self._numbers)

    def _load_graph(self) -> Any:
        if self._graph is None and self._sidecar.graph_rows:
            self._graph = self._read_graph(max_elements=self._sidecar.graph_rows)
        return self._graph

    def _read_graph(self, *, max_elements: int) -> Any:
        """Return the saved graph with room for `max_elements` rows, or None; a damaged one is forgotten."""
        if not self._sidecar.graph_rows:
            return None
        import hnswlib

        file = self._file("graph.hnsw")
        # hnswlib reads whatever it is given; only bytes that this index wrote itself may reach it.
        if _crc32(file) != (self._sidecar.graph_bytes, self._sidecar.graph_crc32):
            self._graph = None
            self._sidecar.graph_rows = 0
            self._write_sidecar(self._sidecar)
            return None
        graph = hnswlib.Index(space="ip", dim=self._dim)
        graph.load_index(str(file), max_elements=max_elements)
        return graph

    def _save_graph(self, graph: Any, *, rows: int) -> None:
        part = self._file("graph.part")
        try:
            graph.save_index(str(part))
        except RuntimeError as error:
            raise OSError(errno.EIO, str(error)) from error
        part.chmod(0o600)
        size, crc = _crc32(part)
        with part.open("rb") as handle:
            os.fsync(handle.fileno())
        part.replace(self._file("graph.hnsw"))
        self._sidecar.graph_rows = rows
        self._sidecar.graph_bytes, self._sidecar.graph_crc32 = size, crc
        self._write_sidecar(self._sidecar)
        self._graph = graph

    def _file(self, name: str) -> Path:
        return self._folder / name

    def _read_sidecar(self, model_id: str) -> _Sidecar:
        fresh = _Sidecar(model_id=model_id, dim=self._dim)
        try:
            held = _Sidecar(**json.loads(self._file("index.json").read_text("utf-8")))
            sound = (
                (held.format, held.model_id, held.dim) == (FORMAT, model_id, self._dim)
                and self._file("vectors.f32").stat().st_size >= held.rows * self._dim * 4
                and self._file("numbers.i64").stat().st_size >= held.rows * 8
            )
        except (OSError, ValueError, TypeError):
            sound = False
        if sound:
            return held
        self._remove_files()
        return fresh

    def _write_sidecar(self, sidecar: _Sidecar) -> None:
        part = self._file("index.part")
        part.unlink(missing_ok=True)
        with os.fdopen(_open_private(part), "w", encoding="utf-8") as handle:
            json.dump(asdict(sidecar), handle)
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(self._file("index.json"))
        self._sidecar = sidecar

    def _remove_files(self) -> None:
        for name in ("index.json", "vectors.f32", "numbers.i64", "graph.hnsw"):
            self._file(name).unlink(missing_ok=True)


def _open_private(file: Path) -> int:
    return os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)


def _append(file: Path, values: NDArray[Any], *, at: int) -> None:
    # What lies beyond `at` was never vouched for by the sidecar: a write that was cut off.
    with os.fdopen(_open_private(file), "r+b") as handle:
        handle.truncate(at)
        handle.seek(at)
        np.ascontiguousarray(values).tofile(handle)
        handle.flush()
        os.fsync(handle.fileno())


def _crc32(file: Path) -> tuple[int, int]:
    size = crc = 0
    try:
        with file.open("rb") as handle:
            while block := handle.read(1 << 22):
                size += len(block)
                crc = zlib.crc32(block, crc)
    except FileNotFoundError:
        return 0, 0
    return size, crc
