"""How fast images become vectors, against torch as an ordinary container runs it.

    python tests/benchmarks/bench_embed.py [--threads N] [--rounds N] [--pause S]

Both engines hold the same weights and get the same images in the same process, in turns: A B A B. Between
turns there is a pause, because the threads of either engine go on spinning after a call and would take the
cores from the other: without it (`--pause 0`, with onnxruntime's default spinning) torch seems half as
fast as it is. torch runs eagerly: `eval()`, `no_grad()`, its own choice of kernels. Ratios of one run count,
absolute times do not. Needs the `export` extra.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medsearch_desktop.image.embed import OnnxEncoder
from medsearch_desktop.image.models import find_model, read_model
from medsearch_desktop.image.preprocess import to_tensor

MODELS = Path(__file__).resolve().parents[2] / "models"
SIZES = (224, 160)
BATCHES = (1, 8)


def measure(*, threads: int = 2, rounds: int = 8, pause: float = 0.1) -> dict[str, Any]:
    """Return medians in milliseconds a call, images a second and the ratio, for each size and batch.

    `throughput` compares the ways of using the cores when nobody waits for a single image, in images a
    second: one session with all threads, or one single-threaded session a core.
    """
    sys.path.insert(0, str(MODELS))
    import torch
    from export import phantom, read_network

    torch.set_num_threads(threads)
    shipped = find_model()
    network = read_network(read_model(shipped))
    cases: list[dict[str, Any]] = []
    throughput: list[dict[str, Any]] = []
    for size in SIZES:
        spec = replace(shipped, preprocessing=replace(shipped.preprocessing, size=size))
        images = np.stack([to_tensor(phantom(seed), spec.preprocessing) for seed in range(max(BATCHES))])
        encoder = OnnxEncoder(spec, threads=threads, batch_size=max(BATCHES))
        for batch in BATCHES:
            part = images[:batch]
            tensor = torch.from_numpy(part)

            def eager(tensor: torch.Tensor = tensor) -> None:
                with torch.no_grad():
                    network(tensor)

            def ours(encoder: OnnxEncoder = encoder, part: np.ndarray = part) -> None:
                encoder.encode(part)

            calls = max(1, 6 // batch)
            eager_s, ours_s = _in_turns((eager, ours), rounds=rounds, calls=calls, pause=pause)
            cases.append(
                {
                    "size": size,
                    "batch": batch,
                    "torch_ms": round(1e3 * eager_s, 2),
                    "onnx_ms": round(1e3 * ours_s, 2),
                    "torch_images_per_s": round(batch / eager_s, 1),
                    "onnx_images_per_s": round(batch / ours_s, 1),
                    "ratio": round(eager_s / ours_s, 2),
                }
            )
        singles = [OnnxEncoder(spec, threads=1, batch_size=max(BATCHES)) for _ in range(threads)]
        for batch in BATCHES:
            throughput.append(
                {
                    "size": size,
                    "batch": batch,
                    "one_session": _images_per_s([encoder], images[:batch], seconds=1.5, pause=pause),
                    "session_per_core": _images_per_s(singles, images[:batch], seconds=1.5, pause=pause),
                }
            )
    return {
        "what": "embedding, DenseNet121",
        "threads": threads,
        "pause_s": pause,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "cases": cases,
        "throughput": throughput,
    }


def _in_turns(engines: tuple[Callable[[], None], ...], *, rounds: int, calls: int, pause: float) -> tuple[float, ...]:
    """Return the median seconds of one call of each engine; the first call of each turn warms up and does not count."""
    seconds: list[list[float]] = [[] for _ in engines]
    for _ in range(rounds):
        for engine, taken in zip(engines, seconds, strict=True):
            time.sleep(pause)
            engine()
            for _ in range(calls):
                start = time.perf_counter()
                engine()
                taken.append(time.perf_counter() - start)
    return tuple(float(np.median(taken)) for taken in seconds)


def _images_per_s(encoders: list[OnnxEncoder], images: np.ndarray, *, seconds: float, pause: float) -> float:
    counts = [0] * len(encoders)
    encoders[0].encode(images)
    time.sleep(pause)
    start = time.perf_counter()

    def work(place: int) -> None:
        while time.perf_counter() - start < seconds:
            encoders[place].encode(images)
            counts[place] += len(images)

    workers = [threading.Thread(target=work, args=(place,)) for place in range(len(encoders))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return round(sum(counts) / (time.perf_counter() - start), 1)


def main() -> int:
    """Measure and print the figures as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--pause", type=float, default=0.1)
    print(json.dumps(measure(**vars(parser.parse_args())), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
