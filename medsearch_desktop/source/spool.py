"""The folder in which received instances come to rest: on the disk for good before anybody is told so.

    FOLDER/.incoming/       what is being received; left-overs of an association or process that broke off
    FOLDER/3f/UID.dcm       what was acknowledged, by its SOP Instance UID, spread over 256 folders
    FOLDER/.quarantine/     what was refused because it is no data set

A walk leaves out the two whose names begin with a dot. Source: PS3.10 (the file format).
"""

from __future__ import annotations

import errno
import filecmp
import hashlib
import os
import re
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from medsearch_desktop.disk import rename_new, sync_folder
from medsearch_desktop.errors import SourceError
from medsearch_desktop.records import FileKind
from medsearch_desktop.source.sniff import HEAD_BYTES, os_reason, sniff_bytes

DEFLATED = "1.2.840.10008.1.2.1.99"
# An association that is silent for less is ended, and so is a request.
_SECONDS_ABANDONED = 3600
_PREAMBLE = 132
# Digits and dots are harmless as a file name on every system, unless they are dots alone.
_UID = re.compile(r"(?=.*\d)[0-9.]{1,64}")


class NotDicomError(Exception):
    """What came is no data set; it lies in the quarantine folder."""


class NoRoomError(Exception):
    """The disk is full, or has no more than its reserve."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Where an instance lies; `new` is false where the very same had been received before."""

    path: str
    new: bool


class Spool:
    """One such folder; may be shared between threads, and between processes.

    `reserve_bytes` are left free on its disk. Raises SourceError when it cannot be made.
    """

    def __init__(self, folder: Path, *, reserve_bytes: int) -> None:
        self.folder = folder
        self.incoming = folder / ".incoming"
        self.quarantine = folder / ".quarantine"
        self._reserve_bytes = reserve_bytes
        self._shards: set[Path] = set()
        # What has its name, but perhaps not for good: nobody was told of it.
        self._untold: set[Path] = set()
        self._lock = threading.Lock()
        try:
            for each in (folder, self.incoming, self.quarantine):
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
                sync_folder(each.parent)
        except OSError as error:
            raise SourceError(
                f"cannot be made ({os_reason(error)})", item=str(folder), remedy="Name another with --spool"
            ) from error

    def sweep(self) -> int:
        """Remove what broken associations left behind an hour ago or longer; return how many files."""
        count = 0
        for part in self.incoming.iterdir():
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > _SECONDS_ABANDONED:
                    part.unlink()
                    count += 1
        return count

    @property
    def is_there(self) -> bool:
        """Whether the folder is the one that was made; a drive that went away leaves an empty place."""
        return self.incoming.is_dir()

    def has_room(self, size: int = 0) -> bool:
        """Whether `size` bytes more leave the reserve free."""
        try:
            return shutil.disk_usage(self.folder).free - size > self._reserve_bytes
        except OSError:
            return False

    def new_part(self) -> Path:
        """Make an empty file to receive into. Raises NoRoomError."""
        if not self.has_room():
            raise NoRoomError
        descriptor, name = tempfile.mkstemp(prefix="part-", suffix=".dcm", dir=self.incoming)
        os.close(descriptor)
        return Path(name)

    def keep(self, part: Path, *, sop_instance_uid: str, transfer_syntax: str) -> Kept:
        """Bring a received file to rest, on the disk for good, and return where.

        `part` is in the format of PS3.10 and gone afterwards. The same content under the same UID is kept
        once; another content under it lies beside the first. Raises NotDicomError, NoRoomError, and OSError
        for a disk that fails.
        """
        try:
            if not _is_data_set(part, deflated=transfer_syntax == DEFLATED):
                self._put_aside(part)
                raise NotDicomError
            _sync_file(part)
            return self._settle(part, sop_instance_uid)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoRoomError from error
            raise

    def _settle(self, part: Path, uid: str) -> Kept:
        key = hashlib.sha256(uid.encode("utf-8", "surrogateescape")).hexdigest()
        shard = self.folder / key[:2]
        # A UID that is none names no file; what tells it apart is its digest.
        stem = uid if _UID.fullmatch(uid) else f"uid-{key[:32]}"
        self._make(shard)
        target = shard / f"{stem}.dcm"
        if self._moved(part, target):
            return Kept(str(target), new=True)
        if filecmp.cmp(part, target, shallow=False):
            # Whoever wrote it may have died before its name was on the disk for good.
            sync_folder(shard)
            part.unlink()
            return Kept(str(target), new=self._is_untold(target))
        with part.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        other = shard / f"{stem}-{content[:16]}.dcm"
        new = self._moved(part, other)
        if not new:
            sync_folder(shard)
            part.unlink(missing_ok=True)
        return Kept(str(other), new=new or self._is_untold(other))

    def _moved(self, part: Path, target: Path) -> bool:
        """Give a file its name for good unless that is taken; return whether it was free."""
        if not rename_new(part, target):
            return False
        try:
            sync_folder(target.parent)
        except OSError:
            # It stays: another process may have found it there and told its sender so.
            with self._lock:
                self._untold.add(target)
            raise
        part.unlink(missing_ok=True)
        return True

    def _is_untold(self, target: Path) -> bool:
        """Whether a file is here whose coming failed after it had its name; asked once, when it is here for good."""
        with self._lock:
            untold = target in self._untold
            self._untold.discard(target)
        return untold

    def _make(self, shard: Path) -> None:
        with self._lock:
            if shard not in self._shards:
                shard.mkdir(mode=0o700, exist_ok=True)
                if not self.is_there:
                    # The drive went away just now. A folder in its place would look like a drive that lost everything.
                    with suppress(OSError):
                        shard.rmdir()
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.incoming))
                sync_folder(self.folder)
                self._shards.add(shard)

    def _put_aside(self, part: Path) -> None:
        part.replace(self.quarantine / part.name)
        sync_folder(self.quarantine)


def _is_data_set(part: Path, *, deflated: bool) -> bool:
    with part.open("rb") as file:
        head = file.read(_PREAMBLE + HEAD_BYTES)
        if head[128:_PREAMBLE] != b"DICM" or len(head) < _PREAMBLE + 12:
            return False
        # The group length of the file meta information, which is its first element (PS3.10 7.1).
        start = _PREAMBLE + 12 + int.from_bytes(head[_PREAMBLE + 8 : _PREAMBLE + 12], "little")
        size = file.seek(0, os.SEEK_END) - start
        file.seek(start)
        beginning = file.read(HEAD_BYTES)
    return bool(beginning) and (deflated or sniff_bytes(beginning, size=size, name="") is FileKind.DICOM)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
