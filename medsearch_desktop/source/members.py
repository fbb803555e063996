"""The members of archives among the files of a walk, and their content in the order in which it lies there.

An archive whose size and time are as they were, and all of whose members were done, is not opened: its
record is written behind those of its members, and so says that they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from medsearch_desktop.records import FileKind, SourceFile
from medsearch_desktop.source.archive import InOrder, contents
from medsearch_desktop.source.changes import Changes
from medsearch_desktop.source.opening import container_of, is_member
from medsearch_desktop.source.sniff import os_reason, sniff


@dataclass(slots=True)
class Members:
    """What one scan finds in archives; `reopen` are the states of an archive that is to be listed again.

    `problems` tells, by path, what of an archive or member cannot be read and why.
    """

    changes: Changes
    reopen: frozenset[str] = frozenset()
    problems: dict[str, str] = field(default_factory=dict)
    _listed_ns: dict[str, int] = field(default_factory=dict)

    def among(self, files: Iterable[SourceFile], *, on_problem: Callable[[str, str], None]) -> Iterator[SourceFile]:
        """Yield `files`, and in place of each archive its members; behind them the archive if it was opened.

        `on_problem(path, reason)` is told of an archive that cannot be opened.
        """
        for file in files:
            if file.kind is not FileKind.ARCHIVE:
                yield file
            elif self._is_done(file):
                known = self.changes.known(file.path)
                if known is not None and known.sha256:
                    # It is no archive, whatever it is called: these have no digest.
                    yield replace(file, kind=FileKind.OTHER)
                for member in self.changes.members(file.path):
                    yield SourceFile(member.path, file.root, member.size, member.mtime_ns)
            else:
                yield from self._opened(file, on_problem)

    def listed_ns(self, path: str) -> int:
        """Return when an archive was listed, or that of a member, in nanoseconds since 1970."""
        return self._listed_ns[container_of(path)]

    def with_content(self, files: Iterable[SourceFile]) -> Iterator[tuple[SourceFile, bytes | None]]:
        """Yield files with their content where it had to be read in order to be read once, else None."""
        stream = InOrder()
        try:
            for file in files:
                data = None
                if is_member(file.path) and file.path not in self.problems:
                    try:
                        data = stream.read(file.path)
                    except OSError as error:
                        self.problems[file.path] = f"cannot be read ({os_reason(error)})"
                yield file, data
        finally:
            stream.close()

    def _is_done(self, archive: SourceFile) -> bool:
        verdict = self.changes.judge(archive)
        known = verdict.known if verdict is not None else None
        if known is None or known.state in self.reopen:
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
        for member in found.members:
            if member.problem:
                self.problems[member.path] = member.problem
            yield SourceFile(member.path, archive.root, member.size, archive.mtime_ns)
        yield archive
