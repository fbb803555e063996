"""The members of archives among the files of a walk, and their content in the order in which it lies there.

An archive whose size and time are as they were, and all of whose members were done, is not opened: its
record is written behind those of its members, and so says that they are.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from medsearch_desktop.records import FileKind, SourceFile
from medsearch_desktop.source.archive import InOrder, Member, contents
from medsearch_desktop.source.changes import Changes
from medsearch_desktop.source.dicomdir import MAX_BYTES, is_dicomdir_name, promised_members
from medsearch_desktop.source.opening import container_of, is_member, open_regular
from medsearch_desktop.source.sniff import os_reason, sniff

# Of contents that wait for a worker.
_MOST_HELD = 256 << 20


@dataclass(slots=True)
class Members:
    """What one scan finds in archives; `reopen` are the states of an archive that is to be listed again.

    `problems` tells, by path, what of an archive or member cannot be read and why.
    """

    changes: Changes
    reopen: frozenset[str] = frozenset()
    problems: dict[str, str] = field(default_factory=dict)
    _listed_ns: dict[str, int] = field(default_factory=dict)
    _held: int = 0
    _let_go: threading.Condition = field(default_factory=threading.Condition)

    def among(self, files: Iterable[SourceFile], *, on_problem: Callable[[str, str], None]) -> Iterator[SourceFile]:
        """Yield `files`, and in place of each archive its members; behind them the archive if it was opened.

        `on_problem(path, reason)` is told of an archive that cannot be opened.
        """
        for file in files:
            if file.kind is not FileKind.ARCHIVE:
                yield file
            elif self._is_done(file):
                known = self.changes.known(file.path)
                if known is not None and known.kind != FileKind.ARCHIVE:
                    # It is none, whatever it is called.
                    yield replace(file, kind=FileKind.OTHER)
                for member in self.changes.members(file.path):
                    yield SourceFile(member.path, file.root, member.size, member.mtime_ns)
            else:
                yield from self._opened(file, on_problem)

    def listed_ns(self, path: str) -> int:
        """Return when an archive was listed, or that of a member, in nanoseconds since 1970."""
        return self._listed_ns[container_of(path)]

    def with_content(self, files: Iterable[SourceFile]) -> Iterator[tuple[SourceFile, bytes | None]]:
        """Yield files with their content where it had to be read in order to be read once, else None.

        Waits while too much of what it yielded was not let go of.
        """
        stream = InOrder()
        try:
            for file in files:
                data = None
                if is_member(file.path) and file.path not in self.problems:
                    try:
                        data = stream.read(file.path)
                    except OSError as error:
                        self.problems[file.path] = f"cannot be read ({os_reason(error)})"
                if data is not None:
                    with self._let_go:
                        self._let_go.wait_for(lambda: self._held < _MOST_HELD)
                        self._held += len(data)
                yield file, data
        finally:
            stream.close()

    def let_go(self, data: bytes | None) -> None:
        """Note that a content which `with_content` yielded is needed no more; from any thread."""
        if data is not None:
            with self._let_go:
                self._held -= len(data)
                self._let_go.notify()

    def _is_done(self, archive: SourceFile) -> bool:
        verdict = self.changes.judge(archive)
        known = verdict.known if verdict is not None else None
        # Before archives were read, they were files of no kind.
        if known is None or known.state in self.reopen or known.kind == FileKind.OTHER:
            return False
        # One that is to be tried again has another time than its archive.
        return all(member.mtime_ns == archive.mtime_ns for member in self.changes.members(archive.path))

    def _opened(self, archive: SourceFile, on_problem: Callable[[str, str], None]) -> Iterator[SourceFile]:
        before = self.changes.known(archive.path)
        if before is not None and before.size != archive.size:
            self.changes.distrust(archive.path)
        self._listed_ns[archive.path] = time.time_ns()
        try:
            found = contents(archive.path)
            # Some name anything .zip; what it is decides.
            foreign = found.problem and not found.members and sniff(archive.path) is not FileKind.OTHER
        except OSError as error:
            on_problem(archive.path, f"cannot be read ({os_reason(error)})")
            return
        if foreign:
            yield replace(archive, kind=FileKind.OTHER)
            return
        if found.problem:
            self.problems[archive.path] = found.problem
            self.changes.blind(archive.path)
        promised = _promised(found.members)
        for member in found.members:
            if member.problem:
                self.problems[member.path] = member.problem
            kind = FileKind.DICOM if member.path in promised else FileKind.OTHER
            yield SourceFile(member.path, archive.root, member.size, archive.mtime_ns, kind)
        yield archive


def _promised(members: Sequence[Member]) -> set[str]:
    """Return the members that a DICOMDIR among them says are DICOM."""
    found: set[str] = set()
    for member in members:
        folder, _, name = member.path.rpartition(os.sep)
        if not is_dicomdir_name(name) or member.problem or member.size > MAX_BYTES:
            continue
        try:
            with open_regular(member.path) as file:
                content = file.read()
        except OSError:
            # A table of contents that cannot be read loses nothing: the members are listed anyway.
            continue
        start = folder + os.sep
        below = [other.path[len(start) :] for other in members if other.path.startswith(start)]
        found.update(start + path for path in promised_members(content, below))
    return found
