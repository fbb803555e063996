"""Folders of studies, listed: every regular file once, in an order that repeats.

Real folders are listed first, then folders reached by links, then single files reached by links, so
that a file is met under its real path whenever a root holds it, and links that lead back end there.
"""

# os.path throughout: paths stay the strings that the records hold, surrogate escapes included, and
# pathlib costs more than the rest of the walk.
# ruff: noqa: PTH100, PTH110, PTH116, PTH118, PTH119, PTH120, PTH121

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from medsearch_desktop.errors import SourceError
from medsearch_desktop.records import FileKind, SourceFile
from medsearch_desktop.source.dicomdir import is_dicomdir_name, read_dicomdir
from medsearch_desktop.source.opening import is_archive_name
from medsearch_desktop.source.sniff import os_reason

Problem = Callable[[str, str], None]
_Identity = tuple[int, int] | str

# What file managers, office programs and network storage leave behind. Hidden means a leading dot.
_SYSTEM_NAMES = frozenset(
    {
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "@eadir",
        "#recycle",
        "__macosx",
    }
)
_LIBRARY_FILE = "library.json"
_LIBRARY_PARTS = frozenset({"library.duckdb", "thumbnails", "indexes"})


def walk(root: Path | str, *, on_problem: Problem) -> Iterator[SourceFile]:
    """Yield every regular file in and below `root`, or `root` itself when it is a file.

    Within a folder its files come first, by name, then its sub-folders. `kind` is DICOM for a file
    that a DICOMDIR names, ARCHIVE for one that has the name of an archive, and OTHER for all others, whose
    content was not looked at. Hidden and
    system files, libraries of this program, pipes, sockets and devices are left out; what vanishes
    on the way is left out too. A folder, file or link that cannot be read goes to
    `on_problem(path, reason)`, `root` included, and the walk goes on.
    """
    return walk_all([root], on_problem=on_problem)


def walk_all(roots: Iterable[Path | str], *, on_problem: Problem) -> Iterator[SourceFile]:
    """Yield the files of several roots as `walk` does, each real file once however the roots overlap.

    `root` of a file is the first root that reached it. A file with several hard links has several
    names, and each is yielded: nothing but its content says they are one.
    """
    journey = _Journey(on_problem)
    for root in dict.fromkeys(absolute_root(root) for root in roots):
        try:
            mode = os.stat(root).st_mode
        except (OSError, ValueError) as error:
            on_problem(root, f"cannot be read ({os_reason(error)})")
            continue
        if stat.S_ISDIR(mode):
            yield from journey.tree(root, root)
        elif stat.S_ISREG(mode):
            journey.file_links.append((root, root))
        else:
            on_problem(root, "is neither a folder nor a file")
    # Links met on the way lead to further ones: the list grows while it is gone through.
    for path, root in journey.folder_links:
        yield from journey.tree(path, root)
    for path, root in journey.file_links:
        yield from journey.linked_file(path, root)


def absolute_root(root: Path | str) -> str:
    """Return a root as the records name it: absolute, without `..` or a trailing separator, links kept.

    `..` behind a link is the parent of the link's target; only there is the link resolved.
    """
    given = os.fspath(root)
    plain = os.path.abspath(given)
    if ".." in given.replace("\\", "/").split("/"):
        try:
            if not os.path.samefile(given, plain):
                return os.path.realpath(given)
        except (OSError, ValueError):
            return os.path.realpath(given) if os.path.exists(given) else plain
    return plain


def is_left_out(name: str) -> bool:
    """Whether a file or folder of that name is hidden or the system's own, and never indexed."""
    return name.startswith((".", "~$")) or name.lower() in _SYSTEM_NAMES


@dataclass(slots=True)
class _Journey:
    on_problem: Problem
    folder_links: list[tuple[str, str]] = field(default_factory=list)
    file_links: list[tuple[str, str]] = field(default_factory=list)
    _visited: set[_Identity] = field(default_factory=set)
    _linked: set[_Identity] = field(default_factory=set)
    _promised: set[str] = field(default_factory=set)

    def tree(self, top: str, root: str) -> Iterator[SourceFile]:
        # A list and not recursion: a tree may be deeper than Python's stack.
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            entries = self._enter(folder, top=folder == root)
            folders = []
            for entry in entries:
                try:
                    if entry.is_symlink():
                        self._defer(entry.path, root)
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                        continue
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    self.on_problem(entry.path, f"cannot be read ({os_reason(error)})")
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield self._file(entry.path, root, status)
            waiting.extend(reversed(folders))

    def linked_file(self, path: str, root: str) -> Iterator[SourceFile]:
        try:
            real = os.path.realpath(path, strict=True)
            status = os.stat(real)
            home = _identity(os.path.dirname(real))
        except FileNotFoundError:
            return
        except OSError as error:
            self.on_problem(path, f"cannot be read ({os_reason(error)})")
            return
        listed = home in self._visited and not is_left_out(os.path.basename(real))
        identity = (status.st_dev, status.st_ino) if status.st_ino else real
        if listed or identity in self._linked or not stat.S_ISREG(status.st_mode):
            return
        self._linked.add(identity)
        yield self._file(path, root, status)

    def _enter(self, folder: str, *, top: bool) -> list[os.DirEntry[str]]:
        """Return what is to be looked at in a folder, by name; nothing when it was entered before."""
        entries: list[os.DirEntry[str]] = []
        try:
            identity = _identity(folder)
            if identity in self._visited:
                return []
            self._visited.add(identity)
            with os.scandir(folder) as listing:
                # One by one: when the drive fails half-way, what was listed so far is kept.
                for entry in listing:
                    entries.append(entry)
        except FileNotFoundError as error:
            # Vanished since its parent was listed; but Windows says the same of a path too long for it.
            if top or (os.name == "nt" and len(folder) >= 248):
                self.on_problem(folder, f"cannot be listed ({os_reason(error)})")
        except OSError as error:
            self.on_problem(folder, f"cannot be listed ({os_reason(error)})")
        names = {entry.name for entry in entries}
        if _LIBRARY_FILE in names and not _LIBRARY_PARTS.isdisjoint(names):
            if top:
                self.on_problem(folder, "is a library of this program, not a folder of studies")
            return []
        for name in filter(is_dicomdir_name, names):
            try:
                self._promised.update(os.fspath(file) for file in read_dicomdir(os.path.join(folder, name)))
            except SourceError:
                # A table of contents that cannot be read loses nothing: the folder is listed anyway.
                continue
        return sorted((entry for entry in entries if not is_left_out(entry.name)), key=lambda entry: entry.name)

    def _defer(self, path: str, root: str) -> None:
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            self.on_problem(path, "is a link to something that is not there")
            return
        if stat.S_ISDIR(mode):
            self.folder_links.append((path, root))
        elif stat.S_ISREG(mode):
            self.file_links.append((path, root))

    def _file(self, path: str, root: str, status: os.stat_result) -> SourceFile:
        kind = FileKind.DICOM if path in self._promised else FileKind.OTHER
        if is_archive_name(path):
            kind = FileKind.ARCHIVE
        return SourceFile(path, root, status.st_size, status.st_mtime_ns, kind)


def _identity(folder: str) -> _Identity:
    status = os.stat(folder)
    # Some network file systems number nothing; there the resolved path has to do.
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(folder)
