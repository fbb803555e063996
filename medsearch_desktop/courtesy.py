"""Leaving the workstation to whoever works at it: lower priority, and pauses while others need the processor."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import psutil

from medsearch_desktop.config import Config

# One second says what a machine is at; for longer than that no file waits, so that no ingest stands still for ever.
_SECONDS_BETWEEN_LOOKS = 1.0
_LONGEST_PAUSE = 60.0

Item = TypeVar("Item")
Made = TypeVar("Made")


class Courtesy:
    """How the threads of one ingest behave, by the settings `niceness` and `yield_above`; for several threads.

    `busy` tells the percent of all cores that other processes use; `stop` ends a pause.
    """

    def __init__(self, config: Config, stop: threading.Event, *, busy: Callable[[], float] | None = None) -> None:
        self._niceness = config.niceness
        self._yield_above = config.yield_above
        self._stop = stop
        self._busy = busy or OtherProcesses()
        self._lock = threading.Lock()
        self._looked = float("-inf")
        self._taken = 0.0

    def through(self, make: Callable[[Item], Made]) -> Callable[[Item], Made]:
        """Return `make` for worker threads, which has these manners."""
        if not self._niceness and not self._yield_above:
            return make

        def considerate(item: Item) -> Made:
            self._lower()
            self._pause()
            return make(item)

        return considerate

    def _lower(self) -> None:
        # Of this thread alone, which ends with the ingest: a process could not take it back.
        if self._niceness and hasattr(os, "setpriority"):
            try:
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
            except OSError:
                return

    def _pause(self) -> None:
        began = time.monotonic()
        while self._yield_above and self._others() > self._yield_above:
            if time.monotonic() - began > _LONGEST_PAUSE or self._stop.wait(_SECONDS_BETWEEN_LOOKS / 4):
                return

    def _others(self) -> float:
        with self._lock:
            if time.monotonic() - self._looked >= _SECONDS_BETWEEN_LOOKS:
                self._taken, self._looked = self._busy(), time.monotonic()
            return self._taken


class OtherProcesses:
    """Tells, each time it is called, what percent of all cores other processes have used since the call before."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = self._now()

    def __call__(self) -> float:
        """Return it."""
        before, self._before = self._before, self._now()
        used, own, whole = (now - then for now, then in zip(self._before, before, strict=True))
        return 100 * max(0.0, used - own) / whole if whole > 0 else 0.0

    def _now(self) -> tuple[float, float, float]:
        times, own = psutil.cpu_times(), self._process.cpu_times()
        # What runs with lower priority gives way by itself.
        idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "nice", 0.0)
        guest = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        whole = sum(times) - guest
        return whole - idle, own.user + own.system, whole
