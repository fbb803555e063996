"""An HNSW graph over codes: which rows are near, without looking at all.

The only file that imports hnswlib.
"""

from __future__ import annotations

import errno
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

M = 16
BREADTH_BUILD = 200

Floats = NDArray[np.float32]


class Graph:
    """Rows 0, 1, 2, … of codes of `width` numbers each, near by their Euclidean distance."""

    def __init__(self, graph: Any, *, width: int) -> None:
        self._graph = graph
        self._width = width

    @classmethod
    def new(cls, *, width: int) -> Graph:
        """Return an empty graph."""
        import hnswlib

        graph = hnswlib.Index(space="l2", dim=width)
        graph.init_index(max_elements=1, M=M, ef_construction=BREADTH_BUILD, random_seed=1)
        return cls(graph, width=width)

    @classmethod
    def load(cls, file: Path, *, width: int, crc32: int) -> Graph | None:
        """Return the graph that `save` wrote, None where `file` does not hold it any more."""
        import hnswlib

        # hnswlib reads whatever it is given; only bytes that this program wrote itself may reach it.
        if _crc32(file) != crc32:
            return None
        graph = hnswlib.Index(space="l2", dim=width)
        graph.load_index(str(file))
        return cls(graph, width=width)

    @property
    def rows(self) -> int:
        """Rows that it holds."""
        return int(self._graph.get_current_count())

    def add(self, codes: Floats, *, threads: int) -> None:
        """Append rows, `codes` of shape (n, width)."""
        first = self.rows
        if first + len(codes) > self._graph.get_max_elements():
            self._graph.resize_index(first + len(codes))
        # In pieces: what is handed over is copied once more.
        for start in range(0, len(codes), 8192):
            piece = codes[start : start + 8192]
            labels = np.arange(first + start, first + start + len(piece))
            self._graph.add_items(piece, labels, num_threads=threads)

    def near(self, code: Floats, count: int) -> NDArray[np.int64] | None:
        """Return some `count` rows near `code`, the nearest first; None where they cannot be reached.

        Among rows that are all the same a graph may fall into pieces.
        """
        self._graph.set_ef(2 * count)
        try:
            labels, _ = self._graph.knn_query(code[None], k=min(count, self.rows), num_threads=1)
        except RuntimeError:
            return None
        return np.asarray(labels[0], dtype=np.int64)

    def save(self, file: Path) -> int:
        """Write it to `file`, durably, and return the file's CRC-32. Raises OSError."""
        try:
            self._graph.save_index(str(file))
        except RuntimeError as error:
            raise OSError(errno.EIO, str(error)) from error
        file.chmod(0o600)
        with file.open("rb+") as handle:
            os.fsync(handle.fileno())
        return _crc32(file)


def _crc32(file: Path) -> int:
    crc = 0
    try:
        with file.open("rb") as handle:
            while block := handle.read(1 << 22):
                crc = zlib.crc32(block, crc)
    except FileNotFoundError:
        return -1
    return crc
