"""What keeps a library current while files come in: batches, taken by itself or by the library's owner.

A command has the library open only while a batch is taken in, so that it can be asked in between.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from medsearch_desktop.errors import LibraryLockedError, ServeError, SourceError, StorageFullError
from medsearch_desktop.records import IngestSummary
from medsearch_desktop.serve.commands import ask_library, one_line, print_json

if TYPE_CHECKING:
    from medsearch_desktop.source.watch import Away, Silent, Watcher

# More are looked at by their folders, or by the whole: what the owner takes at once.
MOST_PATHS = 100
_TOLD = ("indexed", "updated", "removed", "duplicates", "failed")


class Keeper:
    """Takes batches into the library that a command line names, until `stop` is set by SIGTERM or Ctrl-C."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._asking = False
        self.stop = threading.Event()

    @contextmanager
    def until_told(self) -> Iterator[None]:
        """Have SIGTERM and Ctrl-C set `stop` in place of ending the process."""

        def end(_signal: int, _frame: FrameType | None) -> None:
            self.stop.set()
            if self._asking:
                # What waits for an owner waits for nothing else; it tells it to stop.
                raise KeyboardInterrupt

        before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def take(self, root: str, paths: Sequence[str] = ()) -> bool:
        """Bring the library up to date with `paths` in `root`, or with all of it; return False to be tried again.

        Raises LibraryError, ConfigError, ModelError where trying again does not help.
        """
        from medsearch_desktop.library import Library

        chosen, within = coarsened(root, paths)
        try:
            with ask_library(self._options, create=True) as library:
                if isinstance(library, Library):
                    summary = library.ingest(chosen, within=within, stop=self.stop)
                else:
                    self._asking = True
                    summary = library.ingest(chosen, within=within)
        except KeyboardInterrupt:
            # Its owner was told to stop; what it has not taken is taken at the next beginning.
            return True
        except (LibraryLockedError, ServeError, StorageFullError, SourceError) as error:
            print(f"medsearch: {one_line(str(error))}; tried again soon", file=sys.stderr, flush=True)
            return False
        finally:
            self._asking = False
        self._tell_batch(root, summary)
        return True

    def tell(self, event: str, line: str = "", **fields: Any) -> None:
        """Print one event: as a line of JSON, or as a line for people unless that is empty."""
        if self._options.json:
            print_json({"event": event, **fields})
            sys.stdout.flush()
        elif line:
            print(one_line(line), flush=True)

    def _tell_batch(self, root: str, summary: IngestSummary) -> None:
        row = summary.as_json()
        parts = [f"{row[name]} {name}" for name in _TOLD if row[name]]
        self.tell("batch", f"{root}: {', '.join(parts)} in {row['seconds']} s" if parts else "", root=root, **row)


def watch_until(
    stop: threading.Event,
    watcher: Watcher,
    *,
    take: Callable[[str, Sequence[str]], bool],
    tell: Callable[[Away | Silent], None],
) -> None:
    """Have `take` bring the library up to date with what changes in watched folders, until `stop` is set.

    What could not be taken (False) is looked at again. `tell` hears of folders that come and go.
    """
    from medsearch_desktop.source.watch import Settled

    for change in watcher.changes(stop):
        if not isinstance(change, Settled):
            tell(change)
        elif not take(change.root, change.paths):
            watcher.again(change)


def coarsened(root: str, paths: Sequence[str]) -> tuple[list[str], str]:
    """Return what to ingest, at most `MOST_PATHS`, for `paths` in `root`, and the folder that they are parts of.

    Too many are looked at by their folders, and too many of these by the whole, which is no part.
    """
    chosen = list(dict.fromkeys(paths))
    if len(chosen) > MOST_PATHS:
        folders = sorted({os.path.dirname(path) for path in chosen})  # noqa: PTH120 - paths stay strings
        chosen = []
        for folder in folders:
            if not chosen or not folder.startswith(os.path.join(chosen[-1], "")):  # noqa: PTH118
                chosen.append(folder)
    if not chosen or root in chosen or len(chosen) > MOST_PATHS:
        return [root], ""
    return chosen, root
