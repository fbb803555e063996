"""What became of the files that were known: unchanged, changed, moved, copied, gone, or only away.

A file is its content. Size and modification time say that it is unchanged only where they can be
trusted; elsewhere its SHA-256 decides. Nothing counts as removed while there is doubt that it is: a
root that is not there, an emptied mount point, a folder that could not be listed and a link that
leads nowhere are *away*, and what was known below them stays known.

    changes = Changes(known, roots=roots, scan_started_ns=time.time_ns())
    for file in walk_all(changes.online, on_problem=...):      # every problem also to changes.blind
        verdict = changes.judge(file)                          # None: the content must be read
        if verdict is None:
            verdict = changes.settle(replace(file, sha256=digest(file.path)))
    for removal in changes.finish(): ...
"""

# os.path throughout: paths stay the strings that the records hold, surrogate escapes included.
# ruff: noqa: PTH116, PTH120

from __future__ import annotations

import os
import stat
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from medsearch_desktop.records import SourceFile
from medsearch_desktop.source.folder import absolute_root, is_left_out
from medsearch_desktop.source.known import FileTable, FileView, Holders, PathSet
from medsearch_desktop.source.opening import MEMBER, container_of, is_member
from medsearch_desktop.source.sniff import unreadable

# FAT counts modification times in steps of two seconds, the coarsest of any file system in use.
CLOCK_STEP_NS = 2_000_000_000


