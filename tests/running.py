"""Commands that run until they are told to end, as a user starts them, and the lines of JSON that they print."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from servers import MEDSEARCH


def spoken(text: str) -> str:
    """Return what a program said, without what asyncio adds in Python's development mode where a machine is slow."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("Executing <"))


class Running:
    """A command of its own process and the lines of JSON that it has printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def until(self, is_so: Callable[[list[dict[str, Any]]], object], *, seconds: float = 120.0) -> None:
        end = time.monotonic() + seconds
        while not is_so(self.lines):
            assert self.process.poll() is None, "it ended"
            assert time.monotonic() < end, self.lines
            time.sleep(0.05)

    def event(self, name: str) -> dict[str, Any]:
        self.until(lambda lines: any(line["event"] == name for line in lines))
        return next(line for line in self.lines if line["event"] == name)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        status = self.process.wait(60)
        self._thread.join(60)
        return status


@contextmanager
def command(
    *arguments: str, environ: dict[str, str] | None = None, group: bool = False, begin: Sequence[str] = MEDSEARCH
) -> Iterator[Running]:
    """Run `medsearch` with these arguments until the end of the block; with `group` it leads a group of its own.

    `begin` is the beginning of the command line, where it is another one.
    """
    line = [*begin, *arguments, "--json"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environ, start_new_session=group) as process:
        running = Running(process)
        try:
            yield running
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(60)
            running._thread.join(60)
