"""One image index a model, each in a folder of its own: vectors of two models never meet."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np

from medsearch_desktop.disk import writing_to
from medsearch_desktop.store.catalogue import Catalogue
from medsearch_desktop.store.models import DIM
from medsearch_desktop.store.vectors import VectorIndex


class VectorIndexes:
    """The image indexes of a library, opened at first use; safe to use from several threads."""

    def __init__(self, folder: Path, catalogue: Catalogue, *, exact_below: int, breadth: int, threads: int) -> None:
        self._folder = folder
        self._catalogue = catalogue
        self._exact_below = exact_below
        self._breadth = breadth
        self._threads = threads
        self._open: dict[str, VectorIndex] = {}
        self._opening = threading.Lock()
        self._refreshing = threading.Lock()

    def of(self, model_id: str) -> VectorIndex:
        """Return the index of a model as it was left."""
        with self._opening:
            if model_id not in self._open:
                self._open[model_id] = VectorIndex(
                    self._place(model_id),
                    model_id=model_id,
                    dim=DIM,
                    exact_below=self._exact_below,
                    breadth=self._breadth,
                    threads=self._threads,
                )
            return self._open[model_id]

    def refresh(self, model_id: str) -> VectorIndex:
        """Teach the index of a model what it has missed, from the database, and return it.

        Raises StorageFullError, LibraryError.
        """
        index = self.of(model_id)
        none, no_vectors = np.empty(0, np.int64), np.empty((0, DIM), np.float32)
        with self._refreshing:
            # An index that knows more than the database is of another state of it: one that was put back by hand.
            if index.watermark == 0 or index.watermark > self._catalogue.last_change():
                last = self._catalogue.last_change()
                # What a filling that was cut off has left may be gone from the database since.
                index.reset()
                for numbers, vectors in self._catalogue.vectors(model_id):
                    index.update(numbers, vectors, removed=none, watermark=0)
                index.update(none, no_vectors, removed=none, watermark=last)
                return index
            changed, last = self._catalogue.changes("image", after=index.watermark)
            if last == index.watermark:
                return index
            gone = np.setdiff1d(changed, self._catalogue.embedded_images(changed, model_id))
            # Vectors of other models are changes too: what is held already need not be read for them.
            for numbers, vectors in self._catalogue.vectors(model_id, image_nos=index.lacks(changed)):
                index.update(numbers, vectors, removed=none, watermark=index.watermark)
            index.update(none, no_vectors, removed=gone, watermark=last)
        return index

    def drop(self, model_id: str) -> None:
        """Remove the index of a model from the disk. Raises LibraryError."""
        with self._opening:
            if (index := self._open.pop(model_id, None)) is not None:
                index.close()
            folder = self._place(model_id)
            if folder.exists():
                with writing_to(folder):
                    # First what vouches for the rest: cut off here, the rest counts for nothing.
                    (folder / "index.json").unlink(missing_ok=True)
                    shutil.rmtree(folder)

    def close(self) -> None:
        """Let go of all files."""
        with self._opening:
            for index in self._open.values():
                index.close()
            self._open.clear()

    def _place(self, model_id: str) -> Path:
        return self._folder / f"vectors-{model_id}"
