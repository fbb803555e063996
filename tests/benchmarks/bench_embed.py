"""How fast images become vectors on each engine, against torch as an ordinary container runs it.

    python tests/benchmarks/bench_embed.py [--threads N] [--rounds N] [--pause S] [--films DIR]

All engines hold the same weights and get the same images in the same process, in turns: A B C A B C. Between
turns there is a pause, because the threads of an engine go on spinning after a call and would take the cores from
the next: without it (`--pause 0`, with onnxruntime's default spinning) torch seems half as fast as it is. torch
runs eagerly: `eval()`, `no_grad()`, its own choice of kernels. A ratio is formed within each round; its median and
range are told. Ratios of one run count, absolute times do not. `onnxruntime, a session a core` is the best
honest setting for a batch: one single-threaded session a core, each with its share of it.

`cosine` is the least one to the vectors of torch, over the made-up films or those of `--films`, which the int8 model
is calibrated with too (on others than those it is judged by). Needs the `export` extra; OpenVINO is measured
where the `engine-openvino` extra is installed.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Raster

from medsearch_desktop.errors import ModelError
from medsearch_desktop.image.embed import OnnxEncoder
from medsearch_desktop.image.engines import films as made_up_films
from medsearch_desktop.image.models import ModelSpec, find_model, read_model
from medsearch_desktop.image.openvino_engine import OpenVinoEncoder, Precision, has_bfloat16
from medsearch_desktop.image.preprocess import to_tensor
from tests.benchmarks.int8 import Int8Encoder

MODELS = Path(__file__).resolve().parents[2] / "models"
SIZES = (224, 128)
BATCHES = (1, 8)
JUDGED, CALIBRATED = 32, 32
TORCH = "torch"
SESSION_A_CORE = "onnxruntime, a session a core"
# Of the ratio to torch, by engine and batch, at 224 pixels.
TARGETS = {
    ("onnxruntime", 1): 3.5,
    (SESSION_A_CORE, 8): 4.0,
    ("openvino bfloat16", 1): 5.5,
    ("openvino bfloat16", 8): 6.5,
}
Encode = Callable[[np.ndarray], np.ndarray]


def measure(*, threads: int = 2, rounds: int = 8, pause: float = 0.1, films: Path | None = None) -> dict[str, Any]:
    """Return a case for each size, batch and engine: milliseconds a call, images a second, ratio to torch, cosine.

    `skipped` tells which engines could not be measured, and why.
    """
    cases: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    versions: dict[str, str] = {}
    for size in SIZES:
        shipped = find_model()
        spec = replace(shipped, preprocessing=replace(shipped.preprocessing, size=size))
        images = _images(spec, JUDGED + CALIBRATED, films)
        judged, calibration = images[:JUDGED], images[JUDGED:]
        with tempfile.TemporaryDirectory() as folder:
            engines, skipped, versions = _engines(spec, threads, calibration, Path(folder))
            expected = engines[TORCH](judged)
            cosines = {name: float((encode(judged) * expected).sum(axis=1).min()) for name, encode in engines.items()}
            for batch in BATCHES:
                # A single image cannot be shared out to several sessions.
                used = {name: encode for name, encode in engines.items() if batch > 1 or name != SESSION_A_CORE}
                seconds = _in_turns(used, judged[:batch], rounds=rounds, calls=max(1, 6 // batch), pause=pause)
                for name, taken in seconds.items():
                    cases.append(_case(name, size, batch, taken, seconds[TORCH], cosines[name]))
    return {
        "what": "embedding, DenseNet121",
        "threads": threads,
        "pause_s": pause,
        "films": "made up" if films is None else str(films),
        "versions": versions,
        "machine": platform.processor() or platform.machine(),
        "cases": cases,
        "skipped": skipped,
    }


def rows(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the lines of the table: what, measured, target."""
    lines = []
    for case in result["cases"]:
        if case["engine"] == TORCH:
            continue
        target = TARGETS.get((case["engine"], case["batch"])) if case["size"] == SIZES[0] else None
        low, high = case["ratio_range"]
        lines.append(
            (
                f"{result['what']}, {case['size']} px, batch {case['batch']}: {case['engine']} / torch",
                f"{case['ratio']:.2f} ({low:.2f} to {high:.2f}); {case['images_per_s']:.1f} images/s;"
                f" cosine {case['cosine']:.5f}",
                f">= {target}" if target else "",
            )
        )
    lines += [(f"{result['what']}: {name}", f"not measured: {why}", "") for name, why in result["skipped"].items()]
    return lines


