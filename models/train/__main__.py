"""Train the embedding network: one command, resumable.

    PYTHONPATH=models python -m train FILMS --out FOLDER

FILMS is a pool as `train.films` describes it. FOLDER receives `log.jsonl` (one line an evaluation), `state.pt` (to go
on from when the run was cut off; the same command goes on), `best.pt` (the averaged weights of the evaluation with the
best development score in the last phase) and a cache of resized films. Two runs with the same configuration draw the
same films and variations, however often they were cut off. `--start` begins with the weights of an earlier run: its
`best.pt`, or the ONNX file that was made of it, which holds the network without the heads of the losses.

Needs the `train` extra; with OpenVINO installed, the ImageNet networks run four times as fast.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from retrieval import score

from train.augment import as_input
from train.films import Film, label_matrix, pixels, read_pool, split
from train.reference import SIZE, Targets, make_reference
from train.run import Run, advance, loss_terms, start
from train.student import Student, quickest


def read_config(path: Path) -> dict[str, Any]:
    """Return a recipe; one that names a `base`, a file beside it, has that one's values where it gives none.

    Raises OSError when a file cannot be read, tomllib.TOMLDecodeError when it is not TOML.
    """
    config = tomllib.loads(path.read_text("utf-8"))
    base = config.pop("base", None)
    return {**read_config(path.with_name(base)), **config} if base else config


def begin_with(run: Run, weights: Path) -> None:
    """Give a run the weights of an earlier one: a student's state dict, or an exported ONNX file without heads.

    Raises OSError when the file cannot be read, ValueError or RuntimeError when it holds another network.
    """
    if weights.suffix == ".onnx":
        # As `make_weights` stores them: in half precision, each under its own name.
        held = {tensor.name.removesuffix(".half"): tensor for tensor in onnx.load(weights).graph.initializer}
        state = run.student.state_dict()
        for name, value in run.student.network.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            tensor = held.get(name.removeprefix("features."))
            if tensor is None:
                raise ValueError(f"{weights}: has no {name}; give an ONNX file that export.py made")
            state[f"network.{name}"] = torch.from_numpy(numpy_helper.to_array(tensor).astype(value.numpy().dtype))
    else:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    run.student.load_state_dict(state)
    run.averaged.load_state_dict(state)


def sampling(films: list[Film], shares: dict[str, float]) -> NDArray[np.float64]:
    """Return how likely each film is drawn: the collections by their shares, their films evenly."""
    counts = {group: sum(film.group == group for film in films) for group in shares}
    weights = np.array([shares[film.group] / counts[film.group] for film in films])
    return weights / weights.sum()


def embed(student: Student, films: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the vectors and the plain embeddings, float32 (n, 1024) each, of films uint8 (n, S, S)."""
    pooled = []
    with torch.no_grad(), quickest():
        for part in torch.from_numpy(films).split(64):
            pooled.append(student.pooled(as_input(part[:, None].float() / 255)))
    plain = torch.cat(pooled)
    with torch.no_grad():
        return student.heads(plain)[0].numpy(), plain.numpy()


def evaluate(vectors: NDArray[np.float32], films: list[Film]) -> dict[str, float]:
    """Return the development figures: over all films, and within each collection that is large enough."""
    labels, patients = label_matrix(films), [film.patient_id for film in films]
    figures = {}
    for name in ("all", "NIH", "Kermany"):
        rows = np.array([name in ("all", film.group) for film in films])
        scores = score(vectors[rows], labels[rows], [p for p, row in zip(patients, rows, strict=True) if row])
        figures |= {f"{name} {measure}": round(scores.mean(measure), 4) for measure in ("mAP", "nDCG@10")}
    return figures


def train(folder: Path, out: Path, config: dict[str, Any], *, until: float, weights: Path | None = None) -> None:
    """Train, or go on training, until the last step, until `patience` evaluations of the last phase in a row were no
    better than one before, or until the time `until` (seconds of the monotonic clock).

    `weights` are those of an earlier run to begin with. Raises OSError or ValueError for a pool or state that cannot
    be used, FileNotFoundError without the ImageNet weights, RuntimeError when the loss is not finite.
    """
    pool = read_pool(folder)
    training, development = split(pool, dev_share=config["dev_share"], licence_class=config["licence_class"])
    cache = out / "cache"
    films = torch.from_numpy(pixels(training, size=SIZE, cache=cache))
    targets = Targets.of(training)
    likely = sampling(training, config["sampling"])
    run = start(config)
    if (out / "state.pt").exists():
        run.load(out / "state.pt")
        print(f"going on from step {run.step}", file=sys.stderr)
    elif weights is not None:
        begin_with(run, weights)
    reference = make_reference(training, targets, films, still=config["reference"]["still"], cache=cache)
    began, since = time.monotonic(), run.step
    while not run.done() and time.monotonic() < until:
        size = run.size()
        run.student.train()
        chosen = torch.from_numpy(run.numbers.choice(len(training), config["batch"], p=likely))
        advance(run, loss_terms(run, reference, films[chosen], targets, chosen))
        if run.step % config["evaluate_every"] == 0 or run.step == run.total:
            mapped, plain = embed(run.averaged, pixels(development, size=size, cache=cache))
            figures = evaluate(mapped, development)
            merit = figures["all mAP"] + figures["NIH nDCG@10"] + figures["Kermany mAP"]
            count = run.step - since
            line = {
                "step": run.step,
                "size": size,
                "seconds": round(time.monotonic() - began),
                **{name: round(value / count, 4) for name, value in run.sums.items()},
                **figures,
                **{f"plain {name}": value for name, value in evaluate(plain, development).items()},
            }
            run.sums, since = {}, run.step
            with (out / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
            print(json.dumps(line), file=sys.stderr, flush=True)
            # Sizes are not compared: the one that is shipped is that of the last phase.
            if size == config["phase"][-1]["size"]:
                run.stale += 1
                if merit > run.best:
                    run.best, run.stale = merit, 0
                    torch.save(run.averaged.state_dict(), out / "best.pt")
            run.save(out / "state.pt")
    run.save(out / "state.pt")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", type=Path, help="folder of the pool: manifest.csv and its images")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("config.toml"))
    parser.add_argument("--start", type=Path, help="best.pt or ONNX file of an earlier run to begin with")
    parser.add_argument("--minutes", type=float, default=150, help="stop after this long (%(default)s); go on later")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    config = read_config(options.config)
    until = time.monotonic() + 60 * options.minutes
    try:
        train(options.films, options.out, config, until=until, weights=options.start)
    except (OSError, ValueError, RuntimeError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