class Change(StrEnum):
    """What one file on disk is to what was known."""

    UNCHANGED = "unchanged"
    NEW = "new"
    CHANGED = "changed"
    MOVED = "moved"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class KnownFile:
    """One file as an earlier scan recorded it.

    `state` is "indexed", "failed", "duplicate", "ignored" or "offline". `checked_ns` is when its
    content was last read, in nanoseconds since 1970; 0 when that is not known, and then it is read
    again. `sha256` may be empty for a file whose content was never read. `kind` is a `FileKind`.
    """

    path: str
    root: str
    size: int
    mtime_ns: int
    sha256: str
    state: str
    checked_ns: int = 0
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one file on disk is, and what that means for what was known.

    `known` is what stood at its path before; unless UNCHANGED, that content has left this path.
    `other` is the path that held the same content: for MOVED it does no more, and its record (and
    images) now belong here; for DUPLICATE it still does. `heir` is a duplicate elsewhere that still
    holds the content which left this path: hand the record over to it before this one is replaced.
    UNCHANGED with a `file.sha256` was read: its times are to be recorded anew.
    """

    change: Change
    file: SourceFile
    known: KnownFile | None = None
    other: str = ""
    heir: str = ""


@dataclass(frozen=True, slots=True)
class Removal:
    """A known file that is no more; `heir` is a duplicate that now stands for its content, or ""."""

    known: KnownFile
    heir: str = ""


class Changes:
    """The comparison of one scan with what was known, file by file; for one thread.

    `known` is all that is known, by path, also outside the roots: copies are told from it. It is read, not changed. A
    `FileView` may look up what lies outside the roots elsewhere. `online` are the roots to walk; `offline` those that
    are away, and after `finish` also roots of earlier scans that are away within the roots walked.

    A root is away when it cannot be listed, or when it has no entries although files were known
    below it: so an unmounted drive leaves its mount point. `emptied_roots=True` says that an empty
    root was really emptied, and that a root of an earlier scan which is gone from within a root of
    this one was really deleted.

    Raises SourceError for a root that cannot be listed and below which nothing is known.
    """

    def __init__(
        self,
        known: Mapping[str, KnownFile],
        *,
        roots: Iterable[Path | str],
        scan_started_ns: int,
        emptied_roots: bool = False,
    ) -> None:
        table = known.table if isinstance(known, FileView) else _tabled(known.values())
        self._known = known
        self._scan_started_ns = scan_started_ns
        self._emptied_roots = emptied_roots
        self._paths = table.paths
        self._met = PathSet(table)
        # Paths whose content this scan has established; others were met and are still being read.
        self._sure = PathSet(table)
        # Paths whose record a MOVED verdict gave to another path.
        self._given_away: set[str] = set()
        self._blind: set[str] = set()
        self._distrusted: set[str] = set()
        # The record's own path leads; duplicates follow.
        self._holders = Holders(table)
        self._online: list[str] = []
        self._offline: list[str] = []
        for root in dict.fromkeys(absolute_root(root) for root in roots):
            (self._online if self._is_there(root) else self._offline).append(root)

    @property
    def online(self) -> tuple[str, ...]:
        """The roots that are there, absolute, in the order given."""
        return tuple(self._online)

    @property
    def offline(self) -> tuple[str, ...]:
        """The roots that are away; nothing below them is removed."""
        return tuple(self._offline)

    def blind(self, path: str) -> None:
        """Note that `path` could not be looked into: what was known at and below it stays known."""
        self._blind.add(path)

    def distrust(self, archive: str) -> None:
        """Note that an archive was written over: no size and time says of its members that they are unchanged."""
        self._distrusted.add(archive)

    def known(self, path: str) -> KnownFile | None:
        """Return what was known at a path."""
        return self._known.get(path)

    def members(self, archive: str) -> list[KnownFile]:
        """Return what was known of an archive's members, by path."""
        prefix = archive + MEMBER
        first = bisect_left(self._paths, prefix)
        found = []
        while first < len(self._paths) and self._paths[first].startswith(prefix):
            found.append(self._known[self._paths[first]])
            first += 1
        return found

    def judge(self, file: SourceFile) -> Verdict | None:
        """Return UNCHANGED when size and time say so beyond doubt, else None: its content must be read.

        There is doubt when the file was modified less than a clock step before its content was last
        read, or since (the same time may then stand for two contents), or in the future.
        """
        self._met.add(file.path)
        known = self._standing(file.path)
        if known is None or file.size != known.size or file.mtime_ns != known.mtime_ns:
            return None
        if self._distrusted and container_of(file.path) in self._distrusted:
            return None
        if file.mtime_ns > min(known.checked_ns - CLOCK_STEP_NS, self._scan_started_ns):
            return None
        self._sure.add(file.path)
        return Verdict(Change.UNCHANGED, file, known)

    def settle(self, file: SourceFile) -> Verdict:
        """Return what a file is whose `sha256` was computed; files may come in any order.

        Looks at the disk where the content was known to be elsewhere. Settle one file at a time, in
        the order in which the verdicts are applied.
        """
        assert file.sha256, "settle() takes files whose content was read"
        self._met.add(file.path)
        known = self._standing(file.path)
        self._sure.add(file.path)
        holders = self._holders.of(file.sha256)
        if known is not None and known.sha256 == file.sha256:
            return Verdict(Change.UNCHANGED, file, known)
        heir = self._replaced(known) if known is not None else ""
        other = next((path for path in holders if path != file.path), "")
        if not other:
            holders.append(file.path)
            return Verdict(Change.NEW if known is None else Change.CHANGED, file, known, heir=heir)
        if self._still_holds(other):
            holders.append(file.path)
            return Verdict(Change.DUPLICATE, file, known, other=other, heir=heir)
        holders.remove(other)
        holders.insert(0, file.path)
        self._given_away.add(other)
        return Verdict(Change.MOVED, file, known, other=other, heir=heir)

    def finish(self) -> Iterator[Removal]:
        """Yield the known files below the online roots that are no more, by path; call it after the walk.

        A file is no more when the walk did not meet it, nothing hid it from the walk, and its own
        path says that it is not there.
        """
        online, away = set(self._online), set(self._offline)
        below_online: dict[str, bool] = {}
        there: dict[str, bool] = {}
        gone = []
        for path in self._met.missing():
            if path in self._given_away:
                continue
            folder = os.path.dirname(path)
            if folder not in below_online:
                lineage = set(_lineage(folder))
                below_online[folder] = not online.isdisjoint(lineage) and away.isdisjoint(lineage)
            if not (below_online[folder] or path in online) or path in away:
                continue
            if (self._blind and not self._blind.isdisjoint(_lineage(path))) or not self._is_gone(path):
                continue
            root = self._known[path].root
            if root not in there:
                # A file that was its own root has no mount point that could be away.
                there[root] = self._emptied_roots or root in ("", path) or self._is_there(root, quiet=True)
                if not there[root]:
                    self._offline.append(root)
            if there[root]:
                gone.append(self._known[path])
        for known in gone:
            self._leave(known)
        for known in gone:
            yield Removal(known, "" if known.state == "duplicate" else self._heir(known))

    def _standing(self, path: str) -> KnownFile | None:
        return None if path in self._given_away else self._known.get(path)

    def _replaced(self, known: KnownFile) -> str:
        self._leave(known)
        return "" if known.state == "duplicate" else self._heir(known)

    def _leave(self, known: KnownFile) -> None:
        holders = self._holders.of(known.sha256)
        if known.path in holders:
            holders.remove(known.path)

    def _heir(self, known: KnownFile) -> str:
        return next((path for path in self._holders.of(known.sha256) if self._still_holds(path)), "")

    def _still_holds(self, path: str) -> bool:
        """Whether a path that was known, or settled in this scan, to hold a content still does."""
        known = self._known.get(path)
        if path in self._sure or known is None:
            return True
        container = container_of(path)
        try:
            status = os.stat(container)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            # There may be a file; a record is not taken from it on a guess.
            return True
        holder = self._known.get(container) if is_member(path) else known
        # An archive whose members were not all done yet has no record that tells its size.
        same_size = holder is None or status.st_size == holder.size
        return stat.S_ISREG(status.st_mode) and same_size and status.st_mtime_ns == known.mtime_ns

    def _is_gone(self, path: str) -> bool:
        container = container_of(path)
        if is_member(path) and container in self._met:
            # Listed in this scan, and it was not among what is in there.
            return True
        try:
            os.lstat(container)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        return False

    def _is_there(self, root: str, *, quiet: bool = False) -> bool:
        some_known = self._any_known_below(root)
        try:
            if not stat.S_ISDIR(os.stat(root).st_mode):
                return True
            with os.scandir(root) as entries:
                empty = all(is_left_out(entry.name) for entry in entries)
        except (OSError, ValueError) as error:
            if some_known or quiet:
                return False
            raise unreadable(root, error) from error
        return self._emptied_roots or not (empty and some_known)

    def _any_known_below(self, root: str) -> bool:
        if root in self._known:
            return True
        prefix = root if root.endswith(os.sep) else root + os.sep
        first = bisect_left(self._paths, prefix)
        return first < len(self._paths) and self._paths[first].startswith(prefix)


def _tabled(files: Iterable[KnownFile]) -> FileTable:
    return FileTable((f.path, f.root, f.size, f.mtime_ns, f.sha256, f.kind, f.state, f.checked_ns, "") for f in files)


def _lineage(path: str) -> Iterator[str]:
    """Yield a path and all folders above it."""
    while True:
        yield path
        parent = os.path.dirname(path)
        if parent == path:
            return
        path = parent
