"""A copy of a library to keep elsewhere, made while the library is in use, and a library made from one.

A backup is a folder with the database, `library.json`, and `manifest.json`, which holds the SHA-256 of both and the
number of rows of each table. Indexes and thumbnails are not in it: they are made anew from the database and the
source files. The folder comes into being whole, under its name, or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from medsearch_desktop import __version__
from medsearch_desktop.disk import rename_new, sync_folder, writing_to
from medsearch_desktop.errors import LibraryError, LibraryFormatError
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.marker import DATABASE, MARKER, prepare_folder

MANIFEST = "manifest.json"
FORMAT = 1
_BLOCK = 1 << 22
_PREFIX = "medsearch-backup-"
_DATED = re.compile(rf"{_PREFIX}\d{{8}}-\d{{6}}")
_PART = re.compile(r"(?s)(?P<name>.+)\.(?P<pid>\d{1,9})-(?P<machine>[0-9a-f]{8})?[0-9a-f]{8}\.part")

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup: its folder, when it was made (ISO 8601, UTC), by which release, its bytes, and rows by table."""

    path: str
    made: str
    release: str
    bytes: int
    rows: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "path": self.path,
            "made": self.made,
            "release": self.release,
            "bytes": self.bytes,
            "rows": dict(self.rows),
        }


def untold(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def write_backup(database: Database, library: Path, target: Path, *, on_progress: OnProgress | None = None) -> Backup:
    """Write a backup of an open library and return it; of an existing folder, to a new dated one within.

    The copy is opened and its rows are counted before it gets its name. Raises LibraryError where `target` is there
    already or lies within the library, StorageFullError.
    """
    tell = on_progress or untold
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with writing_to(target.parent):
        within = target.is_dir()
    if within:
        target = target / f"{_PREFIX}{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    target = target.parent.resolve() / target.name
    if target.is_relative_to(library.resolve()):
        raise LibraryError(
            "lies within the library that it would be a copy of", item=str(target), remedy="Name another"
        )
    if target.exists():
        raise LibraryError("is there already", item=str(target), remedy="Give a new name, or a folder to put it in")
    part = _part_of(target)
    with writing_to(target.parent):
        _remove_leftovers(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir(mode=0o700)
    try:
        tell("copying", 0, 3)
        rows = database.copy_to(part / DATABASE)
        tell("checking", 1, 3)
        _check_rows(part / DATABASE, rows)
        prepare_folder(part, create=False)
        tell("hashing", 2, 3)
        with writing_to(part):
            files = {name: _synced(part / name) for name in (DATABASE, MARKER)}
            manifest = {"format": FORMAT, "release": __version__, "made": made, "rows": rows, "files": files}
            _write_synced(part / MANIFEST, json.dumps(manifest, indent=2))
            sync_folder(part)
            part.rename(target)
            sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return Backup(str(target), made, __version__, files[DATABASE]["bytes"], rows)


def read_backup(folder: Path) -> Backup:
    """Return what a backup says of itself, once each of its files is the one that was written.

    Raises LibraryFormatError for what is no backup, or was altered.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        form, files = manifest["format"], {name: manifest["files"][name] for name in (DATABASE, MARKER)}
        found = Backup(
            str(folder),
            str(manifest["made"]),
            str(manifest["release"]),
            int(files[DATABASE]["bytes"]),
            {str(table): int(count) for table, count in manifest["rows"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LibraryFormatError(
            "is no backup of a library", item=str(folder), remedy="Give a folder that `medsearch backup` wrote"
        ) from error
    if form != FORMAT:
        raise LibraryFormatError(
            f"the backup has format {form}, this release knows {FORMAT}",
            item=str(folder),
            remedy=f"Install release {found.release} or a later one",
        )
    for name, said in files.items():
        try:
            same = _digest(folder / name) == said["sha256"]
        except OSError as error:
            raise LibraryFormatError(
                f"cannot be read ({error.strerror})", item=str(folder / name), remedy="Use another backup"
            ) from error
        if not same:
            raise LibraryFormatError(
                "is not the file that was written", item=str(folder / name), remedy="Use another backup"
            )
    return found


def restore(backup: Path, library: Path, *, on_progress: OnProgress | None = None) -> Backup:
    """Make a library in a new or empty folder from a backup, and return the backup.

    Its indexes are made when it is opened first. May be interrupted and run again. Raises LibraryFormatError for a
    backup that is damaged, LibraryError for a folder that holds anything, StorageFullError.
    """
    tell = on_progress or untold
    tell("checking", 0, 2)
    found = read_backup(backup)
    # Earlier releases gave it that name, whoever wrote it.
    part, earlier = _part_of(library / DATABASE), library / f"{DATABASE}.part"
    try:
        held = [entry.name for entry in library.iterdir()] if library.exists() else []
    except OSError as error:
        raise LibraryError(f"cannot be read ({error.strerror})", item=str(library)) from error
    if any(name != earlier.name and not _PART.fullmatch(name) for name in held):
        raise LibraryError(
            "the folder is not empty, and nothing is written over",
            item=str(library),
            remedy="Give --library the name of a new folder",
        )
    tell("copying", 1, 2)
    try:
        with writing_to(library):
            library.mkdir(mode=0o700, parents=True, exist_ok=True)
            library.chmod(0o700)
            _remove_leftovers(library / DATABASE)
            earlier.unlink(missing_ok=True)
            with (backup / DATABASE).open("rb") as source, part.open("xb") as target:
                part.chmod(0o600)
                shutil.copyfileobj(source, target, _BLOCK)
        _check_rows(part, found.rows)
        with writing_to(library):
            _synced(part)
            # The marker comes last: a folder with a marker and no database would pass for a new, empty library.
            if not rename_new(part, library / DATABASE):
                raise LibraryError("another process has made a library there meanwhile", item=str(library))
            sync_folder(library)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    prepare_folder(library, create=False)
    return found


def _check_rows(file: Path, rows: dict[str, int]) -> None:
    copy = Database(file, migrate=False)
    try:
        for table, count in rows.items():
            ((held,),) = copy.read(f'SELECT count(*) FROM "{table}"')
            if held != count:
                raise LibraryError(f"the copy has {held} rows of {table}, {count} were written", item=str(file))
    finally:
        copy.close()


def _part_of(target: Path) -> Path:
    """Return a name beside `target` for what is to become it, which tells of this process."""
    return target.with_name(f"{target.name}.{os.getpid()}-{_machine()}{secrets.token_hex(4)}.part")


def _machine() -> str:
    # Several may write to one shared folder, where the number of a process says nothing by itself.
    return hashlib.sha256(platform.node().encode("utf-8", "replace")).hexdigest()[:8]


def _remove_leftovers(target: Path) -> None:
    """Remove what backups of that name, or dated ones, left behind whose process on this machine died."""
    for left in target.parent.glob("*.part"):
        match = _PART.fullmatch(left.name)
        # Those of earlier releases do not say which machine.
        if match is None or match["machine"] not in (None, _machine()) or psutil.pid_exists(int(match["pid"])):
            continue
        if match["name"] == target.name or (match["machine"] and _DATED.fullmatch(match["name"])):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                with suppress(OSError):
                    left.unlink()


def _synced(file: Path) -> dict[str, Any]:
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())
    return {"bytes": file.stat().st_size, "sha256": _digest(file)}


def _digest(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _write_synced(file: Path, text: str) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
