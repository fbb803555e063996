"""How a library answers as it grows: 1,000, 10,000, 100,000 and, when asked for, 1,000,000 images.

    python -m tests.benchmarks scale --work DIR [--sizes 1000,10000,100000,1000000]

Four images a study and a report of every study, drawn from seeds; vectors from `corpus.vectors`, which lie as those of
real films do. Records are committed as an ingest commits them, in steps after each of which both indexes are brought
up to date: with `--work` a run that was cut off goes on at its last step. Then a process of its own opens the library,
asks, verifies, and ingests the headers of new files into it. 1,000,000 images take some 15 GB in DIR.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from medsearch_desktop.image.models import find_model
from medsearch_desktop.library import Library, open_library
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.intake import Intake, Outcome
from tests.benchmarks.bench_text import documents, questions
from tests.benchmarks.corpus import ROOT, image_outcome, report_outcome, vectors, write_headers

PER_STUDY = 4
BATCH, STEP = 4096, 100_000
K = 10
Row = tuple[str, str, str]


def measure(
    work: Path,
    *,
    sizes: tuple[int, ...] = (1000, 10_000, 100_000),
    queries: int = 200,
    new_files: int = 2000,
    **settings: Any,
) -> dict[str, Any]:
    """Return what was measured by size; times in milliseconds unless said otherwise."""
    headers = work / "new-headers"
    if not headers.exists():
        write_headers(work / "new-headers.part", new_files)
        (work / "new-headers.part").rename(headers)
    found = []
    for images in sizes:
        path, built = _built(work, images, settings)
        asked = {"path": str(path), "images": images, "queries": queries, "headers": str(headers), "settings": settings}
        command = [sys.executable, "-m", "tests.benchmarks.bench_scale", json.dumps(asked)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.append({"images": images, **built, **json.loads(done.stdout.splitlines()[-1])})
    return {"sizes": found}


def rows(result: dict[str, Any]) -> list[Row]:
    """Return what a table shows of `measure`."""
    lines = []
    for size in result["sizes"]:
        what = f"{size['images']:,} images in {size['studies']:,} studies"
        lines += [
            (f"{what}: list, p95 (processor time)", _p95(size["list"]), "< 100 ms"),
            ("... filter", _p95(size["filter"]), "< 100 ms"),
            ("... words", _p95(size["text"]), "< 20 ms"),
            (
                "... likeness; recall@10 against exact (p50)",
                f"{_p95(size['visual'])}; {size['recall']:.4f} ({size['exact']['p50']:.0f} ms)",
                "< 20 ms; >= 0.98",
            ),
            ("... opening", f"{size['open_s']:.2f} s", "< 5 s"),
            (
                "... records with vectors committed; headers of new files ingested",
                f"{size['records_per_s']:.0f} images/s; {size['headers_per_s']:.0f} files/s"
                f", {size['headers_per_processor_s']:.0f} a second of processor time",
                ">= 1,000/s",
            ),
            (
                "... indexes and graph built; verified",
                f"{size['indexes_s']:.0f} s; {size['verify_s']:.1f} s, {size['faults']} faults",
                "",
            ),
            (
                "... disk and memory an image",
                f"{size['bytes_per_image']['total'] / 1e3:.1f} kB, peak {size['peak_mb']:.0f} MB",
                "",
            ),
        ]
    return lines


def _p95(spread: dict[str, float]) -> str:
    return f"{spread['p95']:.1f} ({spread['processor_p95']:.1f}) ms"


def _built(work: Path, images: int, settings: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Return the library of that size and how long it took to make, going on where it was cut off."""
    path, notes = work / f"scale-{images}", work / f"scale-{images}.json"
    if not path.exists():
        open_library(path, create=True, **settings).close()
        notes.write_text(json.dumps({"done": 0, "records_s": 0.0, "indexes_s": 0.0}), "utf-8")
    taken = json.loads(notes.read_text("utf-8"))
    while taken["done"] < images:
        until = min(images, taken["done"] + STEP)
        taken["records_s"] += _fill(path, until)
        started = time.perf_counter()
        with open_library(path, **settings) as library:
            library.vectors.extend_graph()
            library.vectors.isolation()
        taken["indexes_s"] += time.perf_counter() - started
        taken["done"] = until
        notes.write_text(json.dumps(taken), "utf-8")
        print(f"{until} of {images} images", file=sys.stderr, flush=True)
    return path, {
        "studies": images // PER_STUDY,
        "records_per_s": round(images / taken["records_s"]),
        "indexes_s": round(taken["indexes_s"], 1),
    }


