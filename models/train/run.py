"""The state of a training run, and one step of it."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from train import losses
from train.augment import Variation, as_input, vary
from train.reference import Reference, Targets
from train.student import Student, quickest


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
    # Evaluations since the best one, in the last phase.
    stale: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """The number of steps of the whole run."""
        return sum(phase["steps"] for phase in self.config["phase"])

    def done(self) -> bool:
        """Tell whether all steps are taken, or the last phase has long brought nothing better."""
        return self.step >= self.total or self.stale >= self.config["patience"]

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
                "stale": self.stale,
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
        self.step, self.best, self.stale = state["step"], state["best"], state["stale"]


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


def loss_terms(run: Run, reference: Reference, films: Tensor, targets: Targets, chosen: Tensor) -> dict[str, Tensor]:
    """Return the loss terms of one batch: `films` uint8 (n, S, S) at the teacher's size, `chosen` their rows."""
    weights = run.config["loss"]
    varied = vary(films, Variation(**run.config["variation"]), generator=run.generator)
    size = run.size()
    seen = varied
    if size != varied.shape[-1]:
        seen = functional.interpolate(varied, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    features = reference.features(varied)
    read = reference.findings(features, chosen)
    with quickest():
        pooled = run.student.pooled(as_input(seen))
    vectors, guessed, logits = run.student.heads(pooled)
    vectors = functional.normalize(vectors, dim=1)
    labels, group, mask = targets.labels[chosen], targets.group[chosen], targets.mask[chosen]
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
        "agreement": losses.agreement(vectors, reference.vectors(features, read, chosen)),
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
