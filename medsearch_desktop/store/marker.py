"""The folder of a library and the file in it that says what format it has."""

from __future__ import annotations

import json
import os
from pathlib import Path

from medsearch_desktop.disk import writing_to
from medsearch_desktop.errors import LibraryError, LibraryFormatError, LibraryNotFoundError

FORMAT = 1
MARKER = "library.json"
DATABASE = "library.duckdb"


def prepare_folder(path: Path, *, create: bool) -> None:
    """Make sure that `path` is a library that this release can read; with `create`, make one where there is none.

    Raises LibraryNotFoundError, LibraryFormatError, LibraryError, StorageFullError.
    """
    marker = path / MARKER
    with writing_to(path):
        held = marker.exists()
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise LibraryError(
            "no database can be in a folder whose path is not UTF-8", item=str(path), remedy="Name another folder"
        ) from error
    if held:
        _check_format(marker)
        if not (path / DATABASE).exists() and (path / "indexes").exists():
            # A new one in its place would pass for the library, empty and sound, and the indexes would follow it.
            raise LibraryFormatError(
                "the database of the library is gone",
                item=str(path / DATABASE),
                remedy="Put it back, or restore a backup to a new folder; to begin anew, name another folder",
            )
        return
    if (path / DATABASE).exists():
        # A crash between the two files of a new library, or a marker that was deleted: the database decides.
        _write_marker(marker)
        return
    if not create:
        raise LibraryNotFoundError(
            "there is no library here", item=str(path), remedy="`medsearch ingest FOLDER` makes one"
        )
    with writing_to(path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A crash or a full disk may have left the marker half written, and nothing else.
        if any(each.name != _part_of(marker).name for each in path.iterdir()):
            raise LibraryError(
                "the folder is not empty and not a library",
                item=str(path),
                remedy="Give --library the name of a new folder",
            )
        path.chmod(0o700)
    _write_marker(marker)


def make_folder(path: Path) -> None:
    """Make a folder of the library, for its owner alone; raises StorageFullError, LibraryError."""
    with writing_to(path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _check_format(marker: Path) -> None:
    try:
        found = json.loads(marker.read_text("utf-8"))["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LibraryFormatError(
            "it does not say what format the library has",
            item=str(marker),
            remedy=f'If the folder was written by this release, write {{"format": {FORMAT}}} into the file',
        ) from error
    if not isinstance(found, int) or found > FORMAT:
        raise LibraryFormatError(
            f"the library has format {found}, this release knows {FORMAT}",
            item=str(marker.parent),
            remedy="Install the release that wrote it, or a later one",
        )


def _write_marker(marker: Path) -> None:
    part = _part_of(marker)
    with writing_to(marker.parent):
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as handle:
            json.dump({"format": FORMAT}, handle)
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(marker)


def _part_of(marker: Path) -> Path:
    return marker.with_suffix(".part")
