"""Nearest vectors: a flat file for exact search, HNSW graphs over most of it for large libraries.

All of it is a cache of the table `vectors`: the flat file holds every vector in the order of arrival and is always
current; the graphs cover its first rows, each a part of them, and the rest is searched exactly, so an answer never
waits for a graph and never misses a new image. A graph stands on short codes (`directions`), a quarter of a vector, so
that a million images take 1.2 GB of memory; the candidates that it finds are compared in full. Only the last graph
grows, so that feeding a library takes as much memory and time whatever its size.

Under a filter search is exact while no more than `EXACT_AMONG` images pass, and so never misses there; of more, the
graphs' candidates are filtered, more of them the fewer pass, and of a graph that finds too few all that pass are
compared.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.disk import append, open_private, writing_to
from medsearch_desktop.store.directions import SAMPLE, Directions
from medsearch_desktop.store.graph import Graph
from medsearch_desktop.store.segments import Graphs, Segment

FORMAT = 2
# Above this share of allowed rows one product over all rows beats gathering the allowed ones.
GATHER_BELOW = 0.3
# Images that a filter lets pass of which each is compared; twice as many take as long as the graph.
EXACT_AMONG = 100_000
# Share of rows whose image is gone at which the files are written anew.
COMPACT_ABOVE = 0.2
# Rows of vectors that are in memory at once where all are gone through: 16 MB, and twice that on the way into a graph.
BLOCK = 4096
# Rows of a graph: 310 MB of memory. All are asked, so fewer are quicker, and each is made the slower the larger it is.
SEGMENT = 262_144
# Rows after which a growing graph is saved, so that one that is cut off goes on from there.
ROUND = 65_536
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
    segments: list[Segment] = field(default_factory=list)
    isolation: float = -1.0
    isolation_rows: int = 0
    dead: list[int] = field(default_factory=list)

    @property
    def graph_rows(self) -> int:
        return sum(segment.rows for segment in self.segments)


class VectorIndex:
    """The vectors of one model.

    Arguments: `folder` is created when missing; `exact_below` is the number of rows up to which no
    graph is built; `breadth` is how many of a graph's candidates are compared in full. Files that are
    missing, damaged, of another format or of another model are dropped, and `watermark` is 0 again:
    the caller then fills the index anew. May be shared between threads: one writes while others ask.
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
        self._graphs = Graphs(folder, dim=dim, threads=threads)
        self._gone: NDArray[np.bool_] | None = None
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
        return self._sidecar.rows - len(self._sidecar.dead)

    @property
    def graph_count(self) -> int:
        """Rows that graphs cover; the rest is searched exactly."""
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
            gone = removed[(self._rows_of(removed) >= 0) | np.isin(removed, numbers)]
            self._unmap()
            rows = self._sidecar.rows
            try:
                with writing_to(self._folder):
                    append(self._file("vectors.f32"), vectors.data, at=rows * self._dim * 4)
                    append(self._file("numbers.i64"), numbers.astype(np.int64).data, at=rows * 8)
                    dead = sorted({*self._sidecar.dead} - {*back} | {*gone.tolist()})
                    self._write_sidecar(
                        replace(self._sidecar, rows=rows + len(numbers), dead=dead, watermark=watermark)
                    )
            finally:
                self._map()
            if len(self._sidecar.dead) > COMPACT_ABOVE * max(1, self._sidecar.rows):
                self._compact()

    def close(self) -> None:
        """Let go of the files; from then on the index answers nothing."""
        with self._lock:
            self._unmap()
            self._sidecar = _Sidecar(model_id=self._sidecar.model_id, dim=self._dim)
            self._graphs.rest()
            self._map()

    def rest(self) -> None:
        """Let go of the graphs, the larger part in memory, until a question needs them again."""
        with self._lock:
            self._graphs.rest()

    def extend_graph(self) -> None:
        """Bring the graphs up to date when what they lack has grown past `exact_below`, and save them.

        Takes a minute for 200,000 rows; questions are answered meanwhile, by what there was before. Where new vectors
        are of another kind than those of which a graph's directions were learnt, a new graph is begun.
        """
        while self._extend_graph():
            pass

    def _extend_graph(self) -> bool:
        """Take up to ROUND rows into the last graph or a new one; return whether there are more."""
        with self._lock:
            start, resets = self._sidecar.graph_rows, self._resets
            if self._sidecar.rows - start <= self._exact_below:
                return False
            kept, directions, graph = self._growing()
            start = sum(segment.rows for segment in kept)
            first = start + graph.rows
            last = min(self._sidecar.rows, first + ROUND, start + SEGMENT)
        for place in range(first, last, BLOCK):
            with self._lock:
                if self._resets != resets:
                    # Written anew meanwhile, its rows are others; the next time will do.
                    return False
                # A copy, for a mapped file cannot grow on Windows.
                block = np.array(self._vectors[place : min(place + BLOCK, last)])
            graph.add(directions.codes(block), threads=self._threads)
        with self._lock, writing_to(self._folder):
            if self._resets != resets or self._sidecar.segments[: len(kept)] != kept:
                return False
            self._graphs.remove(self._sidecar.segments)
            segments = [*kept, self._graphs.save(directions, graph, after=self._sidecar.segments)]
            self._write_sidecar(replace(self._sidecar, segments=segments))
            self._graphs.remove(segments)
            return True

    def _growing(self) -> tuple[list[Segment], Directions, Graph]:
        """Return what the next rows go into, and the segments before it."""
        segments = self._sidecar.segments
        rows, covered = self._sidecar.rows, self._sidecar.graph_rows
        if segments and segments[-1].rows < SEGMENT:
            # A copy of its own: the graph that answers must not change under a question.
            held = self._graphs.read(segments[-1])
            if held is not None and held[0].fit(self._some(covered, rows, 2048)):
                return segments[:-1], *held
            # Not worth keeping as it is, for every graph makes questions slower.
            if held is None or segments[-1].rows < SEGMENT // 8:
                segments = segments[:-1]
        start = sum(segment.rows for segment in segments)
        directions = Directions.learn(self._some(start, min(rows, start + SEGMENT), SAMPLE))
        return segments, directions, Graph.new(width=directions.width)

    def search(self, query: Vectors, k: int, *, allowed: Numbers | None = None) -> tuple[Numbers, Vectors]:
        """Return the `k` nearest (image numbers, cosines), best first, ties by number.

        `query` has shape (dim,) and is L2-normalised. `allowed`, when given, restricts the answer, and makes it exact
        unless it is more than EXACT_AMONG.
        """
        with self._lock:
            if not self.count or k <= 0:
                return np.empty(0, np.int64), np.empty(0, np.float32)
            query = np.ascontiguousarray(query, dtype=np.float32)
            if allowed is None:
                rows = self._near(query, k, None) if self._sidecar.segments else None
            else:
                rows = self._rows_of(allowed)
                rows = np.unique(rows[rows >= 0])
                if len(rows) > EXACT_AMONG:
                    rows = self._near(query, k, rows)
            if rows is None:
                return self.exact(query, k)
            return self._best(query, rows, self._cosines(query, rows), k)

    def exact(self, query: Vectors, k: int) -> tuple[Numbers, Vectors]:
        """Return what `search` would with no graph: the yardstick of its recall."""
        return self.exact_each(query[None], k)[0]

    def exact_each(self, queries: Vectors, k: int) -> list[tuple[Numbers, Vectors]]:
        """Return `exact` of each of `queries`, shape (n, dim); all vectors are read once for them together."""
        with self._lock:
            queries = np.ascontiguousarray(queries, dtype=np.float32)
            found: list[list[tuple[NDArray[np.int64], Vectors]]] = [[] for _ in queries]
            for first, block in self._blocks():
                cosines = queries @ block.T
                if self._gone is not None:
                    cosines[:, self._gone[first : first + len(block)]] = -np.inf
                for best, scores in zip(found, cosines, strict=True):
                    # All that tie with the k-th are kept: the order among them is by number.
                    few = k < len(scores)
                    floor = np.partition(scores, len(scores) - k)[len(scores) - k] if few else -np.inf
                    rows = np.flatnonzero(scores >= floor)
                    best.append((rows + first, scores[rows]))
            return [
                self._best(query, np.concatenate([rows for rows, _ in best]), np.concatenate([s for _, s in best]), k)
                if best
                else (np.empty(0, np.int64), np.empty(0, np.float32))
                for query, best in zip(queries, found, strict=True)
            ]

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
                sample = np.random.default_rng(0).choice(rows, min(rows, 128), replace=False)
                nearest = self.exact_each(self._vectors[sample], 2)
                own = self._numbers[sample]
                best = [scores[numbers != no][:1] for no, (numbers, scores) in zip(own, nearest, strict=True)]
                measured = float(np.quantile(np.concatenate(best), 0.02)) if any(map(len, best)) else -1.0
                with writing_to(self._folder):
                    self._write_sidecar(replace(self._sidecar, isolation=measured, isolation_rows=rows))
            return self._sidecar.isolation

    def _blocks(self) -> Iterator[tuple[int, Vectors]]:
        """Yield all rows in blocks, each with the number of its first."""
        for first in range(0, self._sidecar.rows, BLOCK):
            yield first, self._vectors[first : first + BLOCK]

    def _some(self, start: int, stop: int, count: int) -> Vectors:
        """Return up to `count` of the vectors of rows from `start` to `stop`, drawn with a fixed seed."""
        rows = np.random.default_rng(0).choice(stop - start, min(count, stop - start), replace=False)
        return np.asarray(self._vectors[start + np.sort(rows)])

    def _rows_of(self, numbers: Numbers) -> NDArray[np.int64]:
        """Return the row of each number, -1 where there is none."""
        if not len(self._numbers) or not len(numbers):
            return np.full(len(numbers), -1, np.int64)
        places = np.searchsorted(self._numbers, numbers, sorter=self._order)
        places = np.minimum(places, len(self._numbers) - 1)
        rows = places if self._order is None else self._order[places]
        return np.where(self._numbers[rows] == numbers, rows, -1)

    def _cosines(self, query: Vectors, rows: NDArray[np.int64]) -> Vectors:
        if len(rows) > GATHER_BELOW * self._sidecar.rows:
            return np.asarray((self._vectors @ query)[rows])
        # In blocks that stay in the processor's cache: half the time of one large copy.
        scores = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), 256):
            scores[start : start + 256] = self._vectors[rows[start : start + 256]] @ query
        return scores

    def _near(self, query: Vectors, k: int, rows: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
        """Return the candidates among `rows`, ascending, or among all; None where no graph could be read."""
        passes = None if self._gone is None else ~self._gone
        if rows is not None:
            chosen = np.zeros(self._sidecar.rows, np.bool_)
            chosen[rows] = True
            passes = chosen if passes is None else chosen & passes
        segments = self._sidecar.segments
        damaged = next((place for place, each in enumerate(segments) if not self._graphs.has(each)), len(segments))
        if damaged < len(segments):
            # It and those after it are forgotten, to be made again.
            segments = segments[:damaged]
            with writing_to(self._folder):
                self._write_sidecar(replace(self._sidecar, segments=segments))
        if not segments:
            return rows
        found = self._graphs.near(segments, query, max(self._breadth, 4 * k), passes)
        starts = np.cumsum([0, *(segment.rows for segment in segments)])
        tail = np.arange(starts[-1], self._sidecar.rows) if rows is None else rows[np.searchsorted(rows, starts[-1]) :]
        parts = [start + near for start, near in zip(starts, found, strict=False)]
        return np.asarray(np.concatenate([*parts, tail]))

    def _best(self, query: Vectors, rows: NDArray[np.int64], scores: Vectors, k: int) -> tuple[Numbers, Vectors]:
        if self._gone is not None:
            alive = ~self._gone[rows]
            rows, scores = rows[alive], scores[alive]
        numbers = self._numbers[rows]
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
        """Write the rows of images that are there into new files, a block at a time."""
        held = self._sidecar
        alive = np.flatnonzero(~self._gone) if self._gone is not None else np.arange(held.rows)
        parts = {name: self._file(name).with_suffix(".part") for name in ("vectors.f32", "numbers.i64")}
        with writing_to(self._folder):
            for part in parts.values():
                part.unlink(missing_ok=True)
            for start in range(0, len(alive), BLOCK):
                rows = alive[start : start + BLOCK]
                append(parts["vectors.f32"], self._vectors[rows].data, at=start * self._dim * 4)
                append(parts["numbers.i64"], self._numbers[rows].data, at=start * 8)
            self._resets += 1
            self._unmap()
            # Cut off between here and the end the index is empty, and is filled from the database.
            self._remove_files()
            for name, part in parts.items():
                if part.exists():
                    part.replace(self._file(name))
            fresh = _Sidecar(model_id=held.model_id, dim=self._dim, rows=len(alive), watermark=held.watermark)
            self._write_sidecar(fresh)
        self._map()

    def _unmap(self) -> None:
        # A mapped file cannot be written over on Windows.
        self._numbers = np.empty(0, np.int64)
        self._vectors = np.empty((0, self._dim), np.float32)
        self._order = None

    def _map(self) -> None:
        self._unmap()
        rows = self._sidecar.rows
        self._gone = None
        if rows:
            self._numbers = np.memmap(self._file("numbers.i64"), np.int64, "r", shape=(rows,))
            self._vectors = np.memmap(self._file("vectors.f32"), np.float32, "r", shape=(rows, self._dim))
            # An image may get its vector long after those that came later, when its file is back.
            if (self._numbers[1:] < self._numbers[:-1]).any():
                self._order = np.argsort(self._numbers)
            if self._sidecar.dead:
                self._gone = np.isin(self._numbers, self._sidecar.dead)

    def _file(self, name: str) -> Path:
        return self._folder / name

    def _read_sidecar(self, model_id: str) -> _Sidecar:
        fresh = _Sidecar(model_id=model_id, dim=self._dim)
        try:
            held = _Sidecar(**json.loads(self._file("index.json").read_text("utf-8")))
            held.segments = [Segment(**segment) for segment in held.segments]  # type: ignore[arg-type]
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
        with os.fdopen(open_private(part), "w", encoding="utf-8") as handle:
            json.dump(asdict(sidecar), handle)
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(self._file("index.json"))
        self._sidecar = sidecar

    def _remove_files(self) -> None:
        # First what vouches for the rest.
        for name in ("index.json", "vectors.f32", "numbers.i64"):
            self._file(name).unlink(missing_ok=True)
        self._graphs.remove([])