def _fill(path: Path, until: int) -> float:
    """Commit images up to number `until`, from where the library ends; return the seconds taken."""
    model_id, seconds = find_model().model_id, 0.0
    database = Database(path / "library.duckdb")
    try:
        intake = Intake(database)
        ((first,),) = database.read("SELECT count(*) FROM images")
        for start in range(first, until, BATCH):
            stop = min(start + BATCH, until)
            # The same at any size, and whether it was cut off or not.
            drawn = vectors(stop - start, seed=1_000_000 + start)
            texts = list(documents((stop - start) // PER_STUDY + 1, seed=start))
            outcomes: list[Outcome] = []
            for number in range(start, stop):
                study = number // PER_STUDY
                document = {**texts[(number - start) // PER_STUDY], "study_uid": f"2.25.{study}"}
                outcomes.append(image_outcome(number, document, drawn[number - start]))
                if number % PER_STUDY == 0:
                    outcomes.append(report_outcome(study, document, linked=True))
            began = time.perf_counter()
            intake.write(outcomes, model_id=model_id, pipeline_version="benchmark")
            seconds += time.perf_counter() - began
        database.checkpoint()
    finally:
        database.close()
    return seconds


def _asked(path: Path, images: int, queries: int, headers: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Open, ask, verify and ingest; in a process of its own, whose memory is that of the library."""
    started = time.perf_counter()
    library = open_library(path, **settings)
    opened = time.perf_counter() - started
    try:
        found = _answers(library, queries)
        found["open_s"] = round(opened, 3)
        # The files of these records were never there: to the library their folder is away.
        library._intake.set_root(ROOT, online=False)
        started = time.perf_counter()
        report = library.health.verify()
        found["verify_s"] = round(time.perf_counter() - started, 2)
        found["faults"] = sum(report.kinds.values())
        found["bytes_per_image"] = _disk(path, images)
        started, used = time.perf_counter(), time.process_time()
        summary = library.ingest([headers], metadata_only=True)
        taken, used = time.perf_counter() - started, time.process_time() - used
        found["headers_per_processor_s"] = round(summary.discovered / used, 1)
        found["headers_s"] = round(taken, 2)
        found["headers_per_s"] = round(summary.discovered / taken, 1)
        # So that the next run measures the same.
        library.forget_source(str(headers))
    finally:
        library.close()
    found["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    return found


def _answers(library: Library, queries: int) -> dict[str, Any]:
    index = library.vectors
    asked = vectors(queries, seed=2)
    texts = questions(max(24, queries))
    filters = [text for text in texts if "date:" in text or "age:" in text]
    for text in texts[:12]:
        library.search(text)
    index.search(asked[0], K)
    recalls = []
    for vector in asked[:100]:
        near, true = index.search(vector, K)[0], index.exact(vector, K)[0]
        recalls.append(len(np.intersect1d(near, true)) / max(1, len(true)))
    sorts = ("date", "oldest", "patient")
    return {
        "list": _spread(lambda n: library.search("", k=50, sort=sorts[n % 3], offset=50 * (n % 5)), queries),
        "filter": _spread(lambda n: library.search(filters[n % len(filters)], k=20), queries),
        "text": _spread(lambda n: library.search(texts[n % len(texts)], k=20), queries),
        "facets": _spread(lambda n: library.facets(texts[n % len(texts)]), max(10, queries // 5)),
        "visual": _spread(lambda n: index.search(asked[n % len(asked)], K), queries),
        "exact": _spread(lambda n: index.exact(asked[n % len(asked)], K), 20),
        "recall": round(float(np.mean(recalls)), 5),
        "graph": index.graph_count,
    }


def _spread(work: Callable[[int], object], count: int) -> dict[str, float]:
    times, own = [], []
    for number in range(count):
        started, used = time.perf_counter(), time.process_time()
        work(number)
        times.append((time.perf_counter() - started) * 1e3)
        own.append((time.process_time() - used) * 1e3)
    found = {f"p{level}": round(float(np.percentile(times, level)), 3) for level in (50, 95)}
    # What the machine was doing beside it does not show in this one.
    return {**found, "processor_p95": round(float(np.percentile(own, 95)), 3)}


def _disk(path: Path, images: int) -> dict[str, float]:
    parts = {
        "database": [path / "library.duckdb"],
        "text": (path / "indexes" / "fulltext").rglob("*"),
        "vectors": path.glob("indexes/vectors-*/vectors.f32"),
        "graph": path.glob("indexes/vectors-*/graph-*.hnsw"),
    }
    sizes = {name: sum(f.stat().st_size for f in files if f.is_file()) / images for name, files in parts.items()}
    return {name: round(size, 1) for name, size in {**sizes, "total": sum(sizes.values())}.items()}


def main() -> None:
    """Measure one library as the arguments say and print JSON."""
    asked = json.loads(sys.argv[1])
    copy = Path(asked["path"])
    print(json.dumps(_asked(copy, asked["images"], asked["queries"], Path(asked["headers"]), asked["settings"])))


if __name__ == "__main__":
    main()
