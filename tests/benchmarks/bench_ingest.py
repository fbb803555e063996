"""From file to searchable: the rate of an ingest, what bounds it, and what the cloud sample takes for the same films.

    python -m tests.benchmarks ingest headers

The ingest, the model alone and the cloud sample take turns on the same films; each ingest makes a library of its
own. A rate is of the whole call, `library.ingest` from the first directory entry to the last index, with the
model loaded before, as it is in a program that stays open. Needs the `export` extra for the cloud sample.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medsearch_desktop.config import load_config
from medsearch_desktop.image.decode import decode
from medsearch_desktop.image.embed import ImageEncoder
from medsearch_desktop.image.engines import open_encoder
from medsearch_desktop.image.models import find_model, read_model
from medsearch_desktop.image.preprocess import Rendering, Window, thumbnail, to_display, to_tensor
from medsearch_desktop.ingest import FILES_PER_COMMIT
from medsearch_desktop.library import open_library
from medsearch_desktop.records import FileKind, SourceFile
from medsearch_desktop.source.sniff import open_regular
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.intake import INDEXED, Intake, Outcome
from medsearch_desktop.store.thumbnails import Thumbnails
from tests.benchmarks.corpus import write_films, write_headers

MODELS = Path(__file__).resolve().parents[2] / "models"
# Idle threads of one engine go on spinning after a call and would take the cores from the next in turn.
PAUSE_S = 0.3
Row = tuple[str, str, str]


def measure(work: Path, *, films: int = 96, size: int = 2048, rounds: int = 5, cloud_films: int = 6) -> dict[str, Any]:
    """Return rates in files a second, their ratios round by round, and milliseconds a film by stage.

    `cloud` is None where torch is missing.
    """
    folder = work / f"films-{films}-{size}"
    paths = write_films(folder, films, size=size)
    config = load_config()
    spec = find_model()
    encoder = open_encoder(spec, config)
    tensors = np.stack([to_tensor(_display(path), spec.preprocessing) for path in paths])
    samples = _cloud_samples(work)
    rates: dict[str, list[float]] = {name: [] for name in ("ingest", "model alone", *samples)}
    cpu: dict[str, list[float]] = {name: [] for name in ("ingest", "model alone")}
    # The first round warms up.
    for round_number in range(rounds + 1):
        turn, worked = {}, {}
        for name, call in (
            ("ingest", partial(_ingest, work, folder)),
            ("model alone", partial(_encode, encoder, tensors)),
        ):
            seconds, cpu_seconds = call()
            turn[name], worked[name] = films / seconds, 1000 * cpu_seconds / films
        for name, index in samples.items():
            time.sleep(PAUSE_S)
            turn[name] = min(cloud_films, films) / _seconds(lambda index=index: [index(p) for p in paths[:cloud_films]])
        if round_number:
            for name, rate in turn.items():
                rates[name].append(rate)
            for name, milliseconds in worked.items():
                cpu[name].append(milliseconds)
    stages = _stages(work, paths, encoder)
    cores = config.thread_count
    # The model's work is that of its turn: many batches, warmed up.
    stages["model"]["cpu_ms"] = round(float(np.median(cpu["model alone"])), 3)
    whole, model = float(np.median(cpu["ingest"])), float(np.median(cpu["model alone"]))
    return {
        "what": f"ingest of {films} uncompressed DICOM films, {size} x {size}, 12 bits in 16",
        "threads": cores,
        "batch_size": config.batch_size,
        "model": spec.model_id,
        "rounds": rounds,
        "files_per_s": {name: _spread(values) for name, values in rates.items()},
        "cpu_ms_per_file": {name: _spread(values) for name, values in cpu.items()},
        "ingest_over_model_alone": _ratio(rates, "model alone"),
        "ingest_over_cloud": {name: _ratio(rates, name) for name in samples} or None,
        "stages_ms_per_film": stages,
        # Where all cores are busy, the ingest cannot come nearer to the model alone than this.
        "model_share_of_processor_time": round(model / whole, 3),
        "cores_kept_busy": round(whole * float(np.median(rates["ingest"])) / 1000, 2),
        "cloud": None if samples else "torch is not installed: make export",
    }


def measure_headers(work: Path, *, files: int = 5000, rounds: int = 3) -> dict[str, Any]:
    """Return the rate of an ingest of headers only, and of a second one that finds nothing new, in files a second."""
    folder = work / f"headers-{files}"
    write_headers(folder, files)
    first, again = [], []
    for _ in range(rounds):
        with (
            tempfile.TemporaryDirectory(dir=work) as name,
            open_library(Path(name) / "library", create=True) as library,
        ):
            first.append(files / _seconds(lambda: library.ingest([folder], metadata_only=True)))
            again.append(files / _seconds(lambda: library.ingest([folder], metadata_only=True)))
            assert library.totals().images == files
    return {
        "what": f"headers only: {files} small DICOM files",
        "files_per_s": _spread(first),
        "unchanged_files_per_s": _spread(again),
    }


def rows(result: dict[str, Any]) -> list[Row]:
    """Return what a table shows of `measure`."""
    rates = result["files_per_s"]
    lines = [
        (result["what"], f"{rates['ingest']['median']:.1f} files/s", ""),
        ("ingest / embedding alone", _said(result["ingest_over_model_alone"]), ">= 0.85"),
        (
            "the model's share of the processor time of an ingest",
            f"{result['model_share_of_processor_time']:.2f} ({result['cores_kept_busy']:.2f} cores kept busy)",
            "",
        ),
    ]
    for name, ratio in (result["ingest_over_cloud"] or {}).items():
        lines.append((f"ingest / {name}", f"{_said(ratio)} ({rates[name]['median']:.2f} files/s)", ">= 8"))
    if result["cloud"]:
        lines.append(("ingest / cloud sample", result["cloud"], ">= 8"))
    stages = ", ".join(f"{name} {stage['cpu_ms']:.1f}" for name, stage in result["stages_ms_per_film"].items())
    return [*lines, ("processor ms a film by stage", stages, "")]


def header_rows(result: dict[str, Any]) -> list[Row]:
    """Return what a table shows of `measure_headers`."""
    return [
        (result["what"], f"{result['files_per_s']['median']:.0f} files/s", ">= 1000"),
        ("the same again, unchanged", f"{result['unchanged_files_per_s']['median']:.0f} files/s", ""),
    ]


def _ingest(work: Path, folder: Path) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(dir=work) as name, open_library(Path(name) / "library", create=True) as library:
        size = library.model.preprocessing.size
        library.workbench.encoder.encode(np.zeros((library.config.batch_size, 3, size, size), np.float32))
        time.sleep(PAUSE_S)
        start, worked = time.perf_counter(), time.process_time()
        summary = library.ingest([folder])
        taken = time.perf_counter() - start, time.process_time() - worked
        assert summary.indexed == summary.discovered == library.vectors.count, summary
        return taken


def _encode(encoder: ImageEncoder, tensors: np.ndarray) -> tuple[float, float]:
    encoder.encode(tensors[: load_config().batch_size])
    time.sleep(PAUSE_S)
    start, worked = time.perf_counter(), time.process_time()
    encoder.encode(tensors)
    return time.perf_counter() - start, time.process_time() - worked


def _cloud_samples(work: Path) -> dict[str, Callable[[Path], object]]:
    try:
        import torch
    except ModuleNotFoundError:
        return {}
    from tests.benchmarks.cloud_sample import SIZE, CloudSample

    sys.path.insert(0, str(MODELS))
    from export import read_network

    torch.set_num_threads(load_config().thread_count)
    network = read_network(read_model(find_model())).eval()
    own = find_model().preprocessing.size
    return {
        f"cloud sample, {size} px": CloudSample(network, work / f"cloud-{size}", size=size).index
        for size in (SIZE, own)
    }


def _stages(work: Path, paths: list[Path], encoder: ImageEncoder) -> dict[str, dict[str, float]]:
    """Run the conveyor's own functions one after another in this thread; times a film in milliseconds.

    `wall_ms` is what a single thread waits, `cpu_ms` what all threads of the process work.
    """
    spec, config = find_model(), load_config()
    taken: dict[str, list[tuple[float, float]]] = {}

    def timed(name: str, work: Callable[[], Any], films: int = 1) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        made = work()
        taken.setdefault(name, []).append(
            (1e3 * (time.perf_counter() - wall) / films, 1e3 * (time.process_time() - cpu) / films)
        )
        return made

    outcomes, pictures, tensors = [], [], []
    for path in paths:
        data = timed("read", partial(_read, path))
        sha256 = timed("hash", lambda data=data: hashlib.sha256(data).hexdigest())
        pixels = np.frombuffer(data, "<u2", offset=len(data) - 2 * _side(data) ** 2).reshape(_side(data), -1)
        rendering = Rendering(bits_stored=12, window=Window(2048, 4096))
        timed("look-up alone", lambda pixels=pixels, rendering=rendering: to_display(pixels, rendering))
        decoded = timed("decode and look-up", partial(_decoded, data, path, sha256, config.max_pixels))
        display = decoded.displays[0]
        pictures.append(timed("thumbnail", partial(thumbnail, display, size=config.thumbnail_size)))
        tensors.append(timed("tensor", partial(to_tensor, display, spec.preprocessing)))
        file = SourceFile(str(path), str(path.parent), len(data), path.stat().st_mtime_ns, FileKind.DICOM, sha256)
        outcomes.append((file, decoded.images))
    found = []
    for start in range(0, len(paths), config.batch_size):
        batch = np.stack(tensors[start : start + config.batch_size])
        found += list(timed("model", partial(encoder.encode, batch), len(batch)))
    with tempfile.TemporaryDirectory(dir=work) as name:
        library = Path(name) / "library"
        open_library(library, create=True).close()
        database, pictures_folder = (
            Database(library / "library.duckdb", threads=config.thread_count),
            Thumbnails(library),
        )
        intake = Intake(database)
        done = [
            Outcome(file, INDEXED, 1, images=images, vectors=(vector,))
            for (file, images), vector in zip(outcomes, found, strict=True)
        ]
        for start in range(0, len(done), FILES_PER_COMMIT):
            part = done[start : start + FILES_PER_COMMIT]
            writing = partial(intake.write, part, model_id=spec.model_id, pipeline_version="")
            timed("database", writing, len(part))
        for outcome, picture in zip(done, pictures, strict=True):
            timed("thumbnail file", partial(pictures_folder.write, outcome.images[0].image_id, picture))
        timed("clearing up", intake.drop_empty_studies, len(done))
        database.close()
        # Opening refreshes both indexes.
        opened = timed("indexes", lambda: open_library(library), len(done))
        opened.close()
    look_up = taken.pop("look-up alone")
    stages = {name: _mean(times) for name, times in taken.items()}
    stages["look-up"] = _mean(look_up)
    stages["decode"] = {
        kind: round(value - stages["look-up"][kind], 3) for kind, value in stages.pop("decode and look-up").items()
    }
    order = (
        "read", "hash", "decode", "look-up", "thumbnail", "tensor", "model",
        "database", "thumbnail file", "clearing up", "indexes",
    )  # fmt: skip
    return {name: stages[name] for name in order}


def _read(path: Path) -> bytes:
    with open_regular(str(path)) as handle:
        return handle.read()


def _side(data: bytes) -> int:
    return int((len(data) // 2) ** 0.5)


def _decoded(data: bytes, path: Path, sha256: str, max_pixels: int) -> Any:
    return decode(io.BytesIO(data), name=str(path), sha256=sha256, max_frames=1, max_pixels=max_pixels)


def _display(path: Path) -> np.ndarray:
    display = _decoded(path.read_bytes(), path, "", 1 << 30).displays[0]
    assert display is not None
    return display


def _mean(times: list[tuple[float, float]]) -> dict[str, float]:
    wall, cpu = np.mean(times, axis=0)
    return {"wall_ms": round(float(wall), 3), "cpu_ms": round(float(cpu), 3)}


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(float(np.median(values)), 2),
        "least": round(min(values), 2),
        "most": round(max(values), 2),
    }


def _ratio(rates: dict[str, list[float]], to: str) -> dict[str, float]:
    return _spread([ours / other for ours, other in zip(rates["ingest"], rates[to], strict=True)])


def _said(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})"


def main() -> None:
    """Print what was measured as JSON."""
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps({"ingest": measure(Path(name)), "headers": measure_headers(Path(name))}, indent=2))


if __name__ == "__main__":
    main()
