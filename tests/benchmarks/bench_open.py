"""From starting the program to its first answer, searches by words end to end, and `medsearch --help`.

    python -m tests.benchmarks open help

Each start is a new process; its clock begins before the process does. "Cold" has the library's files dropped
from the system's cache first, as far as it complies. The searches are `library.search` as a caller has it: parsing,
ranking, and each hit with its snippet, entities and images from the database.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from medsearch_desktop.library import Library, open_library
from tests.benchmarks.bench_text import questions
from tests.benchmarks.corpus import add_reports, image_id, large_library, write_films

ROOT = Path(__file__).resolve().parents[2]
FIRST_ANSWER = Path(__file__).with_name("first_answer.py")
QUESTION = 'present:"pleural effusion" small modality:CR'
# Each lets fewer images pass: all of them, a third, a fifth, those of a finding in the report and a year.
FILTERS = ("", "view:PA", "modality:CR age:>50", 'present:"pleural effusion" date:2018')
Row = tuple[str, str, str]


def measure(
    work: Path,
    *,
    images: int = 100_000,
    reports: int = 100_000,
    more_reports: int = 100_000,
    queries: int = 360,
    starts: int = 5,
    **settings: Any,
) -> dict[str, Any]:
    """Return seconds from start to first answer, peak memory, and milliseconds a search.

    The starts see `reports` reports; `more_reports` are added before the searches.
    """
    library, built = large_library(work, images=images, reports=reports, **settings)
    path = library.path
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    library.close()
    film = write_films(work / "film", 1, size=2048, seed=3)[0]
    asked = {
        "text": ("text", QUESTION),
        "visual": ("visual", image_id(images // 2)),
        "visual, by a file from outside": ("visual", str(film)),
    }
    warm: dict[str, list[dict[str, float]]] = {name: [] for name in asked}
    cold: dict[str, list[dict[str, float]]] = {name: [] for name in asked}
    for _ in range(starts):
        for name, (kind, question) in asked.items():
            warm[name].append(_first_answer(path, kind, question))
    for name, (kind, question) in asked.items():
        for _ in range(min(2, starts)):
            dropped = _drop_from_cache(path)
            if dropped:
                cold[name].append(_first_answer(path, kind, question))
    with tempfile.TemporaryDirectory(dir=work) as name:
        # A copy, as other benches measure in the one of the size asked for.
        larger = Path(name) / "library"
        shutil.copytree(path, larger)
        added = add_reports(larger, first=max(images, reports), count=more_reports)
        started = time.perf_counter()
        with open_library(larger, **settings) as library:
            refreshed = time.perf_counter() - started
            searches = _searches(library, queries)
            similar = {where: _similar(library, where, images, max(10, queries // 6)) for where in FILTERS}
            totals = library.totals()
    return {
        "what": f"library of {images} images and {reports} reports",
        "megabytes_on_disk": round(size / 1e6),
        "made_s": built,
        "warm": {name: _summary(found) for name, found in warm.items()},
        "cold": {name: _summary(found) for name, found in cold.items() if found},
        "reports_added": more_reports,
        "adding_s": round(added, 1),
        "indexing_added_s": round(refreshed, 1),
        "searches": {"reports": totals.reports, "images": totals.images, **searches},
        "similar_ms": similar,
    }


def measure_help(*, starts: int = 10) -> dict[str, Any]:
    """Return the seconds of `medsearch --help`, each in a process of its own."""
    seconds = []
    for _ in range(starts + 1):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "medsearch_desktop", "--help"], cwd=ROOT, check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    # The first start may compile.
    return {"what": "medsearch --help", "starts": starts, "seconds": _quantiles(seconds[1:], 1)}


def rows(result: dict[str, Any]) -> list[Row]:
    """Return what a table shows of `measure`."""
    lines = []
    for state in ("warm", "cold"):
        for name, found in result[state].items():
            lines.append(
                (
                    f"{result['what']}: start to first answer, {name}, {state}",
                    f"{found['answered_s']['p50']:.2f} s, {found['peak_mb']:.0f} MB at most",
                    "< 3 s, < 1500 MB",
                )
            )
    searches = result["searches"]
    for name, target in (("page_ms", "p50 < 5 ms, p95 < 20 ms"), ("page_and_facets_ms", "")):
        spread = searches[name]
        lines.append(
            (
                f"library.search over {searches['reports']} reports, {name.removesuffix('_ms').replace('_', ' ')}",
                f"p50 {spread['p50']:.1f}, p95 {spread['p95']:.1f} ms",
                target,
            )
        )
    for where, spread in result["similar_ms"].items():
        lines.append(
            (
                f"library.similar among {searches['images']} images, {where or 'no filter'}",
                f"p50 {spread['p50']:.1f}, p95 {spread['p95']:.1f} ms",
                "",
            )
        )
    return lines


def help_rows(result: dict[str, Any]) -> list[Row]:
    """Return what a table shows of `measure_help`."""
    return [(result["what"], f"{result['seconds']['p50']:.2f} s", "< 0.3 s")]


def _first_answer(library: Path, kind: str, question: str) -> dict[str, float]:
    started = time.time()
    done = subprocess.run(
        [sys.executable, str(FIRST_ANSWER), str(library), kind, question],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    said = json.loads(done.stdout)
    assert said["hits"], said
    return {
        "opened_s": said["opened"] - started,
        "answered_s": said["answered"] - started,
        "peak_mb": said["peak_mb"],
    }


def _drop_from_cache(library: Path) -> bool:
    if not hasattr(os, "posix_fadvise"):
        return False
    for file in library.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            try:
                os.fsync(handle)
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)
    return True


def _searches(library: Library, count: int) -> dict[str, Any]:
    asked = questions(count)
    for query in asked[:24]:
        library.search(query, with_facets=True)
    page, both, totals = [], [], []
    for query in asked:
        for times, with_facets in ((page, False), (both, True)):
            started = time.perf_counter()
            answer = library.search(query, k=10, with_facets=with_facets)
            times.append(1e3 * (time.perf_counter() - started))
        totals.append(answer.total)
    slowest = sorted(zip(page, asked, totals, strict=True), reverse=True)[:5]
    return {
        "queries": count,
        "median_total": int(np.median(totals)),
        "page_ms": _quantiles(page, 2),
        "page_and_facets_ms": _quantiles(both, 2),
        "slowest": [{"ms": round(ms, 1), "query": query, "total": total} for ms, query, total in slowest],
    }


def _similar(library: Library, where: str, images: int, count: int) -> dict[str, float]:
    rng = np.random.default_rng(14)
    times = []
    for number in rng.integers(0, images, count + 1).tolist():
        started = time.perf_counter()
        library.similar(image_id(number), k=10, where=where)
        times.append(1e3 * (time.perf_counter() - started))
    # The first loads the graph.
    return _quantiles(times[1:], 2)


def _summary(found: list[dict[str, float]]) -> dict[str, Any]:
    return {
        "starts": len(found),
        "opened_s": _quantiles([each["opened_s"] for each in found], 3),
        "answered_s": _quantiles([each["answered_s"] for each in found], 3),
        "peak_mb": round(max(each["peak_mb"] for each in found), 1),
    }


def _quantiles(values: list[float], digits: int) -> dict[str, float]:
    return {f"p{level}": round(float(np.percentile(values, level)), max(digits, 2)) for level in (50, 95, 99)}


def main() -> None:
    """Print what was measured as JSON."""
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps({"open": measure(Path(name)), "help": measure_help()}, indent=2))


if __name__ == "__main__":
    main()
