"""How soon a process has read its first report, in processor time, and what of that is not its own doing.

Each start is a process of its own, the compiled modules in the file cache. Processor time, not time on the clock: it is
the same beside other work.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (sys.executable, "-m", "medsearch_desktop")
# The lexicon knows every word of the first two; a place or a kind is looked up in the base of concepts besides.
REPORTS = {
    "a short report": "FINDINGS: The heart is enlarged. Small left pleural effusion. No pneumothorax.\n",
    "one that says where": "FINDINGS: New opacity in the right lower lobe. Degenerative thoracic spine.\n",
    "one for the recogniser": "INDICATION: Rheumatoid arthritis under methotrexate.\nFINDINGS: Clear lungs.\n",
}
FLOORS = {
    "Python": "pass",
    "with numpy": "import numpy",
    "with spaCy": "from medsearch_desktop.report.spacy_only import import_spacy; import_spacy()",
}


def measure(work: Path, *, starts: int = 7) -> dict[str, Any]:
    """Return the median processor seconds of `extract` of three texts, of an ingest, and of what lies below both."""
    # Where the interpreter is told to write no compiled modules, each start would compile.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ |= {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(work / "compiled"), "OPENBLAS_NUM_THREADS": "1"}
    environ["MEDSEARCH_RECOGNISERS"] = "extract"

    def seconds(command: Sequence[str], before: Callable[[int], object] = lambda _: None) -> float:
        spent = []
        for number in range(starts + 1):
            before(number)
            spent.append(_processor_seconds(command, environ))
        # The first start may compile.
        return statistics.median(spent[1:])

    extract: dict[str, float] = {}
    for number, (name, text) in enumerate(REPORTS.items()):
        file = work / f"report-{number}.txt"
        file.write_text(text, "utf-8")
        extract[name] = seconds((*PROGRAM, "extract", str(file), "--json"))
    source, library = work / "start-source", work / "start-library"
    source.mkdir(exist_ok=True)

    def put(number: int) -> None:
        (source / f"{time.time_ns()}.txt").write_text(f"{REPORTS['a short report']}Read {number}.\n", "utf-8")

    command = (*PROGRAM, "ingest", str(source), "--library", str(library), "--json")
    return {
        "what": "processor time to the first report",
        "starts": starts,
        "extract_s": extract,
        "ingest_s": {"one more report": seconds(command, put), "nothing new": seconds(command)},
        "floor_s": {name: seconds((sys.executable, "-c", code)) for name, code in FLOORS.items()},
    }


def rows(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the lines of the table."""
    return [
        (f"{result['what']}, `extract`", _told(result["extract_s"]), ""),
        (f"{result['what']}, `ingest`", _told(result["ingest_s"]), ""),
        (f"{result['what']}, the floor", _told(result["floor_s"]), ""),
    ]


def _told(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())


def _processor_seconds(command: Sequence[str], environ: dict[str, str]) -> float:
    """Return the seconds of all cores that a command and what it starts take."""
    before = _children()
    subprocess.run(command, cwd=ROOT, env=environ, check=True, capture_output=True)
    return _children() - before


def _children() -> float:
    times = psutil.Process().cpu_times()
    return float(times.children_user + times.children_system)
