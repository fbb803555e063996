"""Make the file that is exported out of a finished run: the network and a linear map on its 1024 values.

    PYTHONPATH=models python -m train.finish FILMS --run FOLDER --size 160 -o weights.pt

Batch statistics first: averaged weights carry averages of statistics too, of smaller films in part. They are measured
anew on training films of the size that is shipped.

The map has two parts, of the same mean length, so that neither looks nor findings alone decide. The first 1006 values
are the embedding, centred, in its principal axes (but for the 18 that vary least), each divided by its deviation: what
varies most among films, exposure and cropping, says least of what they show. The last 18 are the findings, read
linearly off the embedding. What is read is half the label, half what ImageNet networks read there, cross-fitted, for
labels of training films alone are learned by heart; as probabilities, for they retrieve better than logits; and half
of what collections differ by is taken out, for it hides what films of one collection differ by. No development film
takes part.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from densenet121 import DIM
from torch import Tensor, nn

from train.__main__ import embed
from train.augment import as_input
from train.films import pixels, read_pool, split
from train.reference import SIZE, Targets, make_reference
from train.student import Student, quickest

# Films that batch statistics are measured on.
_MEASURED = 2880
# The penalty of the regression, relative to the mean squared value of the regressors.
RIDGE = 0.1
# Added to the variances of the axes before they are divided by, relative to the greatest: rounding is not magnified.
FLOOR = 1e-3


def measure_statistics(student: Student, films: Tensor, *, batch: int) -> None:
    """Set the network's batch statistics to their means over batches of grey films, uint8 (n, S, S)."""
    norms = [layer for layer in student.network.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        # A plain mean of all batches, not one that forgets.
        norm.momentum = None
    student.network.train()
    with torch.no_grad(), quickest():
        for part in films.split(batch):
            student.pooled(as_input(part[:, None].float() / 255))
    student.network.eval()


def make_map(pooled: Tensor, findings: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the map (1024, 1024) and offset (1024,) from embeddings to vectors.

    `pooled` is (n, 1024), `findings` (n, labels) what is to be read, `weights` (n,) how much each film counts; they
    sum to one.
    """
    pooled, findings, weights = pooled.double(), findings.double(), weights.double()[:, None]
    middle = (weights * pooled).sum(dim=0)
    deviation = (weights * (pooled - middle).square()).sum(dim=0).sqrt() + 1e-6
    scaled = (pooled - middle) / deviation
    covariance = scaled.T @ (weights * scaled)
    # In ascending order of variance.
    variances, axes = torch.linalg.eigh(covariance)
    kept = slice(findings.shape[1], None)
    looks = axes[:, kept] / (variances[kept].clamp(min=0) + FLOOR * variances[-1]).sqrt()
    usual = (weights * findings).sum(dim=0)
    inner = covariance + RIDGE * torch.eye(DIM, dtype=torch.float64)
    reading = torch.linalg.solve(inner, scaled.T @ (weights * (findings - usual)))
    parts = []
    for part in (looks, reading):
        length = (weights[:, 0] * (scaled @ part).norm(dim=1)).sum()
        parts.append(part / length)
    matrix = (torch.cat(parts, dim=1) / deviation[:, None]).T
    return matrix.float(), (-matrix @ middle).float()


def to_be_read(still: Tensor, targets: Targets) -> Tensor:
    """Return what the map is to read of each film (n, labels): half its labels, half `still`, what ImageNet networks
    read of it; less half the mean of its collection."""
    wanted = (targets.labels + still) / 2
    for group in targets.group.unique().tolist():
        rows = targets.group == group
        wanted[rows] -= wanted[rows].mean(dim=0) / 2
    return wanted


def finish(folder: Path, run: Path, *, size: int, output: Path) -> None:
    """Write the state dict of the network, half precision, with `head.weight` and `head.bias`.

    Raises OSError when a file cannot be read, RuntimeError when the run's weights are not the student's.
    """
    state = torch.load(run / "state.pt", map_location="cpu", weights_only=True)
    config = state["config"]
    films, _ = split(read_pool(folder), dev_share=config["dev_share"], licence_class=config["licence_class"])
    student = Student()
    student.load_state_dict(torch.load(run / "best.pt", map_location="cpu", weights_only=True))
    student.eval().to(memory_format=torch.channels_last)
    groups = [film.group for film in films]
    shares = torch.tensor([config["sampling"][group] / groups.count(group) for group in groups])
    levels = pixels(films, size=size, cache=run / "cache")
    drawn = torch.multinomial(
        shares, _MEASURED, replacement=True, generator=torch.Generator().manual_seed(config["seed"])
    )
    measure_statistics(student, torch.from_numpy(levels)[drawn], batch=config["batch"])
    pooled = torch.from_numpy(embed(student, levels)[1])
    targets = Targets.of(films)
    seen = torch.from_numpy(pixels(films, size=SIZE, cache=run / "cache"))
    reference = make_reference(films, targets, seen, still=config["reference"]["still"], cache=run / "cache")
    matrix, offset = make_map(pooled, to_be_read(reference.still, targets), shares / shares.sum())
    assert matrix.shape == (DIM, DIM)
    network = {name: value for name, value in student.network.state_dict().items() if "num_batches" not in name}
    weights = {**network, "head.weight": matrix, "head.bias": offset}
    torch.save({name: value.half().contiguous() for name, value in weights.items()}, output)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", type=Path, help="folder of the pool that was trained on")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--size", type=int, required=True, help="side that films are resized to")
    parser.add_argument("-o", "--output", type=Path, required=True, help="state dict for export.py")
    options = parser.parse_args(arguments)
    try:
        finish(options.films, options.run, size=options.size, output=options.output)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"finish: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
