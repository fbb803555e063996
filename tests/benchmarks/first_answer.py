"""Open a library and ask it one question: `python first_answer.py LIBRARY text|visual QUESTION`.

Run in a process of its own; prints when the answer was there (Unix time), its length and the most memory held.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main() -> None:
    """Print one JSON object."""
    library_path, kind, question = sys.argv[1:]
    from medsearch_desktop import open_library

    library = open_library(library_path)
    opened = time.time()
    answer = library.search(question, k=10) if kind == "text" else library.similar(question, k=10)
    answered = time.time()
    print(json.dumps({"opened": opened, "answered": answered, "hits": len(answer.hits), "peak_mb": _peak_megabytes()}))


def _peak_megabytes() -> float:
    if sys.platform == "linux":
        # Not ru_maxrss, which begins with what the process that started this one held.
        status = Path("/proc/self/status").read_text("utf-8")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process().memory_info().peak_wset / 1e6)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
