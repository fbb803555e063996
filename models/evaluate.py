"""Measure how well models retrieve, on the development films that training never saw.

    python models/evaluate.py FILMS [--weights FILE ...] [--output FILE]

FILMS is a pool as `train/films.py` describes it. Compared are chance, 32 x 32 pixels, a DenseNet121 with random
weights, the ImageNet EfficientNet-Lite0 at 224 pixels that training learned from (where its package is installed), each
`--weights` (a state dict of DenseNet121, at 160 pixels) and the models that the program has registered, run by the
program's own encoder. Every film is a query once; its own patient's films are left out of the answers. "Within" a
collection, only its own films are asked and answer: across collections, telling sources apart is already half of it.

Brackets are 95 % bootstrap intervals over patients. A list below the table gives the differences from
the first of `--weights`, or from the ImageNet network without one, over the same resampled patients.

Needs the `export` extra.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from densenet121 import DenseNet121, load_densenet121
from numpy.typing import NDArray
from PIL import Image as Raster
from retrieval import MEASURES, Scores, score
from torch import nn
from train.efficientnet_lite import load_imagenet
from train.films import Film, label_matrix, pixels, read_pool, split

from medsearch_desktop.image.embed import OnnxEncoder
from medsearch_desktop.image.models import list_models
from medsearch_desktop.image.preprocess import Preprocessing, to_tensor

DEV_SHARE = 0.15
WEIGHTS_SIZE = 160
IMAGENET_SIZE = 224
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
VIEWS = {"all": ("NIH", "Kermany", "COVID sets"), "NIH": ("NIH",), "Kermany": ("Kermany",)}
# What is aimed at, and so tabled: the rest stands in the JSON.
TABLED = (
    ("all", "mAP"),
    ("all", "nDCG@10"),
    ("NIH", "mAP"),
    ("NIH", "nDCG@10"),
    ("Kermany", "mAP"),
    ("Kermany", "P@5"),
)

Vectors = NDArray[np.floating]


def tensors(films: list[Film], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return the films as the program prepares them for a model: float32 (n, 3, S, S)."""
    prepared = []
    for film in films:
        with Raster.open(film.path) as raster:
            prepared.append(to_tensor(np.asarray(raster.convert("L")), preprocessing))
    return np.stack(prepared)


def by_torch(network: nn.Module, films: list[Film], *, size: int) -> Vectors:
    """Return what a torch network in evaluation mode makes of the films."""
    batch = torch.from_numpy(tensors(films, Preprocessing(size, "squash", MEAN, STD)))
    with torch.no_grad():
        return torch.cat([network(part) for part in batch.split(32)]).numpy()


def contenders(weights: list[Path]) -> dict[str, Callable[[list[Film]], Vectors]]:
    """Return what is compared, by name: each makes vectors (n, d) of films."""

    def chance(films: list[Film]) -> Vectors:
        return np.random.default_rng(0).normal(size=(len(films), 64))

    def coarse(films: list[Film]) -> Vectors:
        flat = pixels(films, size=32).reshape(len(films), -1).astype(np.float64)
        return np.asarray(flat - flat.mean(axis=1, keepdims=True))

    def untrained(films: list[Film]) -> Vectors:
        torch.manual_seed(0)
        return by_torch(DenseNet121().eval(), films, size=WEIGHTS_SIZE)

    found: dict[str, Callable[[list[Film]], Vectors]] = {
        "chance": chance,
        "32 x 32 pixels": coarse,
        "DenseNet121, random weights": untrained,
    }
    try:
        imagenet = load_imagenet()
    except FileNotFoundError as error:
        print(f"left out: the ImageNet network ({error})", file=sys.stderr)
    else:
        found["EfficientNet-Lite0, ImageNet"] = lambda films: by_torch(imagenet, films, size=IMAGENET_SIZE)
    for path in weights:
        network = load_densenet121(path)
        found[path.stem] = lambda films, network=network: by_torch(network, films, size=WEIGHTS_SIZE)  # type: ignore[misc]
    for spec in list_models():
        encoder = OnnxEncoder(spec, threads=os.cpu_count() or 1, batch_size=8)
        found[spec.model_id] = lambda films, encoder=encoder, spec=spec: encoder.encode(  # type: ignore[misc]
            tensors(films, spec.preprocessing)
        )
    return found


def within(vectors: Vectors, films: list[Film]) -> dict[str, Scores]:
    """Return the scores over all films and within each collection."""
    labels, patients = label_matrix(films), [film.patient_id for film in films]
    found = {}
    for name, groups in VIEWS.items():
        rows = np.array([film.group in groups for film in films])
        found[name] = score(vectors[rows], labels[rows], [p for p, row in zip(patients, rows, strict=True) if row])
    return found


def difference(mine: Scores, theirs: Scores, measure: str, *, rounds: int = 1000) -> tuple[float, float, float]:
    """Return by how much `mine` is better in one measure: the mean and its 95 % interval over resampled patients.

    Both are of the same queries in the same order.
    """
    column = MEASURES.index(measure)
    gained = Scores(mine.values - theirs.values, mine.patients)
    return float(gained.values[:, column].mean()), *gained.interval(measure, rounds=rounds)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", type=Path, help="folder of the pool: manifest.csv and its images")
    parser.add_argument(
        "--weights", type=Path, nargs="*", default=[], help="state dicts of DenseNet121 to compare with"
    )
    parser.add_argument("--output", type=Path, help="JSON file of all measures and intervals")
    options = parser.parse_args(arguments)
    try:
        films = split(read_pool(options.films), dev_share=DEV_SHARE)[1]
    except (OSError, ValueError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    results = {name: within(embed(films), films) for name, embed in contenders(options.weights).items()}
    base = options.weights[0].stem if options.weights else "EfficientNet-Lite0, ImageNet"
    patients = len({film.patient_id for film in films})
    print(f"{len(films)} films of {patients} patients, held out by `make train`; other models may have seen them\n")
    print("| embedding | " + " | ".join(f"{group} {measure}" for group, measure in TABLED) + " |")
    print("|---|" + "---|" * len(TABLED))
    for name, scores in results.items():
        cells = []
        for group, measure in TABLED:
            low, high = scores[group].interval(measure)
            cells.append(f"{scores[group].mean(measure):.3f} ({low:.3f} to {high:.3f})")
        print(f"| {name} | " + " | ".join(cells) + " |")
    if base in results:
        print(f"\nAgainst {base}, over the same patients:\n")
        for name, scores in results.items():
            parts = []
            for group, measure in TABLED:
                gain, low, high = difference(scores[group], results[base][group], measure)
                share = gain / results[base][group].mean(measure)
                parts.append(f"{group} {measure} {gain:+.3f} ({low:+.3f} to {high:+.3f}; {share:+.0%})")
            print(f"- {name}: " + ", ".join(parts))
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        rows = {
            name: {
                group: {measure: (scores.mean(measure), *scores.interval(measure)) for measure in MEASURES}
                for group, scores in found.items()
            }
            for name, found in results.items()
        }
        options.output.write_text(json.dumps(rows, indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
