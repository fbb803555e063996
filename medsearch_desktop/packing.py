"""Folders and files that are written whole or not at all, and ZIP files of folders."""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from medsearch_desktop.disk import writing_to
from medsearch_desktop.errors import ListError

_PREFIX = ".medsearch-"


def file_name_of(name: str) -> str:
    """Return a name as any file system takes it."""
    return re.sub(r"[^0-9A-Za-z]+", "-", name)[:60].strip("-") or "list"


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Lend a new folder beside `folder` that takes its place at the end of the block, or goes.

    Raises ListError where `folder` holds something, StorageFullError, LibraryError.
    """
    parent = folder.absolute().parent
    with writing_to(parent):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ListError("there is something already", item=str(folder), remedy="Name a folder that is new or empty")
        part = Path(tempfile.mkdtemp(dir=parent, prefix=_PREFIX))
        try:
            yield part
            if folder.exists():
                folder.rmdir()
            part.replace(folder)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """Lend a path for a new file that takes the place of `file` at the end of the block, or goes.

    Raises StorageFullError, LibraryError.
    """
    parent = file.absolute().parent
    with writing_to(parent), tempfile.TemporaryDirectory(dir=parent, prefix=_PREFIX) as made:
        part = Path(made) / "part"
        yield part
        part.replace(file)


def pack(folder: Path, file: Path, *, name: str) -> None:
    """Write all files of a folder into a ZIP file, below a folder `name`. Raises OSError."""
    # Pictures are most of it, and PNG is packed already.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, f"{name}/{path.relative_to(folder).as_posix()}")


def unpack(file: Path, folder: Path) -> None:
    """Write what `pack` packed into a folder. Raises ListError for any other file, OSError."""
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                parts = PurePosixPath(member.filename).parts[1:]
                if not parts or ".." in parts or member.is_dir():
                    raise ListError("holds a file that none of our exports has", item=file.name)
                target = folder.joinpath(*parts)
                target.parent.mkdir(exist_ok=True)
                with archive.open(member) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
    except zipfile.BadZipFile as error:
        raise ListError("is no whole ZIP file", item=file.name, remedy="Export it again") from error


def receive(blocks: Iterable[bytes], file: Path) -> None:
    """Write blocks as they come. Raises StorageFullError, LibraryError for what the disk says of them alone."""
    with file.open("wb") as target:
        for block in blocks:
            with writing_to(file.parent):
                target.write(block)
