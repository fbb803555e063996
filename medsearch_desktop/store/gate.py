"""A gate that many go through at once and that one may shut for a moment: for reads of a file that is replaced."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Counts who is inside; whoever shuts it waits for them, and those who come meanwhile wait for it to open.

    Shutting it is for one thread, which may not be inside.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._shut_by = 0

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Be inside until the end of the block; the thread that shut the gate passes it."""
        me = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: self._shut_by in (0, me))
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def shut(self, *, seconds: float) -> Iterator[bool]:
        """Keep everybody out until the end of the block; False, and it is open, where some stayed for `seconds`.

        Who is inside and comes in once more waits as well, and so stays: nobody waits for longer than that.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._shut_by)
            self._shut_by = threading.get_ident()
            alone = self._changed.wait_for(lambda: not self._inside, seconds)
            if not alone:
                self._open()
        try:
            yield alone
        finally:
            if alone:
                with self._changed:
                    self._open()

    def _open(self) -> None:
        self._shut_by = 0
        self._changed.notify_all()
