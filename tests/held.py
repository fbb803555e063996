"""An ingest that stands still at one film until it is told to go on, so that no machine is through before one looks."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from medsearch_desktop import work

# The program as it is, but for the decoding of one film, which waits. Two threads, so that it is as far ahead of that
# film on every machine.
PROGRAM = """
import os, sys, time
from pathlib import Path
os.environ["MEDSEARCH_THREADS"] = "2"
from medsearch_desktop import work
from medsearch_desktop.serve.cli import main
folder, part = Path(sys.argv[1]), sys.argv[2]
decode = work.decode
def wait(source, **more):
    if part in more["name"]:
        (folder / "reached").touch()
        while not (folder / "go-on").exists():
            time.sleep(0.01)
    return decode(source, **more)
work.decode = wait
sys.exit(main(sys.argv[3:]))
"""


@dataclass(frozen=True)
class Held:
    """A program of its own that stands still at the film whose path holds `part`; `folder` is where it is told."""

    folder: Path
    part: str

    @property
    def line(self) -> list[str]:
        """The beginning of its command line, in place of `medsearch`."""
        return [sys.executable, "-c", PROGRAM, str(self.folder), self.part]

    def until_reached(self, process: subprocess.Popen[Any]) -> None:
        """Wait until it stands still: all but the dozen files before that film are then taken in, none behind it."""
        while not (self.folder / "reached").exists():
            assert process.poll() is None, "it ended before it came to that film"
            time.sleep(0.01)

    def go_on(self) -> None:
        """Let it go on, for good."""
        (self.folder / "go-on").touch()


@dataclass(frozen=True)
class Standstill:
    """Ingests of this process that stand still at a film: whether one has come there, and that it may go on."""

    reached: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)


def hold(monkeypatch: pytest.MonkeyPatch, part: str) -> Standstill:
    """Have ingests of this process stand still at the films whose paths hold `part`."""
    decode, still = work.decode, Standstill()

    def wait(source: Any, **more: Any) -> Any:
        if part in more["name"]:
            still.reached.set()
            assert still.go_on.wait(300)
        return decode(source, **more)

    monkeypatch.setattr(work, "decode", wait)
    return still
