"""The pictures that answers show, one small file an image.

They can be drawn again from the source files, so they are written without waiting for the disk;
a reader takes an empty or missing one for absent.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from medsearch_desktop.errors import LibraryError
from medsearch_desktop.store.disk import writing_to


class Thumbnails:
    """A folder of WebP files, spread over 256 sub-folders by a digest of the image's identifier."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, image_id: str) -> Path:
        """Return where the thumbnail of an image lies or would lie."""
        digest = hashlib.sha256(image_id.encode("utf-8", "surrogateescape")).hexdigest()
        return self._folder / digest[:2] / f"{digest[2:34]}.webp"

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
