"""Visual search in a large library: how much of the exact answer the graph gives, and in what time.

    python -m tests.benchmarks visual

Vectors are drawn from `corpus.vectors`, which lie as those of real films do; questions come from the same
mixture and are not in the library. Exact, approximate and filtered answers are timed in turns, question by
question. The sweeps justify four constants: `exact_below`, the library size up to which no graph is used,
`search_breadth`, the candidates of the graph that are compared in full, `EXACT_AMONG`, the images that a filter lets
pass up to which each is compared, and `GATHER_BELOW`, the share of rows from which one product over all beats
gathering the allowed ones.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.config import load_config
from medsearch_desktop.store import vectors as store_vectors
from medsearch_desktop.store.graph import BREADTH_BUILD, M
from medsearch_desktop.store.vectors import VectorIndex
from tests.benchmarks.corpus import DIM, large_library, vectors

K = 10
SELECTIVITIES = (0.001, 0.01, 0.1, 0.5, 0.9)
Row = tuple[str, str, str]


def measure(
    work: Path,
    *,
    images: int = 100_000,
    reports: int = 100_000,
    queries: int = 500,
    filtered_queries: int = 60,
    sweep: tuple[int, ...] = (1000, 2000, 4000, 8000, 16_000),
    **settings: Any,
) -> dict[str, Any]:
    """Return recall@10 against exact search and times in milliseconds; `settings` are those of the library."""
    library, built = large_library(work, images=images, reports=reports, **settings)
    with library:
        index = library.vectors
        assert index.graph_count == index.count == images
        asked = vectors(queries, seed=2)
        folder = next((library.path / "indexes").glob("vectors-*"))
        sizes = {file.name: round(file.stat().st_size / 1e6, 1) for file in sorted(folder.iterdir())}
        index.search(asked[0], K)
        return {
            "what": f"{images} vectors of {DIM}, a clustered mixture like real films'",
            "k": K,
            "queries": queries,
            "breadth": library.config.search_breadth,
            "threads": library.config.thread_count,
            "graph_build_s": built["graph"],
            "megabytes": sizes,
            **_unfiltered(index, asked),
            "by_breadth": _by_breadth(index, asked[:200]),
            "filtered": _filtered(index, asked[:filtered_queries], folder),
            "gather": _gather(index, asked[:20]),
            "by_size": [_by_size(work, size, asked[:100], breadth=library.config.search_breadth) for size in sweep],
        }


def rows(result: dict[str, Any]) -> list[Row]:
    """Return what a table shows of `measure`."""
    approximate, exact = result["approximate_ms"], result["exact_ms"]
    lines = [
        (f"visual: {result['what']}, recall@10", f"{result['recall']:.4f}", ">= 0.99"),
        ("... approximate, p50 / p95", f"{approximate['p50']:.2f} / {approximate['p95']:.2f} ms", "p50 < 2 ms"),
        ("... exact, p50 / p95", f"{exact['p50']:.1f} / {exact['p95']:.1f} ms", ""),
        ("... building the graph", f"{result['graph_build_s']:.0f} s", ""),
    ]
    for case in result["filtered"]:
        lines.append(
            (
                f"... filter that {100 * case['selectivity']:g} % pass: recall@10, p50",
                f"{case['recall']:.4f}, {case['ms']['p50']:.1f} ms (the graph's candidates, filtered: "
                f"{case['graph_recall']:.4f}, {case['graph_ms']['p50']:.1f} ms)",
                "recall 1.0",
            )
        )
    short = [case["size"] for case in result["by_size"] if case["exact_ms"]["p50"] < 2]
    lines.append(("... exact search takes less than 2 ms up to", f"{max(short, default=0)} vectors", ""))
    gather = result["gather"]
    lines.append(
        (
            "... gathering rows is no slower than all rows up to a share of",
            f"{gather['gathering_is_better_up_to']:g} (constant: {gather['constant']:g})",
            "",
        )
    )
    return lines


def _unfiltered(index: VectorIndex, asked: NDArray[np.float32]) -> dict[str, Any]:
    approximate, exact, recalls = [], [], []
    for query in asked:
        near, seconds = _timed(lambda query=query: index.search(query, K))
        approximate.append(seconds)
        true, seconds = _timed(lambda query=query: index.exact(query, K))
        exact.append(seconds)
        recalls.append(_recall(near[0], true[0]))
    return {
        "recall": round(float(np.mean(recalls)), 5),
        "questions_answered_fully": round(float(np.mean(np.array(recalls) == 1)), 4),
        "approximate_ms": _spread(approximate),
        "exact_ms": _spread(exact),
    }


def _by_breadth(index: VectorIndex, asked: NDArray[np.float32]) -> list[dict[str, Any]]:
    """Return what fewer and more candidates give."""
    default, found = index._breadth, []
    try:
        for breadth in (50, 100, 200, 400, 800):
            index._breadth = breadth
            found.append({"breadth": breadth, **_unfiltered(index, asked)})
    finally:
        index._breadth = default
    return found


def _filtered(index: VectorIndex, asked: NDArray[np.float32], folder: Path) -> list[dict[str, Any]]:
    numbers = np.fromfile(folder / "numbers.i64", np.int64)
    flat = np.memmap(folder / "vectors.f32", np.float32, "r").reshape(-1, DIM)
    rng = np.random.default_rng(4)
    cases, default = [], store_vectors.EXACT_AMONG
    for selectivity in SELECTIVITIES:
        passes = rng.random(len(numbers)) < selectivity
        passes[rng.choice(len(numbers), K, replace=False)] = True
        passing = np.flatnonzero(passes)
        times: dict[int, list[float]] = {default: [], 0: []}
        recalls: dict[int, list[float]] = {default: [], 0: []}
        try:
            for query in asked:
                # The yardstick is computed apart from the index: one product a row, the ten highest.
                true = numbers[passing[np.argsort(-(flat[passing] @ query), kind="stable")[:K]]]
                for among in times:
                    store_vectors.EXACT_AMONG = among
                    (near, _), seconds = _timed(
                        lambda query=query, allowed=numbers[passing]: index.search(query, K, allowed=allowed)
                    )
                    times[among].append(seconds)
                    recalls[among].append(_recall(near, true))
        finally:
            store_vectors.EXACT_AMONG = default
        cases.append(
            {
                "selectivity": selectivity,
                "queries": len(asked),
                "recall": round(float(np.mean(recalls[default])), 5),
                "ms": _spread(times[default]),
                "graph_recall": round(float(np.mean(recalls[0])), 5),
                "graph_ms": _spread(times[0]),
            }
        )
    return cases


def _gather(index: VectorIndex, asked: NDArray[np.float32]) -> dict[str, Any]:
    """Return milliseconds of a filtered search by the share that passes, with either way forced."""
    numbers, default = np.array(index._numbers), store_vectors.GATHER_BELOW
    rng = np.random.default_rng(6)
    shares: list[dict[str, float]] = []
    try:
        for share in (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.6):
            allowed = numbers[np.sort(rng.choice(len(numbers), int(share * len(numbers)), replace=False))]
            times: dict[float, list[float]] = {2.0: [], -1.0: []}
            for query in asked:
                for below in times:
                    store_vectors.GATHER_BELOW = below
                    times[below].append(
                        _timed(lambda query=query, allowed=allowed: index.search(query, K, allowed=allowed))[1]
                    )
            shares.append(
                {
                    "share": share,
                    "gather_ms": round(1e3 * float(np.median(times[2.0])), 2),
                    "all_rows_ms": round(1e3 * float(np.median(times[-1.0])), 2),
                }
            )
    finally:
        store_vectors.GATHER_BELOW = default
    better = [case["share"] for case in shares if case["gather_ms"] <= case["all_rows_ms"]]
    return {"constant": default, "gathering_is_better_up_to": max(better, default=0.0), "shares": shares}


def _by_size(work: Path, size: int, asked: NDArray[np.float32], *, breadth: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=work) as name:
        index = VectorIndex(
            Path(name), model_id="sweep", dim=DIM, exact_below=0, breadth=breadth, threads=load_config().thread_count
        )
        none = np.empty(0, np.int64)
        index.update(np.arange(size), vectors(size, seed=1), removed=none, watermark=1)
        start = time.perf_counter()
        index.extend_graph()
        built = time.perf_counter() - start
        index.search(asked[0], K)
        return {
            "size": size,
            "graph_m": M,
            "graph_breadth_build": BREADTH_BUILD,
            "graph_build_s": round(built, 2),
            **_unfiltered(index, asked),
        }


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    made = work()
    return made, time.perf_counter() - start


def _recall(found: NDArray[np.int64], true: NDArray[np.int64]) -> float:
    return len(np.intersect1d(found, true)) / len(true)


def _spread(seconds: list[float]) -> dict[str, float]:
    return {f"p{level}": round(1e3 * float(np.percentile(seconds, level)), 3) for level in (50, 95, 99)}


def main() -> None:
    """Print what was measured as JSON."""
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(measure(Path(name)), indent=2))


if __name__ == "__main__":
    main()
