"""Archives, read where they lie: ZIP and TAR (plain, gzip, bzip2, xz), and those one level down inside.

Nothing is unpacked and no name in an archive is taken for a path: members are found by names that were
made harmless, and only regular ones count. What a member claims is bounded before it is read, so that
an archive made to burst costs seconds and no memory.
Source: APPNOTE.TXT 6.3 (ZIP, ZIP64), POSIX.1-2017 pax (TAR).
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import re
import struct
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, cast

from medsearch_desktop.source.opening import (
    MEMBER,
    container_of,
    is_archive_name,
    is_member,
    open_on_disk,
    split_member,
)

# An archive inside an archive is read, one inside that is only named.
MAX_DEPTH = 2
MAX_MEMBERS = 250_000
# All members together may hold this much, or this many times the archive: blank images do shrink a thousandfold.
MAX_BYTES = 1 << 30
MAX_RATIO = 200
# An archive inside another is held in memory while its members are read.
MAX_INNER_BYTES = 256 << 20
# No sound archive has a table of contents or a header of more.
_MAX_READ = 32 << 20
_IN_MEMORY = 64 << 20
_PIECE = 1 << 20
_LISTINGS, _INNER = 4, 2

_ENCRYPTED = 0x1
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError, struct.error)
_UNREAD = (*_BROKEN, LookupError, NotImplementedError, RuntimeError, OverflowError, MemoryError)
_METHODS = frozenset((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))


@dataclass(frozen=True, slots=True)
class Member:
    """One regular member: its path as the records name it, its size unpacked in bytes, and why it cannot be read."""

    path: str
    size: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive holds, in its own order; `problem` says why that may not be all, or is ""."""

    members: tuple[Member, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where one member is: `offset` counts in the unpacked TAR, or to the local header in a ZIP."""

    size: int
    offset: int = 0
    zipped: zipfile.ZipInfo | None = None
    unreadable: str = ""


@dataclass(slots=True)
class _Listing:
    """One archive's members by their harmless names; `packed` is the codec around a TAR."""

    packed: str = ""
    entries: dict[str, _Entry] = field(default_factory=dict)
    problem: str = ""
    _given: Counter[str] = field(default_factory=Counter)

    def enter(self, name: str, entry: _Entry) -> None:
        parts = [part for part in re.split(r"[/\\\0]+", name) if part not in ("", ".")]
        plain = "/".join("_" if part == ".." else part for part in parts).replace("/", os.sep) or "_"
        given = plain
        while plain in self.entries:
            # Some archives hold a name twice; unpacking would keep the last, here each is kept.
            self._given[given] += 1
            plain = f"{given} ({self._given[given] + 1})"
        self.entries[plain] = entry


class _BurstError(Exception):
    """An archive holds more than is read of one."""


def contents(path: str) -> Contents:
    """Return the members of an archive on disk and of those inside it; what it cannot read of it is `problem`.

    Raises OSError when the file itself cannot be opened.
    """
    found = _Gathering(_allowance(path))
    problem = _gather(path, found, depth=1)
    return Contents(tuple(found.members), problem)


def open_member(path: str) -> IO[bytes]:
    """Return the content of a member, at its beginning; larger ones lie in an unnamed temporary file meanwhile.

    Raises OSError when the archive or the member is not there, is encrypted, damaged or packed in a way
    that is not read here.
    """
    archive, name = split_member(path)
    listing = _listing(archive)
    entry = listing.entries.get(name)
    if entry is None:
        raise FileNotFoundError(errno.ENOENT, "no such member in the archive", path)
    if entry.unreadable:
        raise OSError(None, entry.unreadable, path)
    with _unpacked(archive, listing, entry, path) as stream:
        return _content(stream, entry.size)


class InOrder:
    """Members read one after the other: a packed TAR is then gone through once and not once a member.

    For one thread. Others are left to `open_member`.
    """

    def __init__(self) -> None:
        self._archive = ""
        self._files: list[IO[bytes]] = []

    def read(self, path: str) -> bytes | None:
        """Return the content of a member of a packed TAR, or None for whatever is to be opened by itself.

        Raises OSError as `open_member`.
        """
        if not is_member(path):
            self.close()
            return None
        archive, name = split_member(path)
        listing = _listing(archive)
        entry = listing.entries.get(name)
        if not listing.packed or entry is None or entry.unreadable or entry.size > _IN_MEMORY:
            return None
        with _translated(path):
            if archive != self._archive or not self._files or self._files[0].tell() > entry.offset:
                self.close()
                file = _open(archive)
                self._files = [_unpacking(file, listing.packed), file]
                self._archive = archive
            self._files[0].seek(entry.offset)
            return _exactly(self._files[0], entry.size)

    def close(self) -> None:
        """Let go of the archive that was read last."""
        files, self._files = self._files, []
        for file in files:
            file.close()


@dataclass(slots=True)
class _Gathering:
    """The members found so far, and how many bytes more all that follow may hold."""

    left: int
    members: list[Member] = field(default_factory=list)


def _gather(archive: str, found: _Gathering, *, depth: int) -> str:
    listing = _listing(archive)
    for name, entry in listing.entries.items():
        found.left -= entry.size
        if found.left < 0 or len(found.members) >= MAX_MEMBERS:
            return "holds more than is read of an archive of this size; unpack it, and ingest the folder"
        path = f"{archive}{MEMBER}{name}"
        if not is_archive_name(name) or entry.unreadable:
            found.members.append(Member(path, entry.size, entry.unreadable))
        elif why := _gather_inner(path, entry, found, depth=depth):
            found.members.append(Member(path, entry.size, why))
    return listing.problem


def _gather_inner(path: str, entry: _Entry, found: _Gathering, *, depth: int) -> str:
    if depth >= MAX_DEPTH:
        return "an archive too deep inside others; unpack the outer one, and ingest the folder"
    if entry.size > MAX_INNER_BYTES:
        return f"an archive of more than {MAX_INNER_BYTES >> 20} MB inside another; unpack the outer one"
    try:
        return _gather(path, found, depth=depth + 1)
    except OSError as error:
        return error.strerror or type(error).__name__


# What was listed last, by the archive's path with the size and time that its file then had.
_Key = tuple[str, int, int]
_listings: OrderedDict[_Key, _Listing] = OrderedDict()
_inner_bytes: OrderedDict[_Key, bytes] = OrderedDict()
_lock = threading.RLock()


def _key(archive: str) -> _Key:
    status = os.stat(container_of(archive))  # noqa: PTH116 - paths stay strings
    return archive, status.st_size, status.st_mtime_ns


def _listing(archive: str) -> _Listing:
    key = _key(archive)
    # One at a time: a packed TAR is unpacked to be listed, and two threads must not both do it.
    with _lock:
        if key not in _listings:
            with _open(archive) as file:
                _listings[key] = _listed(file, limit=_allowance(archive))
            while len(_listings) > _LISTINGS:
                _listings.popitem(last=False)
        _listings.move_to_end(key)
        return _listings[key]


def _allowance(archive: str) -> int:
    return max(MAX_BYTES, MAX_RATIO * os.stat(container_of(archive)).st_size)  # noqa: PTH116 - paths stay strings


def _open(archive: str) -> IO[bytes]:
    if not is_member(archive):
        return open_on_disk(archive)
    key = _key(archive)
    with _lock:
        if key not in _inner_bytes:
            with open_member(archive) as file:
                _inner_bytes[key] = file.read()
            while len(_inner_bytes) > _INNER:
                _inner_bytes.popitem(last=False)
        _inner_bytes.move_to_end(key)
        return io.BytesIO(_inner_bytes[key])


def _listed(file: IO[bytes], *, limit: int) -> _Listing:
    head = file.read(512)
    file.seek(0)
    packed = next((name for start, name in _PACKED.items() if head.startswith(start)), "")
    listing = _Listing(packed)
    try:
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            _list_zip(file, listing)
        elif packed:
            # Without closing the file below: it is not this function's.
            _list_tar(_Bounded(_unpacking(file, packed), limit), listing)
        else:
            _list_tar(_Bounded(file, limit), listing)
    except _BurstError:
        listing.problem = "holds more than is read of an archive of this size; unpack it, and ingest the folder"
    except _UNREAD:
        listing.problem = "is cut short or damaged, or no archive; copy it again from its origin"
    except OSError as error:
        if not _is_bad_data(error):
            raise
        listing.problem = "is cut short or damaged; copy it again from its origin"
    return listing


def _list_zip(file: IO[bytes], listing: _Listing) -> None:
    with zipfile.ZipFile(cast(IO[bytes], _Bounded(file, limit=None))) as archive:
        if len(archive.infolist()) > MAX_MEMBERS:
            raise _BurstError
        for info in archive.infolist():
            if info.filename.endswith(("/", "\\")):
                continue
            why = ""
            if info.flag_bits & _ENCRYPTED:
                why = "it is encrypted; unpack the archive, and ingest the folder"
            elif info.compress_type not in _METHODS:
                why = f"it is packed by method {info.compress_type}, which is not read here; unpack the archive"
            listing.enter(info.filename, _Entry(info.file_size, info.header_offset, info, why))


def _list_tar(file: _Bounded, listing: _Listing) -> None:
    with tarfile.open(fileobj=cast(IO[bytes], file), mode="r:") as archive:
        while (member := archive.next()) is not None:
            # One object a member would stay; only what is needed is kept.
            archive.members.clear()  # type: ignore[attr-defined]
            if not member.isreg():
                continue
            why = "it is a sparse file, which is not read here; unpack the archive" if member.issparse() else ""
            listing.enter(member.name, _Entry(member.size, member.offset_data, unreadable=why))
            if len(listing.entries) > MAX_MEMBERS:
                raise _BurstError
        end = archive.offset
    # tarfile takes a damaged header for the end, and a file that was cut between two members for whole.
    file.seek(end)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        listing.problem = f"is cut short or damaged behind its member {len(listing.entries)}; copy it again"
    elif file.read(_PIECE).strip(b"\0"):
        listing.problem = "holds more behind its own end, as archives do that were joined; unpack it, ingest the folder"
    # A packed one tells only at its very end whether all of it was sound.
    while listing.packed and file.read(_PIECE):
        pass


class _Bounded(io.RawIOBase):
    """A file that refuses to be read beyond `limit` or in pieces that no sound archive asks for."""

    def __init__(self, file: IO[bytes], limit: int | None) -> None:
        self._file, self._limit = file, limit

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read as files do."""
        if size > _MAX_READ or (self._limit is not None and self._file.tell() + max(0, size) > self._limit):
            raise _BurstError
        if size < 0:
            data = self._file.read(_MAX_READ + 1)
            if len(data) > _MAX_READ:
                raise _BurstError
            return data
        parts: list[bytes] = []
        while size > 0 and (part := self._file.read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Seek as files do."""
        if self._limit is not None and whence == os.SEEK_SET and offset > self._limit:
            raise _BurstError
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Tell as files do."""
        return self._file.tell()

    def close(self) -> None:
        """Leave the file below open: it is its opener's."""


_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}


