"""Nearest vectors: a flat file for exact search, an HNSW graph over most of it for large libraries.

All of it is a cache of the table `vectors`: the flat file holds every vector in the order of arrival and is always
current; the graph covers its first rows, and the rest is searched exactly, so an answer never waits for the graph and
never misses a new image. The graph stands on short codes (`directions`), a quarter of a vector, so that a million
images take 1.2 GB of memory; the candidates that it finds are compared in full. Under a filter search is exact while
no more than `EXACT_AMONG` images pass, and so never misses there; of more, the graph's candidates are filtered, more
of them the fewer pass, and where too few are left search is exact again.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.store.directions import SAMPLE, Directions
from medsearch_desktop.store.disk import writing_to
from medsearch_desktop.store.graph import Graph

FORMAT = 2
# Above this share of allowed rows one product over all rows beats gathering the allowed ones.
GATHER_BELOW = 0.3
# Images that a filter lets pass of which each is compared; twice as many take as long as the graph.
EXACT_AMONG = 100_000
# Share of rows whose image is gone at which the files are written anew.
COMPACT_ABOVE = 0.2
# Rows of vectors that are in memory at once where all are gone through: 64 MB.
BLOCK = 16_384
# Rows after which a growing graph is saved, so that one that is cut off goes on from there.
ROUND = 131_072
# Of a page of answers at most, scores are computed once more, in double precision: 1,000 take some 5 ms.
_RECOMPUTED = 1000
# The graph is asked for no more candidates than these.
_MOST_CANDIDATES = 20_000

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
    # Part of the names of the two files of the graph: the next ones never overwrite those that count.
    graph: int = 0
    graph_rows: int = 0
    graph_crc32: int = 0
    directions_crc32: int = 0
    isolation: float = -1.0
    isolation_rows: int = 0
    dead: list[int] = field(default_factory=list)


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
        self._graph: tuple[Directions, Graph] | None = None
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
            gone = removed[(self._rows_of(removed) >= 0) | np.isin(removed, numbers)]
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
            if len(self._sidecar.dead) > COMPACT_ABOVE * max(1, self._sidecar.rows):
                self._compact()

    def close(self) -> None:
        """Let go of the files; from then on the index answers nothing."""
        with self._lock:
            self._unmap()
            self._sidecar = _Sidecar(model_id=self._sidecar.model_id, dim=self._dim)
            self._graph = None
            self._map()

    def rest(self) -> None:
        """Let go of the graph, the larger part in memory, until a question needs it again."""
        with self._lock:
            self._graph = None

    def extend_graph(self) -> None:
        """Bring the graph up to date when what it lacks has grown past `exact_below`, and save it.

        Takes a minute for 200,000 rows; questions are answered meanwhile, by what there was before. Where the new
        vectors are of another kind than those of which the directions were learnt, the graph is made anew.
        """
        while self._extend_graph():
            pass

    def _extend_graph(self) -> bool:
        """Take up to ROUND rows into the graph; return whether there are more."""
        with self._lock:
            rows, start, resets = self._sidecar.rows, self._sidecar.graph_rows, self._resets
            if rows - start <= self._exact_below:
                return False
            # A copy of its own: the graph that answers must not change under a question.
            held = self._read_graph()
            if held is not None and not held[0].fit(self._some(start, rows, 2048)):
                held = None
            if held is None:
                start = 0
                directions = Directions.learn(self._some(0, rows, SAMPLE))
                held = directions, Graph.new(width=directions.width)
        directions, graph = held
        rows = min(rows, start + ROUND)
        for first in range(start, rows, BLOCK):
            with self._lock:
                if self._resets != resets:
                    # Written anew meanwhile, its rows are others; the next time will do.
                    return False
                # A copy, for a mapped file cannot grow on Windows.
                block = np.array(self._vectors[first : min(first + BLOCK, rows)])
            graph.add(directions.codes(block), threads=self._threads)
        with self._lock, writing_to(self._folder):
            if self._resets != resets:
                return False
            self._save_graph(directions, graph)
            return self._sidecar.rows > rows

    def search(self, query: Vectors, k: int, *, allowed: Numbers | None = None) -> tuple[Numbers, Vectors]:
        """Return the `k` nearest (image numbers, cosines), best first, ties by number.

        `query` has shape (dim,) and is L2-normalised. `allowed`, when given, restricts the answer, and makes it exact
        unless it is more than EXACT_AMONG.
        """
        with self._lock:
            if not self.count or k <= 0:
                return np.empty(0, np.int64), np.empty(0, np.float32)
            query = np.ascontiguousarray(query, dtype=np.float32)
            rows = None
            if allowed is not None:
                rows = self._rows_of(allowed)
                rows = np.unique(rows[rows >= 0])
            graph = self._load_graph() if rows is None or len(rows) > EXACT_AMONG else None
            near = None if graph is None else self._near(graph, query, k, rows)
            if near is not None:
                tail = np.arange(self._sidecar.graph_rows, self._sidecar.rows)
                if rows is not None:
                    tail = rows[np.searchsorted(rows, self._sidecar.graph_rows) :]
                rows = np.concatenate([near, tail])
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

    def _near(
        self, held: tuple[Directions, Graph], query: Vectors, k: int, rows: NDArray[np.int64] | None
    ) -> NDArray[np.int64] | None:
        """Return the graph's candidates, of `rows` only if they are given; None where it finds too few of these."""
        directions, graph = held
        code = directions.codes(query[None])[0]
        passes = None if self._gone is None else ~self._gone[: graph.rows]
        if rows is not None:
            chosen = np.zeros(graph.rows, np.bool_)
            chosen[rows[: np.searchsorted(rows, graph.rows)]] = True
            passes = chosen if passes is None else chosen & passes
        share = 1.0 if passes is None else np.count_nonzero(passes) / graph.rows
        wanted = max(self._breadth, 4 * k)
        if share == 0 or (count := int(wanted / share)) > _MOST_CANDIDATES:
            return None
        # What passes may lie elsewhere than where the question points.
        for widened in (1, 4):
            near = graph.near(code, min(widened * count, _MOST_CANDIDATES))
            if near is None:
                return None
            if passes is not None:
                near = near[passes[near]]
            if len(near) >= min(wanted // 2, int(share * graph.rows)):
                return near
        return None

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
                _append(parts["vectors.f32"], self._vectors[rows], at=start * self._dim * 4)
                _append(parts["numbers.i64"], self._numbers[rows], at=start * 8)
            self._resets += 1
            self._unmap()
            # Cut off between here and the end the index is empty, and is filled from the database.
            self._remove_files()
            for name, part in parts.items():
                if part.exists():
                    part.replace(self._file(name))
            fresh = _Sidecar(model_id=held.model_id, dim=self._dim, graph=held.graph, watermark=held.watermark)
            self._write_sidecar(replace(fresh, rows=len(alive)))
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
        if self._graph is not None and self._graph[1].rows != self._sidecar.graph_rows:
            self._graph = None

    def _load_graph(self) -> tuple[Directions, Graph] | None:
        if self._graph is None:
            self._graph = self._read_graph()
        return self._graph

    def _read_graph(self) -> tuple[Directions, Graph] | None:
        """Return the saved graph, or None; a damaged one is forgotten."""
        held = self._sidecar
        if not held.graph_rows:
            return None
        directions = Directions.load(
            self._file(f"directions-{held.graph}.f32"), dim=self._dim, crc32=held.directions_crc32
        )
        graph = None
        if directions is not None:
            file = self._file(f"graph-{held.graph}.hnsw")
            graph = Graph.load(file, width=directions.width, crc32=held.graph_crc32)
        if directions is None or graph is None or graph.rows != held.graph_rows:
            with writing_to(self._folder):
                self._write_sidecar(replace(held, graph_rows=0))
            self._graph = None
            return None
        return directions, graph

    def _save_graph(self, directions: Directions, graph: Graph) -> None:
        number = self._sidecar.graph + 1
        self._remove_graphs(but=self._sidecar.graph)
        crc32 = graph.save(self._file(f"graph-{number}.hnsw"))
        directions_crc32 = directions.save(self._file(f"directions-{number}.f32"))
        sidecar = replace(self._sidecar, graph=number, graph_rows=graph.rows, graph_crc32=crc32)
        self._write_sidecar(replace(sidecar, directions_crc32=directions_crc32))
        self._graph = directions, graph
        self._remove_graphs(but=number)

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
        # First what vouches for the rest.
        for name in ("index.json", "vectors.f32", "numbers.i64"):
            self._file(name).unlink(missing_ok=True)
        self._remove_graphs()
        self._graph = None

    def _remove_graphs(self, *, but: int = -1) -> None:
        for file in (*self._folder.glob("graph*.hnsw"), *self._folder.glob("directions-*.f32")):
            if file.stem.rpartition("-")[2] != str(but):
                file.unlink(missing_ok=True)


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
