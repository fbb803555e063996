"""Ingests a folder and prints, as JSON, what came of it, the most processor time between two files, and the memory.

Processor time, for how long one waits depends on what else the machine does.
"""

from __future__ import annotations

import json
import resource
import sys
import time

from medsearch_desktop.library import open_library
from medsearch_desktop.records import IngestEvent


def main(library: str, source: str) -> None:
    longest, where, last = 0.0, "", time.process_time()

    def watch(event: IngestEvent) -> None:
        nonlocal longest, where, last
        now = time.process_time()
        if event.stage == "file" and now - last > longest:
            longest, where = now - last, event.path
        last = now

    with open_library(library, create=True, threads=2) as opened:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        summary = opened.ingest([source], on_event=watch)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        states = dict(opened._database.read("SELECT path, state FROM files"))
    told = {"longest": longest, "where": where, "mib_before": before // 1024, "mib": after // 1024, "states": states}
    print(json.dumps({**summary.as_json(), **told}))


if __name__ == "__main__":
    main(*sys.argv[1:])
