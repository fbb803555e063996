"""Files that end the program: which were being read when a process died, and not reading them for ever.

What is in hand stands in a small file beside the database, which outlives kill -9 and a codec that crashes. Files that
a process died with are read alone the next time, so that a second death points at one of them; that one is left out
and listed. Nothing of it waits for the disk: against loss of power there is nothing to guard here.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from medsearch_desktop.conveyor import look_ahead
from medsearch_desktop.store.database import disk_path, stored_path

IN_HAND, SUSPECTS = "in-hand", "suspects.json"
DEATHS = 2
REASON = "ended the program twice while it was read, and is left out. `medsearch failures --retry` tries it again"
# Longer than any path of a file system; what is longer all the same is not kept book of.
_SLOT_BYTES = 8192


Item = TypeVar("Item")
Made = TypeVar("Made")


class Quarantine:
    """The files in hand of one pass over them; `folder` is the library's.

    Passes that may run at the same time keep books of different `name`. A disk that takes nothing only keeps no book.
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        suspects = Path(SUSPECTS)
        self._file = folder / (f"{IN_HAND}-{name}" if name else IN_HAND)
        self._suspects_file = folder / (f"{suspects.stem}-{name}{suspects.suffix}" if name else SUSPECTS)
        self._deaths: dict[str, int] = {}
        self._refused: set[str] = set()
        self._descriptor = -1
        self._free: list[int] = []
        self._lock = threading.Lock()

    def settle(self) -> None:
        """Note that what was left out is on the list of failures: whoever asks for it again has it read again."""
        if self._refused:
            self._deaths = {path: deaths for path, deaths in self._deaths.items() if path not in self._refused}
            self._refused = set()
            self._write_suspects()

    def left_out(self) -> list[str]:
        """Return the paths that are left out and were not settled."""
        return sorted(path for path, deaths in self._read_suspects().items() if deaths >= DEATHS)

    def forgive(self) -> None:
        """Have all that is left out read again the next time. Not to be called during a pass."""
        self._suspects_file.unlink(missing_ok=True)

    def look_ahead(
        self,
        make: Callable[[Item], Made],
        items: Iterable[Item],
        *,
        path_of: Callable[[Item], str],
        refuse: Callable[[Item, str], Made],
        threads: int,
        ahead: int,
    ) -> Generator[Made, None, None]:
        """Yield `make(item)` of each as `conveyor.look_ahead` does; what a process died with while nothing else runs.

        `refuse(item, reason)` stands for what is left out.
        """

        def held(item: Item) -> Made:
            path = path_of(item)
            if self._deaths.get(path, 0) >= DEATHS:
                self._refused.add(path)
                return refuse(item, REASON)
            with self._holding(path):
                made = make(item)
            if path in self._deaths:
                # Alone, and nothing happened: it was somebody else.
                del self._deaths[path]
                self._write_suspects()
            return made

        self._begin(threads)
        try:
            # Each run of items is through before the next begins.
            for suspect, run in groupby(items, key=lambda item: path_of(item) in self._deaths):
                many = (1, 1) if suspect else (threads, ahead)
                yield from look_ahead(held, run, threads=many[0], ahead=many[1])
        finally:
            self._close()

    def _begin(self, slots: int) -> None:
        """Count the files that a process died with, and make room for this one's."""
        self._deaths = self._read_suspects()
        for path in self._left_in_hand():
            self._deaths[path] = self._deaths.get(path, 0) + 1
        with suppress(OSError):
            # First this: cut off in between, a death is forgotten, and not counted twice.
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
            self._descriptor = os.open(self._file, flags, 0o600)
        self._write_suspects()
        self._free = list(range(slots))

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        with suppress(OSError):
            self._file.unlink(missing_ok=True)

    @contextmanager
    def _holding(self, path: str) -> Iterator[None]:
        name = stored_path(path).encode("utf-8")
        with self._lock:
            slot = self._free.pop() if self._free else -1
        if slot < 0 or self._descriptor < 0 or len(name) > _SLOT_BYTES - 4:
            yield
        else:
            self._put(slot, len(name).to_bytes(4, "little") + name)
            try:
                yield
            finally:
                self._put(slot, bytes(4))
        if slot >= 0:
            with self._lock:
                self._free.append(slot)

    def _put(self, slot: int, content: bytes) -> None:
        with suppress(OSError):
            if hasattr(os, "pwrite"):
                os.pwrite(self._descriptor, content, slot * _SLOT_BYTES)
                return
            with self._lock:
                os.lseek(self._descriptor, slot * _SLOT_BYTES, os.SEEK_SET)
                os.write(self._descriptor, content)

    def _left_in_hand(self) -> set[str]:
        try:
            content = self._file.read_bytes()
        except OSError:
            return set()
        found = set()
        for start in range(0, len(content), _SLOT_BYTES):
            size = int.from_bytes(content[start : start + 4], "little")
            name = content[start + 4 : start + 4 + size]
            if 0 < size <= _SLOT_BYTES - 4 and len(name) == size:
                with suppress(UnicodeDecodeError):
                    found.add(disk_path(name.decode("utf-8")))
        return found

    def _read_suspects(self) -> dict[str, int]:
        try:
            held = json.loads(self._suspects_file.read_text("utf-8"))
            return {disk_path(str(path)): int(deaths) for path, deaths in held.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _write_suspects(self) -> None:
        part = self._suspects_file.with_suffix(".part")
        with suppress(OSError):
            if not self._deaths:
                self._suspects_file.unlink(missing_ok=True)
                return
            held = json.dumps({stored_path(path): deaths for path, deaths in self._deaths.items()})
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                file.write(held)
            part.replace(self._suspects_file)
