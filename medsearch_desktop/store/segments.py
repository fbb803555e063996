"""The graphs of an index, each over a part of its rows: their files, and asking them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.store.directions import Directions
from medsearch_desktop.store.graph import Graph

# A graph is asked for no more candidates than these.
MOST_CANDIDATES = 20_000


@dataclass(frozen=True, slots=True)
class Segment:
    """A graph over as many rows, after those of the segments before it; its number is part of its files' names."""

    number: int
    rows: int
    graph_crc32: int
    directions_crc32: int


class Graphs:
    """Reads, asks and writes graphs in a folder; for one thread at a time. Which ones count is kept by the caller."""

    def __init__(self, folder: Path, *, dim: int, threads: int) -> None:
        self._folder = folder
        self._dim = dim
        # Idle, and not started, where there is one graph.
        self._pool = ThreadPoolExecutor(threads, "graphs")
        self._held: dict[int, tuple[Directions, Graph]] = {}

    def rest(self) -> None:
        """Let go of what is in memory, until it is asked again."""
        self._held.clear()

    def has(self, segment: Segment) -> bool:
        """Whether a graph can be asked; loads it where it is not in memory."""
        if segment.number not in self._held:
            if (held := self.read(segment)) is None:
                return False
            self._held[segment.number] = held
        return True

    def read(self, segment: Segment) -> tuple[Directions, Graph] | None:
        """Return a copy of a graph, None where its files are not those that were written."""
        file = self._folder / f"directions-{segment.number}.f32"
        directions = Directions.load(file, dim=self._dim, crc32=segment.directions_crc32)
        if directions is None:
            return None
        file = self._folder / f"graph-{segment.number}.hnsw"
        graph = Graph.load(file, width=directions.width, crc32=segment.graph_crc32)
        return None if graph is None else (directions, graph)

    def near(
        self, segments: Sequence[Segment], query: NDArray[np.float32], wanted: int, passes: NDArray[np.bool_] | None
    ) -> list[NDArray[np.int64]]:
        """Return rows of each graph, all of which `has` found, among them most of the nearest to `query`, (dim,).

        They count from a graph's own first row. `passes` has one place a row of all; of others none is returned. Some
        `wanted` rows of each, more where they tell little. The graphs are asked side by side.
        """
        ends = np.cumsum([segment.rows for segment in segments])
        parts = [None] * len(segments) if passes is None else np.split(passes[: ends[-1]], ends[:-1])
        one = partial(self._near, query=query, wanted=wanted)
        return list((map if len(segments) == 1 else self._pool.map)(one, segments, parts))

    def _near(
        self, segment: Segment, passes: NDArray[np.bool_] | None, *, query: NDArray[np.float32], wanted: int
    ) -> NDArray[np.int64]:
        directions, graph = self._held[segment.number]
        passing = graph.rows if passes is None else int(np.count_nonzero(passes))
        if passing <= wanted:
            return _all(graph.rows, passes)
        code = directions.probe(query)
        count = int(wanted * graph.rows / passing)
        # What passes may lie elsewhere than where the question points.
        for widened in (1, 4):
            if widened * count > MOST_CANDIDATES or (near := graph.near(code, widened * count)) is None:
                break
            if passes is not None:
                near = near[passes[near]]
            if 2 * len(near) >= wanted:
                return near
        return _all(graph.rows, passes)

    def save(self, directions: Directions, graph: Graph, *, after: list[Segment]) -> Segment:
        """Write a graph beside those of `after`, under a number that none of them has. Raises OSError."""
        number = 1 + max((segment.number for segment in after), default=0)
        crc32 = graph.save(self._folder / f"graph-{number}.hnsw")
        directions_crc32 = directions.save(self._folder / f"directions-{number}.f32")
        self._held[number] = directions, graph
        return Segment(number, graph.rows, crc32, directions_crc32)

    def remove(self, but: list[Segment]) -> None:
        """Remove all graphs but those of `but`, from memory and from the disk. Raises OSError."""
        numbers = {segment.number for segment in but}
        for number in self._held.keys() - numbers:
            del self._held[number]
        kept = {str(number) for number in numbers}
        for file in (*self._folder.glob("graph*.hnsw"), *self._folder.glob("directions-*.f32")):
            if file.stem.rpartition("-")[2] not in kept:
                file.unlink(missing_ok=True)


def _all(rows: int, passes: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    return np.arange(rows) if passes is None else np.flatnonzero(passes)
