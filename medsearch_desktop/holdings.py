"""What a library holds, to look at: studies, the files behind images, frames, labels, sources, disk use.

Reads only, and from the source files only after a look that they still are what was indexed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from medsearch_desktop.errors import NotFoundError, SourceError
from medsearch_desktop.image.view import StoredFrame, picture_of_frame, stored_frame
from medsearch_desktop.source.sniff import digest, open_regular, unreadable
from medsearch_desktop.store.catalogue import Catalogue
from medsearch_desktop.store.marker import DATABASE
from medsearch_desktop.store.studies import ImageFile, Studies, Study


class Holdings:
    """The holdings of the library in `folder`; safe to use from several threads."""

    def __init__(self, folder: Path, studies: Studies, catalogue: Catalogue, *, max_pixels: int) -> None:
        self._folder = folder
        self._studies = studies
        self._catalogue = catalogue
        self._max_pixels = max_pixels

    def study(self, study_uid: str) -> Study:
        """Return a study with its images, reports, labels and the patient's other studies. Raises NotFoundError."""
        study = self._studies.get(study_uid)
        if study is None:
            raise NotFoundError("the library has no such study", item=study_uid)
        return study

    def image_file(self, image_id: str) -> ImageFile:
        """Return the file that an image is in, after a look at it: it holds what was indexed.

        Raises NotFoundError, and SourceError where the file is away or was written over since: what
        it holds now may be another patient's.
        """
        file = self._studies.image_file(image_id)
        if file is None:
            raise NotFoundError("the library has no such image", item=image_id)
        try:
            now = Path(file.path).stat()
        except OSError as error:
            raise SourceError(
                f"its file cannot be read ({error.strerror})", item=image_id, remedy="Connect the drive that holds it"
            ) from error
        if (now.st_size, now.st_mtime_ns) != (file.size, file.mtime_ns) and digest(file.path) != file.sha256:
            raise SourceError(
                "its file has changed since it was indexed", item=image_id, remedy="Ingest its folder again"
            )
        return file

    def open_image(self, file: ImageFile) -> tuple[FileIO, int]:
        """Open the file of an image for reading; return it and its size in bytes. Raises SourceError."""
        try:
            handle = open_regular(file.path)
            return handle, os.fstat(handle.fileno()).st_size
        except OSError as error:
            raise unreadable(file.image_id, error) from error

    def frame_picture(
        self, image_id: str, *, frame: int | None = None, window: tuple[float, float] | None = None
    ) -> bytes:
        """Return a PNG of an image, or of frame `frame` (from 0) of its instance, seen through `window`.

        See `image.view.picture_of_frame`. Raises as `image_file` and that do.
        """
        file = self.image_file(image_id)
        number = file.frame if frame is None else frame
        return picture_of_frame(file.path, frame=number, max_pixels=self._max_pixels, window=window)

    def frame_values(self, image_id: str, *, frame: int | None = None) -> StoredFrame:
        """Return the stored values of an image or of frame `frame` (from 0) of its instance.

        See `image.view.stored_frame`. Raises as `image_file` and that do.
        """
        file = self.image_file(image_id)
        return stored_frame(file.path, frame=file.frame if frame is None else frame, max_pixels=self._max_pixels)

    def labels(self) -> dict[str, int]:
        """Return every label that is in use and how many targets have it."""
        return self._studies.label_counts()

    def sources(self) -> list[tuple[str, bool, int]]:
        """Return the folders and files that were ingested: (path, whether it is there, known files of it)."""
        counts = self._studies.root_counts()
        return [(path, online, counts.get(path, 0)) for path, online, _ in self._catalogue.roots()]

    def disk_use(self) -> dict[str, int]:
        """Return the bytes that each part of the library takes, by its name, and "free", what is left there."""
        use = {
            entry.name: sum(_size(file) for file in _files(entry))
            for entry in sorted(self._folder.iterdir())
            if entry.is_dir() or entry.name.startswith(DATABASE)
        }
        return {**use, "free": shutil.disk_usage(self._folder).free}


def _files(entry: Path) -> Iterator[Path]:
    return (path for path in ([entry] if entry.is_file() else entry.rglob("*")) if path.is_file())


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        # A part of the indexes that was replaced meanwhile.
        return 0
