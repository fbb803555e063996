"""Ingests a folder and prints, as JSON, what came of it, the most processor time between two files, and the memory.

Processor time, for how long one waits depends on what else the machine does.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from medsearch_desktop.library import open_library
from medsearch_desktop.records import IngestEvent


def peak_mib() -> int:
    """Return the most memory that this process had; what it was forked from may have had more, which rusage counts."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text("ascii")
        return int(status.split("VmHWM:")[1].split()[0]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main(library: str, source: str) -> None:
    longest, where, last = 0.0, "", time.process_time()

    def watch(event: IngestEvent) -> None:
        nonlocal longest, where, last
        now = time.process_time()
        if event.stage == "file" and now - last > longest:
            longest, where = now - last, event.path
        last = now

    with open_library(library, create=True, threads=2) as opened:
        before = peak_mib()
        summary = opened.ingest([source], on_event=watch)
        after = peak_mib()
        states = dict(opened._database.read("SELECT path, state FROM files"))
    told = {"longest": longest, "where": where, "mib_before": before, "mib": after, "states": states}
    print(json.dumps({**summary.as_json(), **told}))


if __name__ == "__main__":
    main(*sys.argv[1:])
