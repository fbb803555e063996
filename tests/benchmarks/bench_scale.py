"""How a library answers as it grows: 1,000, 10,000, 100,000 and, when asked for, 1,000,000 images.

    python -m tests.benchmarks scale --work DIR [--sizes 1000,10000,100000,1000000]

The headers of an archive of films, four a study, are written and ingested, a step of up to 100,000 files at a time;
then vectors are committed as re-embedding commits them, drawn from `corpus.vectors`, which lie as those of real films
do, and a report of every study as an ingest commits it; then both indexes are brought up to date. Each step is a
process of its own, and with `--work` a run that was cut off goes on at its last one. At the end another process opens
the library, asks, verifies, and ingests the headers of 2,000 more files. 1,000,000 images take some 25 GB in DIR.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from medsearch_desktop.image.models import find_model
from medsearch_desktop.library import Library, open_library
from medsearch_desktop.records import IngestSummary
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.intake import Intake
from medsearch_desktop.store.models import Models
from tests.benchmarks.bench_text import documents, questions
from tests.benchmarks.corpus import ROOT, archive_image, archive_study, report_outcome, vectors, write_archive

PER_STUDY = 4
BATCH, STEP = 4096, 100_000
K = 10
# Films of the archive that are in no library before they are asked for.
NEW = 5_000_000
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
    headers = work / "new"
    if not headers.exists():
        write_archive(work / "new.part", first=NEW, count=new_files)
        (work / "new.part").rename(headers)
    found = []
    for images in sizes:
        path, built = _built(work, images, settings)
        asked = {"path": str(path), "images": images, "queries": queries, "headers": str(headers), "settings": settings}
        found.append({"images": images, **built, **_apart("ask", asked)})
    return {"sizes": found}


def _apart(what: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Return what a process of its own finds, whose memory is that of the library."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_scale", what, json.dumps(asked)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


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
                "... headers ingested, all; the last step; 2,000 more files",
                f"{size['files_per_s']:.0f}; {size['steps'][-1]['files_per_s']:.0f}"
                f"; {size['headers_per_s']:.0f} files/s"
                f" ({size['headers_per_processor_s']:.0f} a second of processor time)",
                ">= 1,000/s",
            ),
            (
                "... memory of that ingest, at most, without mapped files",
                f"{max(step['ingest_mb'] for step in size['steps']):.0f} MB",
                "<= 1,500 MB",
            ),
            (
                "... vectors committed; indexes and graphs built; verified",
                f"{size['vectors_per_s']:.0f}/s; {size['indexes_s']:.0f} s"
                f"; {size['verify_s']:.1f} s, {size['faults']} faults",
                "",
            ),
            (
                "... disk an image; memory of asking, verifying and ingesting, at most, without mapped files",
                f"{size['bytes_per_image']['total'] / 1e3:.1f} kB; {size['peak_mb']:.0f} MB",
                "",
            ),
        ]
    return lines


def _p95(spread: dict[str, float]) -> str:
    return f"{spread['p95']:.1f} ({spread['processor_p95']:.1f}) ms"


def _built(work: Path, images: int, settings: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Return the library of that size and how long it took to make, going on where it was cut off."""
    path, notes = work / f"scale-{images}", work / f"scale-{images}.json"
    if not notes.exists():
        open_library(path, create=True, **settings).close()
        notes.write_text("[]", "utf-8")
    steps = json.loads(notes.read_text("utf-8"))
    while (done := sum(step["files"] for step in steps)) < images:
        files = work / f"archive-{images}" / f"part{len(steps):02d}"
        count = min(STEP, images - done)
        if not files.exists():
            part = files.with_suffix(".part")
            write_archive(part, first=done, count=count)
            part.rename(files)
        asked = {"path": str(path), "files": str(files), "first": done, "count": count, "settings": settings}
        steps.append({"files": count, **_apart("step", asked)})
        notes.write_text(json.dumps(steps), "utf-8")
        print(f"{done + count} of {images} images", file=sys.stderr, flush=True)
    return path, {
        "studies": -(-images // PER_STUDY),
        "files_per_s": round(images / sum(step["ingest_s"] for step in steps), 1),
        "vectors_per_s": round(images / sum(step["vectors_s"] for step in steps), 1),
        "indexes_s": round(sum(step["indexes_s"] for step in steps), 1),
        "steps": steps,
    }


def _step(path: Path, files: Path, first: int, count: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Ingest the headers of `files`, films `first` to `first + count`, then commit their vectors and reports."""
    with open_library(path, **settings) as library, _Memory() as memory:
        taken, used, summary = _ingest(library, files)
        found: dict[str, Any] = {"ingest_s": round(taken, 2), "ingest_mb": memory.peak_mb()}
    assert (summary.images, summary.failed) == (count, 0)
    found["files_per_s"], found["files_per_processor_s"] = round(count / taken, 1), round(count / used, 1)
    database = Database(path / "library.duckdb")
    try:
        found["vectors_s"] = round(_commit_vectors(database, first, count), 2)
        found["reports_s"] = round(_commit_reports(database, first // PER_STUDY, -(-(first + count) // PER_STUDY)), 2)
        database.checkpoint()
    finally:
        database.close()
    started = time.perf_counter()
    with open_library(path, **settings) as library, _Memory() as memory:
        found["open_after_s"] = round(time.perf_counter() - started, 2)
        library.vectors.extend_graph()
        library.vectors.isolation()
        found["indexes_mb"] = memory.peak_mb()
    found["indexes_s"] = round(time.perf_counter() - started, 2)
    return found


def _ingest(library: Library, folder: Path) -> tuple[float, float, IngestSummary]:
    started, used = time.perf_counter(), time.process_time()
    summary = library.ingest([folder], metadata_only=True)
    return time.perf_counter() - started, time.process_time() - used, summary


def _commit_vectors(database: Database, first: int, count: int) -> float:
    model_id, models, seconds = find_model().model_id, Models(database), 0.0
    for start in range(first, first + count, BATCH):
        numbers = range(start, min(start + BATCH, first + count))
        # The same at any size, and whether it was cut off or not.
        drawn = vectors(len(numbers), seed=1_000_000 + start)
        held = database.read(
            "SELECT image_id, image_no FROM images WHERE image_id IN (SELECT unnest($ids))",
            {"ids": [archive_image(number) for number in numbers]},
        )
        image_nos = dict(held)
        began = time.perf_counter()
        models.add_vectors(model_id, [image_nos[archive_image(number)] for number in numbers], drawn)
        seconds += time.perf_counter() - began
    return seconds


def _commit_reports(database: Database, first: int, last: int) -> float:
    intake, seconds = Intake(database), 0.0
    for start in range(first, last, BATCH):
        studies = range(start, min(start + BATCH, last))
        texts = documents(len(studies), seed=start)
        outcomes = [
            report_outcome(study, {**text, "study_uid": archive_study(study)}, linked=True)
            for study, text in zip(studies, texts, strict=True)
        ]
        began = time.perf_counter()
        intake.write(outcomes, model_id=find_model().model_id, pipeline_version="benchmark")
        seconds += time.perf_counter() - began
    # The files of these were never there: to the library their folder is away.
    intake.set_root(ROOT, online=False)
    return seconds


def _asked(path: Path, images: int, queries: int, headers: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Open, ask, verify and ingest."""
    started = time.perf_counter()
    library = open_library(path, **settings)
    opened = time.perf_counter() - started
    try:
        with _Memory() as memory:
            found = _answers(library, queries)
            found["open_s"] = round(opened, 3)
            found["answers_mb"] = memory.peak_mb()
            started = time.perf_counter()
            report = library.health.verify()
            found["verify_s"] = round(time.perf_counter() - started, 2)
            found["faults"] = sum(report.kinds.values())
            found["verified"] = dict(report.checked)
            found["bytes_per_image"] = _disk(path, images)
            taken, used, summary = _ingest(library, headers)
            found["headers_s"] = round(taken, 2)
            found["headers_per_s"] = round(summary.discovered / taken, 1)
            found["headers_per_processor_s"] = round(summary.discovered / used, 1)
            taken, _, _ = _ingest(library, headers)
            found["nothing_new_s"] = round(taken, 2)
            found["peak_mb"] = memory.peak_mb()
        # So that the next run measures the same.
        library.forget_source(str(headers))
    finally:
        library.close()
    return found


class _Memory:
    """The most memory of its own that this process had, looked at 20 times a second; mapped files do not count.

    What is mapped of the index's flat file stays for as long as nothing else needs the room.
    """

    def __init__(self) -> None:
        self._peak = 0
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Memory:
        self._watcher.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._watcher.join()

    def peak_mb(self) -> int:
        """Return it in megabytes."""
        return round(self._peak / 1e6)

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._over.wait(0.05):
            held = process.memory_info()
            self._peak = max(self._peak, held.rss - held.shared)


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
    """Take one step of building a library, or ask it, as the arguments say, and print JSON."""
    what, asked = sys.argv[1], json.loads(sys.argv[2])
    for name in ("path", "files", "headers"):
        if name in asked:
            asked[name] = Path(asked[name])
    print(json.dumps((_step if what == "step" else _asked)(**asked)))


if __name__ == "__main__":
    main()
