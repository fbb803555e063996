"""How asking by region grows: the time of a question and the same best answers as of the exact comparison of all.

    python -m tests.benchmarks places [--sizes 10000,100000] [--work DIR]

The points of the large libraries walk from those of a small demo library: of every image 70 % of the places of one
film and 30 % of another's, each moved towards some other place and by noise, so that the nearest place in another
image has a median cosine of about 0.9 (0.95 in the demo, 0.86 among real films). Vectors are those of `corpus`. Files
from outside ask, by rectangles around drawn findings: each is decoded, drawn small, read by both networks and compared
with all. 100,000 images take 2.7 GB in DIR; the files are in the memory of the system while they are asked.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.demo.build import build_demo_source
from medsearch_desktop.demo.truth import DemoTruth
from medsearch_desktop.image.products import PointProducts
from medsearch_desktop.image.regions import REGION_ID, SCALE, RegionEncoder, RegionQuery, ask_by, read_picture
from medsearch_desktop.library import Library, open_library
from medsearch_desktop.search.regions import best, likeness
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.regions import Block, RegionStore
from tests.benchmarks.corpus import fill

K = 10
BATCH = 4096
Row = tuple[str, str, str]


def measure(
    work: Path, *, sizes: tuple[int, ...] = (1000, 10_000), queries: int = 20, studies: int = 24, size: int = 512
) -> dict[str, Any]:
    """Return by size: seconds of a question and of its comparison, recall@10, seconds to make the files anew."""
    source = work / f"places-{studies}-{size}"
    truth = build_demo_source(source, studies=studies, size=size, seed=103)
    asked, base = _asked(work, source, truth, queries)
    found = []
    for images in sizes:
        path = work / f"places-{images}"
        if not path.exists():
            part = path.with_suffix(".part")
            open_library(part, create=True).close()
            fill(part, first=0, images=images, reports=0)
            _add_points(part, base, images)
            part.rename(path)
        with open_library(path) as library:
            found.append({"images": images, **_times(library, path, asked)})
    return {"sizes": found}


def rows(result: dict[str, Any]) -> list[Row]:
    """Return what a table shows of `measure`."""
    return [
        (
            f"a region asks among {size['images']:,} images: end to end, a file from outside; comparing alone",
            f"p50 {size['question']['p50']:.2f}, p95 {size['question']['p95']:.2f} s;"
            f" {size['compare']['p50']:.2f} s ({size['compare']['processor']:.2f} s of processor time);"
            f" recall@{K} {size['recall']:.3f}, under a filter of 1 in 10 {size['recall_filtered']:.3f};"
            f" files made anew in {size['rebuild_s']:.1f} s",
            "< 0.3 s at 100,000; >= 0.98",
        )
        for size in result["sizes"]
    ]


def _asked(
    work: Path, source: Path, truth: DemoTruth, queries: int
) -> tuple[list[tuple[str, tuple[int, int, int, int], RegionQuery]], NDArray[np.int8]]:
    """Return files with a rectangle and its question, and the points of all films, (n, 64, 128)."""
    encoder, asked = RegionEncoder(threads=2), []
    path = work / f"{source.name}-library"
    with open_library(path, create=not path.exists()) as library:
        library.ingest([source / "synthetic"])
        library.index_regions()
        marks = [(film.sop_instance_uid, finding.box) for film in truth.films for finding in film.findings]
        for image_id, box in marks[:queries]:
            row, picture = library.catalogue.image(image_id), library.thumbnail(image_id)
            assert row is not None
            assert picture is not None
            left, top = max(0, box[0]), max(0, box[1])
            roi = left, top, min(truth.size, box[0] + box[2]) - left, min(truth.size, box[1] + box[3]) - top
            places = encoder.maps([read_picture(picture, name=image_id)])[0]
            asked.append((row.path, roi, ask_by(places, roi, width=truth.size, height=truth.size)))
    database = Database(path / "library.duckdb")
    store = RegionStore(database, REGION_ID, folder=path / "indexes" / "regions")
    base = store.of(store.catch_up().numbers.tolist()).vectors
    database.close()
    return asked, base


def drawn(base: NDArray[np.int8], count: int) -> Iterator[NDArray[np.int8]]:
    """Yield the points of `count` images, (n, 64, 128), that walk from those of real ones."""
    rng = np.random.default_rng(41)
    flat = base.reshape(-1, base.shape[2])
    for start in range(0, count, BATCH):
        images = min(BATCH, count - start)
        shape = (images, base.shape[1])
        vectors = base[rng.integers(0, len(base), images)].astype(np.float32)
        other = rng.random(shape) < 0.3
        vectors[other] = base[rng.integers(0, len(base), images)][other]
        amount = rng.uniform(0.15, 0.75, (images, 1, 1)).astype(np.float32)
        noise = rng.standard_normal((*shape, base.shape[2]), dtype=np.float32) * (0.6 * SCALE / np.sqrt(base.shape[2]))
        vectors += amount * (0.8 * flat[rng.integers(0, len(flat), shape)] + noise)
        vectors *= SCALE / np.linalg.norm(vectors, axis=2, keepdims=True)
        yield np.rint(vectors).astype(np.int8)


def _add_points(path: Path, base: NDArray[np.int8], images: int) -> None:
    database = Database(path / "library.duckdb")
    store = RegionStore(database, REGION_ID, folder=path / "indexes" / "regions")
    rng, after = np.random.default_rng(42), -1
    for vectors in drawn(base, images):
        numbers = [number for number, _ in store.lacking(after=after, limit=len(vectors))]
        places = np.argsort(rng.random((len(numbers), 1024)), axis=1)[:, : vectors.shape[1]].astype(np.uint16)
        store.add(numbers, places, vectors)
        after = numbers[-1]
    database.checkpoint()
    database.close()


def _times(
    library: Library, path: Path, asked: list[tuple[str, tuple[int, int, int, int], RegionQuery]]
) -> dict[str, Any]:
    seconds = []
    for file, roi, _ in [asked[0], *asked]:
        started = time.perf_counter()
        answer = library.similar(file, k=K, roi=roi)
        seconds.append(time.perf_counter() - started)
        assert answer.hits[0].region is not None, "the regions were not asked"
    store: RegionStore = library._regions._store
    threads, products = library.workbench.config.thread_count, PointProducts()
    compared, processor, recalls, filtered = [], [], [], []
    numbers = store.catch_up().numbers
    exact = _exact(store, numbers, [query for *_, query in asked])
    every_tenth = np.isin(numbers, numbers[::10])
    for (*_, query), true in zip(asked, exact, strict=True):
        rounded = products.asked_by(query)
        started, used = time.perf_counter(), time.process_time()
        own, rough = store.compare(rounded.likeness, threads=threads)
        compared.append(time.perf_counter() - started)
        processor.append(time.process_time() - used)
        for wanted, recall in ((np.ones(len(own), np.bool_), recalls), (every_tenth, filtered)):
            found, _ = best(
                rough,
                np.full(len(own), np.nan, np.float32),
                numbers=own,
                wanted=wanted,
                k=K,
                share=0.0,
                error=rounded.error,
                exactly=lambda chosen, true=true: true[chosen],
            )
            among = np.flatnonzero(wanted)
            first = among[np.argsort(-true[among], kind="stable")[:K]]
            recall.append(len(np.intersect1d(found, first)) / K)
    started = time.perf_counter()
    anew = RegionStore(store._database, REGION_ID, folder=path / "anew")
    rebuilt = len(anew.catch_up().numbers)
    rebuild = time.perf_counter() - started
    assert rebuilt == len(numbers)
    for left in (path / "anew").iterdir():
        left.unlink()
    return {
        "first_question": round(seconds[0], 3),
        "question": _spread(seconds[1:]),
        "compare": {**_spread(compared), "processor": round(float(np.median(processor)), 3)},
        "recall": float(np.mean(recalls)),
        "recall_filtered": float(np.mean(filtered)),
        "rebuild_s": round(rebuild, 1),
    }


def _exact(store: RegionStore, numbers: NDArray[np.int64], asked: list[RegionQuery]) -> NDArray[np.float32]:
    """Return the likeness in float32 of every image to every question, (questions, images)."""
    result = np.empty((len(asked), len(numbers)), np.float32)
    for start in range(0, len(numbers), 512):
        block: Block = store.of(numbers[start : start + 512].tolist())
        for place, query in enumerate(asked):
            result[place, start : start + 512] = likeness(query, block.vectors, scale=SCALE)
    return result


def _spread(seconds: list[float]) -> dict[str, float]:
    return {name: round(float(np.percentile(seconds, q)), 3) for name, q in (("p50", 50), ("p95", 95))}