def _unpacking(file: IO[bytes], packed: str) -> IO[bytes]:
    if packed == "gzip":
        return cast(IO[bytes], gzip.GzipFile(fileobj=file, mode="rb"))
    return bz2.BZ2File(file) if packed == "bzip2" else lzma.LZMAFile(file)


@contextmanager
def _unpacked(archive: str, listing: _Listing, entry: _Entry, path: str) -> Iterator[IO[bytes]]:
    """Lend a stream that is at the member's first byte."""
    with _translated(path), _open(archive) as file:
        if entry.zipped is None:
            stream = _unpacking(file, listing.packed) if listing.packed else file
            stream.seek(entry.offset)
            yield stream
            return
        file.seek(entry.offset)
        magic, name, extra = _LOCAL_HEADER.unpack(_exactly(file, _LOCAL_HEADER.size))
        if magic != b"PK\x03\x04":
            raise zipfile.BadZipFile
        file.seek(entry.offset + _LOCAL_HEADER.size + name + extra)
        # Checks the member's CRC at its end.
        yield cast(IO[bytes], zipfile.ZipExtFile(file, "r", entry.zipped))


def _content(stream: IO[bytes], size: int) -> IO[bytes]:
    if size <= _IN_MEMORY:
        return io.BytesIO(_exactly(stream, size))
    whole = tempfile.TemporaryFile()  # noqa: SIM115 - it is the caller's to close
    try:
        left = size
        while left > 0:
            piece = _exactly(stream, min(left, _PIECE))
            whole.write(piece)
            left -= len(piece)
        whole.seek(0)
    except BaseException:
        whole.close()
        raise
    return whole


def _exactly(stream: IO[bytes], size: int) -> bytes:
    parts: list[bytes] = []
    left = size
    while left > 0:
        part = stream.read(left)
        if not part:
            raise EOFError
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


@contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except _UNREAD as error:
        raise OSError(errno.EIO, "the archive is cut short or damaged there", path) from error
    except OSError as error:
        if not _is_bad_data(error):
            raise
        raise OSError(errno.EIO, "the archive is cut short or damaged there", path) from error


def _is_bad_data(error: OSError) -> bool:
    # gzip and bz2 speak of bad data as of a failing disk, without a number.
    return error.errno is None and not error.strerror
