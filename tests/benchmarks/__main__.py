"""Measure: `python -m tests.benchmarks [NAME...] [--quick] [--out DIR] [--work DIR]`.

Without names all are run. Each result goes to DIR/<name>.json together with the conditions under which it was
measured, and a Markdown table of all of them to stdout. Ratios within one run count; absolute times are those of
the machine and of whoever else was using it, which `other_cores` tells: the cores that other processes kept busy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

# As the program has it; before numpy is there.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
COMMAND = "python -m tests.benchmarks"
Row = tuple[str, str, str]


@dataclass(frozen=True)
class Bench:
    """One entry: where its functions are, whether it needs a folder, and the sizes of a smoke test.

    `rows` names a function of `module`, or is one.
    """

    module: str
    quick: dict[str, Any]
    measure: str = "measure"
    rows: str | Callable[[dict[str, Any]], list[Row]] = "rows"
    works_in_folder: bool = True


def _text_rows(result: dict[str, Any]) -> list[Row]:
    search, facets = result["search_and_20_snippets_ms"], result["facets_ms"]
    what = f"text index of {result['documents']} reports"
    return [
        (f"{what}: search and 20 snippets", f"p50 {search['p50']:.1f}, p95 {search['p95']:.1f} ms", ""),
        (f"{what}: facets", f"p50 {facets['p50']:.1f}, p95 {facets['p95']:.1f} ms", ""),
        (f"{what}: building", f"{result['build_seconds']:.0f} s, {result['index_megabytes']:.0f} MB", ""),
    ]


# A library below exact_below has no graph: a quick run lowers it, so that there is one to measure.
_SMALL = {"images": 3000, "reports": 1000, "exact_below": 1000}
BENCHES = {
    "help": Bench("bench_open", {"starts": 2}, "measure_help", "help_rows", works_in_folder=False),
    "embed": Bench("bench_embed", {"rounds": 1, "pause": 0.0}, works_in_folder=False),
    "text": Bench("bench_text", {"n": 500}, rows=_text_rows, works_in_folder=False),
    "ingest": Bench("bench_ingest", {"films": 8, "size": 512, "rounds": 1, "cloud_films": 1}),
    "headers": Bench("bench_ingest", {"files": 60, "rounds": 1}, "measure_headers", "header_rows"),
    "switch": Bench("bench_switch", {"films": 8, "size": 256, "rounds": 1}),
    "receive": Bench("bench_receive", {"films": 5, "rounds": 1}),
    "receive-indexing": Bench(
        "bench_receive", {"films": 8, "rounds": 1, "associations": 2}, "measure_indexing", "indexing_rows"
    ),
    "visual": Bench("bench_visual", {**_SMALL, "queries": 50, "filtered_queries": 10, "sweep": (500, 1000)}),
    "open": Bench("bench_open", {**_SMALL, "more_reports": 300, "queries": 24, "starts": 1}),
    "serve": Bench("bench_serve", {**_SMALL, "typed": 12, "rounds": 1}),
    "window": Bench("bench_window", {"studies": 12, "size": 512, "loads": 1, "opens": 1, "visits": 10}),
    "scale": Bench("bench_scale", {"sizes": (300, 2000), "queries": 24, "new_files": 40, "exact_below": 1000}),
    "start": Bench("bench_start", {"starts": 1}),
    "language": Bench("bench_language", {"most": 50}),
    "demo": Bench("bench_demo", {"studies": 24, "size": 256}),
    "region": Bench("bench_region", {"studies": 24, "size": 256, "most": 2}),
    "places": Bench("bench_places", {"sizes": (300,), "queries": 3, "studies": 6, "size": 256}),
}


def run(name: str, *, quick: bool, work: Path, sizes: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return the result of one bench, the rows of its table, and the conditions it was measured under."""
    bench = BENCHES[name]
    module = import_module(f"tests.benchmarks.{bench.module}")
    settings = dict(bench.quick) if quick else {}
    if sizes and name in ("scale", "places"):
        settings["sizes"] = sizes
    before, load = _Clock(), os.getloadavg() if hasattr(os, "getloadavg") else ()
    measure = getattr(module, bench.measure)
    result = measure(work, **settings) if bench.works_in_folder else measure(**settings)
    rows = getattr(module, bench.rows) if isinstance(bench.rows, str) else bench.rows
    return {
        "name": name,
        "command": " ".join([COMMAND, name, *(["--quick"] if quick else [])]),
        "result": result,
        "rows": rows(result),
        "conditions": {
            **before.until_now(),
            "load_average_before": load,
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "processor": _processor(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "versions": {part: version(part) for part in ("onnxruntime", "numpy", "hnswlib", "duckdb", "tantivy")},
        },
    }


class _Clock:
    """Wall time and the processor time of this process with its children, and of all others."""

    def __init__(self) -> None:
        self._wall, self._own, self._all = time.perf_counter(), _own_cpu(), _all_cpu()

    def until_now(self) -> dict[str, float]:
        wall, own = time.perf_counter() - self._wall, _own_cpu() - self._own
        return {
            "seconds": round(wall, 1),
            "own_cores": round(own / wall, 2),
            "other_cores": round(max(0.0, _all_cpu() - self._all - own) / wall, 2),
        }


def _own_cpu() -> float:
    return sum(os.times()[:4])


def _all_cpu() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(int(part) for part in text.split(","))
    if min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"{text} has a size below 1")
    return sizes


def main() -> int:
    """Run what was asked for and print its table."""
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(BENCHES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that they run, measures nothing")
    parser.add_argument("--out", type=Path, default=Path("bench-results"), metavar="DIR")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep what is drawn and built in DIR (some 3 GB)")
    parser.add_argument("--sizes", type=_sizes, default=(), metavar="N,...", help='images of the bench "scale"')
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHES):
        parser.error(f"no such bench: {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    options.out.mkdir(parents=True, exist_ok=True)
    print("| what | measured | target | other cores busy | command |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        for name in options.names or BENCHES:
            found = run(name, quick=options.quick, work=work, sizes=options.sizes)
            (options.out / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n", "utf-8")
            for what, measured, target in found["rows"]:
                others = found["conditions"]["other_cores"]
                print(f"| {what} | {measured} | {target} | {others} | `{found['command']}` |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
