"""Disks that fail and clocks that jump for a real process: `broken_disk.c`, compiled here and put before libc."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pytest

_WORDS = ("seen", "failed", "off", "clock", "asked")


def may_break() -> str:
    """Return why nothing can be put before the C library here, or an empty text."""
    if not sys.platform.startswith("linux"):
        return "LD_PRELOAD with glibc's names needs Linux"
    return "" if shutil.which("cc") else "a C compiler is needed: apt-get install gcc"


needs_breaking = pytest.mark.skipif(bool(may_break()), reason=may_break() or "it may")


@cache
def compiled() -> Path:
    """Compile the library once a run and return it."""
    folder = Path(tempfile.mkdtemp(prefix="broken-disk-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = folder / "broken_disk.so"
    source = Path(__file__).with_name("broken_disk.c")
    command = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(made), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return made


@dataclass(frozen=True)
class Rule:
    """Which calls fail: of `calls` ("open", "read", "write", "fsync", or several), on paths that hold `part`.

    The `first` of them and what follows, `times` in all, for ever if that is 0. `error` 0 is a write of half of what
    was to be written.
    """

    calls: str
    part: str
    error: int
    first: int = 1
    times: int = 0

    def __str__(self) -> str:
        return f"{self.calls}|{self.part}|{self.error}|{self.first}|{self.times}"


@dataclass
class Breaking:
    """What is shared with processes that run under `environ`: how often a rule was met, and what o'clock it is."""

    folder: Path
    rule: Rule | None = None
    _words: np.memmap = field(init=False)

    def __post_init__(self) -> None:
        self._words = np.memmap(self.folder / "broken-disk-state", dtype=np.int64, mode="w+", shape=(8,))

    @property
    def environ(self) -> dict[str, str]:
        more = {"LD_PRELOAD": str(compiled()), "BROKEN_DISK_STATE": str(self._words.filename)}
        if self.rule is not None:
            more["BROKEN_DISK_RULE"] = str(self.rule)
        return {**os.environ, **more}

    def __getitem__(self, name: str) -> int:
        return int(self._words[_WORDS.index(name)])

    def __setitem__(self, name: str, value: int) -> None:
        self._words[_WORDS.index(name)] = value