def _case(
    name: str, size: int, batch: int, taken: list[float], eager: list[float], cosine: float
) -> dict[str, str | float | list[float]]:
    ratios = [other / own for own, other in zip(taken, eager, strict=True)]
    median = float(np.median(taken))
    return {
        "engine": name,
        "size": size,
        "batch": batch,
        "ms": round(1e3 * median, 2),
        "ms_range": [round(1e3 * min(taken), 2), round(1e3 * max(taken), 2)],
        "images_per_s": round(batch / median, 1),
        "ratio": round(float(np.median(ratios)), 2),
        "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "cosine": round(cosine, 6),
    }


def _images(spec: ModelSpec, count: int, folder: Path | None) -> np.ndarray:
    if folder is None:
        return made_up_films(spec, count)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    chosen = np.random.default_rng(1).permutation(len(paths))[:count]
    grey = [np.asarray(Raster.open(paths[place]).convert("L")) for place in chosen]
    return np.stack([to_tensor(pixels, spec.preprocessing) for pixels in grey])


def _engines(
    spec: ModelSpec, threads: int, calibration: np.ndarray, folder: Path
) -> tuple[dict[str, Encode], dict[str, str], dict[str, str]]:
    sys.path.insert(0, str(MODELS))
    import onnxruntime
    import torch
    from export import read_network

    torch.set_num_threads(threads)
    network = read_network(read_model(spec))

    def eager(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            vectors = np.concatenate([network(part).numpy() for part in torch.from_numpy(images).split(max(BATCHES))])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    most = max(BATCHES)
    engines: dict[str, Encode] = {
        TORCH: eager,
        "onnxruntime": OnnxEncoder(spec, threads=threads, batch_size=most).encode,
        SESSION_A_CORE: _session_a_core(spec, threads),
        "onnxruntime int8": Int8Encoder(
            spec, threads=threads, batch_size=most, calibration=calibration, folder=folder
        ).encode,
    }
    versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    skipped = {}
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for precision in precisions:
        name = f"openvino {precision}"
        try:
            if precision == "bfloat16" and not has_bfloat16():
                skipped[name] = "this processor has no bfloat16: needs AVX512_BF16 or AMX"
                continue
            engines[name] = OpenVinoEncoder(spec, threads=threads, batch_size=most, precision=precision).encode
            versions["openvino"] = sys.modules["openvino"].get_version()
        except ModelError as error:
            skipped[name] = str(error)
    return engines, skipped, versions


def _session_a_core(spec: ModelSpec, threads: int) -> Encode:
    encoders = [OnnxEncoder(spec, threads=1, batch_size=max(BATCHES)) for _ in range(threads)]
    workers = ThreadPoolExecutor(threads)

    def encode(images: np.ndarray) -> np.ndarray:
        parts = np.array_split(images, threads)
        return np.concatenate(list(workers.map(lambda encoder, part: encoder.encode(part), encoders, parts)))

    return encode


def _in_turns(
    engines: dict[str, Encode], images: np.ndarray, *, rounds: int, calls: int, pause: float
) -> dict[str, list[float]]:
    """Return each engine's seconds a call, the median of each round; the first call of a turn warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, encode in engines.items():
            time.sleep(pause)
            encode(images)
            taken = []
            for _ in range(calls):
                start = time.perf_counter()
                encode(images)
                taken.append(time.perf_counter() - start)
            seconds[name].append(float(np.median(taken)))
    return seconds


def main() -> int:
    """Measure and print the figures as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--pause", type=float, default=0.1)
    parser.add_argument("--films", type=Path, help="folder of PNG or JPEG films instead of made-up ones")
    print(json.dumps(measure(**vars(parser.parse_args())), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
