"""The pictures that answers show, one small file an image.

They can be drawn again from the source files, so they are written without waiting for the disk;
a reader takes an empty or missing one for absent.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from medsearch_desktop.disk import writing_to
from medsearch_desktop.errors import LibraryError
from medsearch_desktop.store.marker import make_folder

# Folder and name as `path` and `write` make them; what else lies there is not ours.
_OWN = re.compile(r"([0-9a-f]{16})[0-9a-f]{18}(?:\.webp|(\.\d+-\d+\.part))")
# A picture is written in much less.
_PART_SECONDS = 3600


class Thumbnails:
    """A folder of WebP files, spread over 256 sub-folders by a digest of the image's identifier."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        make_folder(folder)

    def path(self, image_id: str) -> Path:
        """Return where the thumbnail of an image lies or would lie."""
        name = self._name(image_id)
        return self._folder / name[:2] / f"{name[2:]}.webp"

    @staticmethod
    def _name(image_id: str) -> str:
        return hashlib.sha256(image_id.encode("utf-8", "surrogateescape")).hexdigest()[:34]

    def write(self, image_id: str, picture: bytes) -> None:
        """Replace the thumbnail of an image; raises StorageFullError or LibraryError."""
        path = self.path(image_id)
        part = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
        try:
            with writing_to(self._folder):
                path.parent.mkdir(mode=0o700, exist_ok=True)
                with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as handle:
                    handle.write(picture)
                part.replace(path)
        except LibraryError:
            part.unlink(missing_ok=True)
            raise

    def read(self, image_id: str) -> bytes | None:
        """Return the WebP bytes, or None where there are none."""
        try:
            return self.path(image_id).read_bytes() or None
        except OSError:
            return None

    def remove(self, image_ids: Iterable[str]) -> None:
        """Remove the thumbnails of images that are gone; raises LibraryError."""
        for image_id in image_ids:
            with writing_to(self._folder):
                self.path(image_id).unlink(missing_ok=True)

    def strays(self, image_ids: Iterable[str]) -> Iterator[Path]:
        """Yield the files here that are the picture of none of `image_ids`, all there are, and what dead writers left.

        Nothing may be written meanwhile. Takes 8 bytes of memory an image. Raises LibraryError.
        """
        wanted = np.sort(np.fromiter((int(self._name(i)[:16], 16) for i in image_ids), np.uint64))
        old = time.time() - _PART_SECONDS
        with writing_to(self._folder):
            # A person may have thrown them all away: they are drawn anew.
            for folder in sorted(self._folder.iterdir()) if self._folder.is_dir() else ():
                if len(folder.name) != 2 or not folder.is_dir():
                    continue
                with os.scandir(folder) as entries:
                    for entry in entries:
                        own = _OWN.fullmatch(folder.name + entry.name)
                        if own is None:
                            continue
                        number = np.uint64(int(own[1], 16))
                        place = np.searchsorted(wanted, number)
                        is_wanted = place < len(wanted) and wanted[place] == number
                        if entry.stat().st_mtime < old if own[2] else not is_wanted:
                            yield Path(entry.path)

    def sweep(self, image_ids: Iterable[str]) -> int:
        """Remove what `strays` finds and return how many files that was. Raises LibraryError."""
        count = 0
        for path in self.strays(image_ids):
            with writing_to(self._folder):
                path.unlink(missing_ok=True)
            count += 1
        return count
